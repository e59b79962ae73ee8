"""Which faces are copies of which: exact and near ones, across splits, and with which labels."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.data.duplicates import same_pixels

FREQUENCIES = 8  # a side; of FER-2013's 579 million pairs, 1,217 then have to be compared pixel by pixel


_CHUNK = 4096  # images at a time


def fingerprints(images: NDArray[np.uint8]) -> Tensor:
    """float32 ``[N, 64]`` of uint8 ``[N, S, S]``; all zero for an image of one grey level: it correlates with nothing.

    The columns are the coefficients (vertical frequency x horizontal frequency, without the mean), then the norm of
    the rest.
    """
    side = min(FREQUENCIES, images.shape[-1])
    basis = cosines(images.shape[-1], side)
    parts = [_fingerprint(part, basis) for part in torch.split(torch.from_numpy(images), _CHUNK)]
    return torch.cat(parts) if parts else torch.empty(0, side * side)


def mirror_signs(columns: int) -> Tensor:
    """float32 ``[columns]``: what a fingerprint is multiplied by to be that of the image mirrored left to right."""
    side = math.isqrt(columns)
    signs = torch.tensor([1.0, -1.0])[torch.arange(columns) % side % 2]
    return torch.cat([signs[1:], torch.ones(1)])


def correlations(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pearson correlation of each image of uint8 ``[N, S, S]`` with that of the other at its place, float64 ``[N]``."""
    x, y = (images.reshape(len(images), -1).astype(np.float64) for images in (first, second))
    x -= x.mean(axis=1, keepdims=True)
    y -= y.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray((x * y).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny))


def cosines(size: int, count: int) -> Tensor:
    """float32 ``[count, size]``: the first rows of the orthonormal cosine transform (DCT-II)."""
    at = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    waves = torch.cos(math.pi * torch.arange(count, dtype=torch.float64)[:, None] * at) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves.float()


def _fingerprint(images: Tensor, basis: Tensor) -> Tensor:
    x = images.float()
    x -= x.mean(dim=(1, 2), keepdim=True)
    norm = x.flatten(1).norm(dim=1)
    low = (basis @ x @ basis.T).flatten(1)[:, 1:] / norm.clamp(min=1e-6)[:, None]
    rest = (1 - low.square().sum(dim=1)).clamp(min=0).sqrt()
    marks = torch.cat([low, rest[:, None]], dim=1)
    marks[norm == 0] = 0
    return marks


THRESHOLD = 0.99  # Pearson correlation above which two images are copies


MOST_PAIRS = 2_000_000  # found; a set of more is a video, and its list of pairs would fill the memory


_ROUNDING = 2e-4  # of inner products of float32 vectors of 64


_ROWS, _COLUMNS = 1024, 8192  # of a block


_CONFIRM = 4096  # pairs that are compared pixel by pixel at a time


Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs: ``first`` and ``second`` int64 ``[P]`` places, ``r`` their correlation, ``mirrored`` bool ``[P]``."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    r: NDArray[np.float64]
    mirrored: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.r)


def near_pairs(
    images: NDArray[np.uint8],
    others: NDArray[np.uint8] | None = None,
    *,
    threshold: float = THRESHOLD,
    progress: Progress = lambda *_: None,
) -> Pairs:
    """All pairs of ``images`` uint8 ``[N, S, S]`` with a correlation above ``threshold``, or with those of ``others``.

    A pair counts as mirrored where one correlates so with the mirror image of the other and not with the other itself.
    Within one set every pair comes once, the lower place first. Sorted by falling correlation. Images of one grey level
    are in no pair. Raises ``DataError`` for more than ``MOST_PAIRS`` pairs.
    """
    marks = fingerprints(images)
    theirs = marks if others is None else fingerprints(others)
    against = images if others is None else others
    found: list[Pairs] = []
    for mirrored, candidates in _candidates(marks, theirs, threshold, others is None, progress):
        found.append(_confirm(images, against, candidates, mirrored, threshold))
        if sum(map(len, found)) > MOST_PAIRS:
            raise DataError(
                f"more than {MOST_PAIRS:,} pairs correlate above {threshold}: frames of videos, it seems; "
                "keep one frame of each scene, or raise --near"
            )
    return _sorted(found)


