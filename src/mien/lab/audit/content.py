"""Images that show no face: blanks, images that FER+ annotators call no face, and images without a detected face."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.detect import open_detector
from mien.lab.data import FERPLUS_COLUMNS, FaceSet

BLANK_SPREAD = 10.0  # grey levels: an image whose pixels have a smaller standard deviation is nearly blank
FLAT_SHARE = 0.38  # of pixels without a slope; text, signs and logos have more, and so do a few hundred real faces

_FLAT_STEP = 2  # grey levels between neighbours that still count as flat
_MAX_SUSPECTS = 2000  # images that are shown to the detector, the flattest first: 7 ms each
_CHUNK = 4096  # images at a time
# The detector sees an image with a border and enlarged to a size at which it is sure.
_BORDER = 0.25  # of the side, on each side
_SEEN_AT = 192  # pixels
_SCORE = 0.5  # from which a face counts as found: 2 % of FER-2013's faces are missed

FindsFace = Callable[[NDArray[np.uint8]], bool]


@dataclass(frozen=True, eq=False)
class Content:
    """Indices of images that show no face, int64.

    Attributes:
        constant: Images of one grey level.
        black: Images of grey level 0.
        near_blank: Images with a standard deviation below ``BLANK_SPREAD``, constant ones included.
        all_votes: Images with votes of FER+ that are all for not_face.
        majority: Images with more than half of the votes for not_face.
        suspects: Images that were shown to the detector, or would have been.
        faceless: Suspects in which the detector found no face.
        not_checked: Number of suspects that were not shown to a detector.
    """

    constant: NDArray[np.int64]
    black: NDArray[np.int64]
    near_blank: NDArray[np.int64]
    all_votes: NDArray[np.int64]
    majority: NDArray[np.int64]
    suspects: NDArray[np.int64]
    faceless: NDArray[np.int64]
    not_checked: int


def inspect_images(faces: FaceSet, finds_face: FindsFace | None = None) -> Content:
    """Find the images that show no face.

    Suspects are flat images and those that most FER+ votes call no face; only these are shown to the detector.

    Args:
        faces: The set.
        finds_face: Says of an image uint8 ``[S, S]`` whether it shows a face, such as ``face_finder()``; ``None``
            leaves suspects unchecked.

    Returns:
        The indices of what was found.
    """
    images = faces.images.numpy()
    parts = [part.reshape(len(part), -1) for part in _chunks(images)]
    spread = np.concatenate([part.std(axis=1) for part in parts])
    highest = np.concatenate([part.max(axis=1) for part in parts])
    blank = spread < BLANK_SPREAD
    not_face = votes = np.zeros(len(faces), np.int64)
    if faces.votes is not None:
        every = faces.votes.numpy().astype(np.int64)
        not_face, votes = every[:, FERPLUS_COLUMNS.index("not_face")], every.sum(axis=1)
    majority, flat = 2 * not_face > votes, flatness(images)
    indices = np.flatnonzero((majority | (flat > FLAT_SHARE)) & ~blank)
    ranked = indices[np.argsort(-(flat[indices] + majority[indices]), kind="stable")]  # those with votes before others
    suspects = np.sort(ranked[:_MAX_SUSPECTS])
    found = [finds_face is None or finds_face(images[index]) for index in suspects]
    return Content(
        constant=np.flatnonzero(spread == 0),
        black=np.flatnonzero(highest == 0),
        near_blank=np.flatnonzero(blank),
        all_votes=np.flatnonzero((not_face == votes) & (votes > 0)),
        majority=np.flatnonzero(majority),
        suspects=suspects,
        faceless=suspects[~np.array(found, np.bool_)],
        not_checked=len(ranked) - (len(suspects) if finds_face else 0),
    )


def face_finder() -> FindsFace:
    """Open the embedded detector for ``inspect_images``.

    Returns:
        A function that says of a grey image uint8 ``[S, S]`` whether it shows a face.
    """
    detector = open_detector("blazeface", threshold=_SCORE)

    def finds_face(image: NDArray[np.uint8]) -> bool:
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        framed = np.pad(image, round(_BORDER * image.shape[0]), constant_values=int(np.median(edge)))
        enlarged = Image.fromarray(framed).resize((_SEEN_AT, _SEEN_AT), Image.Resampling.BILINEAR)
        return bool(detector(np.asarray(enlarged.convert("RGB"))))

    return finds_face


def flatness(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the share of flat pixels: those that hardly differ from their right and lower neighbours.

    Args:
        images: uint8 ``[N, S, S]``.

    Returns:
        float64 ``[N]`` from 0 to 1.
    """
    shares = [np.empty(0)]
    for part in _chunks(images):
        levels = part.astype(np.int16)
        right = np.abs(np.diff(levels, axis=2))[:, :-1] <= _FLAT_STEP
        down = np.abs(np.diff(levels, axis=1))[:, :, :-1] <= _FLAT_STEP
        shares.append((right & down).mean(axis=(1, 2)))
    return np.concatenate(shares)


def _chunks(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Pieces of the images: as floats all of them would take eight times the memory."""
    return [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
