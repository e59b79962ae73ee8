"""Tracked faces and frame results with chosen values."""

import numpy as np
from numpy.typing import NDArray

from mien import Box, Emotion, Face
from mien._emotions import SEVEN
from mien.video.types import FrameResult, TrackedFace

SIZE = (160, 120)
HAPPY, SAD, ANGRY, FEAR = Emotion.HAPPY, Emotion.SAD, Emotion.ANGRY, Emotion.FEAR


def tracked(
    box: tuple[float, float, float, float] = (40, 30, 100, 90),
    emotion: Emotion | None = Emotion.HAPPY,
    *,
    number: int = 1,
    detected: bool = True,
    probability: float = 0.7,
) -> TrackedFace:
    """A face whose most probable emotion is ``emotion`` (``None``: unsure) with ``probability``."""
    rest = (1 - probability) / (len(SEVEN) - 1)
    probs = {e: probability if e is (emotion or Emotion.SAD) else rest for e in SEVEN}
    blank = np.zeros((7, 6, 6), np.float32)
    crop = np.zeros((48, 48), np.uint8)
    face = Face(Box(*box), 0.9, None, emotion, probability, probs, blank, crop, np.eye(2, 3))
    return TrackedFace(number, face, probs, emotion, probability, Box(*box), detected)


def frame_result(index: int, seconds: float, *faces: TrackedFace, size_wh: tuple[int, int] = SIZE) -> FrameResult:
    """The faces of a frame."""
    return FrameResult(index, seconds, size_wh, faces)


def gray_frame(value: int = 120, size_wh: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A plain grey RGB frame."""
    return np.full((size_wh[1], size_wh[0], 3), value, np.uint8)
