"""Image, detections -> crops: turns each face upright and frames it as the training faces.

The arithmetic is plain and its order fixed, so that an implementation in another language cuts identical crops.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mien._errors import MienError, is_number, require_kind, shown
from mien._face import LARGEST_PLACE, Detection, Pixels, Point
from mien._framing import FER2013, Framing
from mien._memory import pillow_image

# Smallest distance of the eyes, in widths of the box, from which the rotation is computed. Below it the face is in full
# profile, or the points are wrong: about 1 in 1,000 faces of FER-2013.
_MIN_EYE_DISTANCE = 0.1

# The eyes of a head that turns to the side come closer together, the mouth and the eyes do not. So the size is at least
# this share of the size by the mouth (below 1, because an open mouth is lower). Chosen by `tools/measure_framing.py`.
_MOUTH_SHARE = 0.9

# Largest number of samples along a side of a crop pixel. Where more are needed, blocks of the image are averaged first.
_MAX_SAMPLES = 3

_PLACE = 1 / 16  # of a pixel: steps of the position and the size of a face in the image

# Samples computed at a time, so that they stay in a core's cache; pixels of a large face that are averaged at a time.
_BAND = 1 << 14
_STRIP = 1 << 20

# ITU-R BT.601 luma in 1/65536. They are integers, so that the rounding is the same on every computer, and sum to 65536.
_RED, _GREEN, _BLUE = 19595.0, 38470.0, 7471.0


def extract(
    pixels: Pixels, detections: Sequence[Detection], *, size: int, framing: Framing = FER2013
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Cut one grey crop for each detection out of an image.

    Outside of the image its edge is repeated. Without key points, the crop is the box, stretched to a square.

    Args:
        pixels: The image, RGB uint8 ``[H, W, 3]``.
        detections: N faces, in pixels of the image.
        size: Side of a crop in pixels.
        framing: The positions of the eyes and the mouth in a crop.

    Returns:
        The crops, uint8 ``[N, size, size]``, and their affine transforms, float64 ``[N, 2, 3]``, from a crop's
        ``(x, y, 1)`` to the image. Coordinates are continuous: a crop spans 0 to ``size``, and the centre of its first
        pixel is at 0.5.

    Raises:
        MienError: The corners of a box are not finite numbers.

    Example:
        >>> import numpy as np
        >>> from mien._face import Box, Detection
        >>> face = Detection(Box(0, 0, 8, 8), score=1.0, points=None)
        >>> crops, to_image = extract(np.zeros((8, 8, 3), np.uint8), [face], size=4)
        >>> crops.shape, to_image.shape
        ((1, 4, 4), (1, 2, 3))
    """
    require_kind("detections", detections, (list, tuple), "a list of mien.detect.Detection")
    to_image = np.empty((len(detections), 2, 3))
    crops = np.empty((len(detections), size, size), np.uint8)
    for index, detection in enumerate(detections):
        to_image[index] = _place(detection, framing) / [size, size, 1]
        crops[index] = _cut(pixels, to_image[index], size)
    return crops, to_image


