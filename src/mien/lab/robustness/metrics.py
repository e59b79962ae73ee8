"""Metrics under corruption with paired bootstrap intervals, and the mean corruption error (mCE).

All conditions share the bootstrap draws of the faces, so that differences between them are paired. ``mien.lab.metrics``
defines the metrics. Here one matrix product computes all draws of a metric, and
``tests/lab/robustness/test_metrics.py`` checks that both agree.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from mien.lab.metrics import BINS, check_probabilities, confidence_bins, debias, gap_errors
from mien.lab.robustness.corruptions import SEVERITIES, Corruption
from mien.lab.robustness.predictions import CorruptedPredictions, CorruptionReference
from mien.lab.significance import percentile_interval, row_draws

_Floats = NDArray[np.float64]
_Weights = NDArray[np.uint8]

CORRUPTION_METRICS = ("accuracy", "balanced_accuracy", "log_loss", "ece")
_RESAMPLES = 1000
_BLOCK = 32 * 2**20  # bytes of weights that are multiplied at once
_DIGITS = 6  # in files


class Estimate(TypedDict):
    """A value with its 95 % bootstrap interval over faces.

    Attributes:
        value: The value.
        interval: Lower and upper edge; missing for the calibration error, whose bootstrap interval is not valid.
        difference: The difference to the clean faces; missing for clean faces.
        difference_interval: Lower and upper edge of the difference, from paired draws; missing as ``interval`` is.
    """

    value: float
    interval: NotRequired[list[float]]
    difference: NotRequired[float]
    difference_interval: NotRequired[list[float]]


class Condition(TypedDict):
    """The metrics of one model in one condition, or their means over several conditions.

    Attributes:
        severity: 1 to 5; missing for clean faces and for means.
        amount: The amount of the corruption; missing for clean faces and for means.
        metrics: ``CORRUPTION_METRICS`` by key.
        flip_rate: Fraction of the predictions that differ from that of the clean face.
    """

    severity: NotRequired[int]
    amount: NotRequired[float]
    metrics: dict[str, Estimate]
    flip_rate: float


class CorruptionMetrics(TypedDict):
    """The metrics of one model.

    Attributes:
        clean: On clean faces.
        corrupted: By name of the corruption, at the severities 1 to 5.
        by_corruption: Means over the severities.
        by_severity: Means over the corruptions.
        mean: Mean over all corruptions and severities.
    """

    clean: Condition
    corrupted: dict[str, list[Condition]]
    by_corruption: dict[str, Condition]
    by_severity: list[Condition]
    mean: Condition


class CorruptionError(TypedDict, total=False):
    """The mean corruption error of one model (Hendrycks and Dietterich, ICLR 2019).

    Attributes:
        reason: Why there is no corruption error; all other keys are missing then.
        reference: Name of the reference model.
        mce: Mean over corruptions of the error rates summed over the severities, relative to the reference's sum.
        relative_mce: The same for the errors beyond those on clean faces.
        by_corruption: ``ce`` and ``relative_ce`` of every corruption.
        excluded: By metric, the corruptions without a ratio: the reference makes no error, or loses no accuracy.
    """

    reason: str
    reference: str
    mce: Estimate | None
    relative_mce: Estimate | None
    by_corruption: dict[str, dict[str, Estimate | None]]
    excluded: dict[str, list[str]]


def corruption_metrics(predictions: CorruptedPredictions, corruptions: Sequence[Corruption]) -> CorruptionMetrics:
    """Compute the metrics of one model in all conditions.

    Args:
        predictions: The predictions of the model.
        corruptions: The corruptions that were applied.

    Returns:
        Metrics of every condition and their means.
    """
    labels, weights = predictions.labels, bootstrap_weights(len(predictions.labels))
    clean_classes = predictions.clean.argmax(1)

    def measure(probs: NDArray[np.float32]) -> _Measured:
        flip_rate = float((probs.argmax(1) != clean_classes).mean())
        return _Measured(metric_values(probs, labels), weighted_metrics(probs, labels, weights), flip_rate)

    clean = measure(predictions.clean)
    measured = {c.name: [measure(probs) for probs in predictions.corrupted[c.name]] for c in corruptions}
    return {
        "clean": _condition([clean]),
        "corrupted": {
            c.name: [
                {"severity": severity, "amount": amount, **_condition([each], clean)}
                for severity, amount, each in zip(SEVERITIES, c.amounts, measured[c.name], strict=True)
            ]
            for c in corruptions
        },
        "by_corruption": {name: _condition(each, clean) for name, each in measured.items()},
        "by_severity": [_condition(each, clean) for each in zip(*measured.values(), strict=True)],
        "mean": _condition([each for severities in measured.values() for each in severities], clean),
    }


class _Measured(NamedTuple):
    """``CORRUPTION_METRICS`` of one condition: their values ``[4]`` and bootstrap draws ``[R, 4]``."""

    values: _Floats
    draws: _Floats
    flip_rate: float


def _condition(measured: Sequence[_Measured], clean: _Measured | None = None) -> Condition:
    """The mean of conditions, with the differences to ``clean``."""
    values, draws, flip_rate = (np.mean(each, axis=0) for each in zip(*measured, strict=True))
    metrics: dict[str, Estimate] = {}
    for at, key in enumerate(CORRUPTION_METRICS):
        metrics[key] = metric_estimate(key, values[at], draws[:, at])
        if clean:
            metrics[key]["difference"] = round(float(values[at] - clean.values[at]), _DIGITS)
            if "interval" in metrics[key]:
                metrics[key]["difference_interval"] = rounded_interval(draws[:, at] - clean.draws[:, at])
    return {"metrics": metrics, "flip_rate": round(float(flip_rate), _DIGITS)}


def bootstrap_weights(count: int, *, resamples: int = _RESAMPLES, seed: int = 0) -> _Weights:
    """Draw bootstrap samples of faces.

    Args:
        count: Number of faces N.
        resamples: Number of draws R.
        seed: Seed of the draws.

    Returns:
        How often each face is in each draw, uint8 ``[R, N]``.
    """
    draws = row_draws(count, resamples=resamples, seed=seed)
    return np.concatenate([part.astype(np.uint8) for part in draws])


def weighted_sums(weights: NDArray[Any], columns: NDArray[Any]) -> _Floats:
    """Multiply weights by columns, in blocks of bounded memory.

    Args:
        weights: ``[R, N]``.
        columns: ``[N, ...]``.

    Returns:
        ``[R, ...]``.
    """
    step = max(1, _BLOCK // (8 * weights.shape[1]))
    blocks = (weights[start : start + step].astype(np.float64) for start in range(0, len(weights), step))
    return np.concatenate([block @ columns for block in blocks])


def weighted_metrics(probs: NDArray[np.floating[Any]], labels: NDArray[np.int64], weights: NDArray[Any]) -> _Floats:
    """Compute ``CORRUPTION_METRICS`` for many weightings of the faces at once.

    Args:
        probs: Probabilities ``[N, C]``.
        labels: True classes ``[N]``.
        weights: ``[R, N]``; a row of ones gives the metrics themselves.

    Returns:
        ``[R, 4]``. Classes without weight do not count in the balanced accuracy.

    Raises:
        DataError: The rows of ``probs`` are not probabilities.
    """
    count, classes = probs.shape
    rows, probs = np.arange(count), check_probabilities(probs, labels, classes)
    is_correct, confidence = (probs.argmax(1) == labels).astype(np.float64), probs.max(1)
    losses = -np.log(probs[rows, labels].clip(np.finfo(np.float64).eps, 1))  # as scikit-learn clips
    one_hot, gap = np.eye(classes)[labels], is_correct - confidence
    bins = np.eye(BINS)[confidence_bins(probs)]
    by_bin = [bins * column[:, None] for column in (np.ones(count), gap, gap**2, confidence * (1 - confidence))]
    columns = np.column_stack([np.ones(count), is_correct, losses, one_hot, one_hot * is_correct[:, None], *by_bin])
    edges = np.cumsum([3, classes, classes, BINS, BINS, BINS])
    sums, support, hits, n, gaps, squares, expected = np.split(weighted_sums(weights, columns), edges, axis=1)
    total, correct, loss = sums.T
    recall = np.divide(hits, support, out=np.full_like(hits, np.nan), where=support > 0)
    ece = debias(gaps / total[:, None], gap_errors(n, gaps, squares, expected))
    return np.stack([correct / total, np.nanmean(recall, axis=1), loss / total, ece], axis=1)


def metric_values(probs: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> _Floats:
    """Compute ``CORRUPTION_METRICS`` of all rows.

    Args:
        probs: Probabilities ``[N, C]``.
        labels: True classes ``[N]``.

    Returns:
        The values ``[4]``.
    """
    return np.asarray(weighted_metrics(probs, labels, np.ones((1, len(labels)), np.uint8))[0])


def rounded_interval(draws: _Floats) -> list[float]:
    """Return the 95 % percentile interval of bootstrap draws, rounded for files.

    Args:
        draws: Bootstrap draws ``[R]``.

    Returns:
        Lower and upper edge.
    """
    return [round(edge, _DIGITS) for edge in percentile_interval(draws)]


def estimate(value: float, draws: _Floats) -> Estimate:
    """Return a value with the interval of its draws, rounded for files.

    Args:
        value: The value.
        draws: Its bootstrap draws ``[R]``.

    Returns:
        The estimate.
    """
    return {"value": round(float(value), _DIGITS), "interval": rounded_interval(draws)}


def metric_estimate(key: str, value: float, draws: _Floats) -> Estimate:
    """Return a metric with its interval, or without one where the bootstrap is not valid.

    Args:
        key: The metric.
        value: Its value.
        draws: Its bootstrap draws ``[R]``.

    Returns:
        The estimate; of the calibration error without interval.
    """
    found = estimate(value, draws)
    if key == "ece":
        del found["interval"]
    return found


def corruption_error(model: CorruptionReference, reference: CorruptionReference) -> CorruptionError:
    """Compute the mean corruption error and the relative mean corruption error.

    1 is as many errors as the reference makes; lower is better. Model and reference share the bootstrap draws.

    Args:
        model: Which predictions of the model are correct.
        reference: The same for the reference model.

    Returns:
        Both errors with their intervals, by corruption and on average; or the reason why there are none.
    """
    reason = reference.mismatch(model)
    if reason:
        return {"reason": reason}
    reference, weights = reference.at(model.rows), bootstrap_weights(len(model.rows))
    plain = _ratios(_errors(model), _errors(reference), weights, significant=False)
    beyond, reference_beyond = (_errors(each, beyond_clean=True) for each in (model, reference))
    relative = _ratios(beyond, reference_beyond, weights, significant=True)
    return {
        "reference": reference.name,
        "mce": _mean_ratio(plain),
        "relative_mce": _mean_ratio(relative),
        "by_corruption": {
            name: {"ce": _ratio_estimate(plain.get(name)), "relative_ce": _ratio_estimate(relative.get(name))}
            for name in model.corrupted
        },
        "excluded": {
            "mce": [name for name in model.corrupted if name not in plain],
            "relative_mce": [name for name in model.corrupted if name not in relative],
        },
    }


def _errors(model: CorruptionReference, *, beyond_clean: bool = False) -> dict[str, _Floats]:
    """Errors summed over the severities, ``[N]`` by corruption; ``beyond_clean`` subtracts the clean face's errors."""
    clean = len(SEVERITIES) * ~model.clean.astype(np.bool_) if beyond_clean else 0
    return {name: (~correct).sum(0) - np.asarray(clean, np.float64) for name, correct in model.corrupted.items()}


def _ratios(
    model: Mapping[str, _Floats], reference: Mapping[str, _Floats], weights: _Weights, *, significant: bool
) -> dict[str, tuple[float, _Floats]]:
    """The ratio of each corruption with its draws, if the reference has errors (``significant``: beyond chance)."""
    ratios = {}
    for name, errors in model.items():
        total, draws = reference[name].sum(), weighted_sums(weights, reference[name])
        if total > 0 and (not significant or np.percentile(draws, 2.5) > 0):
            # A draw without an error of the reference has no ratio.
            ratio = np.divide(weighted_sums(weights, errors), draws, out=np.full(len(draws), np.nan), where=draws > 0)
            ratios[name] = float(errors.sum() / total), ratio
    return ratios


def _mean_ratio(ratios: Mapping[str, tuple[float, _Floats]]) -> Estimate | None:
    if not ratios:
        return None
    values, draws = zip(*ratios.values(), strict=True)
    return _ratio_estimate((float(np.mean(values)), np.mean(draws, axis=0)))


def _ratio_estimate(ratio: tuple[float, _Floats] | None) -> Estimate | None:
    return estimate(ratio[0], ratio[1][np.isfinite(ratio[1])]) if ratio else None
