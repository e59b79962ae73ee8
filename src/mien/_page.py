"""What every page that mien writes looks like: the palette in light and dark, type, headings. Pages load nothing."""

from html import escape
from importlib.resources import files


def head(title: str, style: str) -> str:
    """The start of a page up to its body: the style that all pages share, then its own ``style``.

    The policy in it forbids a page to load or run anything, whatever ends up inside.
    """
    return _HEAD.replace("$title", escape(title)).replace("$style", _shared() + style)


def palette() -> str:
    """The rules that name the colours, light and dark: all that stands before the first rule of an element."""
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
