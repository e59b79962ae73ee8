"""The candidates of a network before duplicates are merged: boxes, key points and scores as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._face import Box, Detection, KeyPoints, Point

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidates:
    """K candidates for faces.

    Attributes:
        boxes: Corners ``xyxy`` in pixels, ``[K, 4]``.
        points: Key points in pixels, ``[K, P, 2]``, in the order of ``KeyPoints``.
        scores: Scores from 0 to 1, ``[K]``.
    """

    boxes: _Floats
    points: _Floats
    scores: _Floats

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[Any]) -> "Candidates":
        """Select candidates.

        Args:
            index: A mask ``[K]``, or positions in the order of the result.
        """
        return Candidates(self.boxes[index], self.points[index], self.scores[index])

    def to_image(self, *, scale: float, x: float, y: float) -> "Candidates":
        """Transform candidates of a tile to pixels of the image.

        Args:
            scale: Pixels of the tile per pixel of the image.
            x: Left edge of the tile, in pixels of the image.
            y: Upper edge of the tile, in pixels of the image.
        """
        corner = np.array([x, y])
        return Candidates(self.boxes / scale + np.tile(corner, 2), self.points / scale + corner, self.scores)

    @property
    def widths(self) -> _Floats:
        """Widths of the boxes in pixels, ``[K]``."""
        return self.boxes[:, 2] - self.boxes[:, 0]

    @property
    def centers(self) -> _Floats:
        """Centres of the boxes, ``[K, 2]``."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    def to_detections(self) -> list[Detection]:
        """Return the candidates as detections, largest first."""
        areas = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)
        return [self._detection(int(i)) for i in np.argsort(-areas, kind="stable")]

    def _detection(self, index: int) -> Detection:
        points: list[Point] = [(float(x), float(y)) for x, y in self.points[index]]
        box = Box(*(float(v) for v in self.boxes[index]))
        return Detection(box, float(self.scores[index]), KeyPoints(*points))


def join(parts: Sequence[Candidates]) -> Candidates:
    """Concatenate the candidates of one or more parts."""
    return Candidates(
        np.concatenate([p.boxes for p in parts]),
        np.concatenate([p.points for p in parts]),
        np.concatenate([p.scores for p in parts]),
    )


def nothing(*, points: int) -> Candidates:
    """Return no candidates, with the shape of those with ``points`` key points each."""
    return Candidates(np.zeros((0, 4)), np.zeros((0, points, 2)), np.zeros(0))