def _candidates(
    marks: Tensor, theirs: Tensor, threshold: float, within: bool, progress: Progress
) -> Iterator[tuple[bool, NDArray[np.int64]]]:
    """Whether they are mirrored, and places int64 ``[K, 2]`` of pairs whose bound is above the threshold."""
    order, key = _sort(marks, by=_sorting_column(marks))
    order2, key2 = (order, key) if within else _sort(theirs, by=_sorting_column(marks))
    rows, columns, signs = marks[order], theirs[order2], mirror_signs(marks.shape[1])
    reach = math.sqrt(max(0.0, 2 - 2 * threshold)) + _ROUNDING
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        progress("comparing", min(start + _ROWS, len(rows)), len(rows))
        low = start if within else int(np.searchsorted(key2, key[start] - reach))
        high = int(np.searchsorted(key2, key[start + len(block) - 1] + reach, side="right"))
        for left in range(low, high, _COLUMNS):
            window = columns[left : min(left + _COLUMNS, high)]
            for mirrored, asked in ((False, block), (True, block * signs)):
                places = _above(asked @ window.T, threshold - _ROUNDING)
                places += np.array([start, left])
                if within:
                    places = places[places[:, 0] < places[:, 1]]
                if len(places):
                    yield mirrored, np.stack([order[places[:, 0]], order2[places[:, 1]]], axis=1)


def _above(bounds: Tensor, least: float) -> NDArray[np.int64]:
    if not bounds.numel() or float(bounds.max()) <= least:  # the usual case, at a fraction of the cost
        return np.empty((0, 2), np.int64)
    return (bounds > least).nonzero().numpy()


def _sorting_column(marks: Tensor) -> int:
    """The coefficient that spreads the images most, among those that a mirror leaves as they are."""
    spread = marks.var(dim=0, unbiased=False) if len(marks) else torch.zeros(marks.shape[1])
    spread[mirror_signs(marks.shape[1]) < 0] = -1
    spread[-1] = -1  # the rest is no coefficient, but would serve as well
    return int(spread.argmax())


def _sort(marks: Tensor, *, by: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    key = marks[:, by].numpy()
    order = np.argsort(key, kind="stable")
    return order, key[order]


def _confirm(
    images: NDArray[np.uint8],
    others: NDArray[np.uint8],
    places: NDArray[np.int64],
    mirrored: bool,
    threshold: float,
) -> Pairs:
    """The pairs at ``places`` that are above the threshold, compared pixel by pixel."""
    kept: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float64]] = []
    for part in np.array_split(places, range(_CONFIRM, len(places), _CONFIRM)):
        x, y = images[part[:, 0]], others[part[:, 1]]
        r = correlations(x, y[:, :, ::-1] if mirrored else y)
        above = r > threshold
        if mirrored:
            above &= correlations(x, y) <= threshold
        kept.append(np.sort(part[above], axis=1) if images is others else part[above])
        values.append(r[above])
    pairs = np.concatenate(kept)
    return Pairs(pairs[:, 0], pairs[:, 1], np.concatenate(values), np.full(len(pairs), mirrored))


def _sorted(found: list[Pairs]) -> Pairs:
    if not found:
        empty = np.empty(0, np.int64)
        return Pairs(empty, empty, np.empty(0), np.empty(0, np.bool_))
    first, second, r, mirrored = (
        np.concatenate([getattr(pairs, name) for pairs in found]) for name in ("first", "second", "r", "mirrored")
    )
    order = np.lexsort((second, first, -r))
    return Pairs(first[order], second[order], r[order], mirrored[order])