def _place(detection: Detection, framing: Framing) -> NDArray[np.float64]:
    """Return the affine transform from the unit square of a crop to the image.

    The eyes give rotation and position. The eyes, or the mouth where the head is turned, give the size. The box is not
    used, because each detector draws it differently.
    """
    require_kind("a detection", detection, Detection, "a mien.detect.Detection")
    box, points = detection.box, detection.points
    if not all(map(_is_place, box)):
        raise MienError(f"the detector returned the box {tuple(box)}; its corners must be finite numbers of pixels")
    if box.x2 < box.x1 or box.y2 < box.y1:
        raise MienError(f"the detector returned the box {tuple(box)}; it must be x1, y1, x2, y2, the smaller first")
    if not is_number(detection.score) or not math.isfinite(detection.score):
        raise MienError(f"the detector returned the score {shown(detection.score)}; it must be a number from 0 to 1")
    whole_box = np.array([[box.width, 0, box.x1], [0, box.height, box.y1]])
    if points is None or not all(map(_is_place, (*points.right_eye, *points.left_eye, *points.mouth))):
        return whole_box
    right, left = points.right_eye, points.left_eye
    length, level_length = _distance(right, left), _distance(framing.right_eye, framing.left_eye)
    if length <= _MIN_EYE_DISTANCE * box.width:
        return whole_box
    mouth = _drop(right, left, points.mouth) / _drop(framing.right_eye, framing.left_eye, framing.mouth)
    side = max(length / level_length, _MOUTH_SHARE * mouth)
    # Cosine and sine of the angle between the eye lines of the framing and of the face.
    across, down = left[0] - right[0], left[1] - right[1]
    level_across = framing.left_eye[0] - framing.right_eye[0]
    level_down = framing.left_eye[1] - framing.right_eye[1]
    lengths = length * level_length
    cosine = (across * level_across + down * level_down) / lengths
    sine = (down * level_across - across * level_down) / lengths
    a, b = side * cosine, side * sine
    (x, y), (u, v) = _middle(right, left), _middle(framing.right_eye, framing.left_eye)
    upright = np.array([[a, -b, x - (a * u - b * v)], [b, a, y - (b * u + a * v)]])
    # Rounded, so that crops do not depend on the last bits of a detector, which differ between processors and browsers.
    placed = _leave_tilt(upright, math.radians(framing.tilt)) + _PLACE / 2
    return placed - np.remainder(placed, _PLACE)


def _is_place(value: float) -> bool:
    return abs(value) <= LARGEST_PLACE


def _drop(right: Point, left: Point, mouth: Point) -> float:
    """Return the distance from the line through the eyes down to the mouth."""
    across, down = left[0] - right[0], left[1] - right[1]
    middle = _middle(right, left)
    return (across * (mouth[1] - middle[1]) - down * (mouth[0] - middle[0])) / _distance(right, left)


def _leave_tilt(upright: NDArray[np.float64], most: float) -> NDArray[np.float64]:
    """Turn an upright crop back about its centre to the tilt in the image, by at most ``most`` radians.

    A network that was trained on tilted heads reads them better, and small errors of the eye points have no effect.
    """
    (a, b), centre = upright[:, 0].tolist(), upright @ [0.5, 0.5, 1]
    side = math.sqrt(a * a + b * b)
    cosine, sine = math.cos(most), math.copysign(math.sin(most), b)
    if a >= side * cosine:
        a, b = side, 0.0
    else:
        a, b = a * cosine + b * sine, b * cosine - a * sine
    return np.array([[a, -b, centre[0] - (a - b) / 2], [b, a, centre[1] - (b + a) / 2]])


def _middle(one: Point, other: Point) -> Point:
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2


def _distance(one: Point, other: Point) -> float:
    # Unlike math.hypot, the square root is rounded the same on every computer.
    across, down = other[0] - one[0], other[1] - one[1]
    return math.sqrt(across * across + down * down)


