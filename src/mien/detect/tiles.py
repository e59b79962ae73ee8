"""The geometry of the search: pictures at several scales, cut into tiles, and the way back."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
REDUCING_GAP = 1.01  # Pillow halves, thirds and so on down to so much above the size, and only the rest is interpolated


class Tile(NamedTuple):
    """A part of a picture at some scale: ``pixels`` RGB uint8 ``[h, w, 3]``, its corner ``(x, y)`` in picture pixels
    (it may lie outside), and how many of its pixels are one of the picture."""

    pixels: Pixels
    x: float
    y: float
    scale: float


class Pyramid:
    """A picture at any scale. Coarse versions are made of one reduced copy: a large picture is gone through once."""

    def __init__(self, picture: Image.Image, *, coarse: float = 1.0) -> None:
        """``coarse`` is the finest scale that the reduced copy is to serve."""
        self.size = picture.size
        self._picture = picture
        self._factor = max(1, int(1 / (coarse * REDUCING_GAP)))
        self._reduced = picture.reduce(self._factor) if self._factor > 1 else picture

    def at(self, scale: float) -> Image.Image:
        """The picture at ``scale``, no side below one pixel."""
        wide, high = (max(1, round(length * scale)) for length in self.size)
        return self.resize((0, 0, *self.size), (wide, high), scale)

    def resize(self, area: tuple[float, float, float, float], size_wh: tuple[int, int], scale: float) -> Image.Image:
        """An ``area`` (``xyxy``, pixels) at ``scale``, antialiased: first by whole factors, then by a triangle."""
        source, factor = (self._reduced, self._factor) if scale * self._factor <= 1 else (self._picture, 1)
        # The last row and column of the reduced copy may stand for fewer pixels than the others; the area knows.
        left, top, right, bottom = (length / factor for length in area)
        box = (left, top, right, bottom)
        return source.resize(size_wh, Image.Resampling.BILINEAR, box=box, reducing_gap=REDUCING_GAP)


def letterbox(pyramid: Pyramid, side: int, *, share: float = 1.0) -> Tile:
    """The whole picture in the middle of a black square of ``side`` pixels, its long side filling ``share`` of it."""
    scale = side * share / max(pyramid.size)
    small = pyramid.at(scale)
    left, top = ((side - length) // 2 for length in small.size)
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[top : top + small.height, left : left + small.width] = np.asarray(small)
    return Tile(canvas, -left / scale, -top / scale, scale)


def split(pyramid: Pyramid, scale: float, *, side: int, overlap: int, multiple: int) -> Iterator[Tile]:
    """The picture at ``scale`` in tiles of at most ``side`` pixels that overlap by at least ``overlap``, each filled up
    with black to whole multiples of ``multiple`` (which divides ``side``)."""
    level = np.asarray(pyramid.at(scale))
    (rows, high), (columns, wide) = (_cover(length, side, overlap, multiple) for length in level.shape[:2])
    for y in rows:
        for x in columns:
            part = level[y : y + high, x : x + wide]
            tile = np.zeros((*(length + -length % multiple for length in part.shape[:2]), 3), np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            yield Tile(tile, x / scale, y / scale, scale)


def _cover(length: int, side: int, overlap: int, multiple: int) -> tuple[list[int], int]:
    """Where tiles start along a side, and how long they are: as few as can be, and then as short as can be."""
    count = 1 + max(0, -(-(length - side) // (side - overlap)))
    short = -(-(length + (count - 1) * overlap) // count)
    short += -short % multiple
    return [round(i * max(0, length - short) / max(1, count - 1)) for i in range(count)], short


def cut(pyramid: Pyramid, center_xy: NDArray[np.float64], width: float, side: int) -> Tile:
    """The square of ``width`` picture pixels around ``center_xy`` as a tile of ``side``; black beyond the picture."""
    scale = side / width
    x, y = (float(center) - width / 2 for center in center_xy)
    # The tile's pixels that lie wholly in the picture.
    left, top = max(0, int(np.ceil(-x * scale))), max(0, int(np.ceil(-y * scale)))
    right = min(side, int(np.floor((pyramid.size[0] - x) * scale)))
    bottom = min(side, int(np.floor((pyramid.size[1] - y) * scale)))
    tile = np.zeros((side, side, 3), np.uint8)
    if right > left and bottom > top:
        area = (x + left / scale, y + top / scale, x + right / scale, y + bottom / scale)
        resized = pyramid.resize(_inside(area, pyramid.size), (right - left, bottom - top), scale)
        tile[top:bottom, left:right] = np.asarray(resized)
    return Tile(tile, x, y, scale)


def _inside(area: tuple[float, float, float, float], size_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    wide, high = size_wh  # rounding may put a corner a millionth of a pixel outside, which Pillow refuses
    return max(area[0], 0.0), max(area[1], 0.0), min(area[2], wide), min(area[3], high)
