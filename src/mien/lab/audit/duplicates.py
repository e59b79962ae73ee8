"""Exact and near duplicates: within a data set, across its splits, and between two data sets.

Exact duplicates have equal pixels. Near duplicates are different images with a Pearson correlation above a threshold.
The search is complete: the inner product of two fingerprints is never below the correlation of the images
(Cauchy-Schwarz), so that only pairs above the threshold in that bound are compared pixel by pixel.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, permutations, product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mien._errors import DataError
from mien._progress import Progress, no_progress
from mien.lab.data import FaceSet, Split
from mien.lab.data.duplicates import same_pixels

Images = NDArray[np.uint8]
Indices = NDArray[np.int64]

NEAR_DUPLICATE = 0.99  # Pearson correlation above which two images are duplicates
MAX_PAIRS = 2_000_000  # more pairs mean frames of a video, and their list would fill the memory

_FREQUENCIES = 8  # per side; of FER-2013's 579 million pairs, 1,217 then have to be compared pixel by pixel
_CHUNK = 4096  # images fingerprinted, or pairs compared pixel by pixel, at a time
_ROUNDING = 2e-4  # error of inner products of float32 vectors of 64
_ROWS, _COLUMNS = 1024, 8192  # of a block of fingerprints that are compared at a time


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs of near duplicates.

    Attributes:
        first: Indices of the first images, int64 ``[P]``.
        second: Indices of the second images, int64 ``[P]``.
        r: Pearson correlation of each pair, float64 ``[P]``.
        mirrored: Whether one image resembles the mirror image of the other, bool ``[P]``.
    """

    first: Indices
    second: Indices
    r: NDArray[np.float64]
    mirrored: NDArray[np.bool_]

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.r)


@dataclass(frozen=True, eq=False)
class Duplicates:
    """The duplicates among N faces, as indices (not rows) of the set.

    Attributes:
        first: For each face the first face with the same pixels, int64 ``[N]``.
        groups: The indices of each image that occurs more than once.
        near: Pairs of near duplicates among different images, as the first indices of these images.
        exact_in: Whether the image of each face occurs in each split, bool ``[N, 3]``.
        near_in: The same for the image or a near duplicate of it, bool ``[N, 3]``.
    """

    first: Indices
    groups: list[Indices]
    near: Pairs
    exact_in: NDArray[np.bool_]
    near_in: NDArray[np.bool_]


@dataclass(frozen=True)
class Leak:
    """Duplicates of one split in another split, of the same set or of another one.

    Attributes:
        of: Split whose rows are counted.
        into: Split that holds the duplicates.
        exact: Number of rows with an exact duplicate there.
        same_label: How many of these have an exact duplicate with the same label.
        near: Number of rows with an exact or near duplicate there.
    """

    of: Split
    into: Split
    exact: int
    same_label: int
    near: int


@dataclass(frozen=True, eq=False)
class Overlap:
    """The P pairs of a face of a set and a duplicate of it in another set: exact ones first, then by correlation.

    Attributes:
        other: The other set.
        index: Indices in the set, int64 ``[P]``.
        other_index: Indices in the other set, int64 ``[P]``.
        r: Pearson correlation, float64 ``[P]``; 1 for exact duplicates.
        exact: Whether the pixels are equal, bool ``[P]``.
        mirrored: Whether one is the mirror image of the other, bool ``[P]``.
        leaks: Counts by split of the set and split of the other set.
    """

    other: FaceSet
    index: Indices
    other_index: Indices
    r: NDArray[np.float64]
    exact: NDArray[np.bool_]
    mirrored: NDArray[np.bool_]
    leaks: tuple[Leak, ...]

    @property
    def name(self) -> str:
        """The last name of the other set's path."""
        return self.other.source.rpartition("/")[2]


