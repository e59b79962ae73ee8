"""Two models on the same faces: is the difference more than noise?

A face that is hard for one model is mostly hard for the other, so that intervals of each alone overlap long before the
difference is noise. Both tests look at the pairs instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from mien._errors import DataError

_Ints = NDArray[np.integer[Any]]

# Bytes of the weights of one piece of draws.
_PIECE = 32 * 2**20


@dataclass(frozen=True, slots=True)
class McNemar:
    """How many faces the first model alone reads rightly, how many the second alone, and the two-sided ``p``."""

    first_alone: int
    second_alone: int
    p: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of the first model less that of the second, its 95 % interval and two-sided ``p``."""

    value: float
    interval: tuple[float, float]
    p: float


def percentile_interval(draws: Any) -> tuple[float, float]:
    """Return the 95 % percentile interval of bootstrap draws (Efron, 1979).

    Args:
        draws: Values of a statistic, ``[R]``.

    Returns:
        Lower and upper edge.
    """
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> McNemar:
    """McNemar's test (1947) of two columns of right answers, bool ``[N]``, in its exact form for any N.

    Were both models equally good, each would win half of the faces that only one of them reads rightly. Raises
    ``DataError`` for columns of other lengths.
    """
    if first_right.shape != second_right.shape:
        raise DataError(f"paired tests need the same faces, not {len(first_right)} and {len(second_right)}")
    first, second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    if first + second == 0:
        return McNemar(0, 0, 1.0)
    return McNemar(first, second, float(binomtest(first, first + second, 0.5).pvalue))


def accuracy_difference(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> Difference:
    """Accuracy of the first less the second, Wald interval of paired shares (Agresti, 2013, 11.1), p of ``mcnemar``."""
    test, n = mcnemar(first_right, second_right), len(first_right)
    value = (test.first_alone - test.second_alone) / n
    spread = 1.959964 * np.sqrt(max(test.first_alone + test.second_alone - n * value**2, 0.0)) / n
    return Difference(value, (float(value - spread), float(value + spread)), test.p)


def f1_differences(
    labels: _Ints, guesses: NDArray[np.int64], classes: int, *, resamples: int = 10_000, seed: int = 0
) -> dict[tuple[int, int], Difference]:
    """Macro F1 of every pair of M models, by their places: ``labels`` ``[N]``, ``guesses`` ``[M, N]``.

    A paired bootstrap (Efron and Tibshirani, 1993): every draw of the rows serves all models. ``p`` is twice the share
    of draws on the other side of 0, and never below ``2 / (resamples + 1)``.
    """
    drawn = f1_draws(labels, guesses, classes, resamples=resamples, seed=seed)
    point = f1_draws(labels, guesses, classes, weights=np.ones((1, len(labels)), np.float32))[:, 0]
    pairs = [(a, b) for a in range(len(guesses)) for b in range(a + 1, len(guesses))]
    return {(a, b): difference(float(point[a] - point[b]), drawn[a] - drawn[b]) for a, b in pairs}


def difference(value: float, draws: NDArray[np.float64]) -> Difference:
    """``value`` with the 95 % percentile interval of its bootstrap ``draws``, and its two-sided p."""
    below, above = int((draws <= 0).sum()), int((draws >= 0).sum())
    return Difference(value, percentile_interval(draws), min(1.0, 2 * (min(below, above) + 1) / (len(draws) + 1)))


def f1_draws(
    labels: _Ints,
    guesses: NDArray[np.int64],
    classes: int,
    *,
    weights: NDArray[np.float32] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Macro F1 ``[M, R]`` of M models under each of R draws; ``weights`` ``[R, N]``: how often each row is drawn.

    Classes without a drawn face do not count.
    """
    if guesses.ndim != 2 or guesses.shape[1] != len(labels) or not len(labels):
        raise DataError(f"paired tests need the same faces: {len(labels)} labels, guesses {list(guesses.shape)}")
    pieces = [weights] if weights is not None else row_draws(len(labels), resamples=resamples, seed=seed)
    return np.concatenate([_f1_of(piece, labels, guesses, classes) for piece in pieces], axis=1)


def row_draws(rows: int, *, resamples: int, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """Bootstrap draws of ``rows`` rows as counts, float32 ``[<= R, rows]``, in pieces of bounded memory."""
    generator, left = np.random.default_rng(seed), resamples
    while left > 0:
        count = min(left, max(1, _PIECE // (4 * rows)))
        chosen = (np.bincount(generator.integers(0, rows, rows), minlength=rows) for _ in range(count))
        yield np.stack(list(chosen)).astype(np.float32)
        left -= count


def holm(p_values: Sequence[float]) -> list[float]:
    """``p_values`` corrected for their number (Holm, 1979): of all, one alarm in twenty reports is false at 0.05."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def _f1_of(
    weights: NDArray[np.float32], labels: _Ints, guesses: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    truth = one_hot(labels, classes)
    support = weights @ truth
    found = []
    for guess in guesses:
        told = one_hot(guess, classes)
        right, claimed = weights @ (told * truth), weights @ told
        present = support > 0
        f1 = np.where(present, 2 * right / np.maximum(support + claimed, 1), 0)
        found.append(f1.sum(1, dtype=np.float64) / np.maximum(present.sum(1), 1))
    return np.stack(found)


def one_hot(places: _Ints, classes: int) -> NDArray[np.float32]:
    """``places`` ``[N]`` as float32 ``[N, classes]``; a place below 0 is a row of zeros."""
    return np.asarray(places[:, None] == np.arange(classes), np.float32)
