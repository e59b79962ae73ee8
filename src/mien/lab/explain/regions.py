"""The parts of a face, drawn once in the framing of the crops: brows, eyes, nose, mouth, and the rest.

All are laid out from the four key points of the framing, in fractions of the crop's side. They do not overlap.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mien._framing import FER2013, Fraction, Framing

REGIONS = ("brows", "eyes", "nose", "mouth", "rest")
Polygon = tuple[Fraction, ...]
_FINE = 8  # places drawn along a side of a pixel: how finely an edge through a pixel is shared


def polygons(framing: Framing = FER2013) -> dict[str, tuple[Polygon, ...]]:
    """The outlines of the named regions, corners ``(x, y)`` as fractions of the crop's side; the rest has none.

    Heights are those of a neutral face: brows rise and jaws drop, so that the mouth's box leaves room below.
    """
    right, left, nose, mouth = framing.right_eye, framing.left_eye, framing.nose, framing.mouth
    middle, level = (right[0] + left[0]) / 2, (right[1] + left[1]) / 2
    bridge, wings, root, base = 0.045, 0.105, level - 0.02, nose[1] + 0.07
    return {
        "brows": tuple(_box(x - 0.135, y - 0.19, x + 0.135, y - 0.06) for x, y in (right, left)),
        "eyes": tuple(_box(x - 0.115, y - 0.06, x + 0.115, y + 0.06) for x, y in (right, left)),
        "nose": (((middle - bridge, root), (middle + bridge, root), (nose[0] + wings, base), (nose[0] - wings, base)),),
        "mouth": (_box(mouth[0] - 0.175, mouth[1] - 0.09, mouth[0] + 0.175, mouth[1] + 0.12),),
    }


@cache
def masks(size: int, framing: Framing = FER2013) -> NDArray[np.float64]:
    """How much of each pixel belongs to each of ``REGIONS``: ``[5, size, size]``, 0..1, which sum to 1 everywhere."""
    named = np.stack([_cover(outlines, size) for outlines in polygons(framing).values()])
    every = np.concatenate([named, 1 - named.sum(axis=0, keepdims=True)])
    every.flags.writeable = False
    return every


def shares(maps: NDArray[np.floating], *, framing: Framing = FER2013) -> NDArray[np.float64]:
    """How the sum of each map ``[N, S, S]``, none negative, is shared among ``REGIONS``: ``[N, 5]``, rows sum to 1.

    A map without anything gets a row of NaN.
    """
    inside = np.tensordot(maps.astype(np.float64), masks(maps.shape[-1], framing), axes=((1, 2), (1, 2)))
    total = inside.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, inside / np.where(total > 0, total, 1), np.nan))


def _box(x1: float, y1: float, x2: float, y2: float) -> Polygon:
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def _cover(outlines: Sequence[Polygon], size: int) -> NDArray[np.float64]:
    fine = np.any([_inside(outline, size * _FINE) for outline in outlines], axis=0)
    return np.asarray(fine.reshape(size, _FINE, size, _FINE).mean(axis=(1, 3)))


def _inside(outline: Polygon, side: int) -> NDArray[np.bool_]:
    """Which centres of ``side`` x ``side`` places lie in ``outline``: a ray to the right crosses it oddly often.

    Outlines that touch share no place.
    """
    places = (np.arange(side) + 0.5) / side
    inside = np.zeros((side, side), np.bool_)
    for (x1, y1), (x2, y2) in zip(outline, outline[1:] + outline[:1], strict=True):
        if y1 != y2:
            crosses = (y1 > places) != (y2 > places)
            at = x1 + (places - y1) * (x2 - x1) / (y2 - y1)
            inside ^= crosses[:, None] & (places < at[:, None])
    return inside
