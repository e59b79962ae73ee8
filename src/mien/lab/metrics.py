"""Metrics of a classifier from its probabilities, each with a 95 % interval.

``compute_metrics`` computes every metric once, most of them with scikit-learn. A new metric needs a line in
``compute_metrics`` and one in the table ``mien._metrics.METRICS``; reports, cards and comparisons then include it.
``tests/lab/evaluate/test_intervals.py`` simulates how often the intervals hold the true value.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn import metrics as reference

from mien._emotions import Emotion
from mien._errors import DataError, checked
from mien.lab.significance import Z, mean_interval, percentile_interval, wilson_interval

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
_Doubles = NDArray[np.float64]

BINS = 15  # equal-width bins of confidence
_NOISE_DRAWS = 2000
_MOST_KEPT_DRAWS = 10**7  # of one size of a set; 40 MB
_SUM_ERROR = 1e-3  # largest distance of a row's sum from 1; far above the rounding of float32


@checked
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
        without a face (``absent``; they do not count in macro means), and 95 % ``intervals`` by key, except those of
        a class (``class_intervals``). ``interval`` repeats the interval of the accuracy.

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
    top2 = (np.argsort(-probs, axis=1, kind="stable")[:, :2] == labels[:, None]).any(1)
    confusion = reference.confusion_matrix(labels, predicted, labels=classes)
    smallest = np.finfo(np.float64).eps  # the same clipping as in scikit-learn
    losses, briers = -np.log(probs[np.arange(len(labels)), labels].clip(smallest, 1)), brier(probs, labels)
    intervals = count_intervals(confusion) | {
        "top2": [float(edge) for edge in wilson_interval(top2.sum(), len(labels))],
        "log_loss": list(bootstrap_interval(losses, resamples=resamples)),
        "brier": list(bootstrap_interval(briers, resamples=resamples)),
        "ece": list(calibration_interval(probs, labels)),
    }
    return {
        "n": len(labels),
        "accuracy": float(np.mean(predicted == labels)),
        "interval": intervals["accuracy"],
        "balanced_accuracy": float(recall[support > 0].mean()),
        "macro_f1": float(f1[support > 0].mean()),
        "weighted_f1": float(np.average(f1, weights=support)),
        "macro_precision": float(precision[support > 0].mean()),
        "weighted_precision": float(np.average(precision, weights=support)),
        "top2": float(top2.mean()),
        "log_loss": float(reference.log_loss(labels, probs, labels=classes)),
        "brier": float(briers.mean()),
        "ece": expected_calibration_error(probs, labels),
        "intervals": intervals,
        "recall": _by_emotion(emotions, recall, float),
        "precision": _by_emotion(emotions, precision, float),
        "f1": _by_emotion(emotions, f1, float),
        "support": _by_emotion(emotions, support, int),
        "absent": [str(e) for e, n in zip(emotions, support, strict=True) if n == 0],
        "confusion": confusion.tolist(),
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


def calibration_metrics(probs: Floats, labels: Ints) -> dict[str, float]:
    """Compute the metrics that a calibration changes most.

    Args:
        probs: ``[N, C]``.
        labels: ``[N]`` in 0..C-1.

    Returns:
        ``log_loss``, ``brier`` and ``ece``.
    """
    probs = check_probabilities(probs, labels, probs.shape[1])
    return {
        "log_loss": float(reference.log_loss(labels, probs, labels=np.arange(probs.shape[1]))),
        "brier": float(brier(probs, labels).mean()),
        "ece": expected_calibration_error(probs, labels),
    }


def calibration_gaps(probs: Floats, labels: Ints, *, bins: int = BINS) -> tuple[_Doubles, _Doubles]:
    """Compute accuracy less confidence by bin of confidence (Guo et al., ICML 2017).

    Args:
        probs: ``[N, C]``.
        labels: ``[N]`` in 0..C-1.
        bins: Number of equal-width bins B.

    Returns:
        The gap of each bin times its share of the rows, ``[B]``; the sum of the absolute values is the plug-in
        calibration error. And the standard error of each.
    """
    confidence, index = probs.max(1).astype(np.float64), confidence_bins(probs, bins)
    gaps = (probs.argmax(1) == labels) - confidence
    columns = np.ones(len(labels)), gaps, gaps**2, confidence * (1 - confidence)
    sums = np.stack([np.bincount(index, weights=column, minlength=bins) for column in columns]).astype(np.float64)
    return sums[1] / len(labels), gap_errors(sums[0], sums[1], sums[2], sums[3])


def gap_errors(count: _Doubles, gaps: _Doubles, squares: _Doubles, expected: _Doubles) -> _Doubles:
    """Compute the standard errors of the gaps of ``calibration_gaps``.

    The variance of a bin is the larger of the observed one and that of a calibrated classifier: a bin of few rows that
    are all correct has an observed variance near 0.

    Args:
        count: Number of rows by bin, ``[..., B]``.
        gaps: Sum of (correct - confidence) by bin.
        squares: Sum of its squares.
        expected: Sum of confidence (1 - confidence), the variance if the classifier is calibrated.

    Returns:
        ``[..., B]``.
    """
    observed = (squares - gaps**2 / np.maximum(count, 1)) * count / np.maximum(count - 1, 1)
    return np.asarray(np.sqrt(np.maximum(observed, expected)) / count.sum(-1, keepdims=True))


def debias(gaps: _Doubles, errors: _Doubles) -> _Doubles:
    """Compute the calibration error from the gaps of bins, less its bias.

    Noise makes the plug-in error of a calibrated classifier positive. The bias is what normal noise of this size would
    add to the observed gaps (Kumar, Liang and Ma, NeurIPS 2019, the debiased estimate of their library for the mean of
    absolute gaps). About half of the bias remains where the classifier is calibrated.

    Args:
        gaps: Gaps by bin, ``[..., B]``.
        errors: Their standard errors.

    Returns:
        The error from 0 to 1, ``[...]``.
    """
    size, spread = np.abs(gaps), np.maximum(errors, np.finfo(np.float64).tiny)
    far = np.minimum(size / spread, 38)  # beyond it the density is 0, and the square of a gap without noise overflows
    folded = 2 * spread * norm.pdf(far) + size * (1 - 2 * norm.cdf(-far))  # E|size + noise|
    return np.asarray(np.maximum((2 * size - folded).sum(-1), 0))


def expected_calibration_error(probs: Floats, labels: Ints, *, bins: int = BINS) -> float:
    """Compute the mean gap between confidence and accuracy over bins of confidence, debiased.

    Args:
        probs: ``[N, C]``.
        labels: ``[N]`` in 0..C-1.
        bins: Number of equal-width bins.

    Returns:
        The error from 0 to 1.
    """
    return float(debias(*calibration_gaps(probs, labels, bins=bins)))


def calibration_interval(probs: Floats, labels: Ints) -> tuple[float, float]:
    """Compute a 95 % interval of the calibration error over bins.

    The percentile bootstrap is not valid here: its draws add noise, and an absolute value has no derivative at 0. Lower
    edge: gaps below sqrt(log N) standard errors count as 0, where noise only adds (Fang and Santos, Review of Economic
    Studies, 2019). Upper edge: the error is convex in the gaps, so it is above its tangent, which is normal.
    Few rows without a mistake have no spread: the edge is at least as far as Wilson's is for them.

    Args:
        probs: ``[N, C]``.
        labels: ``[N]`` in 0..C-1.

    Returns:
        Lower and upper edge.
    """
    gaps, errors = calibration_gaps(probs, labels)
    error, n = float(np.abs(gaps).sum()), len(labels)
    noise = np.random.default_rng(0).standard_normal((_NOISE_DRAWS, BINS)) * errors
    clear = np.abs(gaps) > np.sqrt(np.log(n)) * errors
    added = np.where(clear, noise * np.sign(gaps), np.abs(noise)).sum(1)
    spread = np.mean(((probs.argmax(1) == labels) - probs.max(1)) ** 2) - error**2
    low = min(error - float(np.quantile(added, 0.975)), expected_calibration_error(probs, labels))
    above = max(Z * float(np.sqrt(max(spread, 0) / n)), float(wilson_interval(0, n)[1]))
    return max(low, 0.0), min(error + above, 1.0)


@lru_cache(maxsize=3)
def _draws(n: int, resamples: int) -> list[NDArray[np.int32]]:
    """The rows of each draw, in parts; they are the same for every model that predicts as many faces."""
    generator = np.random.default_rng(0)
    return np.array_split(generator.integers(0, n, (resamples, n)).astype(np.int32), -(-resamples // 200))


def bootstrap_interval(values: NDArray[Any], *, resamples: int = 2000) -> tuple[float, float]:
    """Compute the 95 % percentile bootstrap interval of a mean (Efron, 1979).

    Args:
        values: The sample, which is drawn from with replacement.
        resamples: Number of draws.

    Returns:
        Lower and upper edge.
    """
    if len(values) * resamples <= _MOST_KEPT_DRAWS:
        chosen = _draws(len(values), resamples)
        return percentile_interval([float(value) for part in chosen for value in values[part].mean(axis=1)])
    generator = np.random.default_rng(0)
    draws = [float(values[generator.integers(0, len(values), len(values))].mean()) for _ in range(resamples)]
    return percentile_interval(draws)


def count_intervals(confusion: Ints) -> dict[str, list[float]]:
    """Compute 95 % intervals of the metrics that follow from the confusion matrix.

    A share has Wilson's interval (1927). Means over classes combine those of their classes (Zou and Donner, Statistics
    in Medicine, 2008).

    Args:
        confusion: Counts ``[C, C]``; rows are labels.

    Returns:
        Key of the metric -> lower and upper edge.
    """
    table = np.asarray(confusion, np.float64)
    true, shares = table.sum(1), _class_shares(table)
    present, related = true > 0, _f1_correlations(table, shares["f1"][0])
    recall, precision, f1 = (np.stack(shares[name])[:3, present] for name in ("recall", "precision", "f1"))
    weights, related = true[present] / table.sum(), related[present][:, present]
    equal = np.full(len(weights), 1 / len(weights))
    return {
        "accuracy": [float(edge) for edge in wilson_interval(table.trace(), table.sum())],
        "balanced_accuracy": mean_interval(recall, equal),
        "macro_f1": mean_interval(f1, equal, related),
        "weighted_f1": mean_interval(f1, weights, related, counted=table.sum()),
        "macro_precision": mean_interval(precision, equal),
        "weighted_precision": mean_interval(precision, weights, counted=table.sum()),
    }


def class_intervals(confusion: Ints, emotions: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Compute 95 % intervals of recall, precision and F1 of every class.

    Args:
        confusion: Counts ``[C, C]``; rows are labels.
        emotions: The C classes.

    Returns:
        ``recall``, ``precision`` and ``f1``: emotion -> lower and upper edge; only classes that have such a value.
    """
    shares = _class_shares(np.asarray(confusion, np.float64))
    return {
        name: {str(e): [float(low[at]), float(high[at])] for at, e in enumerate(emotions) if faces[at]}
        for name, (_, low, high, faces) in shares.items()
    }


