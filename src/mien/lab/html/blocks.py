"""Text blocks, tables and the frame of an HTML report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from string import Template

from mien._page import escape, head
from mien.lab.html.figures import save_table

Cell = str | int | float | None

_FOLDED = 300  # letters of a list
_FACES = '<p class="warning">This page shows faces of the data set. Keep it on this computer: do not publish it.</p>'


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
