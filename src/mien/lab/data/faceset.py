"""The data set as a value: uint8 faces, labels, votes and splits, side by side."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import CLASS_SETS, SEVEN, Emotion, class_set
from mien._errors import DataError
from mien._suggest import suggest

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
    - ``evaluation_sha256``: where further sets are mixed in, that of the set which is validated and judged on, alone
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
    evaluation_sha256: str = ""

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


def list_sha256(files: list[tuple[str, str]]) -> str:
    """One hash for several ``(name, sha256)``: that of their lines as ``sha256sum`` prints them, sorted by name."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


VOTERS = 10  # people who labelled each face for FER+


_COUNTS = {str(count): count for count in range(VOTERS + 1)}


_LABELS = {str(label): label for label in range(len(SEVEN))}


_SPLITS = {str(split): index for index, split in enumerate(Split)}


def quote(value: object) -> str:
    """``value`` in quotes, cut so that an error stays one readable line."""
    text = str(value)
    return repr(text if len(text) <= 40 else text[:37] + "...")


def require_columns(found: Sequence[str], wanted: Sequence[str], *, source: str) -> None:
    """Raise ``DataError`` naming the first wanted column that is missing, what was found and the nearest name."""
    for name in wanted:
        if name not in found:
            hint = suggest(name, found)
            names = ", ".join(quote(column) for column in found[:16])
            raise DataError(f'{source}: column "{name}" is missing; found {names}; expected {", ".join(wanted)}{hint}')


def read_usage(value: object, *, where: str) -> int:
    """The index in ``Split`` of a value of the ``Usage`` column."""
    text = str(value).strip()
    if text not in _SPLITS:
        known = ", ".join(_SPLITS)
        raise DataError(f"{where}: unknown Usage {quote(value)}; it must be one of {known}{suggest(text, _SPLITS)}")
    return _SPLITS[text]


def check_label(value: int | str, *, where: str) -> int:
    """A label 0..6 from the number or text of a table."""
    text = str(value).strip()
    if text not in _LABELS:
        raise DataError(f"{where}: label {quote(value)} is not a whole number from 0 (angry) to 6 (neutral)")
    return _LABELS[text]


def check_vote(value: int | str, *, where: str, column: str) -> int:
    """A number of votes 0..10. The sum of a row is free: row 10435 of the published votes has nine, not ten."""
    text = str(value).strip()
    if text not in _COUNTS:
        raise DataError(
            f'{where}: column "{column}" holds {quote(value)}; FER+ votes are whole numbers from 0 to {VOTERS}'
        )
    return _COUNTS[text]


# The vote column of every emotion: FER+ names the eight in nouns.
_VOTE_COLUMN = {emotion: column for column, emotion in enumerate(CLASS_SETS["eight"])}


_NOISE = 1  # votes; a single vote for an emotion is taken for a slip of the voter


def with_classes(faces: FaceSet, classes: str) -> FaceSet:
    """The faces of a class set (``class_set``), labels re-indexed in its order, rows of other classes dropped.

    ``"eight"`` replaces the labels by the FER+ majority (the rule of Barsoum et al., ICMI 2016): single votes are
    dropped as noise, the top of all ten columns needs more than half of what remains, rows won by ``unknown`` or
    ``not_face`` go. Rows whose pixels come from JPEG go too: their votes may be another picture's. 3,152 rows of
    PrivateTest remain. Raises ``DataError`` for an unknown set, for classes that the faces no longer have, and for
    ``"eight"`` without votes.
    """
    try:
        emotions = class_set(classes)
    except ValueError as error:
        raise DataError(f"{error}{suggest(classes, CLASS_SETS)}") from error
    if emotions == faces.emotions:
        return faces
    _require_classes(faces, classes)
    return _majority_labels(faces) if classes == "eight" else _keep_classes(faces, emotions)


def vote_distribution(faces: FaceSet) -> torch.Tensor:
    """FER+ votes for the set's emotions as float32 ``[N, C]``, rows summing to 1; votes for anything else are ignored.

    A row without usable votes (none for these emotions, or pixels from JPEG, whose votes may be another picture's) is
    all zero: fall back to the label there. Raises ``DataError`` when the set has no votes.
    """
    votes = usable_votes(faces)[:, [_VOTE_COLUMN[emotion] for emotion in faces.emotions]].float()
    return votes / votes.sum(dim=1, keepdim=True).clamp(min=1)


def usable_votes(faces: FaceSet) -> torch.Tensor:
    """FER+ votes uint8 ``[N, 10]``, columns as ``FERPLUS_COLUMNS``; none for pixels from JPEG.

    Raises ``DataError`` when the set has no votes.
    """
    votes = _require_votes(faces)
    return votes if faces.pixels_from_jpeg is None else votes * ~faces.pixels_from_jpeg[:, None]


def _require_votes(faces: FaceSet) -> torch.Tensor:
    if faces.votes is None:
        raise DataError(
            f"{faces.source}: has no FER+ votes; load the Parquet file, or a CSV with votes= the path of "
            "fer2013new.csv (in a recipe: data.votes)"
        )
    return faces.votes


def _require_classes(faces: FaceSet, classes: str) -> None:
    needed = SEVEN if classes == "eight" else class_set(classes)
    missing = [str(emotion) for emotion in needed if emotion not in faces.emotions]
    voted = Emotion.CONTEMPT in faces.emotions and classes in CLASS_SETS
    if missing or voted:
        lack = f"no longer has {', '.join(missing)}" if missing else "has FER+ labels already"
        raise DataError(f'{faces.source}: "{classes}" must be chosen from the seven classes, but this set {lack}')


def _keep_classes(faces: FaceSet, emotions: tuple[Emotion, ...]) -> FaceSet:
    new_index = torch.tensor([emotions.index(e) if e in emotions else -1 for e in faces.emotions])
    labels = new_index.to(faces.labels.device)[faces.labels]
    return replace(faces, labels=labels, emotions=emotions).select(labels >= 0)


def _majority_labels(faces: FaceSet) -> FaceSet:
    counted = usable_votes(faces).long()
    counted = torch.where(counted > _NOISE, counted, 0)
    top, winner = counted.max(dim=1)
    keep = (2 * top > counted.sum(dim=1)) & (winner < FERPLUS_COLUMNS.index("unknown"))
    return replace(faces, labels=winner, emotions=CLASS_SETS["eight"]).select(keep)
