"""What a network answers before duplicates are merged: many boxes with points and scores, kept as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._face import Box, Detection, KeyPoints, Point

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidates:
    """Boxes ``[K, 4]`` as ``xyxy``, key points ``[K, P, 2]`` in the order of ``KeyPoints``, scores ``[K]`` in 0..1."""

    boxes: Floats
    points: Floats
    scores: Floats

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[Any]) -> "Candidates":
        """Those that ``index`` (a mask, or positions in order) picks."""
        return Candidates(self.boxes[index], self.points[index], self.scores[index])

    def to_picture(self, *, scale: float, x: float, y: float) -> "Candidates":
        """From a tile to the picture: its corner lies at ``(x, y)``, ``scale`` of its pixels are one of the picture."""
        corner = np.array([x, y])
        return Candidates(self.boxes / scale + np.tile(corner, 2), self.points / scale + corner, self.scores)

    @property
    def widths(self) -> Floats:
        """Pixels from left to right, ``[K]``."""
        return self.boxes[:, 2] - self.boxes[:, 0]

    @property
    def centers(self) -> Floats:
        """The middle of each box, ``[K, 2]``."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    def to_detections(self) -> list[Detection]:
        """As mien hands them out: the largest first."""
        areas = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)
        return [self._detection(int(i)) for i in np.argsort(-areas, kind="stable")]

    def _detection(self, index: int) -> Detection:
        points: list[Point] = [(float(x), float(y)) for x, y in self.points[index]]
        box = Box(*(float(v) for v in self.boxes[index]))
        return Detection(box, float(self.scores[index]), KeyPoints(*points))


def join(parts: Sequence[Candidates]) -> Candidates:
    """All candidates of the parts (at least one), in their order."""
    return Candidates(
        np.concatenate([p.boxes for p in parts]),
        np.concatenate([p.points for p in parts]),
        np.concatenate([p.scores for p in parts]),
    )


def nothing(*, points: int) -> Candidates:
    """No candidates, of as many ``points``."""
    return Candidates(np.zeros((0, 4)), np.zeros((0, points, 2)), np.zeros(0))
