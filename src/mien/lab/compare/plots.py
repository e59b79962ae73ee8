"""The plots of a comparison."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mien._emotions import Emotion
from mien.lab.compare.compare import Comparison
from mien.lab.html import ACCENT, INK, LINE, MUTED, new_plot, plot

# Of a name in a plot: the height of its line as a share of the plot's height, and the width of a letter and half the
# width of a dot as shares of its width.
_NAME_GAP, _LETTER, _DOT = 0.05, 0.0108, 0.012

_NameBox = tuple[float, float, float, float]  # left, right, bottom, top, as shares of the axes


@dataclass(frozen=True, slots=True)
class ModelPoint:
    """A model in a plot of accuracy against cost.

    Attributes:
        name: Its name.
        cost: Its cost, above 0.
        accuracy: Its accuracy, 0..1.
        interval: 95 % interval of the accuracy.
    """

    name: str
    cost: float
    accuracy: float
    interval: tuple[float, float]


def front(points: Sequence[ModelPoint]) -> list[ModelPoint]:
    """Find the Pareto front: the models for which no other is at least as cheap and more accurate.

    Args:
        points: The models.

    Returns:
        The models of the front, the cheapest first.
    """
    best: list[ModelPoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def pareto_figure(points: Sequence[ModelPoint], *, cost: str, accuracy: str) -> tuple[Figure, str]:
    """Plot accuracy against cost on a logarithmic axis, with a line through the Pareto front.

    Args:
        points: The models.
        cost: Label of the horizontal axis.
        accuracy: Label of the vertical axis, without its unit.

    Returns:
        The figure, and its content in words.
    """
    figure, axis = new_plot(6.4, 4.2)
    best = front(points)
    axis.set_xscale("log")
    for point in points:
        colour = ACCENT if point in best else MUTED
        axis.plot([point.cost] * 2, [100 * edge for edge in point.interval], color=colour, linewidth=1.2, alpha=0.7)
        axis.plot([point.cost], [100 * point.accuracy], "o", color=colour, markersize=7)
    line = [p.cost for p in best], [100 * p.accuracy for p in best]
    axis.plot(*line, color=ACCENT, linewidth=1, linestyle="--", zorder=1)
    axis.set_xlabel(cost)
    axis.set_ylabel(f"{accuracy}, %")
    costs = [p.cost for p in points]
    axis.set_xlim(min(costs) / 1.6, max(costs) * 1.6 * (max(costs) / min(costs)) ** 0.45)  # room for the names
    axis.grid(which="minor", visible=False)
    low, high = axis.get_xlim()
    ticks = [factor * 10.0**power for power in range(-3, 7) for factor in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_xticks(shown, [f"{tick:g}" for tick in shown])  # 1, 2, 5, 10 instead of powers of ten
    axis.set_xticks([], minor=True)
    _write_names(axis, points)
    names = ", ".join(f"{p.name} {100 * p.accuracy:.1f} % at {p.cost:.3g}" for p in points)
    return figure, f"{accuracy.capitalize()} against {cost}: {names}"


def recall_comparison_plot(comparison: Comparison) -> str:
    """Plot the recall of every emotion for every model, on its own classes and faces.

    Args:
        comparison: The comparison.

    Returns:
        HTML: one line for each model, one dot for each emotion.
    """
    order = comparison.ranking
    figure, axis = new_plot(8.6, 1.1 + 0.42 * len(order))
    known = set()
    for y, place in enumerate(reversed(order)):
        axis.plot([0, 100], [y, y], color=LINE, linewidth=1, zorder=0)
        for emotion, recall in comparison.recall(place).items():
            axis.plot([100 * recall], [y], "o", color=emotion.color, markersize=8)
            known.add(emotion)
    for emotion in sorted(known, key=tuple(Emotion).index):
        axis.plot([], [], "o", color=emotion.color, label=str(emotion))
    _name_rows(axis, [comparison.entries[place].name for place in order])
    axis.set_xlim(0, 100)
    axis.set_xlabel("recall, %")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(known), fontsize=9, handletextpad=0.2)
    return plot(figure, alt="Recall of every emotion for every model; the table below has the numbers")


def effect_plot(rows: Sequence[tuple[str, float, tuple[float, float]]], *, label: str, caption: str) -> str:
    """Plot differences with their intervals, in points; those whose interval contains 0 are grey.

    Args:
        rows: Name, difference (-1..1) and its 95 % interval.
        label: Label of the horizontal axis.
        caption: Caption of the plot.

    Returns:
        HTML.
    """
    figure, axis = new_plot(7.6, 1.0 + 0.38 * len(rows))
    axis.axvline(0, color=INK, linewidth=1)
    for y, (_, value, (low, high)) in enumerate(reversed(rows)):
        colour = ACCENT if low > 0 or high < 0 else MUTED
        axis.plot([100 * low, 100 * high], [y, y], color=colour, linewidth=2)
        axis.plot([100 * value], [y], "o", color=colour, markersize=7)
    _name_rows(axis, [name for name, _, _ in rows])
    axis.set_xlabel(label)
    values = "; ".join(f"{name} {100 * value:+.1f} points" for name, value, _ in rows)
    return plot(figure, alt=f"{label}: {values}", caption=caption)


def _name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Write the names of the rows on the vertical axis, the first on top."""
    axis.set_yticks(range(len(names)), list(reversed(names)))
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.grid(axis="y", visible=False)


def _write_names(axis: Axes, points: Sequence[ModelPoint]) -> None:
    """Write each name at the first place beside its point where it covers no point and no other name."""
    low, high = axis.get_ylim()
    left, right = (math.log(edge) for edge in axis.get_xlim())
    at = {p: ((math.log(p.cost) - left) / (right - left), (100 * p.accuracy - low) / (high - low)) for p in points}
    taken = [(x - _DOT, x + _DOT, y - _DOT, y + _DOT) for x, y in at.values()]
    for point in sorted(points, key=lambda p: -p.accuracy):
        boxes = list(_places_around(*at[point], _LETTER * len(point.name)))
        box = next((box for box in boxes if not any(_overlap(box, other) for other in taken)), boxes[0])
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
            | {"relpos": (float(leftwards), 0.5)},  # the line ends at the near end of the name
        )


def _places_around(x: float, y: float, width: float) -> Iterator[_NameBox]:
    """Places for a name around a point, inside of the axes: the nearest first, right before left."""
    for step in (0, 1, -1, 2, -2, 3, -3):
        middle = y + step * _NAME_GAP
        bottom, top = middle - _NAME_GAP / 2, middle + _NAME_GAP / 2
        if bottom >= 0 and top <= 1:
            yield x + 2 * _DOT, x + 2 * _DOT + width, bottom, top
            if x - 2 * _DOT - width >= 0:
                yield x - 2 * _DOT - width, x - 2 * _DOT, bottom, top


def _overlap(one: _NameBox, other: _NameBox) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
