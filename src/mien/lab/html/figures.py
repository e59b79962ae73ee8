"""matplotlib figures as SVG whose ink follows the page into the dark."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from io import BytesIO, StringIO
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from mien._errors import MissingExtraError
from mien._page import palette

# Of a full cell: its number must stay readable in the ink of the page, light and dark.
_DARKEST = 0.75


def plot_confusion(figures: Mapping[str, Any], title: str) -> str:
    """The ``confusion`` of ``figures`` (of ``judge.figures``: rows labels, columns answers) as an SVG file.

    A cell is darker the larger its share of the row; its number is that share in percent.
    """
    counts, names = np.asarray(figures["confusion"], float), list(figures["recall"])
    support = counts.sum(axis=1)
    shares = counts / support.clip(min=1)[:, None]
    size = len(names)
    figure, axis = new_plot(2.2 + 0.62 * size, 1.3 + 0.5 * size)
    for (label, answer), share in np.ndenumerate(shares):
        axis.add_patch(Rectangle((answer - 0.5, label - 0.5), 1, 1, color=ACCENT, alpha=_DARKEST * share, linewidth=0))
        axis.text(answer, label, f"{100 * share:.0f}", ha="center", va="center", color=INK, fontsize=9.5)
    axis.set_xlim(-0.5, size - 0.5)
    axis.set_ylim(size - 0.5, -0.5)
    axis.set_xticks(range(size), names)
    axis.set_yticks(range(size), [f"{name} ({n:,.0f})" for name, n in zip(names, support, strict=True)])
    axis.set_xlabel("read as, % of the label's faces")
    axis.set_title(title, loc="left", fontsize=11)
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[["left", "bottom"]].set_visible(False)
    told = ", ".join(f"{name} {100 * shares[i, i]:.0f} %" for i, name in enumerate(names))
    return drawing(figure, alt=f"{title}. Read as labelled: {told}")


# Warm and light where a map is strong, as on the pages of the reader.
_RAMP = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ImageTile:
    """One face of a gallery: ``image`` uint8 ``[H, W]`` or ``[H, W, 3]``, a ``caption``, and a map ``[h, w]`` or none.

    Only what is positive in a map is drawn, scaled by its own maximum.
    """

    image: NDArray[np.uint8]
    caption: str
    map: NDArray[np.float32] | None = None


def gallery(tiles: Iterable[ImageTile]) -> str:
    """The ``tiles`` in a grid."""
    items = "".join(f"<li>{_tile(tile)}</li>" for tile in tiles)
    return f'<ul class="tiles">{items}</ul>'


def picture(image: NDArray[np.uint8], *, alt: str) -> str:
    """``image``, uint8 ``[H, W]`` or ``[H, W, 3]``, as an ``<img>`` that carries its own bytes."""
    stream = BytesIO()
    Image.fromarray(image).save(stream, "WEBP", quality=88)
    code = base64.b64encode(stream.getvalue()).decode("ascii")
    size = f'width="{image.shape[1]}" height="{image.shape[0]}"'
    return f'<img src="data:image/webp;base64,{code}" {size} alt="{escape(alt)}" decoding="async">'


def blend(image: NDArray[np.uint8], map_: NDArray[np.floating]) -> NDArray[np.uint8]:
    """``image`` uint8 ``[H, W]`` with the positive part of ``map_`` ``[h, w]`` laid over it: uint8 ``[H, W, 3]``."""
    height, width = image.shape[:2]
    strength = np.maximum(map_, 0).astype(np.float32)
    strength /= max(float(strength.max()), 1e-12)
    smooth = Image.fromarray(strength).resize((width, height), Image.Resampling.BICUBIC)
    shade = np.asarray(smooth, np.float32).clip(0, 1)
    place = shade * (len(_RAMP) - 1)
    low = np.minimum(place.astype(np.int64), len(_RAMP) - 2)
    part = (place - low)[..., None]
    colour = _RAMP[low] * (1 - part) + _RAMP[low + 1] * part
    grey = (image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)).astype(np.float32)
    weight = (0.75 * shade)[..., None]
    return np.asarray((grey * (1 - weight) + colour * weight).round().clip(0, 255), np.uint8)


def _tile(tile: ImageTile) -> str:
    shown = picture(tile.image, alt=tile.caption)
    if tile.map is not None:
        large = np.asarray(Image.fromarray(tile.image).resize((96, 96), Image.Resampling.BICUBIC))
        shown = f'<div class="pair">{shown}{picture(blend(large, tile.map), alt="map")}</div>'
    return f"<figure>{shown}<figcaption>{escape(tile.caption)}</figcaption></figure>"


try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise MissingExtraError("matplotlib", "lab") from error


# Colours that stand for the page's own: replaced by its variables, so that they turn with light and dark.
INK, MUTED, LINE, ACCENT = "#010101", "#020202", "#030303", "#040404"


_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", ACCENT: "var(--accent)"}


def new_plot(width: float = 6.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """An empty figure (inches; 100 pixels each) with one axis in the page's colours; draw with INK, MUTED and ACCENT.

    Further axes of one's own: ``figure.subplots`` and then ``dress`` each.
    """
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    axis = figure.subplots()
    dress(axis)
    return figure, axis


def dress(axis: Axes) -> None:
    """Give ``axis`` the page's colours and take away what carries no information."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(MUTED)
    axis.tick_params(colors=MUTED, labelsize=9, labelcolor=INK)
    axis.xaxis.label.set_color(INK)
    axis.yaxis.label.set_color(INK)
    axis.title.set_color(INK)
    axis.grid(color=LINE, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.set_facecolor("none")


def plot(figure: Figure, *, alt: str, caption: str = "") -> str:
    """``figure`` as HTML: inline SVG, ``alt`` for who cannot see it, ``caption`` below it."""
    # The salt names what the drawing defines (clips, markers): equal names of two plots on one page would mix them up.
    salt = hashlib.sha256(f"{alt}{caption}{id(figure)}".encode()).hexdigest()[:8]
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="plot">{_drawn(figure, alt, salt)}{below}</figure>'


def drawing(figure: Figure, *, alt: str) -> str:
    """``figure`` as an SVG file, light or dark as its reader has it. The same figure gives the same bytes."""
    style = f"<style>{palette()} svg {{ background: var(--paper); font-family: sans-serif }}</style>"
    head, rest = _drawn(figure, alt, "alone").split(">", maxsplit=1)
    return f"{head}>{style}{rest}\n"


def _drawn(figure: Figure, alt: str, salt: str) -> str:
    """The SVG element, its ink the variables of a page."""
    for text in (legend for axis in figure.axes for legend in (axis.get_legend(),) if legend):
        text.get_frame().set_visible(False)
        for line in text.get_texts():
            line.set_color(INK)
    stream = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "svg.id": f"p{salt}"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = stream.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = _own_names(drawn, salt)
    for colour, variable in _VARIABLES.items():
        drawn = drawn.replace(colour, variable)
    return drawn.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)


def _own_names(drawing: str, salt: str) -> str:
    """Every id of the drawing made its own, and what refers to it."""
    drawing = re.sub(r'\bid="([^"]+)"', rf'id="{salt}-\1"', drawing)
    drawing = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'\1="#{salt}-\2"', drawing)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{salt}-\1)", drawing)
