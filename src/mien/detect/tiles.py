"""The geometry of the search: pictures at several scales, cut into tiles, and the way back."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


class Tile(NamedTuple):
    """A part of a picture at some scale: ``pixels`` RGB uint8 ``[h, w, 3]``, its corner ``(x, y)`` in picture pixels
    (it may lie outside), and how many of its pixels are one of the picture."""

    pixels: Pixels
    x: float
    y: float
    scale: float


def letterbox(picture: Image.Image, side: int, *, share: float = 1.0) -> Tile:
    """The whole picture in the middle of a black square of ``side`` pixels, its long side filling ``share`` of it."""
    scale = side * share / max(picture.size)
    small = shrink(picture, scale)
    left, top = ((side - length) // 2 for length in small.size)
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[top : top + small.height, left : left + small.width] = np.asarray(small)
    return Tile(canvas, -left / scale, -top / scale, scale)


def shrink(picture: Image.Image, scale: float) -> Image.Image:
    """The picture at ``scale`` (no side below one pixel), antialiased: first by whole factors, then by a triangle."""
    wide, high = (max(1, round(length * scale)) for length in picture.size)
    return picture.resize((wide, high), Image.Resampling.BILINEAR, reducing_gap=1.01)


def split(picture: Image.Image, scale: float, *, side: int, overlap: int, multiple: int) -> Iterator[Tile]:
    """The picture at ``scale`` in tiles of at most ``side`` pixels that overlap by at least ``overlap``, each filled up
    with black to whole multiples of ``multiple`` (which divides ``side``)."""
    level = np.asarray(shrink(picture, scale))
    (rows, high), (columns, wide) = (_cover(length, side, overlap, multiple) for length in level.shape[:2])
    for y in rows:
        for x in columns:
            part = level[y : y + high, x : x + wide]
            missing = [(0, -length % multiple) for length in part.shape[:2]]
            yield Tile(np.pad(part, [*missing, (0, 0)]), x / scale, y / scale, scale)


def _cover(length: int, side: int, overlap: int, multiple: int) -> tuple[list[int], int]:
    """Where tiles start along a side, and how long they are: as few as can be, and then as short as can be."""
    count = 1 + max(0, -(-(length - side) // (side - overlap)))
    short = -(-(length + (count - 1) * overlap) // count)
    short += -short % multiple
    return [round(i * max(0, length - short) / max(1, count - 1)) for i in range(count)], short


def cut(picture: Image.Image, center_xy: NDArray[np.float64], width: float, side: int) -> Tile:
    """The square of ``width`` picture pixels around ``center_xy`` as a tile of ``side``; black beyond the picture."""
    scale = side / width
    x, y = (float(center) - width / 2 for center in center_xy)
    # The tile's pixels that lie wholly in the picture.
    left, top = max(0, int(np.ceil(-x * scale))), max(0, int(np.ceil(-y * scale)))
    right = min(side, int(np.floor((picture.width - x) * scale)))
    bottom = min(side, int(np.floor((picture.height - y) * scale)))
    tile = np.zeros((side, side, 3), np.uint8)
    if right > left and bottom > top:
        area = (x + left / scale, y + top / scale, x + right / scale, y + bottom / scale)
        inside = _inside(area, picture.size)
        resized = picture.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=inside, reducing_gap=1.01)
        tile[top:bottom, left:right] = np.asarray(resized)
    return Tile(tile, x, y, scale)


def _inside(area: tuple[float, float, float, float], size_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    wide, high = size_wh  # rounding may put a corner a millionth of a pixel outside, which Pillow refuses
    return max(area[0], 0.0), max(area[1], 0.0), min(area[2], wide), min(area[3], high)
