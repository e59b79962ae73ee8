"""Figures of a training as PNG files: its curves over the epochs, and what a search found. Nobody's face is in them."""

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

from mien.lab.files import save_bytes
from mien.lab.recipe import Recipe
from mien.lab.train.run import validated
from mien.lab.train.schedule import Stage, stages

Records = Sequence[dict[str, Any]]

# Two hues that stay apart for colour-blind readers (Okabe and Ito, 2008), and greys.
TRAINING, VALIDATION, QUIET, GRID = "#E69F00", "#0072B2", "#7a7f87", "#e6e8eb"


def draw_curves(recipe: Recipe, history: Records, path: Path) -> None:
    """Loss and accuracy on training and validation faces and the learning rate, over the epochs of ``history``.

    Phases are shaded and named, the epoch at which a fallback took over and the best validated one are marked. Raises
    ``OutputError`` where ``path`` cannot be written.
    """
    figure = Figure(figsize=(8, 7), dpi=110, layout="constrained")
    axes = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.3])
    epochs = [record["epoch"] for record in history]
    named = {key for record in history for key in record}
    split = next((name for name in ("fold", "leaky") if f"{name}_accuracy" in named), "PublicTest")
    _pair(axes[0], epochs, history, "loss", "log_loss", split)
    _pair(axes[1], epochs, history, "accuracy", "accuracy", split)
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[2].plot(epochs, [record["rate"] for record in history], color=QUIET, linewidth=1.6, **_dots(epochs))
    rates = [record["rate"] for record in history if record["rate"] > 0]
    stepwise = len(recipe.phases) > 1 or recipe.train.schedule == "plateau"  # steps of factors, not of sums
    if stepwise and rates and max(rates) > 20 * min(rates):
        axes[2].set_yscale("log")
    _titles(axes, recipe, history)
    course = stages(recipe)
    _mark_phases(axes, course, len(epochs))
    _mark_events(axes, history)
    axes[2].set_xlabel("epoch")
    axes[2].set_xlim(0.5, max(course[-1].last if len(epochs) > 0.5 * course[-1].last else 1, len(epochs), 1) + 0.5)
    axes[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``figure`` as PNG, atomically. Raises ``OutputError``."""
    stream = BytesIO()
    figure.savefig(stream, format="png")
    save_bytes(path, stream.getvalue())


def plain(axis: Axes) -> None:
    """Take away what carries no information."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(QUIET)
    axis.tick_params(colors="#3c4148", labelsize=9)
    axis.grid(axis="y", color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)


def _pair(axis: Axes, epochs: list[int], history: Records, training: str, validation: str, split: str) -> None:
    """One figure on the training faces and on those that select."""
    axis.plot(epochs, [r[training] for r in history], color=TRAINING, linewidth=1.8, label="training", **_dots(epochs))
    known = [record for record in history if any(key.endswith(f"_{validation}") for key in record)]
    judged, seen = [validated(record, validation) for record in known], [record["epoch"] for record in known]
    axis.plot(seen, judged, color=VALIDATION, linewidth=1.8, label=split, **_dots(seen))
    axis.legend(frameon=False, fontsize=9, loc="best")


def _dots(epochs: Sequence[int]) -> dict[str, Any]:
    """A line of few points shows them; that of one would be invisible without."""
    return {"marker": "o", "markersize": 3.5} if len(epochs) <= 30 else {}


def _titles(axes: Sequence[Axes], recipe: Recipe, history: Records) -> None:
    for axis, title in zip(axes, ("loss", "accuracy", "learning rate"), strict=True):
        axis.set_title(title, loc="left", fontsize=10, color="#3c4148")
        plain(axis)
    seconds = sum(record["seconds"] for record in history)
    figure = axes[0].figure
    figure.suptitle(f"{recipe.name}, seed {recipe.seed}: {len(history)} epochs, {seconds:,.0f} s", fontsize=12)


def _mark_phases(axes: Sequence[Axes], course: Sequence[Stage], epochs: int) -> None:
    reached = [stage for stage in course if stage.first < epochs]
    if len(course) < 2:
        return
    for number, stage in enumerate(reached):
        first, last = stage.first + 0.5, min(stage.last, epochs) + 0.5
        for axis in axes:
            axis.axvspan(first, last, color="#f1f4f8" if number % 2 else "#ffffff", zorder=-2, linewidth=0)
        place: dict[str, Any] = {"transform": axes[0].get_xaxis_transform(), "ha": "left", "va": "bottom"}
        name = stage.phase.name or f"phase {number + 1}"
        axes[0].text(first, 1.0, f" {name}", fontsize=8, color=QUIET, clip_on=False, **place)
        axes[0].set_title("loss", loc="left", fontsize=10, color="#3c4148", pad=14)


def _mark_events(axes: Sequence[Axes], history: Records) -> None:
    """A dashed line where a fallback took over or another net's epochs begin, a dot on the best validated epoch."""
    for record in history:
        if "net" in record:  # of a joined run
            for axis in axes:
                axis.axvline(record["epoch"] - 0.5, color=QUIET, linestyle=":", linewidth=1.5)
            place: dict[str, Any] = {"transform": axes[2].get_xaxis_transform(), "ha": "left", "va": "bottom"}
            axes[2].text(record["epoch"] - 0.4, 0.03, record["net"], fontsize=8, **place)
        if "fallback" in record:
            for axis in axes:
                axis.axvline(record["epoch"] + 0.5, color="#d55e00", linestyle="--", linewidth=2)
            place = {"transform": axes[2].get_xaxis_transform(), "ha": "left", "va": "top"}
            axes[2].text(record["epoch"] + 0.6, 0.97, f"fallback: {record['fallback']}", fontsize=8, **place)
    judged = [(validated(record, "accuracy"), record["epoch"]) for record in history]
    known = [pair for pair in judged if pair[0] == pair[0]]
    if known:
        best, epoch = max(known, key=lambda pair: (pair[0], -pair[1]))
        axes[1].plot([epoch], [best], "o", color=VALIDATION, markersize=7, markerfacecolor="white", markeredgewidth=1.8)
        axes[1].set_title(f"best: {best:.1%} in epoch {epoch}", loc="right", fontsize=9, color=VALIDATION)
