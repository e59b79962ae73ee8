"""Exact copies in a data set, and partitions that do not separate them. FER-2013 has 1,853 copies.

Use these functions on the whole set, before ``with_classes``, so that the same rows are left out for every class set.
"Earlier" refers to the order of the splits (Training, PublicTest, PrivateTest), then to the order of the faces.
"""

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mien.lab.data.faceset import FaceSet, Split, split_index


def leaked_into_tests(faces: FaceSet, *, learned: Sequence[Split] = (Split.TRAINING,)) -> Tensor:
    """Find rows that a net learns from whose exact pixels are in another split.

    Args:
        faces: The whole set.
        learned: The splits that the net learns from.

    Returns:
        bool ``[N]``; 703 rows of FER-2013.

    Example:
        >>> from mien.lab.data import load_fer2013
        >>> int(leaked_into_tests(load_fer2013("fer2013.parquet")).sum())  # doctest: +SKIP
        703
    """
    groups = same_pixels(faces)
    training = np.isin(faces.usage.cpu().numpy(), [split_index(split) for split in learned])
    return torch.from_numpy(training & np.isin(groups, groups[~training])).to(faces.usage.device)


def clean_rows(faces: FaceSet, split: Split) -> Tensor:
    """Find rows of a split whose pixels are neither in an earlier split nor earlier in the same split.

    Args:
        faces: The whole set.
        split: The split.

    Returns:
        bool ``[N]``; 3,268 rows for PrivateTest of FER-2013.

    Example:
        >>> from mien.lab.data import load_fer2013
        >>> int(clean_rows(load_fer2013("fer2013.parquet"), Split.PRIVATE_TEST).sum())  # doctest: +SKIP
        3268
    """
    usage = faces.usage.cpu().numpy()
    order = usage * len(faces) + np.arange(len(faces))
    return _is_first(same_pixels(faces), order, faces) & (faces.usage == split_index(split))


def extra_copies(faces: FaceSet) -> Tensor:
    """Find rows that repeat an earlier row of their own split.

    Args:
        faces: The whole set.

    Returns:
        bool ``[N]``; 1,236, 26 and 17 rows in the splits of FER-2013.
    """
    within_split = same_pixels(faces) * len(Split) + faces.usage.cpu().numpy()
    return ~_is_first(within_split, np.arange(len(faces)), faces)


# The groups of each set that is in memory: a comparison of 60 models asks for them 120 times.
_KNOWN: WeakKeyDictionary[FaceSet, NDArray[np.int64]] = WeakKeyDictionary()


def same_pixels(faces: FaceSet) -> NDArray[np.int64]:
    """Group faces by equal pixels. Pixels are compared, so a hash collision cannot join two images.

    Args:
        faces: N faces.

    Returns:
        int64 ``[N]``: the index of the first face with the same pixels.
    """
    if faces in _KNOWN:
        return _KNOWN[faces]
    rows_by_hash: dict[int, list[int]] = {}  # the bytes as keys would need the memory of the set again
    images = faces.images.cpu().numpy()
    first = np.empty(len(images), np.int64)
    for row, image in enumerate(images):
        candidates = rows_by_hash.setdefault(hash(image.tobytes()), [])
        first[row] = next((other for other in candidates if np.array_equal(images[other], image)), row)
        if first[row] == row:
            candidates.append(row)
    first.flags.writeable = False
    _KNOWN[faces] = first
    return first


def _is_first(groups: NDArray[np.int64], order: NDArray[np.int64], faces: FaceSet) -> Tensor:
    """Rows with the lowest ``order`` of their group."""
    rows = np.argsort(order, kind="stable")
    is_first = np.zeros(len(groups), np.bool_)
    is_first[rows[np.unique(groups[rows], return_index=True)[1]]] = True
    return torch.from_numpy(is_first).to(faces.usage.device)


def clusters(faces: FaceSet) -> NDArray[np.int64]:
    """Cluster faces that must not be separated: those with equal pixels or of one group, over any chain of both.

    Args:
        faces: N faces.

    Returns:
        int64 ``[N]``: the cluster of each face.
    """
    copies = same_pixels(faces)
    if faces.groups is None:
        return copies
    _, groups = np.unique(faces.groups.cpu().numpy(), return_inverse=True)
    found = copies
    while True:  # each round passes the lowest index on within every group, then among copies
        lowest = _lowest(_lowest(found, groups), copies)
        if np.array_equal(lowest, found):
            return found
        found = lowest


def _lowest(numbers: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each face the lowest of ``numbers`` in its group; groups are small integers."""
    lowest = np.full(int(groups.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, groups, numbers)
    return lowest[groups]


def divide(
    labels: NDArray[np.int64], together: NDArray[np.int64], *, shares: Sequence[float], seed: int
) -> NDArray[np.int64]:
    """Divide faces into parts, stratified by class, without separating clusters.

    Clusters are assigned from the largest to the smallest, in random order where sizes are equal. Each goes to the part
    whose counts (of each class and of all faces) it brings nearest to the part's share, measured as chi-square.

    Args:
        labels: ``[N]``, from 0.
        together: ``[N]``, the cluster of each face, as ``clusters`` returns it.
        shares: Share of the faces in each part; they sum to 1.
        seed: Seed of the random order.

    Returns:
        int64 ``[N]``: the part of each face, an index into ``shares``.
    """
    _, cluster = np.unique(together, return_inverse=True)
    counts = np.zeros((int(cluster.max()) + 1, int(labels.max()) + 2))  # the last column counts all classes
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
