"""Training curves as PNG files, and the style of all plots of the lab."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from mien._errors import MissingExtraError

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter
except ModuleNotFoundError as error:
    raise MissingExtraError("matplotlib", "lab") from error

from mien._output import MARK
from mien.lab.files import save_bytes
from mien.lab.recipe import Recipe
from mien.lab.train.logging import EpochRecord
from mien.lab.train.schedule import Segment, build_schedule

# Two colours that colour-blind readers can distinguish (Okabe and Ito, 2008), and greys.
TRAINING, VALIDATION, QUIET, GRID = "#E69F00", "#0072B2", "#7a7f87", "#e6e8eb"


def draw_curves(recipe: Recipe, history: Sequence[EpochRecord], path: Path) -> None:
    """Draw loss, accuracy and learning rate over the epochs of a run.

    Phases are shaded and named. The epoch at which a fallback took over and the best validated epoch are marked.

    Args:
        recipe: The recipe of the run.
        history: The records of its epochs, at least one.
        path: The PNG file to write.

    Raises:
        OutputError: The file cannot be written.
    """
    figure = Figure(figsize=(8, 7), dpi=110, layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.3])
    epochs = [record.epoch for record in history]
    _plot_pair(axes[0], history, "loss", "val_log_loss")
    _plot_pair(axes[1], history, "accuracy", "val_accuracy")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[2].plot(epochs, [record.lr for record in history], color=QUIET, linewidth=1.6, **_dots(epochs))
    rates = [record.lr for record in history if record.lr > 0]
    stepwise = len(recipe.phases) > 1 or recipe.train.schedule == "plateau"  # it falls by factors
    if stepwise and rates and max(rates) > 20 * min(rates):
        axes[2].set_yscale("log")
    for axis, title in zip(axes, ("loss", "accuracy", "learning rate"), strict=True):
        axis.set_title(title, loc="left", fontsize=10, color="#3c4148")
        plain(axis)
    seconds = sum(record.seconds for record in history)
    figure.suptitle(f"{recipe.name}, seed {recipe.seed}: {len(history)} epochs, {seconds:,.0f} s", fontsize=12)
    schedule = build_schedule(recipe)
    _mark_phases(axes, schedule, len(epochs))
    _mark_events(axes, history)
    axes[2].set_xlabel("epoch")
    axes[2].set_xlim(0.5, max(schedule[-1].last if len(epochs) > 0.5 * schedule[-1].last else 1, len(epochs), 1) + 0.5)
    axes[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically.

    Args:
        figure: The figure.
        path: The file to write.

    Raises:
        OutputError: The file cannot be written.
    """
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": MARK})
    save_bytes(path, stream.getvalue())


def plain(axis: Axes) -> None:
    """Style an axis: no upper and right border, a light grid.

    Args:
        axis: The axis to restyle.
    """
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(QUIET)
    axis.tick_params(colors="#3c4148", labelsize=9)
    axis.grid(axis="y", color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)


def _plot_pair(axis: Axes, history: Sequence[EpochRecord], training: str, validation: str) -> None:
    """Plot a metric of training and validation; ``training`` and ``validation`` are fields of the records."""
    validated = [record for record in history if record.val_split]
    name = validated[0].val_name if validated else "validation"
    curves = ((history, training, TRAINING, "training"), (validated, validation, VALIDATION, name))
    for records, key, color, label in curves:
        epochs, values = [r.epoch for r in records], [getattr(r, key) for r in records]
        axis.plot(epochs, values, color=color, linewidth=1.8, label=label, **_dots(epochs))
    axis.legend(frameon=False, fontsize=9, loc="best")


def _dots(epochs: Sequence[int]) -> dict[str, Any]:
    """Markers for short lines: a line of one point would be invisible without them."""
    return {"marker": "o", "markersize": 3.5} if len(epochs) <= 30 else {}


def _mark_phases(axes: Sequence[Axes], schedule: Sequence[Segment], epochs: int) -> None:
    """Shade and name the phases that the training has reached, where there are several."""
    reached = [segment for segment in schedule if segment.first < epochs and len(schedule) > 1]
    for number, segment in enumerate(reached):
        first, last = segment.first + 0.5, min(segment.last, epochs) + 0.5
        for axis in axes:
            axis.axvspan(first, last, color="#f1f4f8" if number % 2 else "#ffffff", zorder=-2, linewidth=0)
        name = segment.phase.name or f"phase {number + 1}"
        place = axes[0].get_xaxis_transform()
        axes[0].text(first, 1.0, f" {name}", fontsize=8, color=QUIET, clip_on=False, va="bottom", transform=place)
        axes[0].set_title("loss", loc="left", fontsize=10, color="#3c4148", pad=14)


def _mark_events(axes: Sequence[Axes], history: Sequence[EpochRecord]) -> None:
    """Mark fallbacks, the first epoch of each member of an ensemble, and the best validated epoch."""
    place = axes[2].get_xaxis_transform()
    for record in history:
        if record.net:  # of an ensemble
            for axis in axes:
                axis.axvline(record.epoch - 0.5, color=QUIET, linestyle=":", linewidth=1.5)
            axes[2].text(record.epoch - 0.4, 0.03, record.net, fontsize=8, va="bottom", transform=place)
        if record.fallback:
            for axis in axes:
                axis.axvline(record.epoch + 0.5, color="#d55e00", linestyle="--", linewidth=2)
            text = f"fallback: {record.fallback}"
            axes[2].text(record.epoch + 0.6, 0.97, text, fontsize=8, va="top", transform=place)
    known = [(r.val_accuracy, r.epoch) for r in history if not math.isnan(r.val_accuracy)]
    if known:
        best, epoch = max(known, key=lambda pair: (pair[0], -pair[1]))
        axes[1].plot([epoch], [best], "o", color=VALIDATION, markersize=7, markerfacecolor="white", markeredgewidth=1.8)
        axes[1].set_title(f"best: {best:.1%} in epoch {epoch}", loc="right", fontsize=9, color=VALIDATION)
