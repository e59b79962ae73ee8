"""Which images show no face: blanks, what FER+'s voters said, and placeholders that a detector finds no face in."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.lab.data import FERPLUS_COLUMNS, FaceSet

DARK_SPREAD = 10.0  # grey levels: an image whose pixels have a smaller standard deviation is nearly blank
FLAT_SHARE = 0.38  # of the pixels without a slope; text, signs and logos have more, and so do a few hundred real faces
_FLAT_STEP = 2  # grey levels between neighbours that still count as flat
_MOST_ASKED = 2000  # images that a detector looks at, the flattest first: 7 ms each
_CHUNK = 4096

FindsFace = Callable[[NDArray[np.uint8]], bool]


@dataclass(frozen=True, eq=False)
class Content:
    """Places of images without a face.

    - ``constant``: of one grey level, ``black`` those of level 0; ``near_blank``: of small spread, constant ones too
    - ``all_votes``: every vote of FER+ is for not_face; ``majority``: more than half are
    - ``suspects``: asked about; ``faceless``: those of them (blanks aside) in which no face was found
    - ``not_asked``: suspects that were too many to ask about
    """

    constant: NDArray[np.int64]
    black: NDArray[np.int64]
    near_blank: NDArray[np.int64]
    all_votes: NDArray[np.int64]
    majority: NDArray[np.int64]
    suspects: NDArray[np.int64]
    faceless: NDArray[np.int64]
    not_asked: int


def look(faces: FaceSet, finds_face: FindsFace | None = None) -> Content:
    """Look at every image; ``finds_face`` says of uint8 ``[S, S]`` whether a face is in it (``None``: nobody is asked).

    Only suspects are asked about: flat ones, and those that the votes call no face.
    """
    images = faces.images.numpy()
    spread, highest = _spread(images)
    near_blank = np.flatnonzero(spread < DARK_SPREAD)
    votes = np.zeros((len(faces), 2), np.int64) if faces.votes is None else _not_face_votes(faces)
    suspects, not_asked = _suspects(images, near_blank, 2 * votes[:, 0] > votes[:, 1])
    found = [finds_face is None or finds_face(images[place]) for place in suspects]
    return Content(
        constant=np.flatnonzero(spread == 0),
        black=np.flatnonzero(highest == 0),
        near_blank=near_blank,
        all_votes=np.flatnonzero((votes[:, 0] == votes[:, 1]) & (votes[:, 1] > 0)),
        majority=np.flatnonzero(2 * votes[:, 0] > votes[:, 1]),
        suspects=suspects,
        faceless=suspects[~np.array(found, np.bool_)],
        not_asked=not_asked if finds_face else len(suspects) + not_asked,
    )


def flatness(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of pixels of uint8 ``[N, S, S]`` that differ from those right of and below them by almost nothing."""
    shares = [_flat(images[start : start + _CHUNK]) for start in range(0, len(images), _CHUNK)]
    return np.concatenate([np.empty(0), *shares])


def _flat(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    levels = images.astype(np.int16)
    right = np.abs(np.diff(levels, axis=2))[:, :-1] <= _FLAT_STEP
    down = np.abs(np.diff(levels, axis=1))[:, :, :-1] <= _FLAT_STEP
    return np.asarray((right & down).mean(axis=(1, 2)))


def _spread(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Standard deviation and highest level of every image, in pieces: as floats all would be eight times as big."""
    parts = [images[start : start + _CHUNK].reshape(-1, images[0].size) for start in range(0, len(images), _CHUNK)]
    return np.concatenate([part.std(axis=1) for part in parts]), np.concatenate([part.max(axis=1) for part in parts])


def _not_face_votes(faces: FaceSet) -> NDArray[np.int64]:
    """int64 ``[N, 2]``: votes for not_face, and all votes."""
    assert faces.votes is not None
    votes = faces.votes.numpy().astype(np.int64)
    return np.stack([votes[:, FERPLUS_COLUMNS.index("not_face")], votes.sum(axis=1)], axis=1)


def _suspects(
    images: NDArray[np.uint8], near_blank: NDArray[np.int64], voted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], int]:
    """Places to ask about, and how many more there would be."""
    flat = flatness(images)
    suspected = voted | (flat > FLAT_SHARE)
    suspected[near_blank] = False
    places = np.flatnonzero(suspected)
    ranked = places[np.argsort(-(flat[places] + voted[places]), kind="stable")]  # those voted on before all others
    return np.sort(ranked[:_MOST_ASKED]), max(0, len(ranked) - _MOST_ASKED)