@dataclass(frozen=True, eq=False)
class Overlap:
    """The pairs of a face of the set (``place``) and one of ``other`` (``theirs``) that are copies, best first.

    ``r`` float64 ``[P]`` is 1 for exact copies; ``mirrored`` bool ``[P]``.
    """

    other: FaceSet
    place: NDArray[np.int64]
    theirs: NDArray[np.int64]
    r: NDArray[np.float64]
    exact: NDArray[np.bool_]
    mirrored: NDArray[np.bool_]


def overlap(
    faces: FaceSet, other: FaceSet, *, threshold: float = THRESHOLD, progress: Progress = lambda *_: None
) -> Overlap:
    """Compare every face of ``faces`` with every one of ``other``; images are of one size. Raises as ``near_pairs``."""
    mine, theirs = faces.images.numpy(), other.images.numpy()
    exact = _exact(mine, theirs)
    near = near_pairs(mine, theirs, threshold=threshold, progress=progress)
    same = (mine[near.first] == theirs[near.second]).reshape(len(near), mine[0].size).all(axis=1)
    near = Pairs(*(getattr(near, name)[~same] for name in ("first", "second", "r", "mirrored")))
    return Overlap(
        other,
        np.concatenate([exact[:, 0], near.first]),
        np.concatenate([exact[:, 1], near.second]),
        np.concatenate([np.ones(len(exact)), near.r]),
        np.arange(len(exact) + len(near)) < len(exact),
        np.concatenate([np.zeros(len(exact), np.bool_), near.mirrored]),
    )


def overlap_counts(found: Overlap, faces: FaceSet) -> list[dict[str, str | int]]:
    """For each split of the set and of the other: rows with an ``exact`` copy there, with a ``near`` or exact one.

    ``same_label`` counts the rows of an exact copy with the same emotion.
    """
    mine, theirs = faces.usage.numpy()[found.place], found.other.usage.numpy()[found.theirs]
    same = _same_emotion(found, faces)
    return [
        {
            "of": str(of),
            "into": str(into),
            "exact": _rows(found.place[here & found.exact]),
            "same_label": _rows(found.place[here & found.exact & same]),
            "near": _rows(found.place[here]),
        }
        for i, of in enumerate(Split)
        for j, into in enumerate(Split)
        if (here := (mine == i) & (theirs == j)).any()
    ]


def _rows(places: NDArray[np.int64]) -> int:
    return len(np.unique(places))


def _same_emotion(found: Overlap, faces: FaceSet) -> NDArray[np.bool_]:
    mine = faces.labels.numpy()[found.place]
    theirs = found.other.labels.numpy()[found.theirs]
    known = list(faces.emotions)
    to_mine = np.array([known.index(e) if e in known else -1 for e in found.other.emotions])
    return np.asarray(mine == to_mine[theirs])


