"""Class sets and crowd votes: the same faces under other labels."""

from dataclasses import replace

import torch

from mien._emotions import CLASS_SETS, SEVEN, Emotion, class_set
from mien._errors import DataError
from mien.lab.data.columns import nearest
from mien.lab.data.faces import FERPLUS_COLUMNS, FaceSet

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
        raise DataError(f"{error}{nearest(classes, CLASS_SETS)}") from error
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
