"""The data set as a value: images, labels, votes and splits of faces as tensors, and selections of classes."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mien._emotions import CLASS_SETS, SEVEN, Emotion, class_set
from mien._errors import DataError
from mien._suggest import suggest

SIZE = 48  # side of a FER-2013 face in pixels
_VOTED_EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
FERPLUS_COLUMNS = (*_VOTED_EMOTIONS, "unknown", "not_face")
# Names of emotions in data sets: those of mien, and other spellings in public sets. No guesses: "smile" is no emotion.
EMOTION_NAMES = {
    **{str(emotion): emotion for emotion in Emotion},
    "anger": Emotion.ANGRY,
    "disgusted": Emotion.DISGUST,
    "fearful": Emotion.FEAR,
    "afraid": Emotion.FEAR,
    "happiness": Emotion.HAPPY,
    "joy": Emotion.HAPPY,
    "sadness": Emotion.SAD,
    "surprised": Emotion.SURPRISE,
    "neutrality": Emotion.NEUTRAL,
    "contemptuous": Emotion.CONTEMPT,
}


class Split(StrEnum):
    """The three splits of FER-2013 in the order of the table, spelled as in its ``Usage`` column."""

    TRAINING = "Training"
    PUBLIC_TEST = "PublicTest"
    PRIVATE_TEST = "PrivateTest"


@dataclass(frozen=True, eq=False)
class FaceSet:
    """N labelled faces.

    Attributes:
        images: uint8 ``[N, S, S]``, grey.
        labels: int64 ``[N]``, index into ``emotions``.
        votes: uint8 ``[N, 10]``, FER+ votes 0..10 in the order of ``FERPLUS_COLUMNS``; ``None`` without votes.
        usage: int64 ``[N]``, index into ``Split``.
        rows: int64 ``[N]``, 0-based row of the source's table; for folders the position in the order of reading.
        pixels_from_jpeg: bool ``[N]``; ``None`` where it is unknown.
        emotions: The classes.
        sha256: Hash of the files that were read.
        source: Path of the files.
        note: A remark that belongs to every result on this set, or ``None``.
        groups: int64 ``[N]``; faces of one group (a person, for example) are always in the same fold. ``None``: each
            face is a group of its own.
        weights: float32 ``[N]``, number of times each face is in an epoch; ``None``: once.
        mixed_in: bool ``[N]``, faces of further sets, which are never used for validation; ``None``: there are none.
        evaluation_sha256: Hash of the main set where further sets are mixed in, else empty.
        private_test: Whether PrivateTest was found to be that of FER-2013 before other labels replaced its own.
    """

    images: Tensor
    labels: Tensor
    votes: Tensor | None
    usage: Tensor
    rows: Tensor
    pixels_from_jpeg: Tensor | None
    emotions: tuple[Emotion, ...]
    sha256: str
    source: str
    note: str | None = None
    groups: Tensor | None = None
    weights: Tensor | None = None
    mixed_in: Tensor | None = None
    evaluation_sha256: str = ""
    private_test: bool = False

    def __post_init__(self) -> None:
        """Check that all columns have the same length."""
        lengths = {name: len(column) for name, column in self._columns().items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{self.source}: the columns of a FaceSet must be equally long, but are {lengths}")

    def __len__(self) -> int:
        """Number of faces."""
        return len(self.labels)

    def __repr__(self) -> str:
        """Sizes and source, without pixels."""
        parts = ", ".join(f"{split} {int((self.usage == i).sum()):,}" for i, split in enumerate(Split))
        return f"FaceSet({len(self):,} faces: {parts}; {len(self.emotions)} emotions; {self.source})"

    def select(self, mask_or_indices: Tensor) -> "FaceSet":
        """Return a copy of some of the faces.

        Args:
            mask_or_indices: bool ``[N]``, or int64 indices in the order of the result.

        Returns:
            The selected faces.

        Raises:
            DataError: A mask has another length.
        """
        if mask_or_indices.dtype == torch.bool and mask_or_indices.shape != (len(self),):
            raise DataError(
                f"a mask over {len(self)} faces needs shape [{len(self)}], not {list(mask_or_indices.shape)}"
            )
        return replace(self, **{name: column[mask_or_indices] for name, column in self._columns().items()})

    def split(self, split: Split) -> "FaceSet":
        """Return a copy of the faces of one split.

        Args:
            split: The split.

        Returns:
            Its faces.
        """
        return self.select(self.usage == split_index(split))

    def to(self, device: torch.device | str) -> "FaceSet":
        """Move all tensors to a device.

        Args:
            device: The device.

        Returns:
            The same set there.
        """
        return replace(self, **{name: column.to(device) for name, column in self._columns().items()})

    def _columns(self) -> dict[str, Any]:
        """All tensors by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def split_index(split: Split | str) -> int:
    """Return the value of a split in ``FaceSet.usage``.

    Args:
        split: The split or its name.

    Returns:
        0 to 2.
    """
    return tuple(Split).index(Split(split))


