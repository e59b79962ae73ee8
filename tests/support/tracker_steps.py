"""Runs of a tracker over frames."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mien.stream import Moment, Tracker

RATE = 25.0
Pixels = NDArray[np.uint8]


def step_through(tracker: Tracker, frames: Sequence[Pixels], *, rate: float = RATE, start: int = 0) -> list[Moment]:
    return [tracker.step(frame, (start + i) / rate) for i, frame in enumerate(frames)]


def ids(moments: Sequence[Moment]) -> list[tuple[int, ...]]:
    return [tuple(face.id for face in moment.faces) for moment in moments]
