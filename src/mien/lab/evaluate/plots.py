"""Calibration, abstention and precision-recall curves of an evaluation, and its plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve

from mien._emotions import Emotion
from mien._errors import checked
from mien._format import percent
from mien.lab.html import ACCENT, INK, MUTED, dress, new_plot, plot
from mien.lab.metrics import BINS, Floats, Ints, confidence_bins
from mien.lab.train.logging import EpochRecord

TARGET = 0.9  # precision that an abstention threshold must reach
_HALVES = 100  # random halves on which a threshold is chosen, to be evaluated on the other half
_POINTS = 240  # largest number of points of a plotted curve


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions of similar confidence.

    Attributes:
        low: Smallest confidence.
        high: Largest confidence.
        n: Number of predictions.
        confidence: Their mean confidence; ``None`` without predictions.
        accuracy: The share of them that is correct; ``None`` without predictions.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


def reliability(probs: Floats, labels: Ints) -> list[Bin]:
    """Compute the bins of a reliability diagram (Guo et al., ICML 2017).

    Args:
        probs: Probabilities, ``[N, C]``.
        labels: True classes, ``[N]`` in 0..C-1.

    Returns:
        The bins that the expected calibration error sums over.
    """
    confidence, right, index = probs.max(1), probs.argmax(1) == labels, confidence_bins(probs)
    found = []
    for number in range(BINS):
        here = index == number
        n = int(here.sum())
        means = (float(confidence[here].mean()), float(right[here].mean())) if n else (None, None)
        found.append(Bin(number / BINS, (number + 1) / BINS, n, *means))
    return found


@dataclass(frozen=True, eq=False)
class Selective:
    """The risk-coverage curve of a classifier that abstains below a confidence.

    Faces of equal confidence are predicted or left out together.

    Attributes:
        threshold: Smallest confidence of a prediction, ``[K]``, descending.
        coverage: Share of the faces that are predicted, ``[K]``.
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
        """Find the largest coverage with a precision.

        Args:
            target: The smallest precision, from 0 to 1.

        Returns:
            Index into the curve; ``None`` if no point has this precision.
        """
        good = np.flatnonzero(1 - self.risk >= target)
        return int(good[-1]) if len(good) else None


