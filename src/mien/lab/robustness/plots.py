"""Small plots of a figure by strength, several models in each, on one scale."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from PIL import Image

from mien.lab.html import ACCENT, INK, MUTED, new_plot, picture, plot
from mien.lab.robustness.corruptions import STRENGTHS, Images, Spoiling, generators

_SHOWN = 96  # pixels a side


def example_face() -> Images:
    """NASA's portrait of Eileen Collins (public domain), cut as FER-2013 frames faces: uint8 ``[48, 48]``.

    It is the face that mien cuts from `examples/astronaut.png`.
    """
    with files("mien.lab.robustness").joinpath("face.png").open("rb") as stream, Image.open(stream) as face:
        return np.asarray(face.convert("L"))


def sheet(spoilings: Sequence[Spoiling], *, seed: int = 0) -> str:
    """The example face, clean and then at strengths 1 to 5 of every one of ``spoilings``, as a table of pictures."""
    face = example_face()
    head = "".join(f'<th scope="col">{text}</th>' for text in ("", "clean", *map(str, STRENGTHS)))
    rows = "".join(_row(spoiling, face, seed) for spoiling in spoilings)
    return (
        f'<div class="scroll" tabindex="0"><table class="sheet"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def spoilt_faces(spoiling: Spoiling, face: Images, seed: int) -> list[Images]:
    """``face`` uint8 ``[S, S]`` at strengths 1 to 5."""
    return [spoiling(face[None], strength, generators(seed, spoiling.name, [0]))[0] for strength in STRENGTHS]


def _row(spoiling: Spoiling, face: Images, seed: int) -> str:
    shown = "".join(
        f"<td>{_cell(image, spoiling.name)}<small>{amount:g}</small></td>"
        for image, amount in zip(spoilt_faces(spoiling, face, seed), spoiling.amounts, strict=True)
    )
    what = f"{escape(spoiling.name)}<small>{escape(spoiling.does)}; {escape(spoiling.unit)}</small>"
    return f'<tr><th scope="row">{what}</th><td>{_cell(face, "clean")}<small>–</small></td>{shown}</tr>'


def _cell(image: Images, alt: str) -> str:
    large = Image.fromarray(image).resize((_SHOWN, _SHOWN), Image.Resampling.NEAREST)
    return picture(np.asarray(large), alt=alt)


# Told apart in light and dark, and by their marks where colours are not.
_COLOURS = (ACCENT, "#2f7fc1", "#3b9a5f", "#b45fb0", "#d0832b", "#8a857b")


_MARKS = "osD^vP"


Five = Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]]  # model -> its five conditions


def key(models: Sequence[Mapping[str, Any]]) -> str:
    """Which colour is which model."""
    items = (
        f'<li><span style="background:{_css(at)}"></span>{escape(model["name"])}</li>'
        for at, model in enumerate(models)
    )
    return f'<ul class="key">{"".join(items)}</ul>'


def multiples(
    models: Sequence[Mapping[str, Any]], spoilings: Sequence[Mapping[str, Any]], figure: str, label: str
) -> str:
    """A small plot of ``figure`` for every spoiling, all on the same scale."""
    top = _top(models, figure)
    drawn = [_panel(models, spoiling, figure, label, top) for spoiling in spoilings]
    return f'<div class="multiples">{"".join(drawn)}</div>'


def mean_plot(models: Sequence[Mapping[str, Any]], figure: str, label: str) -> str:
    """The mean of ``figure`` over all spoilings, by strength."""
    drawing, axis = new_plot(4.6, 3.2)
    _lines(axis, models, figure, lambda model: model["by_strength"])
    axis.set_xticks(range(6), ["clean", *"12345"])
    axis.set_xlabel("strength, mean of all spoilings")
    axis.set_ylabel(label)
    axis.set_ylim(0, _top(models, figure))
    return plot(drawing, alt=f"{label} by strength, mean of all spoilings")


def _panel(
    models: Sequence[Mapping[str, Any]], spoiling: Mapping[str, Any], figure: str, label: str, top: float
) -> str:
    drawing, axis = new_plot(2.9, 2.35)
    _lines(axis, models, figure, lambda model: model["spoilt"][spoiling["name"]])
    axis.set_xticks(range(6), ["clean", *(f"{amount:g}" for amount in spoiling["amounts"])])
    axis.set_title(spoiling["name"], fontsize=10.5, loc="left", color=INK)
    axis.set_xlabel(spoiling["unit"], fontsize=8.5)
    axis.set_ylim(0, top)
    said = "; ".join(
        f"{model['name']} from {model['clean'][figure]['value']:.0%} to "
        f"{model['spoilt'][spoiling['name']][-1][figure]['value']:.0%}"
        for model in models
    )
    return plot(drawing, alt=f"{label} under {spoiling['name']}: {said}")


def _lines(axis: Axes, models: Sequence[Mapping[str, Any]], figure: str, five: Five) -> None:
    """A line a model from its clean faces on, that level dotted; of one model alone the interval, too."""
    for at, model in enumerate(models):
        conditions = [model["clean"], *five(model)]
        values = [condition[figure]["value"] for condition in conditions]
        colour = _COLOURS[at % len(_COLOURS)]
        axis.axhline(values[0], color=colour, linewidth=0.9, linestyle=":")
        axis.plot(values, color=colour, marker=_MARKS[at % len(_MARKS)], markersize=3.5, linewidth=1.6)
        if len(models) == 1:
            low, high = zip(*(condition[figure]["interval"] for condition in conditions), strict=True)
            axis.fill_between(range(len(values)), low, high, color=MUTED, alpha=0.25, linewidth=0)
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.tick_params(labelsize=8)


def _top(models: Sequence[Mapping[str, Any]], figure: str) -> float:
    """The end of the scale that all plots of ``figure`` share."""
    most = max(
        condition[figure]["value"]
        for model in models
        for five in ([model["clean"]], *model["spoilt"].values())
        for condition in five
    )
    return min(1.0, float(most) * 1.12 + 0.01)


def _css(at: int) -> str:
    colour = _COLOURS[at % len(_COLOURS)]
    return "var(--accent)" if colour == ACCENT else colour
