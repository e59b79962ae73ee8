"""One set of faces against another: which faces of the first stand, exactly or nearly, in the second."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.lab.audit.near import THRESHOLD, Pairs, Progress, near_pairs
from mien.lab.data import FaceSet, Split


@dataclass(frozen=True, eq=False)
class Overlap:
    """The pairs of a face of the set (``place``) and one of ``other`` (``theirs``) that are copies, best first.

    ``r`` float64 ``[P]`` is 1 for exact copies; ``mirrored`` bool ``[P]``.
    """

    other: FaceSet
    place: NDArray[np.int64]
    theirs: NDArray[np.int64]
    r: NDArray[np.float64]
    exact: NDArray[np.bool_]
    mirrored: NDArray[np.bool_]


def overlap(
    faces: FaceSet, other: FaceSet, *, threshold: float = THRESHOLD, progress: Progress = lambda *_: None
) -> Overlap:
    """Compare every face of ``faces`` with every one of ``other``; images are of one size. Raises as ``near_pairs``."""
    mine, theirs = faces.images.numpy(), other.images.numpy()
    exact = _exact(mine, theirs)
    near = near_pairs(mine, theirs, threshold=threshold, progress=progress)
    same = (mine[near.first] == theirs[near.second]).reshape(len(near), mine[0].size).all(axis=1)
    near = Pairs(*(getattr(near, name)[~same] for name in ("first", "second", "r", "mirrored")))
    return Overlap(
        other,
        np.concatenate([exact[:, 0], near.first]),
        np.concatenate([exact[:, 1], near.second]),
        np.concatenate([np.ones(len(exact)), near.r]),
        np.arange(len(exact) + len(near)) < len(exact),
        np.concatenate([np.zeros(len(exact), np.bool_), near.mirrored]),
    )


def overlap_counts(found: Overlap, faces: FaceSet) -> list[dict[str, str | int]]:
    """For each split of the set and of the other: rows with an ``exact`` copy there, with a ``near`` or exact one.

    ``same_label`` counts the rows of an exact copy with the same emotion.
    """
    mine, theirs = faces.usage.numpy()[found.place], found.other.usage.numpy()[found.theirs]
    same = _same_emotion(found, faces)
    return [
        {
            "of": str(of),
            "into": str(into),
            "exact": _rows(found.place[here & found.exact]),
            "same_label": _rows(found.place[here & found.exact & same]),
            "near": _rows(found.place[here]),
        }
        for i, of in enumerate(Split)
        for j, into in enumerate(Split)
        if (here := (mine == i) & (theirs == j)).any()
    ]


def _rows(places: NDArray[np.int64]) -> int:
    return len(np.unique(places))


def _same_emotion(found: Overlap, faces: FaceSet) -> NDArray[np.bool_]:
    mine = faces.labels.numpy()[found.place]
    theirs = found.other.labels.numpy()[found.theirs]
    known = list(faces.emotions)
    to_mine = np.array([known.index(e) if e in known else -1 for e in found.other.emotions])
    return np.asarray(mine == to_mine[theirs])


def _exact(mine: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 ``[P, 2]``: all pairs of equal images. Those of one hash are compared pixel by pixel."""
    known: dict[int, list[int]] = {}
    for place, image in enumerate(mine):
        known.setdefault(hash(image.tobytes()), []).append(place)
    pairs = [
        (place, their)
        for their, image in enumerate(theirs)
        for place in known.get(hash(image.tobytes()), ())
        if np.array_equal(mine[place], image)
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)
