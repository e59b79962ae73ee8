"""Which rows are exact copies of others. FER-2013 has 1,853 of them, and 703 training faces lie in a test split too.

Call these on the whole set, before ``with_classes``, so that the same rows are left out whatever the classes are.
"Earlier" means the order of the splits (Training, PublicTest, PrivateTest), then the order of the faces in the set.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mien.lab.data.faceset import FaceSet, Split, split_index


def leaked_into_tests(faces: FaceSet) -> torch.Tensor:
    """Training rows whose exact pixels occur in PublicTest or PrivateTest, bool ``[N]`` (703 in the full set)."""
    groups, usage = same_pixels(faces), faces.usage.cpu().numpy()
    training = usage == split_index(Split.TRAINING)
    tested = np.zeros(len(faces), np.bool_)
    tested[groups[~training]] = True
    return torch.from_numpy(training & tested[groups]).to(faces.usage.device)


def clean_rows(faces: FaceSet, split: Split) -> torch.Tensor:
    """Rows of ``split`` whose pixels occur neither in an earlier split nor earlier in the same one, bool ``[N]``.

    3,268 rows for PrivateTest of the full set.
    """
    usage = faces.usage.cpu().numpy()
    order = usage * len(faces) + np.arange(len(faces))
    return _is_first(same_pixels(faces), order, faces) & (faces.usage == split_index(split))


def extra_copies(faces: FaceSet) -> torch.Tensor:
    """Rows that repeat an earlier row of their own split, bool ``[N]`` (1,236 / 26 / 17 in the full set)."""
    within_split = same_pixels(faces) * len(Split) + faces.usage.cpu().numpy()
    return ~_is_first(within_split, np.arange(len(faces)), faces)


def same_pixels(faces: FaceSet) -> NDArray[np.int64]:
    """For every row the index of the first with the same pixels. Pixels are compared, so no two images can collide."""
    known: dict[int, list[int]] = {}  # by hash: the bytes themselves would be the set once more
    images = faces.images.cpu().numpy()
    first = np.empty(len(images), np.int64)
    for row, image in enumerate(images):
        alike = known.setdefault(hash(image.tobytes()), [])
        same = next((other for other in alike if np.array_equal(images[other], image)), None)
        if same is None:
            alike.append(row)
        first[row] = row if same is None else same
    return first


def _is_first(groups: NDArray[np.int64], order: NDArray[np.int64], faces: FaceSet) -> torch.Tensor:
    """Rows that have the lowest ``order`` among those of their group."""
    rows = np.argsort(order, kind="stable")
    _, places = np.unique(groups[rows], return_index=True)
    is_first = np.zeros(len(groups), np.bool_)
    is_first[rows[places]] = True
    return torch.from_numpy(is_first).to(faces.usage.device)


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