def _exact(mine: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 ``[P, 2]``: all pairs of equal images. Those of one hash are compared pixel by pixel."""
    known: dict[int, list[int]] = {}
    for place, image in enumerate(mine):
        known.setdefault(hash(image.tobytes()), []).append(place)
    pairs = [
        (place, their)
        for their, image in enumerate(theirs)
        for place in known.get(hash(image.tobytes()), ())
        if np.array_equal(mine[place], image)
    ]
    return np.array(pairs, np.int64).reshape(-1, 2)


@dataclass(frozen=True, eq=False)
class Copies:
    """The copies among N faces, all told in places (not rows) of the set.

    - ``first``: int64 ``[N]``, for every face the first with its exact pixels
    - ``groups``: the places of each image that occurs more than once
    - ``near``: pairs of different images that are nearly equal (or mirrored), of their first places
    - ``exact_in``: bool ``[N, 3]``, whether the face's image stands in each split; ``near_in``: it or a near copy of it
    """

    first: NDArray[np.int64]
    groups: list[NDArray[np.int64]]
    near: Pairs
    exact_in: NDArray[np.bool_]
    near_in: NDArray[np.bool_]


@dataclass(frozen=True)
class Leak:
    """How many rows of split ``of`` have a copy in split ``into``: ``exact``, of these ``same_label``, ``near`` in all.

    ``near`` counts exact copies as well.
    """

    of: Split
    into: Split
    exact: int
    same_label: int
    near: int


def find_copies(faces: FaceSet, *, threshold: float = THRESHOLD, progress: Progress = lambda *_: None) -> Copies:
    """Compare every face with every other. Raises ``DataError`` as ``near_pairs`` does."""
    first = same_pixels(faces)
    distinct = np.unique(first)
    pairs = near_pairs(faces.images.numpy()[distinct], threshold=threshold, progress=progress)
    near = Pairs(distinct[pairs.first], distinct[pairs.second], pairs.r, pairs.mirrored)
    exact_in = _splits_of(first, faces.usage.numpy())
    near_in = exact_in.copy()
    np.logical_or.at(near_in, near.first, exact_in[near.second])
    np.logical_or.at(near_in, near.second, exact_in[near.first])
    return Copies(first, _groups(first), near, exact_in[first], near_in[first])


def extra_by_split(copies: Copies, faces: FaceSet) -> dict[str, int]:
    """Rows that repeat an earlier row of their own split."""
    usage = faces.usage.numpy()
    counts = {}
    for index, split in enumerate(Split):
        rows = copies.first[usage == index]
        counts[str(split)] = len(rows) - len(np.unique(rows))
    return counts


def leaks(copies: Copies, faces: FaceSet) -> list[Leak]:
    """One for every ordered pair of different splits that both have faces."""
    usage, labels = faces.usage.numpy(), faces.labels.numpy()
    there = [index for index in range(len(Split)) if (usage == index).any()]
    pairs = [(of, into) for of in there for into in there if of != into]
    return [_leak(copies, usage, labels, of, into) for of, into in pairs]


def contradicting(copies: Copies, faces: FaceSet) -> list[NDArray[np.int64]]:
    """The groups of exact copies that carry more than one label."""
    labels = faces.labels.numpy()
    return [group for group in copies.groups if len(np.unique(labels[group])) > 1]


def within_one_split(
    groups: list[NDArray[np.int64]], faces: FaceSet, *, aside: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """The faces of ``groups`` that stand in one split, where those alone carry more than one label already.

    ``aside`` are places that do not count: blanks, whose label means nothing.
    """
    usage, labels = faces.usage.numpy(), faces.labels.numpy()
    seen = [group[~np.isin(group, aside)] for group in groups]
    parts = [group[usage[group] == index] for group in seen for index in range(len(Split))]
    return [part for part in parts if len(np.unique(labels[part])) > 1]


def _groups(first: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    order = np.argsort(first, kind="stable")
    _, starts = np.unique(first[order], return_index=True)
    return [group for group in np.split(order, starts[1:]) if len(group) > 1]


def _splits_of(first: NDArray[np.int64], usage: NDArray[np.int64]) -> NDArray[np.bool_]:
    """bool ``[N, 3]``, at the place of every first copy: the splits in which its image stands."""
    stands = np.zeros((len(first), len(Split)), np.bool_)
    stands[first, usage] = True
    return stands


def _leak(copies: Copies, usage: NDArray[np.int64], labels: NDArray[np.int64], of: int, into: int) -> Leak:
    asked = np.flatnonzero(usage == of)
    source = np.flatnonzero(usage == into)
    labelled = {(int(first), int(label)) for first, label in zip(copies.first[source], labels[source], strict=True)}
    same = sum((int(copies.first[place]), int(labels[place])) in labelled for place in asked)
    splits = tuple(Split)
    exact, near = (int(stands[asked, into].sum()) for stands in (copies.exact_in, copies.near_in))
    return Leak(splits[of], splits[into], exact, same, near)
