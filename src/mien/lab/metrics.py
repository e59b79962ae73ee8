"""Figures of a classifier from its probabilities: scikit-learn's, and the few that it lacks."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as reference

from mien._emotions import Emotion

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]


def figures(probs: Floats, labels: Ints, emotions: tuple[Emotion, ...], *, resamples: int = 2000) -> dict[str, Any]:
    """Every figure of ``probs`` ``[N, C]`` against ``labels`` ``[N]``, as plain values for a JSON file.

    ``interval`` is the 95 % percentile bootstrap interval of the accuracy over ``resamples`` draws of the rows.
    """
    probs = probs / probs.sum(axis=1, keepdims=True, dtype=np.float64)  # float32 sums to 1 but for rounding
    guess, classes = probs.argmax(1), np.arange(len(emotions))
    recall = reference.recall_score(labels, guess, labels=classes, average=None, zero_division=0)
    precision = reference.precision_score(labels, guess, labels=classes, average=None, zero_division=0)
    return {
        "n": len(labels),
        "accuracy": float(np.mean(guess == labels)),
        "interval": list(bootstrap_interval(guess == labels, np.mean, resamples=resamples)),
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(reference.f1_score(labels, guess, labels=classes, average="macro", zero_division=0)),
        "log_loss": float(reference.log_loss(labels, probs, labels=classes)),
        "ece": expected_calibration_error(probs, labels),
        "recall": {str(e): float(r) for e, r in zip(emotions, recall, strict=True)},
        "precision": {str(e): float(p) for e, p in zip(emotions, precision, strict=True)},
        "confusion": reference.confusion_matrix(labels, guess, labels=classes).tolist(),
    }


def expected_calibration_error(probs: Floats, labels: Ints, *, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over ``bins`` equal-width bins of confidence (Guo et al., ICML 2017)."""
    confidence = probs.max(1)
    right = probs.argmax(1) == labels
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.zeros(bins)
    np.add.at(gaps, index, right - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def bootstrap_interval(
    values: NDArray[Any], statistic: Callable[[NDArray[Any]], Any], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of ``statistic`` over the first axis of ``values`` (Efron, 1979)."""
    generator = np.random.default_rng(seed)
    draws = [float(statistic(values[generator.integers(0, len(values), len(values))])) for _ in range(resamples)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)