def _class_shares(table: _Doubles) -> dict[str, tuple[_Doubles, _Doubles, _Doubles, _Doubles]]:
    """Value, Wilson's lower and upper edge, and number of faces of recall, precision and F1, each ``[C]``.

    F1 / (2 - F1) is the share of correct faces among those that have the label or the prediction.
    """
    correct, true, claimed = table.diagonal(), table.sum(1), table.sum(0)
    either = true + claimed - correct
    found = {}
    for name, faces in (("recall", true), ("precision", claimed), ("f1", either)):
        values = np.stack([correct / np.maximum(faces, 1), *wilson_interval(correct, faces)])
        value, low, high = 2 * values / (1 + values) if name == "f1" else values
        found[name] = (value, low, high, faces)
    return found


def _f1_correlations(table: _Doubles, f1: _Doubles) -> _Doubles:
    """Correlations of the F1 of classes, ``[C, C]``, by the delta method: one mistake lowers the F1 of two classes."""
    classes = len(table)
    total = np.maximum(table.sum(1) + table.sum(0), 1)
    own = np.eye(classes)
    slopes = 2 * own[:, :, None] * own[:, None, :] - f1[:, None, None] * (own[:, :, None] + own[:, None, :])
    slopes = (slopes / total[:, None, None]).reshape(classes, -1)
    covariance = (slopes * table.ravel()) @ slopes.T
    scale = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
    return np.asarray(np.divide(covariance, scale, out=np.eye(classes), where=scale > 0))


def _by_emotion(emotions: tuple[Emotion, ...], values: NDArray[Any], kind: type) -> dict[str, Any]:
    return {str(emotion): kind(value) for emotion, value in zip(emotions, values, strict=True)}
