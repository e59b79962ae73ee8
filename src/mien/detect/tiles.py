"""Image pyramids and tiles for the search of the detectors."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._face import Pixels

REDUCING_GAP = 1.01  # Pillow reduces by whole factors down to this multiple of the size, and interpolates the rest


class Tile(NamedTuple):
    """A part of an image at some scale.

    Attributes:
        pixels: RGB uint8 ``[h, w, 3]``.
        x: Left edge in pixels of the image; it may be outside.
        y: Upper edge in pixels of the image; it may be outside.
        scale: Pixels of the tile per pixel of the image.
    """

    pixels: Pixels
    x: float
    y: float
    scale: float


class Pyramid:
    """An image at any scale. Coarse scales use one reduced copy, so that a large image is processed only once.

    Args:
        image: The image.
        coarse: The finest scale for which the reduced copy is used.
    """

    def __init__(self, image: Image.Image, *, coarse: float = 1.0) -> None:
        self.size = image.size
        self._image = image
        self._factor = max(1, int(1 / (coarse * REDUCING_GAP)))
        self._reduced = image.reduce(self._factor) if self._factor > 1 else image

    def at(self, scale: float) -> Image.Image:
        """Return the image at a scale; each side has at least one pixel."""
        wide, high = (max(1, round(length * scale)) for length in self.size)
        return self.resize((0, 0, *self.size), (wide, high), scale)

    def resize(self, area: tuple[float, float, float, float], size_wh: tuple[int, int], scale: float) -> Image.Image:
        """Resize an area (``xyxy``, pixels), antialiased: first by whole factors, then with a triangle filter."""
        source, factor = (self._reduced, self._factor) if scale * self._factor <= 1 else (self._image, 1)
        # The last row and column of the reduced copy may cover fewer pixels than the others; the area accounts for it.
        left, top, right, bottom = (length / factor for length in area)
        box = (left, top, right, bottom)
        return source.resize(size_wh, Image.Resampling.BILINEAR, box=box, reducing_gap=REDUCING_GAP)


def letterbox(pyramid: Pyramid, side: int, *, share: float = 1.0) -> Tile:
    """Place the whole image in the middle of a black square; its long side takes ``share`` of the ``side`` pixels."""
    scale = side * share / max(pyramid.size)
    small = pyramid.at(scale)
    left, top = ((side - length) // 2 for length in small.size)
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[top : top + small.height, left : left + small.width] = np.asarray(small)
    return Tile(canvas, -left / scale, -top / scale, scale)


def split(pyramid: Pyramid, scale: float, *, side: int, overlap: int, multiple: int) -> Iterator[Tile]:
    """Cut the image into overlapping tiles.

    Args:
        pyramid: The image.
        scale: Pixels of a tile per pixel of the image.
        side: Largest side of a tile in pixels.
        overlap: Smallest overlap of two tiles in pixels.
        multiple: Sides of tiles are padded with black to multiples of this; it divides ``side``.

    Returns:
        The tiles, row by row.
    """
    level = np.asarray(pyramid.at(scale))
    (rows, high), (columns, wide) = (_cover(length, side, overlap, multiple) for length in level.shape[:2])
    for y in rows:
        for x in columns:
            part = level[y : y + high, x : x + wide]
            tile = np.zeros((*(length + -length % multiple for length in part.shape[:2]), 3), np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            yield Tile(tile, x / scale, y / scale, scale)


def _cover(length: int, side: int, overlap: int, multiple: int) -> tuple[list[int], int]:
    """Return starts and length of tiles along a side: as few tiles as possible, then as short as possible."""
    count = 1 + max(0, -(-(length - side) // (side - overlap)))
    short = -(-(length + (count - 1) * overlap) // count)
    short += -short % multiple
    return [round(i * max(0, length - short) / max(1, count - 1)) for i in range(count)], short


def cut(pyramid: Pyramid, center_xy: NDArray[np.float64], width: float, side: int) -> Tile:
    """Cut the square of ``width`` image pixels around ``center_xy`` as a tile of ``side``; black outside the image."""
    scale = side / width
    x, y = (float(center) - width / 2 for center in center_xy)
    # The tile's pixels that are completely inside the image.
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
    wide, high = size_wh  # rounding may put a corner a millionth of a pixel outside, which Pillow rejects
    return max(area[0], 0.0), max(area[1], 0.0), min(area[2], wide), min(area[3], high)