def concatenate(first: FaceSet, *others: FaceSet) -> FaceSet:
    """Concatenate sets.

    Args:
        first: Its source, note and hashes are those of the result.
        others: Sets with the same emotions, columns and image size.

    Returns:
        The faces of all sets, in order.

    Raises:
        DataError: Emotions, columns or sizes differ.
    """
    columns = [each._columns() for each in (first, *others)]
    for each, own in zip(others, columns[1:], strict=True):
        if own.keys() != columns[0].keys() or each.emotions != first.emotions:
            raise DataError(f"{first.source} and {each.source}: other columns or emotions; such sets cannot be joined")
        if each.images.shape[1:] != first.images.shape[1:]:
            raise DataError(f"{first.source} and {each.source}: faces of other sizes; such sets cannot be joined")
    joined: dict[str, Any] = {name: torch.cat([own[name] for own in columns]) for name in columns[0]}
    return replace(first, **joined)


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
    """Build a set of the seven emotions from arrays, without copying them.

    Args:
        images: ``[N, S, S]``.
        labels: ``[N]``, 0..6.
        usage: ``[N]``, 0..2.
        votes: ``[N, 10]``.
        pixels_from_jpeg: ``[N]``.
        sha256: Hash of the source.
        source: Path of the source.
        note: Remark for readers of results.

    Returns:
        The set; its rows are numbered from 0.

    Raises:
        DataError: There are no faces.
    """
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


def list_sha256(files: Iterable[tuple[str, str]]) -> str:
    """Return one hash for several files: that of their list as ``sha256sum`` prints it, sorted by name.

    Args:
        files: Name and sha256 of each file.

    Returns:
        64 hexadecimal digits.
    """
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file.

    Args:
        path: The file.

    Returns:
        64 hexadecimal digits.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def quote(value: object) -> str:
    """Quote a value for an error message.

    Args:
        value: Anything that has a text.

    Returns:
        Its ``repr``, shortened to 40 characters.
    """
    text = str(value)
    return repr(text if len(text) <= 40 else text[:37] + "...")


def with_classes(faces: FaceSet, classes: str) -> FaceSet:
    """Select a class set, with labels as indices into it; rows of other classes are dropped.

    ``"eight"`` replaces the labels by the FER+ majority (Barsoum et al., ICMI 2016). Single votes are dropped as noise.
    The column with most votes of all ten needs more than half of the remaining votes. Rows with the majority
    ``unknown`` or ``not_face`` are dropped, and so are rows with pixels from JPEG, because their votes may belong to
    another image. 3,152 rows of PrivateTest remain.

    Args:
        faces: Faces of the seven classes, or of a class set that contains the new one.
        classes: Name of a class set, or emotions separated by commas.

    Returns:
        The faces of these classes.

    Raises:
        DataError: The class set is unknown, the faces lack one of its classes, or ``"eight"`` finds no votes.

    Example:
        >>> from mien.lab.data import load_fer2013
        >>> len(with_classes(load_fer2013("fer2013.parquet"), "six-no-neutral"))  # doctest: +SKIP
        29689
    """
    try:
        emotions = class_set(classes)
    except ValueError as error:
        raise DataError(f"{error}{suggest(classes, CLASS_SETS)}") from error
    if emotions == faces.emotions:
        return faces
    missing = [emotion for emotion in (SEVEN if classes == "eight" else emotions) if emotion not in faces.emotions]
    if missing or (Emotion.CONTEMPT in faces.emotions and classes in CLASS_SETS):
        lack = f"no longer has {', '.join(missing)}" if missing else "has FER+ labels already"
        raise DataError(f'{faces.source}: "{classes}" must be chosen from the seven classes, but this set {lack}')
    if classes == "eight":
        votes = usable_votes(faces).long()
        votes = torch.where(votes > 1, votes, 0)
        top, winner = votes.max(dim=1)
        has_majority = (2 * top > votes.sum(dim=1)) & (winner < len(_VOTED_EMOTIONS))
        return replace(faces, labels=winner, emotions=emotions).select(has_majority)
    new_index = torch.tensor([emotions.index(e) if e in emotions else -1 for e in faces.emotions])
    labels = new_index.to(faces.labels.device)[faces.labels]
    return replace(faces, labels=labels, emotions=emotions).select(labels >= 0)


def vote_distribution(faces: FaceSet) -> Tensor:
    """Return the distribution of FER+ votes over the classes of a set; votes for other columns are ignored.

    Args:
        faces: Faces of C classes with votes.

    Returns:
        float32 ``[N, C]``; rows sum to 1. A row without usable votes is all zero: use its label. These are rows with no
        vote for the classes, and rows with pixels from JPEG, whose votes may belong to another image.

    Raises:
        DataError: The set has no votes.
    """
    # FER+ has its own names for the eight emotions, in the order of this class set.
    votes = usable_votes(faces)[:, [CLASS_SETS["eight"].index(emotion) for emotion in faces.emotions]].float()
    return votes / votes.sum(dim=1, keepdim=True).clamp(min=1)


def usable_votes(faces: FaceSet) -> Tensor:
    """Return the FER+ votes, with zeros for pixels from JPEG.

    Args:
        faces: Faces with votes.

    Returns:
        uint8 ``[N, 10]``, columns as in ``FERPLUS_COLUMNS``.

    Raises:
        DataError: The set has no votes.
    """
    if faces.votes is None:
        raise DataError(
            f"{faces.source}: has no FER+ votes; load the Parquet file, or a CSV with votes= the path of "
            "fer2013new.csv (in a recipe: data.votes)"
        )
    return faces.votes if faces.pixels_from_jpeg is None else faces.votes * ~faces.pixels_from_jpeg[:, None]
