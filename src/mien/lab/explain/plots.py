"""The drawings of a study."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mien._emotions import Emotion
from mien.lab.explain.attention import REGIONS, polygons
from mien.lab.explain.faithfulness import ORDERS
from mien.lab.html import ACCENT, INK, LINE, MUTED, new_plot, plot

Figures = Mapping[str, Any]
_SIDE = 336  # pixels of the drawn regions
_COLORS = {"brows": "#8e6bd8", "eyes": "#3f7fd0", "nose": "#5b9a3c", "mouth": "#e5484d"}
_STYLES = {"map": (ACCENT, "-", 2.4), "random": (MUTED, ":", 1.8), "centre": (INK, "--", 1.6)}
_NAMES = {"map": "the map", "random": "random maps", "centre": "blob at the centre"}


def outlined(face: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``face`` uint8 ``[S, S]`` with the regions drawn on it and named, RGB uint8."""
    canvas = Image.fromarray(face).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).convert("RGB")
    draw = ImageDraw.Draw(canvas)
    for region, outlines in polygons().items():
        for outline in outlines:
            corners = [(x * _SIDE, y * _SIDE) for x, y in outline]
            draw.polygon(corners, outline=_COLORS[region], width=2)
        draw.text((corners[0][0] + 4, corners[0][1] + 3), region, fill="#ffffff", stroke_width=1, stroke_fill="#000000")
    return np.asarray(canvas)


def by_region(attention: Mapping[str, Figures]) -> str:
    """Attention over chance, with intervals: regions side by side, a dot an emotion."""
    figure, axis = new_plot(9.0, 3.6)
    offsets = np.linspace(-0.32, 0.32, max(len(attention), 2))
    for offset, (emotion, regions) in zip(offsets, attention.items(), strict=False):
        said = [regions[region] for region in REGIONS]
        values = np.array([one["relative"] for one in said])
        low, high = np.array([one["relative_interval"] for one in said]).T
        axis.errorbar(
            np.arange(len(REGIONS)) + offset,
            values,
            yerr=np.maximum([values - low, high - values], 0),
            fmt="o",
            color=Emotion(emotion).color,
            label=emotion,
            markersize=6,
            linewidth=1.8,
        )
    axis.axhline(1, color=MUTED, linewidth=1, linestyle="--")
    axis.set_xticks(range(len(REGIONS)), REGIONS)
    axis.grid(visible=False, axis="x")
    axis.set_ylabel("attention over chance")
    axis.set_ylim(bottom=0)
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    spoken = "; ".join(
        f"{e}: " + ", ".join(f"{r} {by[r]['relative']:.2f}" for r in REGIONS) for e, by in attention.items()
    )
    return plot(
        figure, alt=f"Attention over chance by region. {spoken}", caption="Dashed: chance. Bars: 95 % intervals."
    )


def curve(figures: Figures, kind: str) -> str:
    """The mean curves of ``kind``, ``"deletion"`` or ``"insertion"``."""
    figure, axis = new_plot(5.0, 3.4)
    for order in ORDERS:
        color, style, width = _STYLES[order]
        said = figures[kind][order]
        axis.plot(
            np.multiply(figures["fractions"], 100),
            said["curve"],
            color=color,
            linestyle=style,
            linewidth=width,
            label=f"{_NAMES[order]} ({said['area']:.3f})",
        )
    axis.set_xlabel("pixels removed, %" if kind == "deletion" else "pixels given back, %")
    axis.set_ylabel("mean probability")
    axis.set_ylim(0, 1)
    axis.set_xlim(0, 100)
    axis.legend(fontsize=9, loc="upper right" if kind == "deletion" else "lower right")
    better = "lower" if kind == "deletion" else "higher"
    areas = ", ".join(f"{_NAMES[order]} {figures[kind][order]['area']:.3f}" for order in ORDERS)
    return plot(
        figure,
        alt=f"{kind.capitalize()} curves; area under them: {areas}",
        caption=f"{kind.capitalize()}: {better} is better; the area under each curve in brackets.",
    )


def cascade(sanity: Figures) -> str:
    """Rank correlation of the maps with those before, stage after stage of shuffled layers."""
    figure, axis = new_plot(6.4, 3.0)
    stages = [(n, s) for n, s in enumerate(sanity["stages"], start=1) if s["correlation"] is not None]
    places = [0, *(n for n, _ in stages)]
    values = np.array([1.0, *(s["correlation"] for _, s in stages)])
    low = np.array([1.0, *(s["interval"][0] for _, s in stages)])
    high = np.array([1.0, *(s["interval"][1] for _, s in stages)])
    axis.fill_between(places, low, high, color=ACCENT, alpha=0.2, linewidth=0)
    axis.plot(places, values, color=ACCENT, marker="o", linewidth=2)
    axis.axhline(0, color=LINE, linewidth=1.2)
    axis.set_ylim(-1.05, 1.05)
    axis.set_xticks(places, ["trained", *(str(n) for n in places[1:])])
    axis.set_xlabel("stages shuffled, from the last layer to the first")
    axis.set_ylabel("rank correlation")
    spoken = ", ".join(f"{value:+.2f}" for value in values)
    return plot(figure, alt=f"Rank correlation after each stage: {spoken}", caption="Band: 95 % interval over faces.")
