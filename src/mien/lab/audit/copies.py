"""Which faces are copies of which: exact and near ones, across splits, and with which labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien.lab.audit.near import THRESHOLD, Pairs, Progress, near_pairs
from mien.lab.data import FaceSet, Split
from mien.lab.data.copies import same_pixels


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