def find_duplicates(
    faces: FaceSet, *, threshold: float = NEAR_DUPLICATE, progress: Progress = no_progress
) -> Duplicates:
    """Compare each face with every other.

    Args:
        faces: The set, all its splits.
        threshold: Pearson correlation above which two images are near duplicates, below 1.
        progress: Called with the number of images that are compared.

    Returns:
        All duplicates.

    Raises:
        DataError: There are more than ``MAX_PAIRS`` pairs of near duplicates.
    """
    first = same_pixels(faces)
    distinct = np.unique(first)
    pairs = near_pairs(faces.images.numpy()[distinct], threshold=threshold, progress=progress)
    near = Pairs(distinct[pairs.first], distinct[pairs.second], pairs.r, pairs.mirrored)
    exact_in = np.zeros((len(first), len(Split)), np.bool_)
    exact_in[first, faces.usage.numpy()] = True
    near_in = exact_in.copy()
    np.logical_or.at(near_in, near.first, exact_in[near.second])
    np.logical_or.at(near_in, near.second, exact_in[near.first])
    order = np.argsort(first, kind="stable")
    _, starts = np.unique(first[order], return_index=True)
    groups = [group for group in np.split(order, starts[1:]) if len(group) > 1]
    return Duplicates(first, groups, near, exact_in[first], near_in[first])


def leaks(duplicates: Duplicates, faces: FaceSet) -> list[Leak]:
    """Count the duplicates between the splits of a set.

    Args:
        duplicates: The duplicates of ``faces``.
        faces: The set.

    Returns:
        One entry for each ordered pair of different splits that both have faces.
    """
    usage, labels, first = faces.usage.numpy(), faces.labels.numpy(), duplicates.first
    labelled = first * len(faces.emotions) + labels  # equal for equal images with equal labels
    present = [index for index in range(len(Split)) if (usage == index).any()]
    found = []
    for of, into in permutations(present, 2):
        rows = usage == of
        same = np.isin(labelled[rows], labelled[usage == into]).sum()
        exact, near = duplicates.exact_in[rows, into].sum(), duplicates.near_in[rows, into].sum()
        found.append(Leak(tuple(Split)[of], tuple(Split)[into], int(exact), int(same), int(near)))
    return found


def leaked_into_splits(mask: NDArray[np.bool_], faces: FaceSet) -> NDArray[np.bool_]:
    """Return which Training rows have a duplicate in a test split.

    Args:
        mask: ``exact_in`` or ``near_in`` of ``Duplicates``, bool ``[N, 3]``.
        faces: The set.

    Returns:
        bool ``[N]``.
    """
    return np.asarray((faces.usage.numpy() == 0) & mask[:, 1:].any(axis=1))


def contradicting(duplicates: Duplicates, faces: FaceSet) -> list[Indices]:
    """Return the groups of exact duplicates that carry more than one label.

    Args:
        duplicates: The duplicates of ``faces``.
        faces: The set.

    Returns:
        The indices of each group.
    """
    labels = faces.labels.numpy()
    return [group for group in duplicates.groups if len(np.unique(labels[group])) > 1]


def within_one_split(groups: list[Indices], faces: FaceSet, *, ignore: Indices) -> list[Indices]:
    """Return the parts of groups that contradict each other within one split.

    Args:
        groups: Groups of exact duplicates.
        faces: The set.
        ignore: Indices that do not count: blank images, whose label means nothing.

    Returns:
        The indices of each such part.
    """
    usage, labels = faces.usage.numpy(), faces.labels.numpy()
    counted = [group[~np.isin(group, ignore)] for group in groups]
    parts = [group[usage[group] == index] for group in counted for index in range(len(Split))]
    return [part for part in parts if len(np.unique(labels[part])) > 1]


def find_overlap(
    faces: FaceSet, other: FaceSet, *, threshold: float = NEAR_DUPLICATE, progress: Progress = no_progress
) -> Overlap:
    """Compare each face of a set with each face of another one.

    Args:
        faces: The set.
        other: The other set, with images of the same size.
        threshold: Pearson correlation above which two images are near duplicates, below 1.
        progress: Called with the number of images that are compared.

    Returns:
        All pairs of duplicates.

    Raises:
        DataError: There are more than ``MAX_PAIRS`` pairs of equal images or of near duplicates.
    """
    mine, theirs = faces.images.numpy(), other.images.numpy()
    exact = _equal_images(mine, theirs)
    near = near_pairs(mine, theirs, threshold=threshold, progress=progress)
    different = (mine[near.first] != theirs[near.second]).reshape(len(near), mine[0].size).any(axis=1)
    index = np.concatenate([exact[:, 0], near.first[different]])
    other_index = np.concatenate([exact[:, 1], near.second[different]])
    is_exact = np.arange(len(index)) < len(exact)
    usage, other_usage = faces.usage.numpy()[index], other.usage.numpy()[other_index]
    to_mine = np.array([faces.emotions.index(e) if e in faces.emotions else -1 for e in other.emotions])
    same_label = faces.labels.numpy()[index] == to_mine[other.labels.numpy()[other_index]]
    found = []
    for (i, of), (j, into) in product(enumerate(Split), repeat=2):
        here = (usage == i) & (other_usage == j)
        if here.any():
            masks = (here & is_exact, here & is_exact & same_label, here)
            found.append(Leak(of, into, *(len(np.unique(index[mask])) for mask in masks)))
    return Overlap(
        other,
        index,
        other_index,
        np.concatenate([np.ones(len(exact)), near.r[different]]),
        is_exact,
        np.concatenate([np.zeros(len(exact), np.bool_), near.mirrored[different]]),
        tuple(found),
    )


