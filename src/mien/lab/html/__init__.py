"""Parts of the HTML reports of the lab: text blocks, tables, plots and images.

Every function returns HTML as text: pages, sections and tables, then plots, images and galleries. Text arguments are
escaped; parameters named ``html`` are not. Plots are SVG whose colours follow the light or dark mode of the page.
"""

import hashlib
import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from mien._output import MARK
from mien._page import escape, fill_page, image_tag, palette
from mien.lab.files import save_bytes, save_text
from mien.overlay import blend, enlarge

Cell = str | int | float | None

_FOLDED = 300  # letters of a list
_FACES = '<p class="warning">This page shows faces of the data set. Keep it on this computer: do not publish it.</p>'
# Placeholders for the colours of the page, which replace them in the SVG: text, secondary text, grid and accent.
INK, MUTED, LINE, ACCENT = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", ACCENT: "var(--accent)"}
_MAX_OPACITY = 0.75  # of a cell: its number stays readable in light and dark mode
_TILE = 96  # pixels: the side of a face that is shown under its map
_FOLDER: ContextVar[Path | None] = ContextVar("_FOLDER", default=None)
# Names that are taken, for each folder.
_TAKEN: dict[Path, set[tuple[str, int, str]]] = {}
# Colours on white paper instead of those of the page.
_PRINTED = {INK: "#000000", MUTED: "#555555", LINE: "#dddddd", ACCENT: "#1f5fa8"}
_LATEX = {each: f"\\{each}" for each in "&%$#_{}"} | {"\\": r"\textbackslash{}"}
_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a report.

    Attributes:
        title: Its heading.
        anchor: The target of links to it.
        html: Its content, with the heading.
    """

    title: str
    anchor: str
    html: str


def section(title: str, *html: str) -> Section:
    """Build a section with a heading, which the report lists in its contents.

    Args:
        title: The heading.
        html: The blocks below it.

    Returns:
        The section.
    """
    anchor = "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
    body = "\n".join(html)
    return Section(title, anchor, f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n{body}\n</section>')


def paragraph(text: str) -> str:
    """Build a paragraph.

    Args:
        text: Plain text.

    Returns:
        HTML.
    """
    return f"<p>{escape(text)}</p>"


def note(text: str) -> str:
    """Build a highlighted paragraph, for limits of the results. A long list after a colon is folded.

    Args:
        text: Plain text.

    Returns:
        HTML.
    """
    head, _, listed = text.partition(": ")
    if len(listed) < _FOLDED:
        return f'<p class="note">{escape(text)}</p>'
    summary = f"{head}: {listed.count(', ') + 1} in all"
    return f'<details class="note"><summary>{escape(summary)}</summary><p>{escape(listed)}</p></details>'


def beside(*html: str) -> str:
    """Place blocks side by side, or one below the other on a narrow screen.

    Args:
        html: The blocks.

    Returns:
        HTML.
    """
    return f'<div class="columns">{"".join(f"<div>{block}</div>" for block in html)}</div>'


def details(summary: str, *html: str) -> str:
    """Hide blocks until their summary is clicked.

    Args:
        summary: Plain text that is always visible.
        html: The blocks.

    Returns:
        HTML.
    """
    return f"<details><summary>{escape(summary)}</summary>{''.join(html)}</details>"


def headline(metrics: Mapping[str, tuple[str, str]]) -> str:
    """Show metrics in large type.

    Args:
        metrics: Name -> value, and a remark in small type such as an interval.

    Returns:
        HTML.
    """
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(remark)}</small></dd></div>"
        for name, (value, remark) in metrics.items()
    )
    return f'<dl class="figures headline">{items}</dl>'


def facts(terms: Mapping[str, str]) -> str:
    """Build a list of terms with a text for each.

    Args:
        terms: Term -> text.

    Returns:
        HTML.
    """
    items = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in terms.items())
    return f'<dl class="facts">{items}</dl>'


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    caption: str = "",
    shade: Sequence[Sequence[float | None]] | None = None,
    best: Sequence[Sequence[bool]] | None = None,
    wrap: bool = False,
) -> str:
    """Build a table. The first column contains the names of the rows.

    Args:
        header: The heads of the columns.
        rows: The cells. Numbers are printed as they are; ``None`` is printed as a dash.
        caption: Plain text above the table.
        shade: Strength of colour of each cell after the first column, from 0 to 1; below 0, to -1, of the opposite
            colour; ``None`` for no colour.
        best: Which cells after the first column are in bold.
        wrap: Whether the last column contains long texts, which may wrap.

    Returns:
        HTML.

    Example:
        >>> "<td>70.5 %</td>" in table(["model", "accuracy"], [["conv4", "70.5 %"]])
        True
    """
    heads = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in header)
    body = []
    for y, row in enumerate(rows):
        cells = [f'<th scope="row">{_text(row[0])}</th>'] if row else []
        for x, cell in enumerate(row[1:]):
            strength = shade[y][x] if shade else None
            kinds = [] if strength is None else ["shade"] if strength >= 0 else ["shade", "opposite"]
            kinds += ["best"] if best and best[y][x] else []
            kind = f' class="{" ".join(kinds)}"' if kinds else ""
            style = f' style="--s:{abs(strength):.3f}"' if strength is not None else ""
            cells.append(f"<td{kind}{style}>{_text(cell)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    save_table([*map(str, header)], [[_text(cell) for cell in row] for row in rows], caption)
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    kind = ' class="wrap"' if wrap else ""
    lines = "\n".join(body)
    return (
        f'<div class="scroll" tabindex="0"><table{kind}>{above}<thead><tr>{heads}</tr></thead>\n'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _text(cell: Cell) -> str:
    return "–" if cell is None else escape(str(cell))


def page(
    title: str, sections: Sequence[Section], *, lead: str, provenance: Mapping[str, str], faces: bool = False
) -> str:
    """Build a report: a self-contained HTML page that loads nothing.

    Args:
        title: Its title.
        sections: Its sections, which the contents list.
        lead: A sentence below the title.
        provenance: Term -> text, shown at the end.
        faces: Whether it contains faces of a data set; the page then warns against publishing it.

    Returns:
        The page.

    Example:
        >>> "<h2>Result</h2>" in page("Faces", [section("Result", paragraph("None."))], lead="", provenance={})
        True
    """
    folder = files("mien.lab.html")
    return fill_page(
        folder / "page.html",
        title=title,
        style=(folder / "page.css").read_text("utf-8"),
        facts=provenance,
        lead=escape(lead),
        contents="".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections),
        sections="\n".join(section.html for section in sections),
        faces=_FACES if faces else "",
    )


def plot_confusion(metrics: Mapping[str, Any], title: str) -> str:
    """Plot a confusion matrix. A cell is darker the larger its share of the row; its number is this share in per cent.

    Args:
        metrics: Metrics as ``mien.lab.metrics.compute_metrics`` returns them.
        title: The title of the plot.

    Returns:
        An SVG file.
    """
    counts, names = np.asarray(metrics["confusion"], float), list(metrics["recall"])
    support, size = counts.sum(axis=1), len(names)
    shares = counts / support.clip(min=1)[:, None]
    figure, axis = new_plot(2.2 + 0.62 * size, 1.3 + 0.5 * size)
    for (y, x), share in np.ndenumerate(shares):
        axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=ACCENT, alpha=_MAX_OPACITY * share, linewidth=0))
        axis.text(x, y, f"{100 * share:.0f}", ha="center", va="center", color=INK, fontsize=9.5)
    axis.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="predicted, % of the label's faces")
    axis.set_xticks(range(size), names)
    axis.set_yticks(range(size), [f"{name} ({n:,.0f})" for name, n in zip(names, support, strict=True)])
    axis.set_title(title, loc="left", fontsize=11)
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[["left", "bottom"]].set_visible(False)
    recall = ", ".join(f"{name} {100 * shares[i, i]:.0f} %" for i, name in enumerate(names))
    return drawing(figure, alt=f"{title}. Recall: {recall}")


@dataclass(frozen=True, slots=True, eq=False)
class ImageTile:
    """One face of a gallery.

    Attributes:
        image: uint8 ``[H, W]`` or ``[H, W, 3]``.
        caption: Plain text below it.
        map: Saliency map ``[h, w]``. Only positive values are drawn, scaled by their maximum.
    """

    image: NDArray[np.uint8]
    caption: str
    map: NDArray[np.float32] | None = None


def gallery(tiles: Iterable[ImageTile]) -> str:
    """Show faces in a grid, each beside its map if it has one.

    Args:
        tiles: The faces.

    Returns:
        HTML.
    """
    items = []
    for tile in tiles:
        shown = image_tag(Image.fromarray(tile.image), tile.caption)
        if tile.map is not None:
            shown = f'<div class="pair">{shown}{image_tag(_under_map(tile.image, tile.map), "map")}</div>'
        items.append(f"<li><figure>{shown}<figcaption>{escape(tile.caption)}</figcaption></figure></li>")
    return f'<ul class="tiles">{"".join(items)}</ul>'


def _under_map(image: NDArray[np.uint8], map_: NDArray[np.float32]) -> Image.Image:
    """A face, enlarged, under the positive part of a saliency map, which is scaled by its maximum."""
    large = Image.fromarray(image).convert("RGB").resize((_TILE, _TILE), Image.Resampling.BICUBIC)
    strength = (np.maximum(map_, 0) / max(float(map_.max()), 1e-12)).astype(np.float32)
    return Image.fromarray(blend(np.asarray(large), enlarge(strength, _TILE)))


def new_plot(width: float = 6.0, height: float = 4.0) -> tuple[Figure, Axes]:
    """Create a plot in the colours of the page. Draw with ``INK``, ``MUTED``, ``LINE`` and ``ACCENT``.

    Args:
        width: Width in inches of 100 pixels.
        height: Height in inches of 100 pixels.

    Returns:
        The figure and its axes. Further axes of the figure need ``dress``.

    Example:
        >>> figure, axis = new_plot()
        >>> _ = axis.plot([0, 1], [0, 1], color=ACCENT)
        >>> plot(figure, alt="A line")[:21]
        '<figure class="plot">'
    """
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    axis = figure.subplots()
    dress(axis)
    return figure, axis


def dress(axis: Axes) -> None:
    """Apply the colours of the page to axes, and remove the lines that carry no information.

    Args:
        axis: The axes.
    """
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(MUTED)
    axis.tick_params(colors=MUTED, labelsize=9, labelcolor=INK)
    for text in (axis.xaxis.label, axis.yaxis.label, axis.title):
        text.set_color(INK)
    axis.grid(color=LINE, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.set_facecolor("none")


def plot(figure: Figure, *, alt: str, caption: str = "") -> str:
    """Return a plot as HTML with inline SVG.

    Args:
        figure: The plot.
        alt: Plain text for readers who cannot see it.
        caption: Plain text below it.

    Returns:
        HTML.
    """
    # The salt prefixes the ids in the SVG (clips, markers), because equal ids of two plots on one page would clash.
    salt = hashlib.sha256(f"{alt}{caption}{id(figure)}".encode()).hexdigest()[:8]
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="plot">{_svg(figure, alt, salt)}{below}</figure>'


def drawing(figure: Figure, *, alt: str) -> str:
    """Return a plot as an SVG file that follows the light or dark mode of its reader.

    Args:
        figure: The plot; the same plot gives the same bytes.
        alt: Plain text for readers who cannot see it.

    Returns:
        The content of the file.
    """
    style = f"<style>{palette()} svg {{ background: var(--paper); font-family: sans-serif }}</style>"
    head, rest = _svg(figure, alt, "alone").split(">", maxsplit=1)
    return f"{head}>{style}{rest}\n"


def _svg(figure: Figure, alt: str, salt: str) -> str:
    """The SVG element, with the colours of the page and ids that start with ``salt``."""
    for legend in filter(None, (axis.get_legend() for axis in figure.axes)):
        legend.get_frame().set_visible(False)
        for text in legend.get_texts():
            text.set_color(INK)
    stream = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt, "svg.id": f"p{salt}"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    if _FOLDER.get() is not None:
        _save_figure(figure, alt)
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{salt}-\1"', svg)
    svg = re.sub(r'(xlink:href|href)="#([^"]+)"', rf'\1="#{salt}-\2"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{salt}-\1)", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)


@contextmanager
def saving_figures(folder: Path | None) -> Iterator[None]:
    """Also write each plot and table of the reports that a block makes to a folder, for publications.

    Plots are PDF, SVG and PNG (300 dpi) on white, tables Markdown and LaTeX (booktabs).

    Args:
        folder: The folder; ``None``: nothing is written.

    Yields:
        ``None``; the block runs.
    """
    token = _FOLDER.set(folder)
    _TAKEN.clear()
    try:
        yield
    finally:
        _FOLDER.reset(token)


def save_table(header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> None:
    """Write a table as Markdown and LaTeX, in a block of ``saving_figures``; else nothing.

    Args:
        header: The heads of the columns.
        rows: The cells as HTML.
        caption: Plain text above the table.
    """
    if _FOLDER.get() is None:
        return
    plain = [[*map(str, header)], *([html.unescape(re.sub("<[^>]*>", "", cell)) for cell in row] for row in rows)]
    name = _free_name(f"table {caption or ' '.join(plain[0][:3])}", ".md")
    head, *body = (f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in plain)
    save_text(
        name.with_suffix(".md"), "\n".join([head, "| --- " * len(header) + "|", *body, "", f"<!-- {MARK} -->"]) + "\n"
    )
    head, *body = (" & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in row) + r" \\" for row in plain)
    start = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", head, r"\midrule"]
    save_text(
        name.with_suffix(".tex"), "\n".join([f"% {MARK}", *start, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"
    )


def _free_name(text: str, suffix: str) -> Path:
    """A path in the folder, without a suffix. Numbers start at 1 in each call: files of earlier calls are replaced."""
    folder = _FOLDER.get() or Path()
    words = re.sub(r"[^a-z0-9]+", "-", re.split(r"[.:;,(]", text)[0].lower()).strip("-")[:60] or "figure"
    taken = _TAKEN.setdefault(folder.resolve(), set())
    number = next(n for n in range(1, 10_000) if (words, n, suffix) not in taken)
    taken.add((words, number, suffix))
    return folder / (words if number == 1 else f"{words}-{number}")


def _save_figure(figure: Figure, alt: str) -> None:
    """Write a plot as PDF, SVG and PNG, in colours for white paper."""
    for artist in figure.findobj():
        for kind in ("color", "facecolor", "edgecolor"):
            if hasattr(artist, f"get_{kind}") and hasattr(artist, f"set_{kind}"):
                colours = np.atleast_2d(mpl.colors.to_rgba_array(getattr(artist, f"get_{kind}")()))
                shown = [
                    (*mpl.colors.to_rgb(_PRINTED.get(mpl.colors.to_hex(c[:3]), tuple(c[:3]))), c[3]) for c in colours
                ]
                if any(mpl.colors.to_hex(c[:3]) in _PRINTED for c in colours):
                    getattr(artist, f"set_{kind}")(shown if len(shown) > 1 else shown[0])
    name = _free_name(alt, ".pdf")
    for suffix in ("pdf", "svg", "png"):
        stream = BytesIO()
        with mpl.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "mien"}):
            dated = {"pdf": {"CreationDate": None, "Creator": MARK}, "svg": {"Date": None, "Creator": MARK}}
            metadata = dated.get(suffix, {"Software": MARK})
            figure.savefig(stream, format=suffix, dpi=300, facecolor="white", metadata=metadata)
        save_bytes(name.with_suffix(f".{suffix}"), stream.getvalue())
