"""The data set as a value: uint8 faces, labels, votes and splits, side by side."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import SEVEN, Emotion
from mien._errors import DataError

SIZE = 48  # pixels a side, of every FER-2013 face

FERPLUS_COLUMNS = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "not_face",
)


class Split(StrEnum):
    """The three parts of FER-2013, in the order of the table, as its ``Usage`` column spells them."""

    TRAINING = "Training"
    PUBLIC_TEST = "PublicTest"
    PRIVATE_TEST = "PrivateTest"


@dataclass(frozen=True, eq=False)
class FaceSet:
    """N labelled faces.

    - ``images``: uint8 ``[N, S, S]``, grey
    - ``labels``: int64 ``[N]``, an index into ``emotions``
    - ``votes``: uint8 ``[N, 10]``, FER+ votes 0..10 in the order of ``FERPLUS_COLUMNS``; ``None`` where there are none
    - ``usage``: int64 ``[N]``, an index into ``Split``
    - ``rows``: int64 ``[N]``, the 0-based row of the source's table; for folders the place in the order of reading
    - ``pixels_from_jpeg``: bool ``[N]``; ``None`` where the source does not say
    - ``groups``: int64 ``[N]``, faces that folds must not part (of one person, say); ``None``: each its own
    - ``weights``: float32 ``[N]``, how often each comes in an epoch; ``None``: once
    - ``mixed_in``: bool ``[N]``, faces of further sets: learned from, never validated on; ``None``: there are none
    - ``sha256``: hash of what was read; ``source``: its path; ``note``: what a reader of results must know, if anything
    - ``judged_sha256``: where further sets are mixed in, that of the set which is validated and judged on, alone
    """

    images: torch.Tensor
    labels: torch.Tensor
    votes: torch.Tensor | None
    usage: torch.Tensor
    rows: torch.Tensor
    pixels_from_jpeg: torch.Tensor | None
    emotions: tuple[Emotion, ...]
    sha256: str
    source: str
    note: str | None = None
    groups: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    mixed_in: torch.Tensor | None = None
    judged_sha256: str = ""

    def __post_init__(self) -> None:
        """Refuse columns of different lengths."""
        lengths = {name: len(column) for name, column in self._columns().items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{self.source}: the columns of a FaceSet must be equally long, but are {lengths}")

    def __len__(self) -> int:
        """Number of faces."""
        return len(self.labels)

    def __repr__(self) -> str:
        """Sizes and source, never the pixels."""
        parts = ", ".join(f"{split} {int((self.usage == i).sum()):,}" for i, split in enumerate(Split))
        return f"FaceSet({len(self):,} faces: {parts}; {len(self.emotions)} emotions; {self.source})"

    def select(self, mask_or_indices: torch.Tensor) -> "FaceSet":
        """The faces of a bool ``[N]`` mask, or of int64 indices in their order. Always a copy."""
        if mask_or_indices.dtype == torch.bool and mask_or_indices.shape != (len(self),):
            raise DataError(
                f"a mask over {len(self)} faces needs shape [{len(self)}], not {list(mask_or_indices.shape)}"
            )
        return replace(self, **{name: column[mask_or_indices] for name, column in self._columns().items()})

    def split(self, split: Split) -> "FaceSet":
        """The faces of one split."""
        return self.select(self.usage == split_index(split))

    def to(self, device: torch.device | str) -> "FaceSet":
        """The same set with every tensor on ``device``."""
        return replace(self, **{name: column.to(device) for name, column in self._columns().items()})

    def _columns(self) -> dict[str, Any]:
        names = ("images", "labels", "votes", "usage", "rows", "pixels_from_jpeg", "groups", "weights", "mixed_in")
        columns = {name: getattr(self, name) for name in names}
        return {name: column for name, column in columns.items() if column is not None}


def split_index(split: Split | str) -> int:
    """The place of a split in ``Split``, which is its value in ``FaceSet.usage``."""
    return tuple(Split).index(Split(split))


def concatenate(first: FaceSet, *others: FaceSet) -> FaceSet:
    """The faces of all sets, one after another; what the columns do not say is the first's.

    Raises ``DataError`` for sets of other emotions, sizes or columns.
    """
    sets = (first, *others)
    for each in others:
        if each._columns().keys() != first._columns().keys() or each.emotions != first.emotions:
            raise DataError(f"{first.source} and {each.source}: other columns or emotions; such sets cannot be joined")
        if each.images.shape[1:] != first.images.shape[1:]:
            raise DataError(f"{first.source} and {each.source}: faces of other sizes; such sets cannot be joined")
    columns: dict[str, Any] = {name: torch.cat([each._columns()[name] for each in sets]) for name in first._columns()}
    return replace(first, **columns)


def assemble(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    usage: NDArray[np.int64],
    votes: NDArray[np.uint8] | None = None,
    pixels_from_jpeg: NDArray[np.bool_] | None = None,
    sha256: str,
    source: str,
    note: str | None = None,
) -> FaceSet:
    """A ``FaceSet`` of the seven emotions from what a reader found, its rows numbered from 0. Arrays are taken over."""
    if not len(labels):
        raise DataError(f"{source}: holds no faces; is it complete?")
    return FaceSet(
        images=torch.from_numpy(images),
        labels=torch.from_numpy(labels),
        votes=None if votes is None else torch.from_numpy(votes),
        usage=torch.from_numpy(usage),
        rows=torch.arange(len(labels)),
        pixels_from_jpeg=None if pixels_from_jpeg is None else torch.from_numpy(pixels_from_jpeg),
        emotions=SEVEN,
        sha256=sha256,
        source=source,
        note=note,
    )
