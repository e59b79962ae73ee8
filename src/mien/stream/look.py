"""The look at an expected face: the detector in the surroundings of one place instead of in the whole picture."""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mien._face import Box, Detection, KeyPoints, Point
from mien.detect import Detector
from mien.stream.follow import center_of, overlap_of

_SURROUNDINGS = 2.2  # widths of a face: the square around its place in which it is looked for
_SAME_FACE = 0.4  # intersection over union from which two places are one face
_LEAST_SIDE = 8  # pixels; less of a picture shows no face


@runtime_checkable
class _Near(Protocol):
    """A detector with a look of its own."""

    def near(self, pixels: NDArray[np.uint8], box: Box) -> list[Detection]:
        """The faces around ``box``."""
        ...


def look(detector: Detector, pixels: NDArray[np.uint8], box: Box) -> list[Detection]:
    """What ``detector`` finds around ``box``, with its own look or in a cut-out of the picture."""
    if isinstance(detector, _Near):
        return detector.near(pixels, box)
    height, width = pixels.shape[:2]
    half = _SURROUNDINGS * max(box.width, box.height) / 2
    x, y = center_of(box)
    left, top = max(0, math.floor(x - half)), max(0, math.floor(y - half))
    right, bottom = min(width, math.ceil(x + half)), min(height, math.ceil(y + half))
    if right - left < _LEAST_SIDE or bottom - top < _LEAST_SIDE:
        return []
    return [_moved(found, left, top) for found in detector(pixels[top:bottom, left:right])]


def distinct(found: Sequence[Detection], known: Sequence[Detection] = ()) -> list[Detection]:
    """``found`` without the faces that stand in ``known``, or twice in it: the surest of them stays."""
    kept: list[Detection] = []
    for detection in sorted(found, key=lambda d: -d.score):
        if all(overlap_of(detection.box, other.box) < _SAME_FACE for other in (*known, *kept)):
            kept.append(detection)
    return kept


def _moved(detection: Detection, dx: int, dy: int) -> Detection:
    def move(point: Point) -> Point:
        return point[0] + dx, point[1] + dy

    box, points = detection.box, detection.points
    if points is not None:
        ears = (None if ear is None else move(ear) for ear in points[4:])
        points = KeyPoints(*map(move, points[:4]), *ears)
    return Detection(Box(box.x1 + dx, box.y1 + dy, box.x2 + dx, box.y2 + dy), detection.score, points)
