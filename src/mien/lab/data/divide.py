"""Faces -> parts of given shares, every class in proportion, faces that belong together in one part.

scikit-learn's StratifiedGroupKFold does this for equal parts; over the 28,000 groups of FER-2013 it takes 8 s where
this takes half a second, and it cannot hold out 15 %.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mien.lab.data.copies import same_pixels
from mien.lab.data.faces import FaceSet


def clusters(faces: FaceSet) -> NDArray[np.int64]:
    """int64 ``[N]``: the cluster of every face. Faces of one group or of equal pixels share one, over any chain."""
    copies = same_pixels(faces)
    if faces.groups is None:
        return copies
    _, groups = np.unique(faces.groups.cpu().numpy(), return_inverse=True)
    found = copies
    while True:  # each round hands the lowest number on, from copy to copy and within every group
        lowest = _lowest(_lowest(found, groups), copies)
        if np.array_equal(lowest, found):
            return found
        found = lowest


def divide(
    labels: NDArray[np.int64], together: NDArray[np.int64], *, shares: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """int64 ``[N]``: the part of every face, an index into ``shares``, which sum to 1.

    Clusters go, largest first and else in an order drawn by ``seed``, to the part whose counts (of each class, and of
    all faces) they bring nearest to its share, in the sense of chi-square. ``together`` is what ``clusters`` answers.
    """
    _, cluster = np.unique(together, return_inverse=True)
    counts = np.zeros((int(cluster.max()) + 1, int(labels.max()) + 2))  # the last column: of all classes
    np.add.at(counts, (cluster, labels), 1)
    counts[:, -1] = counts.sum(axis=1)
    goal = np.outer(shares, counts.sum(axis=0))
    have, worth = np.zeros_like(goal), 1 / goal.clip(min=1e-9)
    part = np.zeros(len(counts), np.int64)
    order = torch.randperm(len(counts), generator=torch.Generator().manual_seed(seed)).numpy()
    for index in order[np.argsort(-counts[order, -1], kind="stable")]:
        count = counts[index]
        cost = (count * (2 * (have - goal) + count) * worth).sum(axis=1)
        part[index] = cost.argmin()
        have[part[index]] += count
    return part[cluster]


def _lowest(numbers: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every face the lowest of ``numbers`` in its group; ``groups`` are small whole numbers."""
    lowest = np.full(int(groups.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, groups, numbers)
    return lowest[groups]
