"""Plots of an explanation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mien._emotions import Emotion
from mien.lab.explain.attention import REGIONS, region_polygons
from mien.lab.explain.faithfulness import ORDERS
from mien.lab.html.figures import ACCENT, INK, LINE, MUTED, new_plot, plot

_Metrics = Mapping[str, Any]

ORDER_NAMES = {"map": "the map", "random": "random maps", "centre": "blob at the centre"}
_SIDE = 336  # pixels of the image of the regions
_COLOURS = {"brows": "#8e6bd8", "eyes": "#3f7fd0", "nose": "#5b9a3c", "mouth": "#e5484d"}
_STYLES = {"map": (ACCENT, "-", 2.4), "random": (MUTED, ":", 1.8), "centre": (INK, "--", 1.6)}


def draw_regions(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw the outlines and names of the regions on a face.

    Args:
        face: uint8 ``[S, S]``.

    Returns:
        RGB uint8 ``[336, 336, 3]``.
    """
    canvas = Image.fromarray(face).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).convert("RGB")
    draw = ImageDraw.Draw(canvas)
    for region, outlines in region_polygons().items():
        for outline in outlines:
            corners = [(x * _SIDE, y * _SIDE) for x, y in outline]
            draw.polygon(corners, outline=_COLOURS[region], width=2)
        draw.text((corners[0][0] + 4, corners[0][1] + 3), region, fill="#ffffff", stroke_width=1, stroke_fill="#000000")
    return np.asarray(canvas)


def region_plot(attention: Mapping[str, _Metrics]) -> str:
    """Plot the attention relative to chance, one dot per region and emotion.

    Args:
        attention: By emotion, its regions.

    Returns:
        HTML.
    """
    figure, axis = new_plot(9.0, 3.6)
    offsets = np.linspace(-0.32, 0.32, max(len(attention), 2))
    for offset, (emotion, regions) in zip(offsets, attention.items(), strict=False):
        values = np.array([regions[region]["relative"] for region in REGIONS])
        low, high = np.array([regions[region]["relative_interval"] for region in REGIONS]).T
        style: dict[str, Any] = {"color": Emotion(emotion).color, "fmt": "o", "markersize": 6, "linewidth": 1.8}
        lengths = np.maximum([values - low, high - values], 0)
        axis.errorbar(np.arange(len(REGIONS)) + offset, values, yerr=lengths, label=emotion, **style)
    axis.axhline(1, color=MUTED, linewidth=1, linestyle="--")
    axis.set_xticks(range(len(REGIONS)), REGIONS)
    axis.grid(visible=False, axis="x")
    axis.set(ylabel="attention relative to chance", ylim=(0, None))
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    values_text = "; ".join(
        f"{emotion}: " + ", ".join(f"{region} {by[region]['relative']:.2f}" for region in REGIONS)
        for emotion, by in attention.items()
    )
    alt = f"Attention relative to chance by region. {values_text}"
    return plot(figure, alt=alt, caption="Dashed: chance. Bars: 95 % intervals.")


def faithfulness_plot(metrics: _Metrics, kind: str) -> str:
    """Plot the mean curves of deletion or insertion.

    Args:
        metrics: The result of ``faithfulness``.
        kind: ``deletion`` or ``insertion``.

    Returns:
        HTML.
    """
    figure, axis = new_plot(5.0, 3.4)
    deletion = kind == "deletion"
    for order in ORDERS:
        color, style, width = _STYLES[order]
        summary = metrics[kind][order]
        fractions, label = np.multiply(metrics["fractions"], 100), f"{ORDER_NAMES[order]} ({summary['auc']:.3f})"
        axis.plot(fractions, summary["curve"], color=color, linestyle=style, linewidth=width, label=label)
    axis.set(xlabel="pixels removed, %" if deletion else "pixels restored, %", ylabel="mean probability")
    axis.set(xlim=(0, 100), ylim=(0, 1))
    axis.legend(fontsize=9, loc="upper right" if deletion else "lower right")
    areas = ", ".join(f"{ORDER_NAMES[order]} {metrics[kind][order]['auc']:.3f}" for order in ORDERS)
    caption = f"{kind.capitalize()}: {'lower' if deletion else 'higher'} is better; AUC in brackets."
    return plot(figure, alt=f"{kind.capitalize()} curves, AUC: {areas}", caption=caption)


def randomisation_plot(metrics: _Metrics) -> str:
    """Plot the rank correlation of the maps after each stage of the randomisation test.

    Args:
        metrics: The result of ``randomisation_test``.

    Returns:
        HTML.
    """
    figure, axis = new_plot(6.4, 3.0)
    stages = [(n, s) for n, s in enumerate(metrics["stages"], start=1) if s["correlation"] is not None]
    places = [0, *(n for n, _ in stages)]
    values = np.array([1.0, *(s["correlation"] for _, s in stages)])
    low, high = np.array([[1.0, 1.0], *(s["interval"] for _, s in stages)]).T
    axis.fill_between(places, low, high, color=ACCENT, alpha=0.2, linewidth=0)
    axis.plot(places, values, color=ACCENT, marker="o", linewidth=2)
    axis.axhline(0, color=LINE, linewidth=1.2)
    axis.set_xticks(places, ["trained", *(str(n) for n in places[1:])])
    axis.set(ylim=(-1.05, 1.05), xlabel="stages shuffled, from the last layer to the first", ylabel="rank correlation")
    listed = ", ".join(f"{value:+.2f}" for value in values)
    return plot(figure, alt=f"Rank correlation after each stage: {listed}", caption="Band: 95 % interval over faces.")
