"""Paired tests of models on the same faces: McNemar's test, paired bootstrap, and Holm's correction.

A face that is hard for one model is usually hard for the others. Separate intervals therefore overlap even where the
models differ significantly; paired tests compare the models face by face.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from mien._errors import DataError

Z = 1.959964  # of a 95 % interval
_Ints = NDArray[np.integer[Any]]
_Doubles = NDArray[np.float64]
_DRAW_BYTES = 32 * 2**20  # weights of the bootstrap draws that are in memory at once


@dataclass(frozen=True, slots=True)
class McNemar:
    """Result of McNemar's test.

    Attributes:
        first_alone: Number of faces that only the first model predicts correctly.
        second_alone: Number of faces that only the second model predicts correctly.
        p: Two-sided p-value.
    """

    first_alone: int
    second_alone: int
    p: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of a metric between two models.

    Attributes:
        value: Metric of the first model minus that of the second.
        interval: 95 % interval.
        p: Two-sided p-value.
    """

    value: float
    interval: tuple[float, float]
    p: float


def percentile_interval(draws: NDArray[Any] | Sequence[float]) -> tuple[float, float]:
    """Compute the 95 % percentile interval of bootstrap draws (Efron, 1979).

    Args:
        draws: Values of a statistic, ``[R]``.

    Returns:
        Lower and upper edge.

    Example:
        >>> percentile_interval([0.0, 1.0, 2.0])
        (0.05, 1.95)
    """
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def wilson_interval(correct: Any, total: Any) -> tuple[_Doubles, _Doubles]:
    """Compute Wilson's 95 % interval of shares (Wilson, 1927).

    Args:
        correct: Numbers of successes.
        total: Numbers of trials, of the same shape.

    Returns:
        Lower and upper edges; 0 and 1 without trials.

    Example:
        >>> [round(float(edge), 3) for edge in wilson_interval(8, 10)]
        [0.49, 0.943]
    """
    correct, total = np.asarray(correct, np.float64), np.asarray(total, np.float64)
    n = np.maximum(total, 1)
    middle = (correct + Z**2 / 2) / (n + Z**2)
    half = Z / (n + Z**2) * np.sqrt(correct * (1 - correct / n) + Z**2 / 4)
    low = np.where(correct > 0, middle - half, 0)  # exactly 0 and 1 where rounding would miss them
    high = np.where(correct < total, middle + half, 1)
    return np.where(total > 0, low, 0), np.where(total > 0, high, 1)


def mean_interval(
    shares: _Doubles, weights: _Doubles, correlations: _Doubles | None = None, *, counted: float = np.inf
) -> list[float]:
    """Combine 95 % intervals of shares into that of their weighted mean (Zou and Donner, Statistics in Medicine, 2008).

    Args:
        shares: Values, lower and upper edges of K shares, ``[3, K]``.
        weights: Weights of the mean, which sum to 1.
        correlations: Correlations of the estimates, ``[K, K]``; ``None`` if they are independent.
        counted: Number of faces in which the weights were counted, whose error widens the interval; infinite for
            weights that are known.

    Returns:
        Lower and upper edge, from 0 to 1.
    """
    values, low, high = shares
    related = np.eye(len(values)) if correlations is None else correlations
    mean, below, above = float(np.average(values, weights=weights)), weights * (values - low), weights * (high - values)
    of_weights = Z**2 * float(weights @ (values - mean) ** 2) / counted  # multinomial
    return [
        max(mean - float(np.sqrt(max(below @ related @ below, 0) + of_weights)), 0.0),
        min(mean + float(np.sqrt(max(above @ related @ above, 0) + of_weights)), 1.0),
    ]


