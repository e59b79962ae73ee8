"""Figures of many conditions from the same draws of the faces, so that differences are those of pairs.

`mien.lab.metrics` defines the figures; here a matrix of weights gives all draws of one at once, and
`tests/lab/robustness/test_robustness.py` holds the two together.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.lab.metrics import BINS, checked
from mien.lab.robustness.reference import Reference

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


def corruption(model: Reference, reference: Reference) -> dict[str, Any]:
    """``mce`` and ``relative_mce`` of ``model`` with 95 % intervals over faces, and both ``by_spoiling``.

    The error of a spoiling is the sum of the error rates over its five strengths, as a share of the reference's sum;
    the relative one counts only what passes the error on clean faces. 1 is as bad as the reference, less is better.
    ``left_out`` names the spoilings whose ratio does not exist: the reference makes no mistake, or (for the relative
    one) loses nothing that passes chance. ``why`` says why there is no figure at all. The draws of the intervals are of
    the same faces for both.
    """
    why = reference.unfit(model)
    if why:
        return {"why": why}
    reference, weights = reference.at(model.rows), draw_weights(len(model.rows))
    plain = _ratios(_mistakes(model), _mistakes(reference), weights, surely=False)
    relative = _ratios(_mistakes(model, beyond=True), _mistakes(reference, beyond=True), weights, surely=True)
    return {
        "reference": reference.name,
        "mce": _mean(plain),
        "relative_mce": _mean(relative),
        "by_spoiling": {
            name: {"ce": _said(plain.get(name)), "relative_ce": _said(relative.get(name))} for name in model.spoilt
        },
        "left_out": {
            "mce": [name for name in model.spoilt if name not in plain],
            "relative_mce": [name for name in model.spoilt if name not in relative],
        },
    }


def _mistakes(model: Reference, *, beyond: bool = False) -> dict[str, Floats]:
    """How many of its five versions are read wrongly, face by face; ``beyond``: less five times the clean face's."""
    less = len(next(iter(model.spoilt.values()))) * ~model.clean.astype(np.bool_) if beyond else 0
    return {name: (~right).sum(0) - np.asarray(less, np.float64) for name, right in model.spoilt.items()}


def _ratios(
    model: Mapping[str, Floats], reference: Mapping[str, Floats], weights: Weights, *, surely: bool
) -> dict[str, tuple[float, Floats]]:
    """By spoiling the ratio and its draws; where the reference's mistakes are (``surely``) more than none."""
    ratios = {}
    for name, mine in model.items():
        theirs = reference[name]
        below, drawn = theirs.sum(), weigh(weights, theirs)
        lowest = np.percentile(drawn, 2.5) if surely else below
        if below > 0 and lowest > 0:
            # A draw without a mistake of the reference has no ratio; an interval that it would stretch is without it.
            share = np.divide(weigh(weights, mine), drawn, out=np.full(len(drawn), np.nan), where=drawn > 0)
            ratios[name] = float(mine.sum() / below), share
    return ratios


def _mean(ratios: Mapping[str, tuple[float, Floats]]) -> dict[str, Any] | None:
    if not ratios:
        return None
    values, draws = zip(*ratios.values(), strict=True)
    return _said((float(np.mean(values)), np.mean(draws, axis=0)))


def _said(ratio: tuple[float, Floats] | None) -> dict[str, Any] | None:
    return with_interval(ratio[0], ratio[1][np.isfinite(ratio[1])]) if ratio else None
