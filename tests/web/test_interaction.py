"""Interactions with the page: paste, drop, double click, return; and errors during use."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.browser import Files, Visit, build, chromium, playing, serving
from support.layout import problems_of
from support.paths import ROOT

ASTRONAUT = ROOT / "examples" / "astronaut.png"
EXAMPLE: dict[str, Any] = {"name": ASTRONAUT.name, "mimeType": "image/png", "buffer": ASTRONAUT.read_bytes()}

# Hands files to the page as a browser does, and tells whether the page took them.
GIVE = """([kind, names, text]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const given = new DataTransfer();
    for (const name of names) given.items.add(new File([bytes], name, { type: "image/png" }));
    if (names.length === 0) given.setData("text/plain", "https://example.org/picture.png");
    const words = { bubbles: true, cancelable: true };
    const event = kind === "paste"
        ? new ClipboardEvent(kind, { ...words, clipboardData: given })
        : new DragEvent(kind, { ...words, dataTransfer: given });
    (kind === "paste" ? document.activeElement : document.getElementById("drop")).dispatchEvent(event);
    return event.defaultPrevented;
}"""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with serving(build()) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playing() as player, chromium(player) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared(browser: Any, site: str) -> Iterator[Visit]:
    opened = Visit(browser, site).ready()
    yield opened
    opened.close()


@pytest.fixture
def cleared(shared: Visit) -> Visit:
    """One page for the tests that change nothing but its list: to load it takes most of their time."""
    if shared.done():
        shared.page.click("#clear")
    return shared


def give(visit: Visit, kind: str, *names: str) -> bool:
    taken: bool = visit.page.evaluate(GIVE, [kind, names, base64.b64encode(EXAMPLE["buffer"]).decode()])
    return taken


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_images_are_pasted_and_dropped(cleared: Visit, kind: str) -> None:
    visit, page = cleared, cleared.page
    if kind == "drop":
        give(visit, "dragenter", "one.png")
        page.locator("#drop.over").wait_for()
        assert give(visit, "dragover", "one.png")  # else the browser opens the file instead of the page
    assert give(visit, kind, "one.png", "two.png") is (kind == "drop")
    page.locator("#total", has_text="2 images, 2 faces").wait_for()
    assert page.locator("#drop.over").count() == 0
    assert [reading["source"] for reading in json.loads(visit.saved("#save-json"))] == ["one.png", "two.png"]
    assert page.locator("#cards h2").all_text_contents() == ["one.png", "two.png"]
    give(visit, kind)
    page.locator("#errors p", has_text="contains no image" if kind == "paste" else "contains no file").wait_for()


@pytest.mark.parametrize("focused", ["#files", "#maps", "#threshold", "#start"])
def test_an_image_is_pasted_whatever_has_the_focus(cleared: Visit, focused: str) -> None:
    cleared.page.locator(focused).focus()
    give(cleared, "paste", "one.png")
    cleared.page.locator("#total", has_text="1 image, 1 face").wait_for()


def test_a_file_that_was_changed_since_is_an_error(cleared: Visit, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(EXAMPLE["buffer"])
    page = cleared.page
    page.set_input_files("#files", str(path))
    page.locator("#total", has_text="1 image, 1 face").wait_for()
    path.unlink()
    page.click("#cards .actions button")
    page.locator("#errors p", has_text="moved or changed since it was chosen").wait_for()


def test_a_touch_screen_is_not_told_of_a_mouse(browser: Any, site: str) -> None:
    phone = Visit(browser, site, has_touch=True, is_mobile=True, viewport={"width": 390, "height": 780})
    words = phone.page.locator("body").inner_text()
    assert "Tap a face" in words
    assert not re.search("Drop images|paste|Point at|Tab key", words)
    phone.context.close()


def test_controls_are_reset_after_going_back(browser: Any, site: str) -> None:
    visit = Visit(browser, site)
    page = visit.page
    page.locator("#threshold").fill("0.5")
    for switch in ("#maps", "#own-scale"):
        page.locator(switch).check()
    page.goto("about:blank")
    page.go_back(wait_until="load")
    page.locator("#threshold-text", has_text=" to ").wait_for()  # as measured
    switches = ("#measured", "#maps", "#own-scale")
    assert [page.locator(switch).is_checked() for switch in switches] == [True, False, False]
    visit.close()


def test_a_missing_runtime_shows_an_error(browser: Any, site: str) -> None:
    visit = Visit(browser, "about:blank")
    missing = "runtime/ort.wasm.min.mjs"
    visit.context.route(re.compile(re.escape(missing)), lambda route: route.fulfill(status=404))
    visit.page.goto(site)
    error = visit.page.locator("#errors p", has_text=missing)
    error.wait_for()
    assert "load this page again" in (error.text_content() or "")
    visit.context.close()


@pytest.mark.parametrize("name", ["ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.mjs", "classifier.onnx"])
def test_a_login_page_in_place_of_a_file_of_the_networks_is_named(browser: Any, site: str, name: str) -> None:
    visit = Visit(browser, "about:blank")
    visit.context.route(re.compile(re.escape(name)), lambda route: route.fulfill(body="<!doctype html><p>Log in"))
    visit.page.goto(site)
    error = visit.page.locator("#errors p")
    error.wait_for()
    assert name.partition(".")[0] in (error.text_content() or "")
    assert "load this page again" in (error.text_content() or "")
    visit.context.close()


def test_a_connection_that_ends_in_a_model_is_named(browser: Any) -> None:
    class Cut(Files):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            content = source.read()
            outputfile.write(content[: len(content) // 2] if self.path.endswith("classifier.onnx") else content)
            self.close_connection = True

    with serving(build(), Cut) as address:
        visit = Visit(browser, address)
        visit.page.locator(
            "#errors p", has_text="models/classifier.onnx could not be loaded (the connection"
        ).wait_for()
        visit.context.close()


def test_a_login_page_in_place_of_the_site_shows_an_error(browser: Any, site: str) -> None:
    visit = Visit(browser, "about:blank")
    visit.context.route(re.compile("site.json"), lambda route: route.fulfill(body="<!doctype html><p>Log in"))
    visit.page.goto(site)
    visit.page.locator("#errors p", has_text="site.json could not be loaded").wait_for()
    assert visit.page.locator("#where").text_content() == "No images can be read yet."
    visit.context.close()


def test_a_model_that_was_missing_is_asked_for_again(browser: Any, site: str) -> None:
    visit = Visit(browser, "about:blank")
    page = visit.page
    missing = re.compile("models/classifier.onnx")
    visit.context.route(missing, lambda route: route.fulfill(status=404))
    page.goto(site)
    error = page.locator("#errors p", has_text="models/classifier.onnx could not be loaded (status 404)")
    error.wait_for()
    assert "again" in (error.text_content() or "")
    visit.context.unroute(missing)
    visit.read(EXAMPLE)
    assert page.locator("#cards .card").count() == 1
    visit.context.close()


def test_an_image_chosen_while_the_page_loads_is_read(browser: Any, site: str) -> None:
    visit = Visit(browser, "about:blank")
    page = visit.page
    held: list[Any] = []
    visit.context.route(re.compile("site.json"), lambda route: held.append(route))
    page.goto(site)
    page.set_input_files("#files", [{**EXAMPLE, "name": f"{'x' * 240}.png"}])
    page.locator("#busy").wait_for()
    assert page.locator("#errors p").count() == 0
    assert list(problems_of(page)) == []
    held[0].continue_()
    page.locator("#total", has_text="1 image, 1 face").wait_for()
    visit.context.close()


def test_a_table_without_faces_has_all_its_columns(cleared: Visit) -> None:
    cleared.read({"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture"})
    head = cleared.saved("#save-csv").decode().splitlines()[0].split(",")
    assert head[9:17] == ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "quality"]
    assert head[-1] == "error"
