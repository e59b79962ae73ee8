"""Candidates for faces as arrays, and non-maximum suppression, which merges the candidates of each face into one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._face import Box, Detection, KeyPoints

SAME_FACE = 0.3  # intersection over union from which two boxes are one face; neighbours in a crowd have less
# Share of the smaller box inside the larger from which it is a part of the face: cut by a tile's border, or a mouth.
_PART_OF_FACE = 0.6
_TINY = np.finfo(np.float64).tiny

_Floats = NDArray[np.float64]
_Values = float | _Floats


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

    def take(self, index: NDArray[Any] | slice) -> "Candidates":
        """Select candidates.

        Args:
            index: A mask ``[K]``, positions in the order of the result, or a slice.

        Returns:
            The selected candidates.
        """
        return Candidates(self.boxes[index], self.points[index], self.scores[index])

    def to_image(self, *, scale: _Values, x: _Values, y: _Values) -> "Candidates":
        """Transform candidates of a tile, or each of its own tile (``[K]``), to pixels of the image.

        Args:
            scale: Pixels of the tile per pixel of the image.
            x: Left edge of the tile, in pixels of the image.
            y: Upper edge of the tile, in pixels of the image.

        Returns:
            The transformed candidates.
        """
        corners, scales = np.stack([np.ravel(x), np.ravel(y)], axis=1), np.reshape(scale, (-1, 1))
        boxes, points = self.boxes / scales, self.points / scales[..., None]
        return Candidates(boxes + np.tile(corners, 2), points + corners[:, None], self.scores)

    @property
    def widths(self) -> _Floats:
        """Widths of the boxes in pixels, ``[K]``."""
        return self.boxes[:, 2] - self.boxes[:, 0]

    @property
    def areas(self) -> _Floats:
        """Areas of the boxes in square pixels, ``[K]``."""
        return np.asarray(_areas(self.boxes))

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


def suppress(candidates: Candidates, *, limit: int | None = None) -> Candidates:
    """Merge the candidates of each face, greedily by score.

    Candidates of the same face are averaged, weighted by their scores, which halves the jitter of plain suppression
    (Bazarevsky et al., "BlazeFace", 2019, section 4.4). Parts of a face are dropped and do not count in the average.

    Args:
        candidates: The candidates.
        limit: Largest number of faces; ``None``: all.

    Returns:
        One candidate for each face, the best first.
    """
    if len(candidates) == 0:
        return candidates
    ranked = candidates.take(np.argsort(-candidates.scores, kind="stable"))
    rows = np.concatenate([ranked.boxes, ranked.points.reshape(len(ranked), -1)], axis=1)
    rest, boxes = np.arange(len(ranked)), ranked.boxes
    best: list[int] = []
    merged: list[_Floats] = []
    while len(rest) > 0 and len(best) != limit:
        same, part = overlaps(boxes[0], boxes)
        same[0] = 1  # also when its box is empty
        is_same = same >= SAME_FACE
        group = rest[is_same]
        weights = ranked.scores[group]
        merged.append(weights @ rows[group] / weights.sum())
        best.append(rest[0])
        is_left = ~is_same & (part < _PART_OF_FACE)
        rest, boxes = rest[is_left], boxes[is_left]
    means = np.stack(merged)
    return Candidates(means[:, :4], means[:, 4:].reshape(len(best), -1, 2), ranked.scores[best])


def overlaps(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the overlaps of a box with other boxes.

    Args:
        box: Corners ``xyxy``, ``[4]``, or ``[K, 4]`` for the overlaps of pairs.
        boxes: Corners ``xyxy``, ``[K, 4]``.

    Returns:
        Intersection over union, and intersection over the smaller area, both ``[K]``.
    """
    shared = _shared_areas(box, boxes)
    area, areas = _areas(box), _areas(boxes)
    return shared / np.maximum(area + areas - shared, _TINY), shared / np.maximum(np.minimum(area, areas), _TINY)


def inside_of(candidates: Candidates, faces: Candidates) -> NDArray[np.bool_]:
    """Find the candidates of which more than half is inside one of the faces.

    Args:
        candidates: K candidates.
        faces: The faces, in the same pixels.

    Returns:
        A mask ``[K]``.
    """
    inside = np.zeros(len(candidates), bool)
    halves, boxes = np.maximum(candidates.areas, _TINY) / 2, np.asfortranarray(candidates.boxes)
    for box in faces.boxes:
        inside |= _shared_areas(box, boxes) > halves
    return inside


def _shared_areas(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    # One side after the other: columns are much faster than pairs of numbers.
    (x1, y1, x2, y2), (left, upper, right, lower) = box.T, boxes.T
    wide = np.minimum(x2, right) - np.maximum(x1, left)
    high = np.minimum(y2, lower) - np.maximum(y1, upper)
    return np.asarray(np.maximum(wide, 0) * np.maximum(high, 0))


def _areas(boxes: NDArray[np.float64]) -> Any:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
