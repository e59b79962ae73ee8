"""Framing that is off: turned, beside the middle, too near or too far. Beyond the edge, its last pixels go on."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from mien.lab.stress.draw import Generators, Images, to_pixels

_Matrix = NDArray[np.float64]


def rotation(images: Images, degrees: float, generators: Generators) -> Images:
    """Turned by ``degrees`` about the middle, to a side of chance for every face."""
    return _moved(images, [_turn(math.radians(degrees) * _sign(g)) for g in generators])


def shift(images: Images, share: float, generators: Generators) -> Images:
    """Moved by ``share`` of the side, in a direction of chance for every face."""
    way = share * images.shape[-1]
    angles = [g.uniform(0, 2 * math.pi) for g in generators]
    moves = [np.array([math.sin(angle), math.cos(angle)]) * way for angle in angles]
    return _moved(images, [np.eye(2)] * len(images), moves)


def scale(images: Images, factor: float, generators: Generators) -> Images:
    """Larger or smaller by ``factor`` about the middle, by chance for every face."""
    return _moved(images, [np.eye(2) * factor ** _sign(g) for g in generators])


def _moved(images: Images, matrices: Sequence[_Matrix], moves: Sequence[_Matrix] | None = None) -> Images:
    """Bilinear: each pixel from where its ``matrix`` about the middle, then its move (rows, columns), put it."""
    middle = (images.shape[-1] - 1) / 2
    shown = []
    for index, (image, matrix) in enumerate(zip(images.astype(np.float32), matrices, strict=True)):
        back = middle + (moves[index] if moves else 0)
        offset = middle - matrix @ np.broadcast_to(back, 2)
        shown.append(affine_transform(image, matrix, offset, order=1, mode="nearest"))
    return to_pixels(np.stack(shown))


def _turn(angle: float) -> _Matrix:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _sign(generator: np.random.Generator) -> int:
    return 1 if generator.random() < 0.5 else -1
