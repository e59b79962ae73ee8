"""Non-maximum suppression: merges the candidates of each face into one."""

import numpy as np
from numpy.typing import NDArray

from mien.detect.candidates import Candidates, join

SAME_FACE = 0.3  # intersection over union from which two boxes are one face; that of neighbours in a crowd is lower
PART_OF_FACE = (
    0.6  # share of the smaller box inside the larger from which it is a part: cut by a tile's border, or a mouth
)


def suppress(candidates: Candidates) -> Candidates:
    """Merge the candidates of each face, greedily by score.

    Candidates of the same face are averaged, weighted by their scores, which halves the jitter of plain suppression
    (Bazarevsky et al., "BlazeFace", 2019, section 4.4). Parts of a face are dropped and do not count in the average.

    Args:
        candidates: The candidates.

    Returns:
        One candidate for each face, the best first.
    """
    order = np.argsort(-candidates.scores, kind="stable")
    rest = candidates.take(order)
    kept: list[Candidates] = []
    while len(rest) > 0:
        same, part = overlaps(rest.boxes[0], rest.boxes)
        same[0] = 1  # also when its box is empty
        kept.append(_blend(rest.take(same >= SAME_FACE)))
        rest = rest.take((same < SAME_FACE) & (part < PART_OF_FACE))
    return join(kept) if kept else rest


def overlaps(box: NDArray[np.float64], boxes: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the overlaps of a box with other boxes.

    Args:
        box: Corners ``xyxy``, ``[4]``.
        boxes: Corners ``xyxy``, ``[K, 4]``.

    Returns:
        Intersection over union, and intersection over the smaller area, both ``[K]``.
    """
    corners = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.prod(np.clip(corners, 0, None), axis=1)
    area, areas = np.prod(box[2:] - box[:2]), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    tiny = np.finfo(np.float64).tiny
    return shared / np.maximum(area + areas - shared, tiny), shared / np.maximum(np.minimum(area, areas), tiny)


def inside_of(candidates: Candidates, faces: Candidates) -> NDArray[np.bool_]:
    """Return a mask ``[K]`` of the candidates of which more than half is inside one of the faces."""
    inside = np.zeros(len(candidates), bool)
    areas = np.maximum(np.prod(candidates.boxes[:, 2:] - candidates.boxes[:, :2], axis=1), np.finfo(np.float64).tiny)
    for box in faces.boxes:
        corners = np.minimum(box[2:], candidates.boxes[:, 2:]) - np.maximum(box[:2], candidates.boxes[:, :2])
        inside |= np.prod(np.clip(corners, 0, None), axis=1) > areas / 2
    return inside


def _blend(group: Candidates) -> Candidates:
    if len(group) < 2:
        return group
    shares = group.scores / group.scores.sum()
    boxes = np.einsum("k,kc->c", shares, group.boxes)
    return Candidates(boxes[None], np.einsum("k,kpc->pc", shares, group.points)[None], group.scores[:1])
