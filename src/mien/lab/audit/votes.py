"""The labels of FER-2013 against the votes of FER+: how often ten voters agree with the one label."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien._emotions import CLASS_SETS, Emotion
from mien.lab.data import FaceSet, Split, with_classes
from mien.lab.judge.examine import FERPLUS_PROTOCOL


@dataclass(frozen=True, eq=False)
class Agreement:
    """The judged faces: ``places`` int64 ``[M]``, their ``majority`` int64 ``[M]`` as an index into the eight classes.

    ``table`` int64 ``[C, 8]`` counts label against majority, ``agree`` bool ``[M]`` says where they are the same;
    ``by_split`` gives faces and agreeing faces of every split, ``rule`` how a majority is made.
    """

    places: NDArray[np.int64]
    majority: NDArray[np.int64]
    agree: NDArray[np.bool_]
    table: NDArray[np.int64]
    by_split: dict[str, tuple[int, int]]
    classes: tuple[Emotion, ...] = CLASS_SETS["eight"]
    rule: str = FERPLUS_PROTOCOL


def agreement(faces: FaceSet) -> Agreement | None:
    """The agreement of labels and votes, ``None`` for a set without both."""
    eight = CLASS_SETS["eight"]
    if faces.votes is None or faces.emotions == eight:
        return None
    voted = with_classes(faces, "eight")
    places = np.searchsorted(faces.rows.numpy(), voted.rows.numpy())  # rows of a set rise
    majority = voted.labels.numpy()
    labels, usage = faces.labels.numpy()[places], faces.usage.numpy()[places]
    meant = np.array([eight.index(emotion) for emotion in faces.emotions])[labels]
    table = np.zeros((len(faces.emotions), len(eight)), np.int64)
    np.add.at(table, (labels, majority), 1)
    agree = meant == majority
    by_split = {
        str(split): (int((usage == index).sum()), int(agree[usage == index].sum()))
        for index, split in enumerate(Split)
        if (usage == index).any()
    }
    return Agreement(places, majority, agree, table, by_split)
