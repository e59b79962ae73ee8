"""Models read the same spoilt faces: every spoiling is done once, whoever looks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.models import Model
from mien.lab.predictions import Selection, crops_of, select_rows
from mien.lab.robustness.corruptions import STRENGTHS, Images, Spoiling, generators

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


Probs = NDArray[np.float32]


Report = Callable[[int, int, str], None]  # faces read, of how many, what is being read


PIECE = 256  # faces at once


@dataclass(frozen=True, eq=False)
class Read:
    """What ``model`` says of the faces of ``selection``: float32 ``[N, C]`` clean, and a list of five by spoiling."""

    model: Model
    name: str
    selection: Selection
    clean: Probs
    spoilt: Mapping[str, Sequence[Probs]]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows of the data set that were read."""
        return self.selection.faces.rows.numpy()

    @property
    def labels(self) -> NDArray[np.int64]:
        """The truth, an index into the model's emotions."""
        return self.selection.faces.labels.numpy()

    def right(self, probs: Probs) -> NDArray[np.bool_]:
        """Which faces are read rightly."""
        return np.asarray(probs.argmax(1) == self.labels)


def read_spoilt(
    models: Mapping[str, Model],
    selections: Mapping[str, Selection],
    drawn: FaceSet,
    spoilings: Sequence[Spoiling],
    *,
    seed: int,
    report: Report | None = None,
    piece: int = PIECE,
) -> list[Read]:
    """The answers of every one of ``models`` for its ``selections`` of ``drawn``, clean and under all ``spoilings``.

    Models are given by name. A face is spoilt by its row and ``seed`` alone: neither ``piece``, how many are handled at
    once, nor the other faces or models matter. ``report`` hears of progress.
    """
    reader = _Reader(models, selections, drawn, seed, piece, report, total=len(drawn) * (1 + 5 * len(spoilings)))
    clean = reader.read("clean faces", None, 0)
    spoilt: dict[str, dict[str, list[Probs]]] = {name: {} for name in models}
    for spoiling in spoilings:
        for strength in STRENGTHS:
            answers = reader.read(spoiling.name, spoiling, strength)
            for name, probs in answers.items():
                spoilt[name].setdefault(spoiling.name, []).append(probs)
    return [Read(model, name, selections[name], clean[name], spoilt[name]) for name, model in models.items()]


@dataclass(eq=False)
class _Reader:
    models: Mapping[str, Model]
    selections: Mapping[str, Selection]
    drawn: FaceSet
    seed: int
    piece: int
    report: Report | None
    total: int
    done: int = 0

    def read(self, doing: str, spoiling: Spoiling | None, strength: int) -> dict[str, Probs]:
        """What every model says of its faces, spoilt so."""
        parts: dict[str, list[Probs]] = {name: [] for name in self.models}
        for start in range(0, len(self.drawn), self.piece):
            faces = self.drawn.select(torch.arange(start, min(start + self.piece, len(self.drawn))))
            if spoiling:
                faces = replace(faces, images=torch.from_numpy(self._spoil(faces, spoiling, strength)))
            for name, model in self.models.items():
                known = np.isin(faces.rows.numpy(), self.selections[name].faces.rows.numpy())
                if known.any():
                    parts[name].append(model(crops_of(faces.select(torch.from_numpy(known)), model.size))[0])
            self.done += len(faces)
            if self.report:
                self.report(self.done, self.total, doing)
        return {name: np.concatenate(answers) for name, answers in parts.items()}

    def _spoil(self, faces: FaceSet, spoiling: Spoiling, strength: int) -> Images:
        rows = faces.rows.tolist()
        return spoiling(faces.images.numpy(), strength, generators(self.seed, spoiling.name, rows))
