"""What any model says of any labelled faces, with an account of every row: none is dropped silently."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import DataError
from mien.lab.data import FaceSet, Split, clean_rows, with_classes
from mien.lab.judge.judge import Answers, crops_of


class Reader(Protocol):
    """What is examined: a ``Model`` of the lab or a ``Classifier`` of the core."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def emotions(self) -> tuple[Emotion, ...]:
        """Its classes, in the order of its answers."""

    @property
    def size(self) -> int:
        """The side of its crops in pixels."""

    def __call__(self, crops: NDArray[np.uint8], /) -> tuple[NDArray[np.float32], Any]:
        """Crops uint8 ``[N, size, size]`` -> probabilities float32 ``[N, C]``, and maps."""


@dataclass(frozen=True)
class Selection:
    """The faces of a test: ``faces`` labelled in the model's classes, ``clean`` bool ``[N]``, and the ``account``.

    ``split`` names the part ("PublicTest", or "all"); ``total`` is the number of its rows, ``account`` says of those
    that are not judged how many and why; ``protocol`` how the labels came about.
    """

    faces: FaceSet
    clean: NDArray[np.bool_]
    split: str
    total: int
    account: Mapping[str, int] = field(default_factory=dict)
    protocol: str = "the labels of the set"


FERPLUS_PROTOCOL = (
    "FER+ majority (Barsoum et al., 2016): single votes dropped as noise, the top of all ten columns needs more than "
    "half of the rest; no majority, unknown, not a face, and pixels from JPEG are left out"
)


def select_rows(faces: FaceSet, emotions: tuple[Emotion, ...], split: Split | None = None) -> Selection:
    """The rows of ``split`` (``None``: all) that a model of ``emotions`` can be judged on, labelled in its order.

    A model that knows contempt is judged on the FER+ majority where the set has votes, else on the set's labels. Faces
    whose emotion the model does not know are left out and counted. ``faces`` is the whole set: copies in earlier
    splits are known from it. Raises ``DataError`` when no row, or one class alone, is left.
    """
    part = faces.split(split) if split else faces
    name = str(split) if split else "all"
    if not len(part):
        there = ", ".join(s for s in Split if len(faces.split(s)))
        raise DataError(f"{faces.source}: has no rows in {name}; it has {there}; name one with --split, or all")
    account: dict[str, int] = {}
    protocol, chosen = "the labels of the set", part
    if Emotion.CONTEMPT in emotions and faces.votes is not None and Emotion.CONTEMPT not in faces.emotions:
        chosen, protocol = with_classes(part, "eight"), FERPLUS_PROTOCOL
        account = _ferplus_account(part, len(chosen))
    chosen, unknown = _in_order(chosen, emotions)
    account |= unknown
    present = torch.unique(chosen.labels)
    if len(present) < 2:
        left = f"one class alone ({chosen.emotions[int(present[0])]})" if len(present) else "no row"
        raise DataError(f"{faces.source}, {name}: {left} is left for a model of {', '.join(emotions)}")
    clean = np.isin(chosen.rows.numpy(), _clean(faces, split).numpy())
    return Selection(chosen, clean, name, len(part), account, protocol)


def examine(reader: Reader, selection: Selection) -> Answers:
    """The answers of ``reader`` for the selected rows."""
    faces = selection.faces
    probs, _ = reader(crops_of(faces, reader.size))
    return Answers(faces.rows.numpy(), probs, faces.labels.numpy(), selection.clean, faces.emotions)


def _ferplus_account(part: FaceSet, kept: int) -> dict[str, int]:
    jpeg = 0 if part.pixels_from_jpeg is None else int(part.pixels_from_jpeg.sum())
    rest = len(part) - kept - jpeg
    account = {"pixels from JPEG, whose votes may be another picture's": jpeg}
    account["no majority of votes for one emotion"] = rest
    return {reason: count for reason, count in account.items() if count}


def _in_order(faces: FaceSet, emotions: tuple[Emotion, ...]) -> tuple[FaceSet, dict[str, int]]:
    """``faces`` labelled in the order of ``emotions``; those of other emotions are left out, and counted."""
    index = torch.tensor([emotions.index(e) if e in emotions else -1 for e in faces.emotions])
    labels = index[faces.labels]
    counts = {
        f"{emotion}: not among the model's classes": int((faces.labels == place).sum())
        for place, emotion in enumerate(faces.emotions)
        if emotion not in emotions
    }
    chosen = replace(faces, labels=labels, emotions=emotions).select(labels >= 0)
    return chosen, {reason: count for reason, count in counts.items() if count}


def _clean(faces: FaceSet, split: Split | None) -> torch.Tensor:
    masks = [clean_rows(faces, each) for each in ([split] if split else list(Split))]
    return faces.rows[torch.stack(masks).any(dim=0)]
