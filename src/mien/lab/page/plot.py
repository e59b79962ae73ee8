"""matplotlib figures as SVG whose ink follows the page into the dark."""

import hashlib
import re
from html import escape
from io import StringIO

from mien._errors import MissingExtraError
from mien._page import palette

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
