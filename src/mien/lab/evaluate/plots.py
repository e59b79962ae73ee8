"""The drawings of a report, in the colours of its page."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_recall_curve

from mien._emotions import Emotion
from mien.lab.html import ACCENT, INK, MUTED, new_plot, plot
from mien.lab.html.figures import dress
from mien.lab.metrics import BINS, Floats, Ints
from mien.lab.train.run import validated

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


def recall_plot(recall: Mapping[str, float], intervals: Mapping[str, Any], *, mean: float) -> str:
    """Recall of every class with its interval, the lowest first, and a line at their mean."""
    names = sorted(intervals, key=lambda name: recall[name])
    figure, axis = new_plot(6.0, 0.9 + 0.36 * len(names))
    for place, name in enumerate(names):
        low, high = intervals[name]
        color = Emotion(name).color
        axis.plot([low, high], [place, place], color=color, linewidth=5, alpha=0.45, solid_capstyle="butt")
        axis.plot([recall[name]], [place], "o", color=color, markersize=8)
    axis.axvline(mean, color=ACCENT, linewidth=1.5, linestyle="--")
    axis.annotate(
        "mean", (mean, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", color=INK, fontsize=9
    )
    axis.set_yticks(range(len(names)), names)
    _shares(axis.xaxis)
    axis.set_xlim(0, 1)
    axis.set_xlabel("recall")
    said = ", ".join(f"{name} {recall[name]:.0%}" for name in names)
    return plot(figure, alt=f"Recall by emotion: {said}", caption="Bars are 95 % intervals (Wilson).")


def reliability_plot(bins: Sequence[Bin], *, error: float) -> str:
    """Accuracy against confidence over the bins of the calibration error, and how many answers each holds."""
    figure, top = new_plot(6.0, 4.6)
    figure.clear()
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for axis in (top, below):
        dress(axis)
    filled = [b for b in bins if b.n]
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle="--")
    top.bar(
        [b.low for b in filled], [b.accuracy or 0 for b in filled], _width(bins), align="edge", color=ACCENT, alpha=0.4
    )
    top.plot([b.confidence or 0 for b in filled], [b.accuracy or 0 for b in filled], "o-", color=ACCENT, markersize=5)
    top.set_ylabel("share right")
    _shares(top.yaxis)
    below.bar([b.low for b in bins], [b.n for b in bins], _width(bins), align="edge", color=ACCENT, alpha=0.7)
    below.set_ylabel("faces")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.set_xlabel("confidence")
    below.set_xlim(0, 1)
    top.set_ylim(0, 1)
    _shares(below.xaxis)
    caption = "On the dashed line an answer is right as often as it claims. Below: how many answers claim that much."
    return plot(figure, alt=f"Reliability diagram; expected calibration error {error:.3f}", caption=caption)


def risk_plot(curve: Selective, *, target: float = TARGET) -> str:
    """The share of mistakes among the answers that are given, against the share of faces that are answered."""
    figure, axis = new_plot(6.0, 3.8)
    chosen = np.unique(np.linspace(0, len(curve.coverage) - 1, 400).astype(int))
    axis.plot(curve.coverage[chosen], curve.risk[chosen], color=ACCENT, linewidth=2)
    axis.axhline(1 - target, color=MUTED, linewidth=1.2, linestyle="--")
    place = curve.reach(target)
    said = f"{target:.0%} precision is not reached"
    if place is not None:
        x, y = float(curve.coverage[place]), float(curve.risk[place])
        axis.plot([x], [y], "o", color=INK, markersize=8)
        said = f"{target:.0%} precision at {x:.0%} coverage"
        axis.annotate(f"{x:.0%} answered", (x, y), xytext=(8, -14), textcoords="offset points", color=INK, fontsize=9)
    axis.set_xlabel("coverage: share of faces answered")
    axis.set_ylabel("risk: share of these wrong")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, max(float(curve.risk[chosen].max()) * 1.08, 2 * (1 - target)))
    for side in (axis.xaxis, axis.yaxis):
        _shares(side)
    caption = f"The surest answers first. The dashed line is {1 - target:.0%} mistakes."
    return plot(figure, alt=f"Risk-coverage curve; {said}", caption=caption)


def precision_plot(curves: Mapping[Emotion, tuple[Any, Any]]) -> str:
    """Precision against recall of every emotion."""
    figure, axis = new_plot(6.0, 4.2)
    for emotion, (precision, recall) in curves.items():
        axis.plot(recall, precision, color=emotion.color, linewidth=1.8, label=str(emotion))
    axis.set_xlabel("recall")
    axis.set_ylabel("precision")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.02)
    for side in (axis.xaxis, axis.yaxis):
        _shares(side)
    axis.legend(fontsize=9, ncols=2, loc="lower left")
    said = ", ".join(map(str, curves))
    return plot(figure, alt=f"Precision-recall curves of {said}", caption="Each emotion against all others.")


def training_plots(history: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Loss, and accuracy, over the epochs, on the faces learned from and on those that selected."""
    epochs = [record["epoch"] for record in history]
    marker = "o" if len(epochs) <= 30 else ""
    drawn = []
    for name, validation in (("loss", "log_loss"), ("accuracy", "accuracy")):
        figure, axis = new_plot(6.0, 3.4)
        learned = [float(record.get(name, math.nan)) for record in history]
        judged = [validated(record, validation) for record in history]
        axis.plot(epochs, learned, color=MUTED, marker=marker, markersize=3.5, label="training")
        axis.plot(epochs, judged, color=ACCENT, marker=marker, markersize=3.5, label="validation")
        axis.set_xlabel("epoch")
        axis.set_ylabel(name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "accuracy":
            _shares(axis.yaxis)
        axis.legend(fontsize=9)
        drawn.append(plot(figure, alt=f"{name} over {len(epochs)} epochs, training and validation"))
    return drawn[0], drawn[1]


def transfer_plot(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Recall by emotion, a line of dots for every set; ``sets``: name -> figures."""
    emotions = list(next(iter(sets.values()))["recall"])
    figure, axis = new_plot(6.0, 0.9 + 0.4 * len(emotions))
    marks = "osD^vP*X"
    for number, (name, figures) in enumerate(sets.items()):
        known = [(figures["recall"][e], place) for place, e in enumerate(emotions) if e not in figures["absent"]]
        style: dict[str, Any] = {"color": ACCENT} if number == 0 else {"color": INK, "markerfacecolor": "none"}
        axis.plot(
            *zip(*known, strict=True), marks[number % len(marks)], linestyle="", markersize=8, label=name, **style
        )
    axis.set_yticks(range(len(emotions)), emotions)
    axis.set_xlim(-0.02, 1.02)
    _shares(axis.xaxis)
    axis.set_xlabel("recall")
    axis.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return plot(figure, alt=f"Recall by emotion on {', '.join(sets)}")


def _width(bins: Sequence[Bin]) -> float:
    return 1 / len(bins)


def _shares(side: Any) -> None:
    side.set_major_formatter(PercentFormatter(1, decimals=0))
