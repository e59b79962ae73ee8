"""The style that all HTML pages of mien share: colours (light and dark), fonts and headings. Pages load nothing."""

import base64
import html
import io
from importlib.resources import files
from typing import TYPE_CHECKING

from mien._format import printable

if TYPE_CHECKING:
    from PIL import Image


def escape(text: str) -> str:
    """Return a text in HTML, also as the value of an attribute. Control characters are shown as escapes.

    Args:
        text: Plain text of one or more lines.

    Returns:
        HTML.
    """
    return html.escape("\n".join(map(printable, text.split("\n"))))


def data_uri(image: "Image.Image", kind: str, **options: object) -> str:
    """Encode an image for an HTML page.

    Args:
        image: The image.
        kind: The format, ``"JPEG"`` or ``"PNG"``.
        **options: Options of Pillow's ``save``.

    Returns:
        A ``data:`` address.
    """
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


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
