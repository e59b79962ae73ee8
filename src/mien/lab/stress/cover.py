"""Partial cues: patches over a face, laid where FER-2013's framing puts eyes and mouth (``mien._framing``).

They cover what a median face shows there; a head that leans or turns is covered a little beside.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mien._framing import FER2013
from mien.lab.stress.draw import Generators, Images, to_pixels

_Floats = NDArray[np.float64]

_EYES = (np.array(FER2013.right_eye), np.array(FER2013.left_eye))
_EYE_LINE = float((_EYES[0][1] + _EYES[1][1]) / 2)
_MIDDLE = float((_EYES[0][0] + _EYES[1][0]) / 2)
_EYE_DISTANCE = float(np.linalg.norm(_EYES[1] - _EYES[0]))  # as are all lengths here: shares of the side
_JAW = (0.42, 0.48)  # half axes of a mask's outline, about the middle of the crop
_FINE = 4  # points a pixel and direction, so that edges are smooth
_DARK, _WHITE = 20, 210  # grey levels of tinted glass and of a mask


def cover_eyes(images: Images, height: float, _: Generators) -> Images:
    """A bar over both eyes and the bridge, ``height`` eye distances high, of the face's mean grey."""
    bar = _box(_MIDDLE, _EYE_LINE, 2.3 * _EYE_DISTANCE, height * _EYE_DISTANCE)
    return _covered(images, _coverage(images, bar), _mean(images))


def cover_mouth(images: Images, width: float, _: Generators) -> Images:
    """A patch over the mouth, ``width`` eye distances wide and 0.6 times as high, of the face's mean grey."""
    patch = _box(FER2013.mouth[0], FER2013.mouth[1], width * _EYE_DISTANCE, 0.6 * width * _EYE_DISTANCE)
    return _covered(images, _coverage(images, patch), _mean(images))


def cover_left(images: Images, share: float, _: Generators) -> Images:
    """``share`` of the width from the left of the picture (the subject's right), of the face's mean grey."""
    return _covered(images, _coverage(images, lambda x, _y: x < share), _mean(images))


def cover_right(images: Images, share: float, _: Generators) -> Images:
    """``share`` of the width from the right of the picture (the subject's left), of the face's mean grey."""
    return _covered(images, _coverage(images, lambda x, _y: x > 1 - share), _mean(images))


def glasses(images: Images, tint: float, _: Generators) -> Images:
    """Dark glasses: frame, bridge and temples opaque, both lenses with a ``tint`` of 0 (clear) to 1 (black)."""
    lenses, rims = _coverage(images, _lenses(1.0)), _coverage(images, _lenses(1.18))
    bars = _coverage(
        images, lambda x, y: (abs(y - _EYE_LINE + 0.02) < 0.012) & (abs(x - _MIDDLE) < 1.25 * _EYE_DISTANCE)
    )
    frame = np.maximum(rims, bars)
    return _covered(images, np.maximum(frame - lenses, 0) + tint * lenses, _DARK)


def mask(images: Images, top: float, _: Generators) -> Images:
    """A light mask from the chin up to ``top`` (share of the side from above), higher over the nose than beside it."""

    def inside(x: _Floats, y: _Floats) -> NDArray[np.bool_]:
        across = (x - _MIDDLE) / _JAW[0]
        jaw = across**2 + ((y - 0.5) / _JAW[1]) ** 2 < 1
        return jaw & (y > top + 0.10 * across**2)

    return _covered(images, _coverage(images, inside), _WHITE)


def _lenses(size: float) -> Callable[[_Floats, _Floats], NDArray[np.bool_]]:
    half = 0.40 * _EYE_DISTANCE * size, 0.31 * _EYE_DISTANCE * size

    def inside(x: _Floats, y: _Floats) -> NDArray[np.bool_]:
        away = [((x - eye[0]) / half[0]) ** 4 + ((y - eye[1] - 0.01) / half[1]) ** 4 for eye in _EYES]
        return np.asarray(np.minimum(*away) < 1)

    return inside


def _box(x0: float, y0: float, width: float, height: float) -> Callable[[_Floats, _Floats], NDArray[np.bool_]]:
    return lambda x, y: np.asarray((abs(x - x0) < width / 2) & (abs(y - y0) < height / 2))


def _coverage(images: Images, inside: Callable[[_Floats, _Floats], NDArray[np.bool_]]) -> _Floats:
    """Share of every pixel that lies ``inside`` (of x and y as shares of the side): ``[S, S]`` in 0..1."""
    side = images.shape[-1]
    at = (np.arange(side * _FINE) + 0.5) / (side * _FINE)
    fine = inside(*np.meshgrid(at, at))
    return np.asarray(fine.reshape(side, _FINE, side, _FINE).mean(axis=(1, 3)))


def _mean(images: Images) -> _Floats:
    return np.asarray(images.mean(axis=(1, 2), keepdims=True, dtype=np.float64))


def _covered(images: Images, cover: _Floats, grey: _Floats | float) -> Images:
    return to_pixels(images * (1 - cover) + grey * cover)