def mcnemar(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> McNemar:
    """Compute McNemar's test (1947) in its exact form.

    If both models are equally good, each wins half of the faces that only one of them predicts correctly.

    Args:
        first_right: Whether the first model predicts each face correctly, bool ``[N]``.
        second_right: The same for the second model, bool ``[N]``.

    Returns:
        The counts and the p-value.

    Raises:
        DataError: If the lengths differ.

    Example:
        >>> mcnemar(np.array([True, True, False]), np.array([True, False, False]))
        McNemar(first_alone=1, second_alone=0, p=1.0)
    """
    if first_right.shape != second_right.shape:
        raise DataError(f"paired tests need the same faces, not {len(first_right)} and {len(second_right)}")
    first, second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    p = float(binomtest(first, first + second, 0.5).pvalue) if first + second else 1.0
    return McNemar(first, second, p)


def accuracy_difference(first_right: NDArray[np.bool_], second_right: NDArray[np.bool_]) -> Difference:
    """Compute the difference of two accuracies with the Wald interval of paired shares (Agresti, 2013, 11.1).

    That interval has no width where both models are right on the same faces. So to either side it is at least as wide
    as what N faces without such a case cannot exclude (Wilson).

    Args:
        first_right: Whether the first model predicts each face correctly, bool ``[N]``.
        second_right: The same for the second model, bool ``[N]``.

    Returns:
        The difference; its p-value is that of ``mcnemar``.

    Raises:
        DataError: If the lengths differ.
    """
    test, n = mcnemar(first_right, second_right), len(first_right)
    value = (test.first_alone - test.second_alone) / n
    spread = Z * np.sqrt(max(test.first_alone + test.second_alone - n * value**2, 0.0)) / n
    spread = max(float(spread), float(wilson_interval(0, n)[1]))
    return Difference(value, (max(value - spread, -1.0), min(value + spread, 1.0)), test.p)


def f1_differences(
    labels: _Ints, guesses: NDArray[np.int64], classes: int, *, resamples: int = 10_000, seed: int = 0
) -> dict[tuple[int, int], Difference]:
    """Compute the difference in macro F1 of every pair of models by a paired bootstrap (Efron and Tibshirani, 1993).

    Every draw of the rows is used for all models.

    Args:
        labels: True classes, ``[N]``.
        guesses: Predicted classes of M models, ``[M, N]``.
        classes: Number of classes.
        resamples: Number of draws.
        seed: Seed of the draws.

    Returns:
        Indices of two models -> their difference. The p-value is twice the share of draws on the other side of 0, and
        at least ``2 / (resamples + 1)``.

    Raises:
        DataError: If there are no labels, or their number differs from that of the guesses.
    """
    drawn = f1_draws(labels, guesses, classes, resamples=resamples, seed=seed)
    point = f1_draws(labels, guesses, classes, weights=np.ones((1, len(labels)), np.float32))[:, 0]
    pairs = [(a, b) for a in range(len(guesses)) for b in range(a + 1, len(guesses))]
    return {(a, b): difference(float(point[a] - point[b]), drawn[a] - drawn[b]) for a, b in pairs}


def difference(value: float, draws: NDArray[np.float64]) -> Difference:
    """Add the 95 % percentile interval and the two-sided p-value of bootstrap draws to a difference.

    Args:
        value: The difference on all rows.
        draws: The difference in each draw, ``[R]``.

    Returns:
        The difference.
    """
    fewer = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return Difference(value, percentile_interval(draws), min(1.0, 2 * (fewer + 1) / (len(draws) + 1)))


def f1_draws(
    labels: _Ints,
    guesses: NDArray[np.int64],
    classes: int,
    *,
    weights: NDArray[np.float32] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Compute the macro F1 of several models under bootstrap draws of the rows.

    Args:
        labels: True classes, ``[N]``.
        guesses: Predicted classes of M models, ``[M, N]``.
        classes: Number of classes. Classes without a drawn face do not count in the mean.
        weights: How often each of R draws has each row, float32 ``[R, N]``; ``None`` draws them.
        resamples: Number of draws R, without ``weights``.
        seed: Seed of the draws, without ``weights``.

    Returns:
        ``[M, R]``.

    Raises:
        DataError: If there are no labels, or their number differs from that of the guesses.
    """
    if guesses.ndim != 2 or guesses.shape[1] != len(labels) or not len(labels):
        raise DataError(f"paired tests need the same faces: {len(labels)} labels, guesses {list(guesses.shape)}")
    truth, pieces = one_hot(labels, classes), []
    predicted = [one_hot(guess, classes) for guess in guesses]
    columns = np.concatenate([part for each in predicted for part in (each * truth, each)], axis=1)
    for piece in [weights] if weights is not None else row_draws(len(labels), resamples=resamples, seed=seed):
        support = piece @ truth
        present = support > 0
        counts = (piece @ columns).reshape(len(piece), len(guesses), 2, classes)  # exact: whole numbers
        scores = []
        for model in range(len(guesses)):
            right, claimed = counts[:, model, 0], counts[:, model, 1]
            f1 = np.where(present, 2 * right / np.maximum(support + claimed, 1), 0)
            scores.append(f1.sum(1, dtype=np.float64) / np.maximum(present.sum(1), 1))
        pieces.append(np.stack(scores))
    return np.concatenate(pieces, axis=1)


def row_draws(rows: int, *, resamples: int, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """Draw rows with replacement, in pieces of bounded memory.

    Args:
        rows: Number of rows.
        resamples: Number of draws R.
        seed: Seed of the draws.

    Returns:
        How often each draw has each row, float32 ``[<= R, rows]``, until all R draws are made.
    """
    generator, left = np.random.default_rng(seed), resamples
    while left > 0:
        count = min(left, max(1, _DRAW_BYTES // (4 * rows)))
        chosen = (np.bincount(generator.integers(0, rows, rows), minlength=rows) for _ in range(count))
        yield np.stack(list(chosen)).astype(np.float32)
        left -= count


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for the number of tests (Holm, 1979), which bounds the chance of any false positive.

    Args:
        p_values: The p-values, from 0 to 1.

    Returns:
        The corrected p-values, in the same order.

    Example:
        >>> holm([0.01, 0.04])
        [0.02, 0.04]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def one_hot(places: _Ints, classes: int) -> NDArray[np.float32]:
    """Encode class indices as one-hot rows.

    Args:
        places: Class indices, ``[N]``; an index below 0 gives a row of zeros.
        classes: Number of classes.

    Returns:
        float32 ``[N, classes]``.
    """
    return np.asarray(places[:, None] == np.arange(classes), np.float32)