def near_pairs(
    images: Images, others: Images | None = None, *, threshold: float = NEAR_DUPLICATE, progress: Progress = no_progress
) -> Pairs:
    """Find all pairs of images with a correlation above a threshold.

    A pair counts as mirrored where one image correlates so with the mirror image of the other, and not with the other
    itself. Images of one grey level are in no pair.

    Args:
        images: uint8 ``[N, S, S]``.
        others: uint8 ``[M, S, S]`` to find pairs with; ``None`` for pairs within ``images``, each once, with the lower
            index first.
        threshold: Pearson correlation, below 1.
        progress: Called with the number of images that are compared.

    Returns:
        The pairs, sorted by falling correlation.

    Raises:
        DataError: There are more than ``MAX_PAIRS`` pairs.
    """
    marks = fingerprints(images)
    other_marks = marks if others is None else fingerprints(others)
    against = images if others is None else others
    empty = np.empty(0, np.int64)
    found = [Pairs(empty, empty, np.empty(0), np.empty(0, np.bool_))]
    for mirrored, candidates in _candidates(marks, other_marks, threshold, others is None, progress):
        found.append(_confirm(images, against, candidates, mirrored, threshold))
        if sum(map(len, found)) > MAX_PAIRS:
            raise DataError(
                f"more than {MAX_PAIRS:,} pairs correlate above {threshold}; these seem to be frames of videos: "
                "keep one frame of each scene, or raise the threshold of near duplicates"
            )
    first, second, r, mirrored_pairs = (
        np.concatenate([getattr(pairs, name) for pairs in found]) for name in ("first", "second", "r", "mirrored")
    )
    order = np.lexsort((second, first, -r))
    return Pairs(first[order], second[order], r[order], mirrored_pairs[order])


def fingerprints(images: Images) -> Tensor:
    """Return vectors whose inner products are upper bounds of the correlations of images.

    Args:
        images: uint8 ``[N, S, S]``.

    Returns:
        float32 ``[N, 64]`` (fewer columns for images below 8 pixels): the lowest coefficients of the cosine transform
        of the normalised image (vertical x horizontal frequency, without the mean), then the norm of the rest. All
        zero for an image of one grey level, which correlates with nothing.
    """
    size, side = images.shape[-1], min(_FREQUENCIES, images.shape[-1])
    at = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    waves = torch.cos(math.pi * torch.arange(side, dtype=torch.float64)[:, None] * at) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    basis = waves.float()  # the first rows of the orthonormal cosine transform (DCT-II)
    parts = [torch.empty(0, side * side)]
    for part in torch.split(torch.from_numpy(images), _CHUNK):
        x = part.float()
        x -= x.mean(dim=(1, 2), keepdim=True)
        norm = x.flatten(1).norm(dim=1)
        low = (basis @ x @ basis.T).flatten(1)[:, 1:] / norm.clamp(min=1e-6)[:, None]
        rest = (1 - low.square().sum(dim=1)).clamp(min=0).sqrt()
        marks = torch.cat([low, rest[:, None]], dim=1)
        marks[norm == 0] = 0
        parts.append(marks)
    return torch.cat(parts)


def mirror_signs(columns: int) -> Tensor:
    """Return the factors that turn a fingerprint into that of the image mirrored left to right.

    Args:
        columns: Columns of the fingerprint.

    Returns:
        float32 ``[columns]`` of 1 and -1.
    """
    side = math.isqrt(columns)
    signs = torch.tensor([1.0, -1.0])[torch.arange(columns) % side % 2]
    return torch.cat([signs[1:], torch.ones(1)])


