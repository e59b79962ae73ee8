"""Candidates for faces, before duplicates are merged: boxes, key points and scores as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._face import Box, Detection, KeyPoints

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

    @classmethod
    def empty(cls) -> "Candidates":
        """Return no candidates, with the six key points of BlazeFace."""
        return cls(np.zeros((0, 4)), np.zeros((0, 6, 2)), np.zeros(0))

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[Any]) -> "Candidates":
        """Select candidates.

        Args:
            index: A mask ``[K]``, or positions in the order of the result.

        Returns:
            The selected candidates.
        """
        return Candidates(self.boxes[index], self.points[index], self.scores[index])

    def to_image(self, *, scale: float, x: float, y: float) -> "Candidates":
        """Transform candidates of a tile to pixels of the image.

        Args:
            scale: Pixels of the tile per pixel of the image.
            x: Left edge of the tile, in pixels of the image.
            y: Upper edge of the tile, in pixels of the image.

        Returns:
            The transformed candidates.
        """
        corner = np.array([x, y])
        return Candidates(self.boxes / scale + np.tile(corner, 2), self.points / scale + corner, self.scores)

    @property
    def widths(self) -> _Floats:
        """Widths of the boxes in pixels, ``[K]``."""
        return self.boxes[:, 2] - self.boxes[:, 0]

    @property
    def areas(self) -> _Floats:
        """Areas of the boxes in square pixels, ``[K]``."""
        return np.asarray(np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1))

    @property
    def centers(self) -> _Floats:
        """Centres of the boxes, ``[K, 2]``."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    def to_detections(self) -> list[Detection]:
        """Return the candidates as detections, largest first."""
        detections = []
        for i in np.argsort(-self.areas, kind="stable"):
            box = Box(*self.boxes[i].tolist())
            points = KeyPoints(*((x, y) for x, y in self.points[i].tolist()))
            detections.append(Detection(box, float(self.scores[i]), points))
        return detections


def join(parts: Sequence[Candidates]) -> Candidates:
    """Concatenate candidates.

    Args:
        parts: One or more parts, with the same number of key points.

    Returns:
        The candidates of all parts, in their order.
    """
    return Candidates(
        np.concatenate([p.boxes for p in parts]),
        np.concatenate([p.points for p in parts]),
        np.concatenate([p.scores for p in parts]),
    )
