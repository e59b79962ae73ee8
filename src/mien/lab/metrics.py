"""Metrics of a classifier from its probabilities, with bootstrap intervals.

``compute_metrics`` computes every metric once, most of them with scikit-learn. The bootstrap computes its metrics two
thousand times, with faster code; ``tests/lab/evaluate/test_metrics.py`` compares both. A new metric needs a line in
``compute_metrics`` and one in the table ``mien._metrics.METRICS``; reports, cards and comparisons then include it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as reference

from mien._emotions import Emotion
from mien._errors import DataError
from mien.lab.significance import percentile_interval

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

BINS = 15  # equal-width bins of confidence
_SUM_ERROR = 1e-3  # largest distance of a row's sum from 1; far above the rounding of float32


def compute_metrics(
    probs: Floats, labels: Ints, emotions: tuple[Emotion, ...], *, resamples: int = 2000
) -> dict[str, Any]:
    """Compute every metric of a classifier on labelled faces.

    Args:
        probs: Probabilities ``[N, C]``; every row sums to 1.
        labels: Index of the true class of every row, ``[N]`` in 0..C-1.
        emotions: The C classes, in the order of the columns of ``probs``.
        resamples: Number of bootstrap draws of the rows.

    Returns:
        Plain values for a JSON file: the metrics of ``mien._metrics.METRICS``, ``n`` rows, the values of each class
        (``recall``, ``precision``, ``f1``, ``support``), the ``confusion`` matrix (rows are labels), the classes
        without a face (``absent``; they do not count in macro means), and 95 % percentile bootstrap ``intervals``.
        ``interval`` repeats the interval of the accuracy.

    Raises:
        DataError: If there are no rows, or the values are not probabilities.

    Example:
        >>> from mien._emotions import Emotion
        >>> probs = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
        >>> found = compute_metrics(probs, np.array([0, 1, 1]), (Emotion.HAPPY, Emotion.SAD), resamples=10)
        >>> round(found["accuracy"], 3), found["confusion"]
        (0.667, [[1, 0], [1, 1]])
    """
    probs = check_probabilities(probs, labels, len(emotions))
    predicted, classes = probs.argmax(1), np.arange(len(emotions))
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0
    )
    top2 = np.argsort(-probs, axis=1, kind="stable")[:, :2]
    intervals = bootstrap_metrics(probs, labels, resamples=resamples)
    return {
        "n": len(labels),
        "accuracy": float(np.mean(predicted == labels)),
        "interval": intervals["accuracy"],
        "balanced_accuracy": float(recall[support > 0].mean()),
        "macro_f1": float(f1[support > 0].mean()),
        "weighted_f1": float(np.average(f1, weights=support)),
        "top2": float((top2 == labels[:, None]).any(1).mean()),
        "log_loss": float(reference.log_loss(labels, probs, labels=classes)),
        "brier": float(brier(probs, labels).mean()),
        "ece": expected_calibration_error(probs, labels),
        "intervals": intervals,
        "recall": _by_emotion(emotions, recall, float),
        "precision": _by_emotion(emotions, precision, float),
        "f1": _by_emotion(emotions, f1, float),
        "support": _by_emotion(emotions, support, int),
        "absent": [str(e) for e, n in zip(emotions, support, strict=True) if n == 0],
        "confusion": reference.confusion_matrix(labels, predicted, labels=classes).tolist(),
    }


def check_probabilities(probs: Floats, labels: Ints, classes: int) -> NDArray[np.float64]:
    """Check a table of probabilities and normalise its rows.

    Args:
        probs: ``[N, C]``.
        labels: One label for every row, ``[N]``.
        classes: The number of classes C.

    Returns:
        ``probs`` as float64 whose rows sum to 1.

    Raises:
        DataError: If there are no rows, the shape differs, or a row is negative or does not sum to 1.
    """
    if len(labels) == 0:
        raise DataError("no rows to evaluate; check the split and the class set")
    if probs.shape != (len(labels), classes):
        raise DataError(f"probabilities have shape {list(probs.shape)}, not [{len(labels)}, {classes}]")
    total = probs.sum(axis=1, keepdims=True, dtype=np.float64)
    valid = np.isfinite(probs).all(1) & (probs >= 0).all(1) & (abs(total[:, 0] - 1) <= _SUM_ERROR)
    if not valid.all():
        first = int(np.flatnonzero(~valid)[0])
        raise DataError(
            "probabilities must be at least 0 and sum to 1 in every row; "
            f"{int((~valid).sum()):,} rows do not, the first (number {first}) sums to {float(total[first, 0]):.4f}"
        )
    return np.asarray(probs / total, dtype=np.float64)


def restrict_probabilities(probs: Floats, columns: Sequence[int]) -> NDArray[np.float64]:
    """Select the probabilities of some classes, and scale each row to sum to 1.

    Args:
        probs: ``[N, C]``.
        columns: Indices of the K classes.

    Returns:
        float64 ``[N, K]``; a row is uniform where all selected probabilities are 0.
    """
    chosen = probs[:, columns].astype(np.float64)
    total = chosen.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, chosen / np.where(total > 0, total, 1), 1 / len(columns)))


def brier(probs: Floats, labels: Ints) -> NDArray[np.float64]:
    """Compute the Brier score of every row (Brier, 1950).

    Args:
        probs: ``[N, C]``.
        labels: ``[N]`` in 0..C-1.

    Returns:
        Squared distance to the one-hot label, ``[N]`` in 0..2.
    """
    distance = np.array(probs, dtype=np.float64)
    distance[np.arange(len(labels)), labels] -= 1
    return np.asarray((distance**2).sum(1))


def confidence_bins(probs: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """Assign every row to a bin of confidence.

    Args:
        probs: ``[N, C]``.
        bins: Number of equal-width bins.

    Returns:
        Index of the bin, ``[N]`` in 0..bins-1.
    """
    return np.asarray(np.minimum((probs.max(1) * bins).astype(np.int64), bins - 1))


def expected_calibration_error(probs: Floats, labels: Ints, *, bins: int = BINS) -> float:
    """Compute the mean gap between confidence and accuracy over bins of confidence (Guo et al., ICML 2017).

    Args:
        probs: ``[N, C]``.
        labels: ``[N]`` in 0..C-1.
        bins: Number of equal-width bins.

    Returns:
        The error from 0 to 1.
    """
    gaps = np.zeros(bins)
    np.add.at(gaps, confidence_bins(probs, bins), (probs.argmax(1) == labels) - probs.max(1))
    return float(np.abs(gaps).sum() / len(labels))


def bootstrap_interval(
    values: NDArray[Any], statistic: Callable[[NDArray[Any]], Any], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Compute a 95 % percentile bootstrap interval (Efron, 1979).

    Args:
        values: The sample; its first axis is drawn from, with replacement.
        statistic: Maps a drawn sample to a number.
        resamples: Number of draws.
        seed: Seed of the draws.

    Returns:
        Lower and upper edge.
    """
    generator = np.random.default_rng(seed)
    draws = [float(statistic(values[generator.integers(0, len(values), len(values))])) for _ in range(resamples)]
    return percentile_interval(draws)


