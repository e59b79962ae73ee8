"""Which faces are spoilt: all of a split, or a fixed share of each class; and those that a model can be judged on."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from mien._emotions import Emotion
from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.judge.examine import Selection, select_rows

DEFAULT_COUNT = 1500  # faces: with 95 spoilings of each, two minutes of mien-0 on one core


def draw_faces(faces: FaceSet, split: Split | None, count: int, *, seed: int) -> FaceSet:
    """``count`` faces of ``split`` (0, or more than there are: all), each class with its share, in their order.

    What is drawn depends on the set and ``seed`` alone, so that every model is judged on the same faces. Raises
    ``DataError`` for an empty split.
    """
    part = faces.split(split) if split else faces
    if not len(part):
        there = ", ".join(s for s in Split if len(faces.split(s)))
        raise DataError(f"{faces.source}: has no rows in {split}; it has {there}")
    if not 0 < count < len(part):
        return part
    generator = np.random.default_rng([seed, len(part)])
    labels = part.labels.numpy()
    # A place of chance within its class, as a share of the class: the lowest shares keep the proportions.
    place = np.empty(len(part))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place[rows] = (generator.permutation(len(rows)) + 0.5) / len(rows)
    chosen = np.sort(np.argsort(place, kind="stable")[:count])
    return part.select(torch.from_numpy(chosen))


def selected(faces: FaceSet, drawn: FaceSet, emotions: tuple[Emotion, ...], split: Split | None) -> Selection:
    """The rows among ``drawn`` that a model of ``emotions`` can be judged on; the account tells of all others.

    Raises ``DataError`` when one class alone is left.
    """
    selection = select_rows(faces, emotions, split)
    kept = np.isin(selection.faces.rows.numpy(), drawn.rows.numpy())
    chosen = selection.faces.select(torch.from_numpy(kept))
    if len(torch.unique(chosen.labels)) < 2:
        raise DataError(f"{faces.source}: the faces drawn ({len(drawn)}) leave one class at most; draw more of them")
    left = {"not drawn for this test": int((~kept).sum())} if not kept.all() else {}
    return replace(selection, faces=chosen, clean=selection.clean[kept], account={**selection.account, **left})


def to_ranges(rows: Sequence[int]) -> str:
    """Ascending numbers as text, ``"3-5,9"``."""
    parts: list[list[int]] = []
    for row in rows:
        if parts and row == parts[-1][1] + 1:
            parts[-1][1] = row
        else:
            parts.append([row, row])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)


def from_ranges(text: str) -> list[int]:
    """The numbers of ``to_ranges``. Raises ``ValueError`` for other text."""
    rows: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        rows += range(int(low), int(high or low) + 1)
    return rows
