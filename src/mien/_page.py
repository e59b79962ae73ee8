"""The style that all HTML pages of mien share: colours (light and dark), fonts and headings. Pages load nothing."""

from html import escape
from importlib.resources import files


def head(title: str, style: str) -> str:
    """Return the start of a page up to its body.

    Its content security policy forbids the page to load or run anything.

    Args:
        title: The title of the page.
        style: CSS of the page, after the shared style.

    Returns:
        HTML.
    """
    page = _read("_page.html").rstrip()
    return page.replace("$title", escape(title)).replace("$style", _read("_page.css") + style)


def palette() -> str:
    """Return the CSS rules that define the colours, light and dark."""
    return _read("_page.css").partition("* {")[0]


def _read(name: str) -> str:
    return (files("mien") / name).read_text("utf-8")
