"""The style that all HTML pages of mien share: colours (light and dark), fonts and headings. Pages load nothing."""

import base64
import html
import io
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template
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
        kind: The format, ``"JPEG"``, ``"PNG"`` or ``"WEBP"``.
        **options: Options of Pillow's ``save``.

    Returns:
        A ``data:`` address.
    """
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def image_tag(image: "Image.Image", alt: str, kind: str = "WEBP", *, quality: int = 88) -> str:
    """Embed an image in an HTML page.

    Args:
        image: The image.
        alt: Plain text for readers who cannot see it.
        kind: The format.
        quality: Its quality, 0 to 100.

    Returns:
        An ``<img>`` element that contains the image.
    """
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="{data_uri(image, kind, quality=quality)}" {size} alt="{escape(alt)}" decoding="async">'


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


def fill_page(template: Traversable, *, title: str, style: str, facts: Mapping[str, str], **parts: str) -> str:
    """Fill the template of a page with its head, title, facts, and the time at which it is made.

    Args:
        template: The file of the template.
        title: The title of the page.
        style: CSS of the page.
        facts: Facts about the model or the source, term to text, in the order to show them.
        **parts: HTML of the other places of the template, by their names.

    Returns:
        The page in HTML.
    """
    made = datetime.now().astimezone()
    return Template(template.read_text("utf-8")).substitute(
        parts,
        title=escape(title),
        head=head(title, style),
        facts="\n".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in facts.items()),
        made=made.isoformat(timespec="seconds"),
        made_text=f"{made:%Y-%m-%d, %H:%M}",
    )


def palette() -> str:
    """Return the CSS rules that define the colours, light and dark."""
    return _read("_page.css").partition("* {")[0]


def _read(name: str) -> str:
    return (files("mien") / name).read_text("utf-8")