def bootstrap_metrics(probs: Floats, labels: Ints, *, resamples: int = 2000, seed: int = 0) -> dict[str, list[float]]:
    """Compute 95 % percentile bootstrap intervals of the main metrics, all from the same draws of the rows.

    Args:
        probs: ``[N, C]``; every row sums to 1.
        labels: ``[N]`` in 0..C-1.
        resamples: Number of draws.
        seed: Seed of the draws.

    Returns:
        Key of the metric -> lower and upper edge.
    """
    generator, n, classes = np.random.default_rng(seed), len(labels), probs.shape[1]
    predicted, briers = probs.argmax(1), brier(probs, labels)
    smallest = np.finfo(np.float64).eps  # the same clipping as in scikit-learn
    log_losses = -np.log(np.asarray(probs[np.arange(n), labels], np.float64).clip(smallest, 1))
    cell, index, gap = labels * classes + predicted, confidence_bins(probs), (predicted == labels) - probs.max(1)
    tables = np.empty((resamples, classes * classes), np.int64)
    sums = {name: np.empty(resamples) for name in ("log_loss", "brier", "ece")}
    for draw in range(resamples):
        rows = generator.integers(0, n, n)
        tables[draw] = np.bincount(cell[rows], minlength=classes * classes)
        gaps = np.bincount(index[rows], weights=gap[rows], minlength=BINS)
        sums["log_loss"][draw], sums["brier"][draw] = log_losses[rows].mean(), briers[rows].mean()
        sums["ece"][draw] = np.abs(gaps).sum() / n
    draws = count_metrics(tables.reshape(-1, classes, classes)) | sums
    return {name: list(percentile_interval(values)) for name, values in draws.items()}


def count_metrics(tables: Ints) -> dict[str, NDArray[np.float64]]:
    """Compute accuracy, balanced accuracy and macro F1 from confusion matrices.

    Args:
        tables: Counts ``[R, C, C]``, rows are labels; classes without a label do not count in the means.

    Returns:
        The three metrics by key, ``[R]`` each.
    """
    correct, true, claimed = tables.diagonal(axis1=1, axis2=2), tables.sum(2), tables.sum(1)
    present = (true > 0).sum(1)
    recall = (correct / np.maximum(true, 1)).sum(1) / present
    f1 = np.where(true > 0, 2 * correct / np.maximum(true + claimed, 1), 0).sum(1) / present
    return {"accuracy": correct.sum(1) / tables.sum((1, 2)), "balanced_accuracy": recall, "macro_f1": f1}


def _by_emotion(emotions: tuple[Emotion, ...], values: NDArray[Any], kind: type) -> dict[str, Any]:
    return {str(emotion): kind(value) for emotion, value in zip(emotions, values, strict=True)}
