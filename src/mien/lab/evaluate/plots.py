"""Calibration, abstention and precision-recall curves of an evaluation, and its plots."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, precision_recall_curve

from mien._emotions import Emotion
from mien._format import percent
from mien.lab.html.figures import ACCENT, INK, MUTED, dress, new_plot, plot
from mien.lab.metrics import BINS, Floats, Ints
from mien.lab.train.logging import EpochRecord

# Precision that an abstention threshold must reach.
TARGET = 0.9
_HALVES = 100  # random halves on which a threshold is chosen, to be evaluated on the other half
_POINTS = 240  # largest number of points of a plotted curve


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions with a confidence in ``low``..``high``: their number, mean confidence and accuracy."""

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def reliability(probs: Floats, labels: Ints, *, bins: int = BINS) -> list[Bin]:
    """Compute the bins of a reliability diagram (Guo et al., ICML 2017).

    Args:
        probs: ``[N, C]``.
        labels: ``[N]`` in 0..C-1.
        bins: Number of equal-width bins of confidence.

    Returns:
        The bins that the expected calibration error sums over.
    """
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
    """The risk-coverage curve of a classifier that abstains below a confidence.

    Faces of equal confidence are answered or left out together.

    Attributes:
        threshold: Smallest confidence that is answered, ``[K]``, descending.
        coverage: Share of the faces that are answered, ``[K]``.
        risk: Share of mistakes among these, ``[K]``.
    """

    threshold: NDArray[np.float64]
    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]

    @property
    def area(self) -> float:
        """Area under the risk-coverage curve (AURC): the mean risk over coverage (Geifman & El-Yaniv, NeurIPS 2017)."""
        return float((self.risk * np.diff(self.coverage, prepend=0)).sum())

    def reach(self, target: float = TARGET) -> int | None:
        """Return the index with the largest coverage at a precision of ``target`` or more, or ``None``."""
        good = np.flatnonzero(1 - self.risk >= target)
        return int(good[-1]) if len(good) else None


def selective(probs: Floats, labels: Ints) -> Selective:
    """Compute the risk-coverage curve of probabilities ``[N, C]`` against labels ``[N]``."""
    confidence, right = np.asarray(probs.max(1), np.float64), probs.argmax(1) == labels
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    last = np.append(np.flatnonzero(np.diff(confidence)), len(confidence) - 1)
    kept = last + 1
    return Selective(confidence[last], kept / len(labels), 1 - np.cumsum(right)[last] / kept)


def abstention(probs: Floats, labels: Ints, *, target: float = TARGET, seed: int = 0) -> dict[str, Any]:
    """Find the threshold of confidence for a precision.

    A threshold that is chosen and evaluated on the same faces looks better than it is. So it is also chosen on random
    halves and evaluated on the other halves.

    Args:
        probs: ``[N, C]``.
        labels: ``[N]`` in 0..C-1.
        target: The precision, from 0 to 1.
        seed: Seed of the halves.

    Returns:
        ``target``, ``aurc`` and ``threshold`` (``None`` if the target is not reached) with its ``coverage`` and
        ``precision``; ``elsewhere`` holds their means over the other halves, or ``None``.
    """
    curve = selective(probs, labels)
    place = curve.reach(target)
    found: dict[str, Any] = {"target": target, "aurc": curve.area, "threshold": None}
    if place is not None:
        found["threshold"] = float(curve.threshold[place])
        found["coverage"] = float(curve.coverage[place])
        found["precision"] = float(1 - curve.risk[place])
    found["elsewhere"] = _elsewhere(probs, labels, target, seed)
    return found


def precision_recall(probs: Floats, labels: Ints, emotions: tuple[Emotion, ...]) -> dict[Emotion, tuple[Any, Any]]:
    """Compute the precision-recall curve of every emotion that has labels."""
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
    """Compute the average precision of every emotion that has labels."""
    there = [place for place in range(len(emotions)) if (labels == place).any()]
    return {str(emotions[p]): float(average_precision_score(labels == p, probs[:, p])) for p in there}


def share_interval(right: int, n: int) -> list[float] | None:
    """Compute Wilson's 95 % interval of the share ``right / n`` (Wilson, 1927); ``None`` for ``n`` of 0."""
    if not n:
        return None
    found = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return [float(found.low), float(found.high)]


