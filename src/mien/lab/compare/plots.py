"""The drawings of a comparison."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mien._emotions import Emotion
from mien.lab.compare.compare import Comparison
from mien.lab.html.figures import ACCENT, INK, LINE, MUTED, new_plot, plot

# Height of a name in a plot, as a share of its height; width of a letter and half the width of a dot, of its width.
_NAME_GAP, _LETTER, _DOT = 0.05, 0.0108, 0.012

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """A model in a plot of what is good against what it costs: ``cost`` > 0, ``good`` 0..1 with its 95 % interval."""

    name: str
    cost: float
    good: float
    interval: tuple[float, float]


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats in one thing without losing in the other (Pareto), the cheapest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.good)):
        if not kept or point.good > kept[-1].good:
            kept.append(point)
    return kept


def pareto(points: Sequence[Point], *, label: str, good: str, caption: str) -> str:
    """What is ``good`` of ``points`` against a logarithmic cost called ``label``, the front joined by a line."""
    figure, alt = pareto_figure(points, label=label, good=good)
    return plot(figure, alt=alt, caption=caption)


def pareto_figure(points: Sequence[Point], *, label: str, good: str) -> tuple[Figure, str]:
    """The figure of ``pareto``, and what it shows in words."""
    figure, axis = new_plot(6.4, 4.2)
    best = front(points)
    axis.set_xscale("log")
    for point in points:
        colour = ACCENT if point in best else MUTED
        low, high = point.interval
        axis.plot([point.cost] * 2, [100 * low, 100 * high], color=colour, linewidth=1.2, alpha=0.7)
        axis.plot([point.cost], [100 * point.good], "o", color=colour, markersize=7)
    steps = [(p.cost, 100 * p.good) for p in best]
    axis.plot([x for x, _ in steps], [y for _, y in steps], color=ACCENT, linewidth=1, linestyle="--", zorder=1)
    axis.set_xlabel(label)
    axis.set_ylabel(f"{good}, %")
    costs = [p.cost for p in points]
    axis.set_xlim(min(costs) / 1.6, max(costs) * 1.6 * (max(costs) / min(costs)) ** 0.45)  # room for the names
    axis.grid(which="minor", visible=False)
    _plain_ticks(axis, *axis.get_xlim())
    _name(axis, points)
    names = ", ".join(f"{p.name} {100 * p.good:.1f} % at {p.cost:.3g}" for p in points)
    return figure, f"{good.capitalize()} against {label}: {names}"


def recall_plot(comparison: Comparison, order: Sequence[int]) -> str:
    """One line a model, one dot an emotion at its recall: own classes, own faces."""
    height = 1.1 + 0.42 * len(order)
    figure, axis = new_plot(8.6, height)
    known: dict[Emotion, None] = {}
    for y, place in enumerate(reversed(order)):
        axis.plot([0, 100], [y, y], color=LINE, linewidth=1, zorder=0)
        for emotion, recall in comparison.recall(place).items():
            axis.plot([100 * recall], [y], "o", color=emotion.color, markersize=8)
            known[emotion] = None
    for emotion in sorted(known, key=tuple(Emotion).index):
        axis.plot([], [], "o", color=emotion.color, label=str(emotion))
    axis.set_yticks(range(len(order)), [comparison.entries[p].name for p in reversed(order)])
    axis.set_ylim(-0.6, len(order) - 0.4)
    axis.set_xlim(0, 100)
    axis.set_xlabel("recall, %")
    axis.grid(axis="y", visible=False)
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(known), fontsize=9, handletextpad=0.2)
    return plot(figure, alt="Recall of every emotion for every model; the table below has the numbers")


def effect_plot(rows: Sequence[tuple[str, float, tuple[float, float]]], *, label: str, caption: str) -> str:
    """Differences in points with their 95 % intervals, one line each: name, value, interval; noise is grey."""
    figure, axis = new_plot(7.6, 1.0 + 0.38 * len(rows))
    axis.axvline(0, color=INK, linewidth=1)
    for y, (_, value, (low, high)) in enumerate(reversed(rows)):
        colour = ACCENT if low > 0 or high < 0 else MUTED
        axis.plot([100 * low, 100 * high], [y, y], color=colour, linewidth=2)
        axis.plot([100 * value], [y], "o", color=colour, markersize=7)
    axis.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_xlabel(label)
    axis.grid(axis="y", visible=False)
    said = "; ".join(f"{name} {100 * value:+.1f} points" for name, value, _ in rows)
    return plot(figure, alt=f"{label}: {said}", caption=caption)


def _plain_ticks(axis: Axes, low: float, high: float) -> None:
    """1, 2, 5, 10 instead of powers of ten: readers think in milliseconds and millions."""
    ticks = [factor * 10.0**power for power in range(-3, 7) for factor in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axis.set_xticks([], minor=True)


def _name(axis: Axes, points: Sequence[Point]) -> None:
    """Each name beside its point, at the first place around it where it lies on no point and on no other name."""
    low, high = axis.get_ylim()
    left, right = (math.log(edge) for edge in axis.get_xlim())
    at = {p: ((math.log(p.cost) - left) / (right - left), (100 * p.good - low) / (high - low)) for p in points}
    taken = [(x - _DOT, x + _DOT, y - _DOT, y + _DOT) for x, y in at.values()]  # begin, end, bottom, top: axes' shares
    for point in sorted(points, key=lambda p: -p.good):
        boxes = list(_around(*at[point], _LETTER * len(point.name)))
        box = next((box for box in boxes if not any(_meet(box, other) for other in taken)), boxes[0])
        taken.append(box)
        begin, end, bottom, top = box
        leftwards = end < at[point][0]
        axis.annotate(
            point.name,
            at[point],
            xycoords="axes fraction",
            xytext=(end if leftwards else begin, (bottom + top) / 2),
            textcoords="axes fraction",
            color=INK,
            fontsize=8.5,
            va="center",
            ha="right" if leftwards else "left",
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
            | {"relpos": (float(leftwards), 0.5)},  # the line ends at the name's near end
        )


def _around(x: float, y: float, width: float) -> Iterator[Box]:
    """Places for a name of ``width`` about a point inside of the axes, the nearest first, right before left."""
    for step in (0, 1, -1, 2, -2, 3, -3):
        middle = y + step * _NAME_GAP
        bottom, top = middle - _NAME_GAP / 2, middle + _NAME_GAP / 2
        if bottom >= 0 and top <= 1:
            yield x + 2 * _DOT, x + 2 * _DOT + width, bottom, top
            if x - 2 * _DOT - width >= 0:
                yield x - 2 * _DOT - width, x - 2 * _DOT, bottom, top


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