def correlations(first: Images, second: Images) -> NDArray[np.float64]:
    """Return the Pearson correlation of the images at equal indices.

    Args:
        first: uint8 ``[N, S, S]``.
        second: uint8 ``[N, S, S]``.

    Returns:
        float64 ``[N]`` from -1 to 1; 0 for images of one grey level.
    """
    x, y = (images.reshape(len(images), -1).astype(np.float64) for images in (first, second))
    x -= x.mean(axis=1, keepdims=True)
    y -= y.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray((x * y).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny))


def _candidates(
    marks: Tensor, others: Tensor, threshold: float, within: bool, progress: Progress
) -> Iterator[tuple[bool, Indices]]:
    """Whether they are mirrored, and the indices int64 ``[K, 2]`` of pairs whose bound is above the threshold.

    Both sets are sorted by one coefficient: images that differ in it by more than ``reach`` are not compared. It is the
    coefficient with the largest variance, among those that mirroring leaves unchanged.
    """
    signs = mirror_signs(marks.shape[1])
    spread = marks.var(dim=0, unbiased=False) if len(marks) else torch.zeros(marks.shape[1])
    spread[signs < 0] = -1
    spread[-1] = -1  # the norm of the rest is no coefficient
    column = int(spread.argmax())
    order, key = _sort(marks, by=column)
    order2, key2 = (order, key) if within else _sort(others, by=column)
    rows, columns = marks[order], others[order2]
    reach = math.sqrt(max(0.0, 2 - 2 * threshold)) + _ROUNDING
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        progress("comparing", min(start + _ROWS, len(rows)), len(rows))
        low = start if within else int(np.searchsorted(key2, key[start] - reach))
        high = int(np.searchsorted(key2, key[start + len(block) - 1] + reach, side="right"))
        for left in range(low, high, _COLUMNS):
            window = columns[left : min(left + _COLUMNS, high)]
            for mirrored, query in ((False, block), (True, block * signs)):
                bounds = query @ window.T
                if float(bounds.max()) <= threshold - _ROUNDING:  # the usual case, at a fraction of the cost
                    continue
                pairs = (bounds > threshold - _ROUNDING).nonzero().numpy() + np.array([start, left])
                if within:
                    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
                if len(pairs):
                    yield mirrored, np.stack([order[pairs[:, 0]], order2[pairs[:, 1]]], axis=1)


def _sort(marks: Tensor, *, by: int) -> tuple[Indices, NDArray[np.float32]]:
    key = marks[:, by].numpy()
    order = np.argsort(key, kind="stable")
    return order, key[order]


def _confirm(images: Images, others: Images, indices: Indices, mirrored: bool, threshold: float) -> Pairs:
    """The pairs at ``indices`` that are above the threshold, compared pixel by pixel."""
    confirmed: list[Indices] = []
    values: list[NDArray[np.float64]] = []
    for part in np.array_split(indices, range(_CHUNK, len(indices), _CHUNK)):
        x, y = images[part[:, 0]], others[part[:, 1]]
        r = correlations(x, y[:, :, ::-1] if mirrored else y)
        above = r > threshold
        if mirrored:
            above &= correlations(x, y) <= threshold
        confirmed.append(np.sort(part[above], axis=1) if images is others else part[above])
        values.append(r[above])
    pairs = np.concatenate(confirmed)
    return Pairs(pairs[:, 0], pairs[:, 1], np.concatenate(values), np.full(len(pairs), mirrored))


def _equal_images(mine: Images, theirs: Images) -> Indices:
    """All pairs of equal images, int64 ``[P, 2]``. Images with equal hashes are compared pixel by pixel."""
    known: dict[int, list[int]] = {}
    for index, image in enumerate(mine):
        known.setdefault(hash(image.tobytes()), []).append(index)
    equal = (
        (index, other)
        for other, image in enumerate(theirs)
        for index in known.get(hash(image.tobytes()), ())
        if np.array_equal(mine[index], image)
    )
    pairs = list(islice(equal, MAX_PAIRS + 1))
    if len(pairs) > MAX_PAIRS:
        raise DataError(f"more than {MAX_PAIRS:,} pairs of equal images; keep one of those that repeat in a set")
    return np.array(pairs, np.int64).reshape(-1, 2)
