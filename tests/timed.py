"""Moments of made people, for the tests of timelines."""

import numpy as np
from numpy.typing import NDArray

from followed import SIZE
from mien import Emotion

HAPPY, SAD, ANGRY = Emotion.HAPPY, Emotion.SAD, Emotion.ANGRY


def picture(value: int = 120) -> NDArray[np.uint8]:
    return np.full((SIZE[1], SIZE[0], 3), value, np.uint8)
