"""Random crops and detections with chosen key points, for the tests of explanations."""

import numpy as np

from mien._face import Box, Detection, KeyPoints
from mien._framing import FER2013
from mien.lab.explain.attention import ALIGNMENT_BORDER, ALIGNMENT_SIDE

CENTRE = {"right_eye": FER2013.right_eye, "left_eye": FER2013.left_eye, "nose": FER2013.nose, "mouth": FER2013.mouth}


def random_crops(count: int = 2, side: int = 48, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side), dtype=np.uint8)


def detection(points: dict[str, tuple[float, float]]) -> Detection:
    near, far = ALIGNMENT_BORDER, ALIGNMENT_BORDER + ALIGNMENT_SIDE
    placed = {key: (near + x * ALIGNMENT_SIDE, near + y * ALIGNMENT_SIDE) for key, (x, y) in points.items()}
    return Detection(Box(near, near, far, far), 0.9, KeyPoints(**placed))
