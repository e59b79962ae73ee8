"""Plots of metrics by severity, several models in each, and example images of the corruptions."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from PIL import Image

from mien._metrics import format_metric, metric_name
from mien._page import escape, image_tag
from mien.lab.html import ACCENT, INK, MUTED, new_plot, plot
from mien.lab.robustness.corruptions import SEVERITIES, Corruption, corruption_generators
from mien.lab.robustness.metrics import Condition
from mien.lab.robustness.run import ModelRobustness

_Images = NDArray[np.uint8]

_THUMB = 96  # pixels per side
# Distinct in light and dark mode; markers distinguish lines where colours do not.
_COLOURS = (ACCENT, "#2f7fc1", "#3b9a5f", "#b45fb0", "#d0832b", "#8a857b")
_MARKERS = "osD^vP"
_LABEL_LETTERS = 46  # in a line below a small plot


def example_face() -> _Images:
    """Return NASA's portrait of Eileen Collins (public domain), cropped as mien crops `examples/astronaut.png`.

    Returns:
        uint8 ``[48, 48]``.
    """
    with files("mien.lab.robustness").joinpath("face.png").open("rb") as stream, Image.open(stream) as face:
        return np.asarray(face.convert("L"))


def corruption_sheet(corruptions: Sequence[Corruption], *, seed: int = 0) -> str:
    """Return a table of images: the example face, clean and at the severities 1 to 5 of every corruption.

    Args:
        corruptions: The corruptions to show.
        seed: Seed of random corruptions.

    Returns:
        HTML.
    """
    face = example_face()
    head = "".join(f'<th scope="col">{text}</th>' for text in ("", "clean", *map(str, SEVERITIES)))
    rows = []
    for corruption in corruptions:
        name = corruption.name
        cells = f"<td>{_thumb(face, 'clean')}<small>–</small></td>"
        for severity, amount in zip(SEVERITIES, corruption.amounts, strict=True):
            image = corruption(face[None], severity, corruption_generators(seed, name, [0]))[0]
            cells += f"<td>{_thumb(image, name)}<small>{amount:g}</small></td>"
        what = f"{escape(name)}<small>{escape(corruption.description)}; {escape(corruption.unit)}</small>"
        rows.append(f'<tr><th scope="row">{what}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0"><table class="sheet"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _thumb(image: _Images, alt: str) -> str:
    return image_tag(Image.fromarray(image).resize((_THUMB, _THUMB), Image.Resampling.NEAREST), alt)


def model_key(models: Sequence[ModelRobustness]) -> str:
    """Return the legend of the plots: the colour of every model.

    Args:
        models: The results of the models.

    Returns:
        HTML.
    """
    colours = ("var(--accent)" if _colour(at) == ACCENT else _colour(at) for at in range(len(models)))
    items = (
        f'<li><span style="background:{colour}"></span>{escape(model["name"])}</li>'
        for colour, model in zip(colours, models, strict=True)
    )
    return f'<ul class="key">{"".join(items)}</ul>'


def small_multiples(models: Sequence[ModelRobustness], corruptions: Sequence[Mapping[str, Any]], key: str) -> str:
    """Plot a metric by severity, one plot per corruption, all on the same scale.

    Args:
        models: The results of the models.
        corruptions: Corruptions as a result describes them.
        key: The metric.

    Returns:
        HTML.
    """
    plots = []
    for corruption in corruptions:
        figure, axis = new_plot(2.9, 2.35)
        name = corruption["name"]
        _lines(axis, models, key, [model["corrupted"][name] for model in models])
        axis.set_xticks(range(6), ["clean", *(f"{amount:g}" for amount in corruption["amounts"])])
        axis.set_title(name, fontsize=10.5, loc="left", color=INK)
        axis.set_xlabel(fill(corruption["unit"], _LABEL_LETTERS), fontsize=8.5)
        ranges = "; ".join(
            f"{model['name']} from {_value(model['clean'], key)} to {_value(model['corrupted'][name][-1], key)}"
            for model in models
        )
        plots.append(plot(figure, alt=f"{metric_name(key)} under {name}: {ranges}"))
    return f'<div class="multiples">{"".join(plots)}</div>'


def mean_plot(models: Sequence[ModelRobustness], key: str) -> str:
    """Plot the mean of a metric over all corruptions, by severity.

    Args:
        models: The results of the models.
        key: The metric.

    Returns:
        HTML.
    """
    figure, axis = new_plot(4.6, 3.2)
    _lines(axis, models, key, [model["by_severity"] for model in models])
    axis.set_xticks(range(6), ["clean", *map(str, SEVERITIES)])
    axis.set_xlabel("severity, mean of all corruptions")
    axis.set_ylabel(metric_name(key))
    return plot(figure, alt=f"{metric_name(key)} by severity, mean of all corruptions")


def _value(condition: Condition, key: str) -> str:
    return format_metric(key, condition["metrics"][key]["value"])


def _lines(axis: Axes, models: Sequence[ModelRobustness], key: str, corrupted: Sequence[Sequence[Condition]]) -> None:
    """One line per model that starts at its clean faces (dotted); for a single model also the interval."""
    has_band = len(models) == 1 and key != "ece"
    for at, (model, conditions) in enumerate(zip(models, corrupted, strict=True)):
        estimates = [condition["metrics"][key] for condition in (model["clean"], *conditions)]
        values = [estimate["value"] for estimate in estimates]
        axis.axhline(values[0], color=_colour(at), linewidth=0.9, linestyle=":")
        axis.plot(values, color=_colour(at), marker=_MARKERS[at % len(_MARKERS)], markersize=3.5, linewidth=1.6)
        if has_band:
            low, high = zip(*(estimate["interval"] for estimate in estimates), strict=True)
            axis.fill_between(range(len(values)), low, high, color=MUTED, alpha=0.25, linewidth=0)
    shown = [
        condition["metrics"][key]["interval"][1] if has_band else condition["metrics"][key]["value"]
        for model in models
        for conditions in ([model["clean"]], *model["corrupted"].values())
        for condition in conditions
    ]
    axis.set_ylim(0, min(1.0, max(shown) * 1.12 + 0.01))  # the same scale in all plots of a metric
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.tick_params(labelsize=8)


def _colour(at: int) -> str:
    return _COLOURS[at % len(_COLOURS)]