def selective(probs: Floats, labels: Ints) -> Selective:
    """Compute the risk-coverage curve.

    Args:
        probs: Probabilities, ``[N, C]``.
        labels: True classes, ``[N]`` in 0..C-1.

    Returns:
        The curve, with one point for each different confidence.
    """
    confidence, right = np.asarray(probs.max(1), np.float64), probs.argmax(1) == labels
    order = np.argsort(-confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    last = np.append(np.flatnonzero(np.diff(confidence)), len(confidence) - 1)
    predicted = last + 1
    return Selective(confidence[last], predicted / len(labels), 1 - np.cumsum(right)[last] / predicted)


@checked
def abstention(probs: Floats, labels: Ints, *, target: float = TARGET, seed: int = 0) -> dict[str, Any]:
    """Find the threshold of confidence for a precision.

    A threshold that is chosen and evaluated on the same faces looks better than it is. So it is also chosen on random
    halves and evaluated on the other halves.

    Args:
        probs: Probabilities, ``[N, C]``.
        labels: True classes, ``[N]`` in 0..C-1.
        target: The precision, from 0 to 1.
        seed: Seed of the halves.

    Returns:
        ``target``, ``aurc`` and ``threshold`` (``None`` if the target is not reached) with its ``coverage`` and
        ``precision``; ``elsewhere`` has their means over the other halves, or is ``None``.
    """
    curve = selective(probs, labels)
    place = curve.reach(target)
    found: dict[str, Any] = {"target": target, "aurc": curve.area, "threshold": None}
    if place is not None:
        found["threshold"] = float(curve.threshold[place])
        found["coverage"] = float(curve.coverage[place])
        found["precision"] = float(1 - curve.risk[place])
    found["elsewhere"] = _abstention_on_other_halves(probs, labels, target, seed)
    return found


def _abstention_on_other_halves(probs: Floats, labels: Ints, target: float, seed: int) -> dict[str, float] | None:
    generator, n, found = np.random.default_rng(seed), len(labels), []
    confidence, right = probs.max(1), probs.argmax(1) == labels
    for _ in range(_HALVES if n > 1 else 0):
        order = generator.permutation(n)
        one, other = order[: n // 2], order[n // 2 :]
        curve = selective(probs[one], labels[one])
        place = curve.reach(target)
        if place is not None and (sure := confidence[other] >= curve.threshold[place]).any():
            found.append((sure.mean(), right[other][sure].mean()))
    if not found:
        return None
    coverage, precision = np.mean(found, axis=0)
    return {"coverage": float(coverage), "precision": float(precision), "halves": len(found), "of": _HALVES}


def precision_recall(probs: Floats, labels: Ints, emotions: tuple[Emotion, ...]) -> dict[Emotion, tuple[Any, Any]]:
    """Compute the precision-recall curves.

    Args:
        probs: Probabilities, ``[N, C]``.
        labels: True classes, ``[N]`` in 0..C-1.
        emotions: The C classes.

    Returns:
        Emotion -> precision and recall, each ``[<= 240]``; only emotions that have labels.
    """
    curves = {}
    for place, emotion in enumerate(emotions):
        if (labels == place).any():
            precision, recall, _ = precision_recall_curve(labels == place, probs[:, place])
            places = np.searchsorted(recall[::-1], np.linspace(0, 1, _POINTS))  # recall falls from 1 to 0
            chosen = np.unique(len(recall) - 1 - places)
            curves[emotion] = (precision[chosen], recall[chosen])
    return curves


def average_precision(probs: Floats, labels: Ints, emotions: tuple[Emotion, ...]) -> dict[str, float]:
    """Compute the average precision of every emotion that has labels.

    Args:
        probs: Probabilities, ``[N, C]``.
        labels: True classes, ``[N]`` in 0..C-1.
        emotions: The C classes.

    Returns:
        Emotion -> average precision, from 0 to 1.
    """
    there = [place for place in range(len(emotions)) if (labels == place).any()]
    return {str(emotions[p]): float(average_precision_score(labels == p, probs[:, p])) for p in there}


def class_recall_plot(recall: Mapping[str, float], intervals: Mapping[str, Any], *, mean: float) -> str:
    """Plot the recall of every class with its interval, the lowest first, and a line at the mean.

    Args:
        recall: Emotion -> recall.
        intervals: Emotion -> lower and upper edge; only these emotions are plotted.
        mean: The mean recall.

    Returns:
        HTML.
    """
    names = sorted(intervals, key=lambda name: recall[name])
    figure, axis = new_plot(6.0, 0.9 + 0.36 * len(names))
    for place, name in enumerate(names):
        color = Emotion(name).color
        axis.plot(intervals[name], [place, place], color=color, linewidth=5, alpha=0.45, solid_capstyle="butt")
        axis.plot([recall[name]], [place], "o", color=color, markersize=8)
    axis.axvline(mean, color=ACCENT, linewidth=1.5, linestyle="--")
    top = ("data", "axes fraction")
    axis.annotate("mean", (mean, 1), xycoords=top, ha="center", va="bottom", color=INK, fontsize=9)
    axis.set_yticks(range(len(names)), names)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set(xlim=(0, 1), xlabel="recall")
    text = ", ".join(f"{name} {percent(recall[name], 0)}" for name in names)
    return plot(figure, alt=f"Recall by emotion: {text}", caption="Bars are 95 % intervals (Wilson).")


def reliability_plot(bins: Sequence[Bin], *, error: float) -> str:
    """Plot a reliability diagram and the number of predictions in each bin.

    Args:
        bins: What ``reliability`` returns.
        error: The expected calibration error.

    Returns:
        HTML.
    """
    figure, top = new_plot(6.0, 4.6)
    figure.clear()
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    for axis in (top, below):
        dress(axis)
    filled, width = [b for b in bins if b.n], 1 / len(bins)
    accuracies = [b.accuracy or 0 for b in filled]
    top.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle="--")
    top.bar([b.low for b in filled], accuracies, width, align="edge", color=ACCENT, alpha=0.4)
    top.plot([b.confidence or 0 for b in filled], accuracies, "o-", color=ACCENT, markersize=5)
    top.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    top.set(ylabel="accuracy", ylim=(0, 1))
    below.bar([b.low for b in bins], [b.n for b in bins], width, align="edge", color=ACCENT, alpha=0.7)
    below.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    below.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    below.set(ylabel="faces", xlabel="confidence", xlim=(0, 1))
    caption = "On the dashed line, accuracy equals confidence. Below: the number of faces with this confidence."
    return plot(figure, alt=f"Reliability diagram; expected calibration error {error:.3f}", caption=caption)


def risk_plot(curve: Selective) -> str:
    """Plot risk against coverage, with the point of the target precision.

    Args:
        curve: The risk-coverage curve.

    Returns:
        HTML.
    """
    figure, axis = new_plot(6.0, 3.8)
    chosen = np.unique(np.linspace(0, len(curve.coverage) - 1, 400).astype(int))
    axis.plot(curve.coverage[chosen], curve.risk[chosen], color=ACCENT, linewidth=2)
    axis.axhline(1 - TARGET, color=MUTED, linewidth=1.2, linestyle="--")
    place = curve.reach()
    text = f"{percent(TARGET, 0)} precision is not reached"
    if place is not None:
        x, y = float(curve.coverage[place]), float(curve.risk[place])
        axis.plot([x], [y], "o", color=INK, markersize=8)
        text = f"{percent(TARGET, 0)} precision at {percent(x, 0)} coverage"
        beside: dict[str, Any] = {"xytext": (8, -14), "textcoords": "offset points"}
        axis.annotate(f"{percent(x, 0)} predicted", (x, y), **beside, color=INK, fontsize=9)
    axis.set(xlabel="coverage: share of faces predicted", ylabel="risk: share of mistakes among these")
    axis.set(xlim=(0, 1), ylim=(0, max(float(curve.risk[chosen].max()) * 1.08, 2 * (1 - TARGET))))
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    caption = f"The most confident predictions first. The dashed line is a risk of {percent(1 - TARGET, 0)}."
    return plot(figure, alt=f"Risk-coverage curve; {text}", caption=caption)


def precision_plot(curves: Mapping[Emotion, tuple[Any, Any]]) -> str:
    """Plot precision against recall of every emotion.

    Args:
        curves: What ``precision_recall`` returns.

    Returns:
        HTML.
    """
    figure, axis = new_plot(6.0, 4.2)
    for emotion, (precision, recall) in curves.items():
        axis.plot(recall, precision, color=emotion.color, linewidth=1.8, label=str(emotion))
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.legend(fontsize=9, ncols=2, loc="lower left")
    text = ", ".join(map(str, curves))
    return plot(figure, alt=f"Precision-recall curves of {text}", caption="Each emotion against all others.")


def training_plots(history: Sequence[EpochRecord]) -> tuple[str, str]:
    """Plot loss and accuracy over the epochs, on training and validation faces.

    Args:
        history: The records of the epochs.

    Returns:
        HTML of both plots.
    """
    epochs = [record.epoch for record in history]
    drawn = []
    for name, validation in (("loss", "val_log_loss"), ("accuracy", "val_accuracy")):
        figure, axis = new_plot(6.0, 3.4)
        for key, color, label in ((name, MUTED, "training"), (validation, ACCENT, "validation")):
            values = [getattr(record, key) for record in history]
            marker = "o" if len(epochs) <= 30 else ""
            axis.plot(epochs, values, color=color, marker=marker, markersize=3.5, label=label)
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name == "accuracy":
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.legend(fontsize=9)
        drawn.append(plot(figure, alt=f"{name} over {len(epochs)} epochs, training and validation"))
    return drawn[0], drawn[1]


def transfer_plot(sets: Mapping[str, Mapping[str, Any]]) -> str:
    """Plot the recall by emotion on several data sets.

    Args:
        sets: Name of the data set -> metrics.

    Returns:
        HTML.
    """
    emotions = list(next(iter(sets.values()))["recall"])
    figure, axis = new_plot(6.0, 0.9 + 0.4 * len(emotions))
    marks = "osD^vP*X"
    for number, (name, metrics) in enumerate(sets.items()):
        known = [(metrics["recall"][e], place) for place, e in enumerate(emotions) if e not in metrics["absent"]]
        style: dict[str, Any] = {"color": ACCENT} if number == 0 else {"color": INK, "markerfacecolor": "none"}
        style |= {"marker": marks[number % len(marks)], "linestyle": "", "markersize": 8}
        axis.plot(*zip(*known, strict=True), label=name, **style)
    axis.set_yticks(range(len(emotions)), emotions)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set(xlim=(-0.02, 1.02), xlabel="recall")
    axis.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return plot(figure, alt=f"Recall by emotion on {', '.join(sets)}")
