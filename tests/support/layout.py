"""Measures the layout of a page in Chromium: what a reader would see as broken, found in the DOM and not in pixels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

WIDTHS = (390, 1280)  # pixels: a phone and a laptop
SCHEMES = ("light", "dark")

MEASURE = Path(__file__).with_suffix(".js").read_text("utf-8")


def problems_of(page: Any) -> Iterator[str]:
    """What is wrong with an open page at each width, in light and dark."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            yield from (f"{width} pixels, {scheme}: {problem}" for problem in page.evaluate(MEASURE))


def problems_of_file(browser: Any, path: Path) -> list[str]:
    """What is wrong with a page in a file; its own policy must not hinder the measurement."""
    context = browser.new_context(bypass_csp=True)
    try:
        page = context.new_page()
        page.goto(path.as_uri())
        return list(problems_of(page))
    finally:
        context.close()
