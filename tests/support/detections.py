"""Detections whose crops are known, for the tests of extraction."""

import math
from dataclasses import replace

from mien._face import Box, Detection, KeyPoints
from mien._framing import FER2013, Framing

# FER-2013's framing without rotation, for tests that compare exact pixels.
UPRIGHT = replace(FER2013, tilt=0.0)


def whole(width: float, height: float) -> Detection:
    """A detection of the whole image, without key points."""
    return Detection(Box(0, 0, width, height), 1.0, None)


def framed(centre: tuple[float, float], side: float, angle: float = 0.0, framing: Framing = FER2013) -> Detection:
    """The exact detection of a face whose crop has this centre, side and angle (degrees, clockwise)."""
    cosine, sine = math.cos(math.radians(angle)) * side, math.sin(math.radians(angle)) * side

    def at(fraction: tuple[float, float]) -> tuple[float, float]:
        x, y = fraction[0] - 0.5, fraction[1] - 0.5
        return centre[0] + cosine * x - sine * y, centre[1] + sine * x + cosine * y

    x, y = at((0.5, 0.6))
    half = 0.42 * side
    points = KeyPoints(at(framing.right_eye), at(framing.left_eye), at(framing.nose), at(framing.mouth))
    return Detection(Box(x - half, y - half, x + half, y + half), 1.0, points)
