"""Pairs of images that are nearly equal, or nearly mirror images: all of them, found without comparing all pixels.

Fingerprints are sorted by one coefficient. Two unit vectors whose inner product is above t lie within sqrt(2 - 2 t) of
each other, and so do their coefficients: each block is multiplied with its window alone, on FER-2013 an eighth of all
pairs. What passes is compared pixel by pixel.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mien._errors import DataError
from mien.lab.audit.fingerprint import correlations, fingerprints, mirror_signs

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
