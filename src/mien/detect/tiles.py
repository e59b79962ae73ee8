"""Image pyramids and tiles, for detectors."""

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._face import Pixels
from mien._memory import is_shared, pillow_image

REDUCING_GAP = 1.01  # Pillow reduces by whole factors down to this multiple of the size, and interpolates the rest
# Pixels of an image that Pillow gets whole although it copies them, 4 bytes a pixel. Of a larger one it gets parts of
# this side.
_WHOLE_PIXELS, _PART_SIDE = 12_500_000, 1024


_PLACES = 8  # places of a tile per pixel


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
        pixels: The image, RGB uint8 ``[H, W, 3]``.
        coarse: The finest scale for which the reduced copy is used.
    """

    def __init__(self, pixels: Pixels, *, coarse: float = 1.0) -> None:
        self.size = width, height = pixels.shape[1], pixels.shape[0]
        self._pixels = pixels
        self._image = pillow_image(pixels) if width * height <= _WHOLE_PIXELS or is_shared(pixels) else None
        self._factor = max(1, int(1 / (coarse * REDUCING_GAP)))
        self._reduced = self._reduce((0, 0, width, height), (self._factor,) * 2) if self._factor > 1 else self._image

    def at(self, scale: float) -> Image.Image:
        """Resize the whole image.

        Args:
            scale: Pixels of the result per pixel of the image.

        Returns:
            The image, of mode RGB or RGBX. Each side has at least one pixel.
        """
        wide, high = (max(1, round(length * scale)) for length in self.size)
        return self.resize((0, 0, *self.size), (wide, high), scale)

    def resize(self, area: tuple[float, float, float, float], size_wh: tuple[int, int], scale: float) -> Image.Image:
        """Resize an area of the image with antialiasing: first by whole factors, then with a triangle filter.

        Args:
            area: Corners ``xyxy`` in pixels of the image.
            size_wh: Width and height of the result in pixels.
            scale: Pixels of the result per pixel of the image.

        Returns:
            The resized area, of mode RGB or RGBX.
        """
        source, factor = (self._reduced, self._factor) if scale * self._factor <= 1 else (self._image, 1)
        # The last row and column of the reduced copy may cover fewer pixels than the others; the area accounts for it.
        left, top, right, bottom = (length / factor for length in area)
        if source is None:
            return self._resize_large((left, top, right, bottom), size_wh)
        box = (left, top, right, bottom)
        return source.resize(size_wh, Image.Resampling.BILINEAR, box=box, reducing_gap=REDUCING_GAP)

    def _resize_large(self, area: tuple[float, float, float, float], size_wh: tuple[int, int]) -> Image.Image:
        """Do what ``Image.resize`` does, without a copy of the image."""
        starts, ends, limits = area[:2], area[2:], self.size
        steps = [(end - start) / size for start, end, size in zip(starts, ends, size_wh, strict=True)]
        factors = (int(steps[0] / REDUCING_GAP) or 1, int(steps[1] / REDUCING_GAP) or 1)
        least = 1 if factors == (1, 1) else 0
        margins = [max(step / 2, least) for step in steps]  # what the filter reads outside of the area
        first = [max(0, int(start - margin)) for start, margin in zip(starts, margins, strict=True)]
        last = [min(math.ceil(end + more), limit) for end, more, limit in zip(ends, margins, limits, strict=True)]
        part = self._reduce((*first, *last), factors)
        if factors == (1, 1):  # Pillow rounds the corners then, and they must be the same before first is subtracted
            area = tuple(np.array(area, np.float32).tolist())
        corners = [(area[i] - first[i % 2]) / factors[i % 2] for i in range(4)]
        return part.resize(size_wh, Image.Resampling.BILINEAR, box=(corners[0], corners[1], corners[2], corners[3]))

    def _reduce(self, box: tuple[int, int, int, int], factors: tuple[int, int]) -> Image.Image:
        """Average blocks of pixels, in parts of whole blocks."""
        if self._image is not None:
            return self._image.reduce(factors, box)
        (left, top, right, bottom), (across, down) = box, factors
        result = Image.new("RGB", (-((left - right) // across), -((top - bottom) // down)))
        wide, high = (max(1, _PART_SIDE // factor) * factor for factor in factors)
        for y, x in product(range(top, bottom, high), range(left, right, wide)):
            part = pillow_image(self._pixels[y : min(y + high, bottom), x : min(x + wide, right)])
            result.paste(part.reduce(factors).convert("RGB"), ((x - left) // across, (y - top) // down))
        return result


def letterbox(pyramid: Pyramid, side: int, *, share: float = 1.0) -> Tile:
    """Place the whole image in the middle of a black square.

    Args:
        pyramid: The image.
        side: Side of the square in pixels.
        share: Long side of the image as a share of ``side``, from 0 to 1.

    Returns:
        The square.
    """
    scale = side * share / max(pyramid.size)
    small = pyramid.at(scale)
    left, top = ((side - length) // 2 for length in small.size)
    canvas = np.zeros((side, side, 3), np.uint8)
    canvas[top : top + small.height, left : left + small.width] = np.asarray(small)[..., :3]
    return Tile(canvas, -left / scale, -top / scale, scale)


def split(pyramid: Pyramid, scale: float, *, side: int, overlap: int, multiple: int) -> Iterator[Tile]:
    """Cut the image into overlapping tiles.

    Args:
        pyramid: The image.
        scale: Pixels of a tile per pixel of the image.
        side: Largest side of a tile in pixels.
        overlap: Smallest overlap of two tiles in pixels.
        multiple: Sides of tiles are padded with black to multiples of this number of pixels, which divides ``side``.

    Yields:
        The tiles, row by row.
    """
    level = pyramid.at(scale)
    (columns, wide), (rows, high) = (_cover(length, side, overlap, multiple) for length in level.size)
    for y in rows:
        for x in columns:
            box = (x, y, min(x + wide, level.width), min(y + high, level.height))
            part = np.asarray(level.crop(box))[..., :3]  # a large level stays the only copy
            tile = np.zeros((*(length + -length % multiple for length in part.shape[:2]), 3), np.uint8)
            tile[: part.shape[0], : part.shape[1]] = part
            yield Tile(tile, x / scale, y / scale, scale)


def _round(value: float) -> float:
    return round(value * _PLACES) / _PLACES


def _cover(length: int, side: int, overlap: int, multiple: int) -> tuple[list[int], int]:
    """Return starts and length of tiles along a side: as few tiles as possible, then as short as possible."""
    count = 1 + max(0, -(-(length - side) // (side - overlap)))
    short = -(-(length + (count - 1) * overlap) // count)
    short += -short % multiple
    return [round(i * max(0, length - short) / max(1, count - 1)) for i in range(count)], short


def cut(pyramid: Pyramid, center_xy: NDArray[np.float64], width: float, side: int) -> Tile:
    """Cut a square out of an image. The area outside of the image is black.

    Its place is rounded: where a first search differs in the last bits, as that of another processor or of a browser
    does, a second one sees the same pixels.

    Args:
        pyramid: The image.
        center_xy: Centre of the square in pixels of the image, ``[2]``.
        width: Side of the square in pixels of the image.
        side: Side of the tile in pixels.

    Returns:
        The tile.
    """
    width = max(_round(width), 1 / _PLACES)
    scale = side / width
    x, y = (_round(float(center) - width / 2) for center in center_xy)
    # The pixels of the tile that are completely inside the image.
    left, top = max(0, int(np.ceil(-x * scale))), max(0, int(np.ceil(-y * scale)))
    right = min(side, int(np.floor((pyramid.size[0] - x) * scale)))
    bottom = min(side, int(np.floor((pyramid.size[1] - y) * scale)))
    tile = np.zeros((side, side, 3), np.uint8)
    if right > left and bottom > top:
        # Rounding may put a corner a millionth of a pixel outside of the image, which Pillow rejects.
        x1, y1 = max(x + left / scale, 0.0), max(y + top / scale, 0.0)
        x2, y2 = min(x + right / scale, pyramid.size[0]), min(y + bottom / scale, pyramid.size[1])
        resized = pyramid.resize((x1, y1, x2, y2), (right - left, bottom - top), scale)
        tile[top:bottom, left:right] = np.asarray(resized)[..., :3]
    return Tile(tile, x, y, scale)