def bins_as_values(bins: list[Bin]) -> list[dict[str, Any]]:
    """Return bins as plain values for a JSON file."""
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
    """Plot the recall of every class with its interval, the lowest first, and a line at the mean."""
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
    text = ", ".join(f"{name} {percent(recall[name], 0)}" for name in names)
    return plot(figure, alt=f"Recall by emotion: {text}", caption="Bars are 95 % intervals (Wilson).")


def reliability_plot(bins: Sequence[Bin], *, error: float) -> str:
    """Plot a reliability diagram and the number of predictions in each bin."""
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
    top.set_ylabel("accuracy")
    _shares(top.yaxis)
    below.bar([b.low for b in bins], [b.n for b in bins], _width(bins), align="edge", color=ACCENT, alpha=0.7)
    below.set_ylabel("faces")
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.set_xlabel("confidence")
    below.set_xlim(0, 1)
    top.set_ylim(0, 1)
    _shares(below.xaxis)
    caption = "On the dashed line, accuracy equals confidence. Below: the number of faces with this confidence."
    return plot(figure, alt=f"Reliability diagram; expected calibration error {error:.3f}", caption=caption)


def risk_plot(curve: Selective, *, target: float = TARGET) -> str:
    """Plot risk against coverage, with the point of the target precision."""
    figure, axis = new_plot(6.0, 3.8)
    chosen = np.unique(np.linspace(0, len(curve.coverage) - 1, 400).astype(int))
    axis.plot(curve.coverage[chosen], curve.risk[chosen], color=ACCENT, linewidth=2)
    axis.axhline(1 - target, color=MUTED, linewidth=1.2, linestyle="--")
    place = curve.reach(target)
    text = f"{percent(target, 0)} precision is not reached"
    if place is not None:
        x, y = float(curve.coverage[place]), float(curve.risk[place])
        axis.plot([x], [y], "o", color=INK, markersize=8)
        text = f"{percent(target, 0)} precision at {percent(x, 0)} coverage"
        axis.annotate(
            f"{percent(x, 0)} answered", (x, y), xytext=(8, -14), textcoords="offset points", color=INK, fontsize=9
        )
    axis.set_xlabel("coverage: share of faces answered")
    axis.set_ylabel("risk: share of mistakes among these")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, max(float(curve.risk[chosen].max()) * 1.08, 2 * (1 - target)))
    for side in (axis.xaxis, axis.yaxis):
        _shares(side)
    caption = f"The most confident predictions first. The dashed line is a risk of {percent(1 - target, 0)}."
    return plot(figure, alt=f"Risk-coverage curve; {text}", caption=caption)


def precision_plot(curves: Mapping[Emotion, tuple[Any, Any]]) -> str:
    """Plot precision against recall of every emotion."""
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
    text = ", ".join(map(str, curves))
    return plot(figure, alt=f"Precision-recall curves of {text}", caption="Each emotion against all others.")


def training_plots(history: Sequence[EpochRecord]) -> tuple[str, str]:
    """Plot loss and accuracy over the epochs, on training and validation faces."""
    epochs = [record.epoch for record in history]
    marker = "o" if len(epochs) <= 30 else ""
    drawn = []
    for name, validation in (("loss", "val_log_loss"), ("accuracy", "val_accuracy")):
        figure, axis = new_plot(6.0, 3.4)
        learned = [getattr(record, name) for record in history]
        validating = [getattr(record, validation) for record in history]
        axis.plot(epochs, learned, color=MUTED, marker=marker, markersize=3.5, label="training")
        axis.plot(epochs, validating, color=ACCENT, marker=marker, markersize=3.5, label="validation")
        axis.set_xlabel("epoch")
        axis.set_ylabel(name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "accuracy":
            _shares(axis.yaxis)
        axis.legend(fontsize=9)
        drawn.append(plot(figure, alt=f"{name} over {len(epochs)} epochs, training and validation"))
    return drawn[0], drawn[1]


def transfer_plot(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Plot the recall by emotion of several sets; ``sets`` maps a name to metrics."""
    emotions = list(next(iter(sets.values()))["recall"])
    figure, axis = new_plot(6.0, 0.9 + 0.4 * len(emotions))
    marks = "osD^vP*X"
    for number, (name, metrics) in enumerate(sets.items()):
        known = [(metrics["recall"][e], place) for place, e in enumerate(emotions) if e not in metrics["absent"]]
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
