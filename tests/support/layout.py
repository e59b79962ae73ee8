"""Measures the layout of a page in Chromium: what a reader would see as broken, found in the DOM and not in pixels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.browser import wait_until

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
    """What is wrong with a page in a file, which is to load nothing else and to report nothing."""
    context = browser.new_context()
    page, found, asked = context.new_page(), [], []
    page.on("console", lambda message: found.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(path.as_uri())
        page.evaluate("for (const image of document.images) image.loading = 'eager'")
        wait_until(page, "[...document.images].every((image) => image.complete)")
        found += problems_of(page)
    finally:
        context.close()
    return found + [f"loads {url[:80]}" for url in asked if url != path.as_uri() and not url.startswith("data:")]
