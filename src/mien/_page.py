"""What every page that mien writes looks like: the palette in light and dark, type, headings. Pages load nothing."""

from importlib.resources import files


def base_css() -> str:
    """The style that all pages share, to stand before a page's own."""
    return (files("mien") / "_page.css").read_text("utf-8")
