"""The style that all HTML pages of mien share: palette (light and dark), fonts and headings. Pages load nothing."""

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
    return _HEAD.replace("$title", escape(title)).replace("$style", _shared() + style)


def palette() -> str:
    """Return the CSS rules that define the colours, light and dark."""
    return _shared().partition("* {")[0]


def _shared() -> str:
    return (files("mien") / "_page.css").read_text("utf-8")


_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="generator" content="mien">
<title>$title</title>
<style>
$style
</style>
</head>"""
