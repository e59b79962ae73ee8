"""What a report draws: confidence against accuracy, risk against coverage, precision against recall, and intervals."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_recall_curve

from mien._emotions import Emotion
from mien.lab.judge.metrics import BINS, Floats, Ints

# Share of right answers among those that are given, for which a threshold is looked for.
TARGET = 0.9
_HALVES = 100  # random halves on which a threshold is chosen, to be judged on the other
_POINTS = 240  # of a curve that a report draws: more than a screen shows


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers whose confidence lies in ``low``..``high``: how many, their mean confidence and accuracy."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def reliability(probs: Floats, labels: Ints, *, bins: int = BINS) -> list[Bin]:
    """The equal-width bins of confidence that the expected calibration error sums over (Guo et al., ICML 2017)."""
    confidence, right = probs.max(1), probs.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    found = []
    for number in range(bins):
        here = place == number
        n = int(here.sum())
        mean = (float(confidence[here].mean()), float(right[here].mean())) if n else (None, None)
        found.append(Bin(number / bins, (number + 1) / bins, n, *mean))
    return found


@dataclass(frozen=True, eq=False)
class Selective:
    """Answering only where confidence is at least ``threshold``: ``coverage`` of the faces, ``risk`` of a mistake.

    All ``[K]``, from the surest answers to all; faces of equal confidence are answered or left together.
    """

    threshold: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area under the risk-coverage curve, AURC (Geifman & El-Yaniv, NeurIPS 2017): the mean risk over coverage."""
        return float((self.risk * np.diff(self.coverage, prepend=0)).sum())

    def reach(self, target: float = TARGET) -> int | None:
        """The place with the largest coverage where at least ``target`` of the answers are right, or ``None``."""
        good = np.flatnonzero(1 - self.risk >= target)
        return int(good[-1]) if len(good) else None


def selective(probs: Floats, labels: Ints) -> Selective:
    """The risk-coverage curve of ``probs`` ``[N, C]`` by their highest value."""
    confidence, right = np.asarray(probs.max(1), np.float64), probs.argmax(1) == labels
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    last = np.append(np.flatnonzero(np.diff(confidence)), len(confidence) - 1)
    kept = last + 1
    return Selective(confidence[last], kept / len(labels), 1 - np.cumsum(right)[last] / kept)


def abstention(probs: Floats, labels: Ints, *, target: float = TARGET, seed: int = 0) -> dict[str, Any]:
    """The threshold of confidence above which ``target`` of the answers are right, and what it is worth elsewhere.

    A threshold chosen on the faces that judge it flatters itself. So it is also chosen on random halves and judged on
    the other halves: ``elsewhere`` is the mean over those, ``None`` where no half reached the target.
    """
    curve = selective(probs, labels)
    place = curve.reach(target)
    told: dict[str, Any] = {"target": target, "aurc": curve.area, "threshold": None}
    if place is not None:
        told["threshold"] = float(curve.threshold[place])
        told["coverage"] = float(curve.coverage[place])
        told["precision"] = float(1 - curve.risk[place])
    told["elsewhere"] = _elsewhere(probs, labels, target, seed)
    return told


def precision_recall(probs: Floats, labels: Ints, emotions: tuple[Emotion, ...]) -> dict[Emotion, tuple[Any, Any]]:
    """Precision and recall of every emotion that the labels have, as its probability's threshold falls."""
    curves = {}
    for place, emotion in enumerate(emotions):
        truth = labels == place
        if truth.any():
            precision, recall, _ = precision_recall_curve(truth, probs[:, place])
            places = np.searchsorted(recall[::-1], np.linspace(0, 1, _POINTS))  # recall falls from 1 to 0
            chosen = np.unique(len(recall) - 1 - places)
            curves[emotion] = (precision[chosen], recall[chosen])
    return curves


def average_precision(probs: Floats, labels: Ints, emotions: tuple[Emotion, ...]) -> dict[str, float]:
    """Average precision of every emotion that the labels have."""
    there = [place for place in range(len(emotions)) if (labels == place).any()]
    return {str(emotions[p]): float(average_precision_score(labels == p, probs[:, p])) for p in there}


def share_interval(right: int, n: int) -> list[float] | None:
    """Wilson's 95 % interval of a share (Wilson, 1927); ``None`` where there is nothing to share."""
    if not n:
        return None
    found = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return [float(found.low), float(found.high)]


def bins_as_values(bins: list[Bin]) -> list[dict[str, Any]]:
    """For a JSON file."""
    return [asdict(each) for each in bins]


def _elsewhere(probs: Floats, labels: Ints, target: float, seed: int) -> dict[str, float] | None:
    generator, n, found = np.random.default_rng(seed), len(labels), []
    confidence, right = probs.max(1), probs.argmax(1) == labels
    for _ in range(_HALVES):
        order = generator.permutation(n)
        one, other = order[: n // 2], order[n // 2 :]
        if not len(one):
            break
        curve = selective(probs[one], labels[one])
        place = curve.reach(target)
        given = confidence[other] >= curve.threshold[place] if place is not None else np.zeros(len(other), bool)
        if given.any():
            found.append((given.mean(), right[other][given].mean()))
    if not found:
        return None
    coverage, precision = np.mean(found, axis=0)
    return {"coverage": float(coverage), "precision": float(precision), "halves": len(found), "of": _HALVES}
