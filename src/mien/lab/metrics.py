"""Figures of a classifier from its probabilities, with bootstrap intervals.

What scikit-learn has comes from scikit-learn; what a bootstrap needs two thousand times over is counted here, and
`tests/lab/evaluate/test_metrics.py` holds the two together.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as reference

from mien._emotions import Emotion
from mien._errors import DataError

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

BINS = 15  # of confidence, equally wide
# Rounding of float32 alone stays far below this.
_SUM_ERROR = 1e-3


def compute_metrics(
    probs: Floats, labels: Ints, emotions: tuple[Emotion, ...], *, resamples: int = 2000
) -> dict[str, Any]:
    """Every figure of ``probs`` ``[N, C]`` against ``labels`` ``[N]``, as plain values for a JSON file.

    Classes without a face count neither in the balanced accuracy nor in the macro F1, and are named in ``absent``.
    ``intervals`` are the 95 % percentile bootstrap intervals over ``resamples`` draws of the rows; ``interval`` is that
    of the accuracy. Raises ``DataError`` for no rows and for probabilities that are none.
    """
    probs = checked(probs, labels, len(emotions))
    guess, classes = probs.argmax(1), np.arange(len(emotions))
    precision, recall, f1, support = reference.precision_recall_fscore_support(
        labels, guess, labels=classes, zero_division=0
    )
    second = np.argsort(-probs, axis=1, kind="stable")[:, :2]
    intervals = bootstrap_metrics(probs, labels, resamples=resamples)
    return {
        "n": len(labels),
        "accuracy": float(np.mean(guess == labels)),
        "interval": intervals["accuracy"],
        "balanced_accuracy": float(recall[support > 0].mean()),
        "macro_f1": float(f1[support > 0].mean()),
        "weighted_f1": float(np.average(f1, weights=support)),
        "top2": float((second == labels[:, None]).any(1).mean()),
        "log_loss": float(reference.log_loss(labels, probs, labels=classes)),
        "brier": float(brier(probs, labels).mean()),
        "ece": expected_calibration_error(probs, labels),
        "intervals": intervals,
        "recall": _by_emotion(emotions, recall, float),
        "precision": _by_emotion(emotions, precision, float),
        "f1": _by_emotion(emotions, f1, float),
        "support": _by_emotion(emotions, support, int),
        "absent": [str(e) for e, n in zip(emotions, support, strict=True) if n == 0],
        "confusion": reference.confusion_matrix(labels, guess, labels=classes).tolist(),
    }


def checked(probs: Floats, labels: Ints, classes: int) -> NDArray[np.float64]:
    """``probs`` as float64 whose rows sum to 1. Raises ``DataError`` for anything that is no table of probabilities."""
    if len(labels) == 0:
        raise DataError("no rows to judge; check the split and the class set")
    if probs.shape != (len(labels), classes):
        raise DataError(f"probabilities have shape {list(probs.shape)}, not [{len(labels)}, {classes}]")
    total = probs.sum(axis=1, keepdims=True, dtype=np.float64)
    if not (np.isfinite(probs).all() and (probs >= 0).all() and (abs(total - 1) <= _SUM_ERROR).all()):
        wrong = ~(np.isfinite(probs).all(1) & (probs >= 0).all(1) & (abs(total[:, 0] - 1) <= _SUM_ERROR))
        worst, place = float(total[wrong][0, 0]), int(np.flatnonzero(wrong)[0])
        raise DataError(
            "probabilities must be at least 0 and sum to 1 in every row; "
            f"{int(wrong.sum()):,} rows do not, the first (number {place}) sums to {worst:.4f}"
        )
    return np.asarray(probs / total, dtype=np.float64)


def brier(probs: Floats, labels: Ints) -> NDArray[np.float64]:
    """Squared distance of each row of ``probs`` to its one-hot label, ``[N]`` in 0..2 (Brier, 1950)."""
    distance = np.array(probs, dtype=np.float64)
    distance[np.arange(len(labels)), labels] -= 1
    return np.asarray((distance**2).sum(1))


def expected_calibration_error(probs: Floats, labels: Ints, *, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over ``bins`` equal-width bins of confidence (Guo et al., ICML 2017)."""
    gaps = np.zeros(bins)
    np.add.at(gaps, _bin(probs, bins), (probs.argmax(1) == labels) - probs.max(1))
    return float(np.abs(gaps).sum() / len(labels))


def bootstrap_interval(
    values: NDArray[Any], statistic: Callable[[NDArray[Any]], Any], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of ``statistic`` over the first axis of ``values`` (Efron, 1979)."""
    generator = np.random.default_rng(seed)
    draws = [float(statistic(values[generator.integers(0, len(values), len(values))])) for _ in range(resamples)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_metrics(probs: Floats, labels: Ints, *, resamples: int = 2000, seed: int = 0) -> dict[str, list[float]]:
    """95 % intervals of the figures that stand first in a report, all from the same draws of the rows."""
    generator, n = np.random.default_rng(seed), len(labels)
    guess, log_losses, briers = probs.argmax(1), _log_losses(probs, labels), brier(probs, labels)
    place, gap = _bin(probs, BINS), (probs.argmax(1) == labels) - probs.max(1)
    draws: dict[str, list[float]] = {}
    for _ in range(resamples):
        rows = generator.integers(0, n, n)
        gaps = np.bincount(place[rows], weights=gap[rows], minlength=BINS)
        drawn = count_metrics(labels[rows], guess[rows], probs.shape[1])
        drawn |= {"log_loss": log_losses[rows].mean(), "brier": briers[rows].mean(), "ece": np.abs(gaps).sum() / n}
        for name, value in drawn.items():
            draws.setdefault(name, []).append(float(value))
    return {name: [float(edge) for edge in np.percentile(values, [2.5, 97.5])] for name, values in draws.items()}


def count_metrics(labels: Ints, guess: Ints, classes: int) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro F1 from counts; classes without a face do not count."""
    table = np.bincount(labels * classes + guess, minlength=classes * classes).reshape(classes, classes)
    right, truth, told = table.diagonal(), table.sum(1), table.sum(0)
    present = truth > 0
    recall = right[present] / truth[present]
    f1 = 2 * right[present] / (truth[present] + told[present])
    return {"accuracy": right.sum() / len(labels), "balanced_accuracy": recall.mean(), "macro_f1": f1.mean()}


def _log_losses(probs: Floats, labels: Ints) -> NDArray[np.float64]:
    smallest = np.finfo(np.float64).eps  # as scikit-learn clips
    chosen = np.asarray(probs[np.arange(len(labels)), labels], dtype=np.float64)
    return np.asarray(-np.log(chosen.clip(smallest, 1)))


def _bin(probs: Floats, bins: int) -> NDArray[np.int64]:
    return np.asarray(np.minimum((probs.max(1) * bins).astype(np.int64), bins - 1))


def _by_emotion(emotions: tuple[Emotion, ...], values: NDArray[Any], kind: type) -> dict[str, Any]:
    return {str(emotion): kind(value) for emotion, value in zip(emotions, values, strict=True)}