def _cut(pixels: Pixels, to_image: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Sample an image over a crop's grid; each pixel is the mean of enough samples to avoid aliasing."""
    (a, b, c), (d, e, f) = to_image.tolist()
    # Image pixels per crop pixel; slightly less, so that a face of exactly the crop's size needs one sample a pixel.
    step = max(math.sqrt(a * a + d * d), math.sqrt(b * b + e * e)) - 1e-6
    samples = min(max(math.ceil(step), 1), _MAX_SAMPLES)
    block = min(max(math.ceil(step / _MAX_SAMPLES), 1), *pixels.shape[:2])
    left, right = _span(a, b, c, size, pixels.shape[1], block)
    top, bottom = _span(d, e, f, size, pixels.shape[0], block)
    grey = _reduce(pixels[top:bottom, left:right], block)
    grid = (np.arange(size * samples) + 0.5) / samples
    # Positions in blocks of the region, from the centre of the first block.
    x_across, x_down = (a * grid + (c - left)) / block - 0.5, b * grid[:, None] / block
    y_across, y_down = (d * grid + (f - top)) / block - 0.5, e * grid[:, None] / block
    band = max(_BAND // grid.size // samples, 1) * samples
    crop = np.empty((size, size), np.uint8)
    for start in range(0, grid.size, band):
        rows = slice(start, start + band)
        values = _interpolate(grey, x_across + x_down[rows], y_across + y_down[rows])
        crop[start // samples : (start + band) // samples] = _average(values, samples)
    return crop


def _span(a: float, b: float, c: float, size: int, length: int, block: int) -> tuple[int, int]:
    """Return the first and last (exclusive) pixel that a crop touches, in whole blocks where there is room.

    The span has at least one pixel, also where the crop is outside of the image.
    """
    low = min(a, 0) * size + min(b, 0) * size + c
    high = max(a, 0) * size + max(b, 0) * size + c
    first = min(max(math.floor(low) - block, 0), length - 1)
    last = max(math.ceil(high) + block, first + 1)
    return first, min(last + (first - last) % block, length)


def _reduce(region: Pixels, block: int) -> NDArray[np.float64]:
    """Return the luma, 0..255, of blocks of ``block`` x ``block`` pixels; the last blocks repeat the edge.

    The sums are whole numbers, so that the rounding does not depend on their order. The last row and column are
    repeated, as ``_interpolate`` needs them.
    """
    rows = max(1, _STRIP // (region.shape[1] * block)) * block
    parts = [_sums(_packed(region[top : top + rows], block), block) for top in range(0, region.shape[0], rows)]
    total = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return np.pad(total / (65536 * block * block), ((0, 1), (0, 1)), mode="edge")


def _packed(region: Pixels, block: int) -> Pixels:
    """Return a large region with its pixels next to each other, as numpy sums them fastest."""
    return region if block == 1 or region.flags.c_contiguous else np.asarray(pillow_image(region).convert("RGB"))


def _sums(region: Pixels, block: int) -> NDArray[np.float64]:
    """Return the sum of 65536 times the luma in each block."""
    height, width = region.shape[:2]
    if height % block or width % block:
        region = np.pad(region, ((0, -height % block), (0, -width % block), (0, 0)), mode="edge")
    rows = region.reshape(-1, block, region.shape[1], 3).sum(axis=1, dtype=np.uint32) if block > 1 else region
    luma: NDArray[np.float64] = rows[..., 0] * _RED + rows[..., 1] * _GREEN + rows[..., 2] * _BLUE
    total = luma[:, ::block].copy()
    for column in range(1, block):
        total += luma[:, column::block]
    return total


def _interpolate(grey: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return bilinear values at ``(x, y)``, counted from pixel centres; outside, the edge is repeated.

    The last row and column of ``grey`` are duplicates, so that every position has a right and a lower neighbour.
    """
    height, width = grey.shape
    x, y = np.clip(x, 0, width - 2), np.clip(y, 0, height - 2)
    left, top = x.astype(np.intp), y.astype(np.intp)
    x -= left
    y -= top
    place, flat = top * width + left, grey.ravel()
    upper, lower = flat.take(place), flat.take(place + width)
    upper += (flat.take(place + 1) - upper) * x
    lower += (flat.take(place + (width + 1)) - lower) * x
    return np.asarray(upper + (lower - upper) * y)


def _average(values: NDArray[np.float64], samples: int) -> NDArray[np.uint8]:
    """Return the mean of each ``samples`` x ``samples`` values, summed row by row, rounded half up."""
    total = np.zeros((values.shape[0] // samples, values.shape[1] // samples))
    for row in range(samples):
        for column in range(samples):
            total += values[row::samples, column::samples]
    return np.asarray(np.floor(total / (samples * samples) + 0.5), np.uint8)
