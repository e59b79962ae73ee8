"""Text, tables and figures of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.resources import files
from string import Template

from mien._page import head

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a page: its ``title``, the ``anchor`` that links lead to, and its ``html``."""

    title: str
    anchor: str
    html: str


def section(title: str, *html: str) -> Section:
    """A section of the blocks in ``html``, under a heading that stands in the page's contents."""
    anchor = "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())
    body = "\n".join(html)
    return Section(title, anchor, f'<section id="{anchor}">\n<h2>{escape(title)}</h2>\n{body}\n</section>')


def paragraph(text: str) -> str:
    """One paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def note(text: str) -> str:
    """A paragraph that stands out: what a reader must know before believing a figure."""
    return f'<p class="note">{escape(text)}</p>'


def columns(*html: str) -> str:
    """Blocks beside each other where there is room, below each other on a phone."""
    return f'<div class="columns">{"".join(f"<div>{block}</div>" for block in html)}</div>'


def details(summary: str, *html: str) -> str:
    """Blocks that open when their ``summary`` is chosen."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(html)}</details>"


def headline(figures: Mapping[str, tuple[str, str]]) -> str:
    """The large figures of a page: what each is -> its value, and small print under it (an interval, say)."""
    items = "".join(
        f"<div><dt>{escape(term)}</dt><dd>{escape(value)}<small>{escape(small)}</small></dd></div>"
        for term, (value, small) in figures.items()
    )
    return f'<dl class="figures headline">{items}</dl>'


def facts(terms: Mapping[str, str]) -> str:
    """A list of terms and what is said of them."""
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
    """A table whose first column names its rows.

    ``shade`` gives every cell beyond the first column a strength of colour in 0..1 (``None``: none), ``best`` says
    which of them stand out in bold; ``wrap`` lets the last column hold sentences. Numbers are shown as they come:
    format them before.
    """
    head = "".join(f'<th scope="col">{escape(str(cell))}</th>' for cell in header)
    body = []
    for y, row in enumerate(rows):
        cells = [f'<th scope="row">{_text(row[0])}</th>'] if row else []
        for x, cell in enumerate(row[1:]):
            strength = shade[y][x] if shade else None
            kinds = (["shade"] if strength is not None else []) + (["best"] if best and best[y][x] else [])
            kind = f' class="{" ".join(kinds)}"' if kinds else ""
            style = f' style="--s:{strength:.3f}"' if strength is not None else ""
            cells.append(f"<td{kind}{style}>{_text(cell)}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    said = f"<caption>{escape(caption)}</caption>" if caption else ""
    kind = ' class="wrap"' if wrap else ""
    rows_html = "\n".join(body)
    return (
        f'<div class="scroll" tabindex="0"><table{kind}>{said}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows_html}</tbody></table></div>"
    )


def _text(cell: Cell) -> str:
    return "–" if cell is None else escape(str(cell))


def page(
    title: str, sections: Sequence[Section], *, lead: str, provenance: Mapping[str, str], faces: bool = False
) -> str:
    """A whole report: ``title``, a ``lead`` sentence, the ``sections`` with a list of contents, and ``provenance``.

    ``faces`` says that faces of a data set stand in it, which the page then tells its reader not to publish.
    """
    folder = files("mien.lab.html")
    made = datetime.now().astimezone()
    return Template((folder / "page.html").read_text("utf-8")).substitute(
        title=escape(title),
        lead=escape(lead),
        head=head(title, (folder / "page.css").read_text("utf-8")),
        contents="".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections),
        sections="\n".join(section.html for section in sections),
        provenance="".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in provenance.items()),
        faces=_FACES if faces else "",
        made=made.isoformat(timespec="seconds"),
        made_text=f"{made:%Y-%m-%d, %H:%M}",
    )


_FACES = '<p class="warning">This page shows faces of the data set. Keep it on this computer: do not publish it.</p>'
