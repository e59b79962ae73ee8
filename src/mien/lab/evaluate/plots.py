"""The drawings of a report, in the colours of its page."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mien._emotions import Emotion
from mien.lab.evaluate.curves import TARGET, Bin, Selective
from mien.lab.page import ACCENT, INK, MUTED, new_plot, plot
from mien.lab.page.plot import dress
from mien.lab.train.run import validated


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
