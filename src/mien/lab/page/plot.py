"""matplotlib figures as inline SVG whose ink follows the page into the dark."""

import hashlib
import re
from html import escape
from io import StringIO

from mien._errors import MissingExtraError

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
    for text in (legend for axis in figure.axes for legend in (axis.get_legend(),) if legend):
        text.get_frame().set_visible(False)
        for line in text.get_texts():
            line.set_color(INK)
    stream = StringIO()
    # The salt names what the drawing defines (clips, markers): equal names of two plots on one page would mix them up.
    salt = hashlib.sha256(f"{alt}{caption}{id(figure)}".encode()).hexdigest()[:8]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "svg.id": f"p{salt}"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawing = stream.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = _own_names(drawing, salt)
    for colour, variable in _VARIABLES.items():
        drawing = drawing.replace(colour, variable)
    drawing = drawing.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="plot">{drawing}{below}</figure>'


def _own_names(drawing: str, salt: str) -> str:
    """Every id of the drawing made its own, and what refers to it."""
    drawing = re.sub(r'\bid="([^"]+)"', rf'id="{salt}-\1"', drawing)
    drawing = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'\1="#{salt}-\2"', drawing)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{salt}-\1)", drawing)
