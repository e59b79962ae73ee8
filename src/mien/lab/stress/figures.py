"""Figures of many conditions from the same draws of the faces, so that differences are those of pairs.

`mien.lab.judge.metrics` defines the figures; here a matrix of weights gives all draws of one at once, and
`tests/lab/robustness/test_robustness.py` holds the two together.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.lab.judge.metrics import BINS, checked

Floats = NDArray[np.float64]
Weights = NDArray[np.uint8]

FIGURES = ("accuracy", "balanced_accuracy", "log_loss", "ece")
RESAMPLES = 1000
_BLOCK = 32 * 2**20  # bytes of weights that are multiplied at once
_DIGITS = 6


def draw_weights(count: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Weights:
    """How often each of ``count`` faces comes in each of the ``resamples`` of a bootstrap, uint8 ``[R, N]``."""
    generator = np.random.default_rng(seed)
    draws = (generator.integers(0, count, count) for _ in range(resamples))
    return np.stack([np.bincount(rows, minlength=count).astype(np.uint8) for rows in draws])


def weigh(weights: NDArray[Any], columns: NDArray[Any]) -> Floats:
    """``weights`` ``[R, N]`` times ``columns`` ``[N, ...]``, a block of draws at a time."""
    return np.concatenate([block @ columns for block in _blocks(weights)])


def figures_of(probs: NDArray[np.floating[Any]], labels: NDArray[np.int64], weights: NDArray[Any]) -> Floats:
    """``FIGURES`` of ``probs`` ``[N, C]`` against ``labels``, once for each row of ``weights`` ``[R, N]``: ``[R, 4]``.

    Rows of ones give the figures themselves. Classes without weight do not count in the balanced accuracy. Raises
    ``DataError`` for probabilities that are none.
    """
    classes = probs.shape[1]
    sums = weigh(weights, _columns(checked(probs, labels, classes), labels))
    total = sums[:, :1]
    right, log_loss, gaps = sums[:, 1], sums[:, 2], sums[:, 3 + 2 * classes :]
    truth, found = sums[:, 3 : 3 + classes], sums[:, 3 + classes : 3 + 2 * classes]
    recall = np.divide(found, truth, out=np.full_like(found, np.nan), where=truth > 0)
    ece = np.abs(gaps).sum(1)
    return np.stack(
        [right / total[:, 0], np.nanmean(recall, axis=1), log_loss / total[:, 0], ece / total[:, 0]], axis=1
    )


def point(probs: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> Floats:
    """``FIGURES`` of all rows, ``[4]``."""
    return np.asarray(figures_of(probs, labels, np.ones((1, len(labels)), np.uint8))[0])


def interval(draws: Floats) -> list[float]:
    """The 95 % percentile interval of ``draws``, rounded as files keep it."""
    return [round(float(edge), _DIGITS) for edge in np.percentile(draws, [2.5, 97.5])]


def with_interval(value: float, draws: Floats) -> dict[str, Any]:
    """``value`` and the interval of its bootstrap ``draws``, as files keep them."""
    return {"value": round(float(value), _DIGITS), "interval": interval(draws)}


def _columns(probs: Floats, labels: NDArray[np.int64]) -> Floats:
    """One, right, log loss, one-hot truth, the same if right, gap of confidence by bin: ``[N, 3 + 2 C + BINS]``."""
    count, classes = probs.shape
    rows = np.arange(count)
    right = (probs.argmax(1) == labels).astype(np.float64)
    smallest = np.finfo(np.float64).eps  # as scikit-learn clips
    log_loss = -np.log(probs[rows, labels].clip(smallest, 1))
    truth = np.eye(classes)[labels]
    confidence = probs.max(1)
    gaps = np.zeros((count, BINS))
    gaps[rows, np.minimum((confidence * BINS).astype(np.int64), BINS - 1)] = right - confidence
    return np.column_stack([np.ones(count), right, log_loss, truth, truth * right[:, None], gaps])


def _blocks(weights: NDArray[Any]) -> Iterator[Floats]:
    step = max(1, _BLOCK // (8 * weights.shape[1]))
    return (weights[start : start + step].astype(np.float64) for start in range(0, len(weights), step))
