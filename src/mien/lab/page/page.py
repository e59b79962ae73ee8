"""The frame of a report: head, contents, sections, and where its figures come from."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from mien._page import head
from mien.lab.checkpoint import save_text
from mien.lab.page.blocks import Section


def page(
    title: str, sections: Sequence[Section], *, lead: str, provenance: Mapping[str, str], faces: bool = False
) -> str:
    """A whole report: ``title``, a ``lead`` sentence, the ``sections`` with a list of contents, and ``provenance``.

    ``faces`` says that faces of a data set stand in it, which the page then tells its reader not to publish.
    """
    folder = files("mien.lab.page")
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


def write_page(path: Path, text: str) -> None:
    """Write the page atomically. Raises ``OutputError``."""
    save_text(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))


_FACES = '<p class="warning">This page shows faces of the data set. Keep it on this computer: do not publish it.</p>'
