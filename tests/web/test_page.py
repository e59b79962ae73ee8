"""The page in a real browser: images, maps, downloads, bad files, keyboard; no requests elsewhere."""

import base64
import csv
import io
import json
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mien.bundled import DEFAULT_MODEL
from mien.decode import decode
from mien.reader import Reader
from support.browser import Visit, build, chromium, playing, serving, wait_until
from support.encoded_images import encode, turned_webp
from support.golden_readings import GOLDEN, TOOL, Difference, differ, golden_image
from support.layout import problems_of
from support.paths import ROOT

ASTRONAUT = ROOT / "examples" / "astronaut.png"
EXAMPLE: dict[str, Any] = {"name": ASTRONAUT.name, "mimeType": "image/png", "buffer": ASTRONAUT.read_bytes()}


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
    visit = Visit(browser, site).ready()
    yield visit
    visit.close()


@pytest.fixture
def visit(shared: Visit) -> Visit:
    """The page, cleared: reloading it for each test would take most of the time."""
    if shared.done():
        shared.page.click("#clear")
    return shared


def file(name: str, content: bytes, kind: str = "image/png") -> dict[str, Any]:
    return {"name": name, "mimeType": kind, "buffer": content}


def test_the_browser_reads_the_golden_images_as_python_does(visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    visit.read(*(file(f"{name}.png", encode(golden_image(name))) for name in GOLDEN))
    readings = {reading["source"].removesuffix(".png"): reading for reading in json.loads(visit.saved("#save-json"))}
    assert list(readings) == list(GOLDEN)
    worst = Difference()
    for name, golden in GOLDEN.items():
        assert readings[name]["error"] is None
        difference = differ(golden["faces"], readings[name]["faces"])
        assert difference.probability <= 2e-3, name
        assert difference.pixels <= 0.1, name  # as they are saved
        worst = worst.max(difference)
    with capsys.disabled():
        print(f"\nbrowser, golden images: {worst}")


def test_webp_is_read_upright(visit: Visit) -> None:
    orientations, pixels = (2, 3, 4, 5, 6, 7, 8), golden_image("astronaut")[:, :480]
    visit.read(*(file(f"{each}.webp", turned_webp(pixels, each), "image/webp") for each in orientations))
    wanted = [TOOL.values(face) for face in Reader().read(pixels).faces]
    for reading in json.loads(visit.saved("#save-json")):
        assert reading["size_wh"] == [480, 512]
        difference = differ(wanted, reading["faces"])
        assert difference.probability <= 2e-3, reading["source"]
        assert difference.pixels <= 0.1, reading["source"]
    with Image.open(io.BytesIO(visit.saved("#cards article:nth-of-type(5) .actions button"))) as image:
        assert image.size == (480, 512)


def test_odd_png_is_read_as_by_python(visit: Visit) -> None:
    pixels = golden_image("astronaut")[:, :480]
    whole, exif = encode(pixels), struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    late = struct.pack(">I4s", len(exif), b"eXIf") + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    files = {
        "no_end.png": whole[:-12],
        "cut_end.png": whole[:-5],
        "late.png": whole[:-12] + late + whole[-12:],
        "late_no_end.png": whole[:-12] + late,
        "still.png": encode(
            pixels,
            save_all=True,
            default_image=True,
            append_images=[Image.new("RGB", (480, 512), c) for c in ("red", "blue")],
        ),
    }
    visit.read(*(file(name, content) for name, content in files.items()))
    for reading, content in zip(json.loads(visit.saved("#save-json")), files.values(), strict=True):
        wanted = Reader().read(content)
        assert (reading["error"], tuple(reading["size_wh"])) == (None, wanted.size_wh), reading["source"]
        difference = differ([TOOL.values(face) for face in wanted.faces], reading["faces"])
        assert difference.probability <= 2e-3, reading["source"]
        assert reading.get("note") == wanted.note


def test_an_animation_is_noted(visit: Visit) -> None:
    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "green", "blue")]
    formats = {"gif": "GIF", "webp": "WEBP", "png": "PNG", "avif": "AVIF"}
    contents = {
        f"{count}.{ending}": encode(frames[0], each, save_all=True, append_images=frames[1:count], duration=40)
        for count in (1, 3)
        for ending, each in formats.items()
    }
    visit.read(*(file(name, content) for name, content in contents.items()))
    for reading, content in zip(json.loads(visit.saved("#save-json")), contents.values(), strict=True):
        assert reading.get("note") == decode(content).note, reading["source"]
    about = visit.page.locator("#cards .about", has_text="animated, 3 frames: the first was read")
    assert about.count() == len(formats)


def test_the_browser_cuts_the_crops_that_python_cuts(visit: Visit) -> None:
    """Read by the page's own modules, outside of its interface."""
    script = """async (text) => {
        const { Browser } = await import("./browser.mjs");
        const engine = new Browser();
        await engine.open();
        const { faces } = await engine.read(new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]));
        return faces.map(({ crop, box }) => ({ crop: [...crop], box }));
    }"""
    pixels = golden_image("several")
    faces = visit.page.evaluate(script, base64.b64encode(encode(pixels)).decode())
    expected = Reader().read(pixels).faces
    assert len(faces) == len(expected)
    for face, wanted in zip(faces, expected, strict=True):
        crop = np.array(face["crop"], np.int64).reshape(wanted.crop.shape)
        assert (crop == wanted.crop).all()


def test_an_image_becomes_a_card_with_bars_and_its_map(visit: Visit) -> None:
    visit.read(EXAMPLE)
    page = visit.page
    assert "happy 9" in (page.locator("#cards .box").get_attribute("aria-label") or "")
    assert page.locator("#announcement").text_content() == f"astronaut.png: one face: {words_of(page)}"
    assert page.locator(".pick input:checked").get_attribute("value") == "happy"
    plain = page.locator(".card .image").screenshot()
    page.locator("#cards .box").hover()
    assert changed(plain, page.locator(".card .image").screenshot()) > 0.005
    page.mouse.move(5, 5)
    panel = page.locator(".seen")
    happy = panel.screenshot()
    page.locator(".pick label", has_text="sad").click()
    page.mouse.move(5, 5)
    assert changed(happy, panel.screenshot()) > 0.05


def test_an_empty_overlay_takes_no_memory(visit: Visit) -> None:
    visit.read(EXAMPLE)
    overlay, width = visit.page.locator(".image > .over"), "canvas => canvas.width"
    assert overlay.evaluate(width) == 1
    visit.page.locator("#cards .box").hover()
    assert overlay.evaluate(width) == 512
    visit.page.mouse.move(5, 5)
    assert overlay.evaluate(width) == 1


def words_of(page: Any) -> str:
    return " ".join(page.locator("#cards .box span").text_content().split())


def changed(one: bytes, other: bytes) -> float:
    """The share of pixels that differ between two screenshots."""
    pictures = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) for data in (one, other)]
    assert pictures[0].shape == pictures[1].shape
    return float((np.abs(pictures[0] - pictures[1]).max(axis=2) > 8).mean())


def test_readings_are_handed_out_as_json_csv_and_png(visit: Visit) -> None:
    visit.read(EXAMPLE, file("plain.png", encode(np.full((64, 64, 3), 128, np.uint8))))
    one, other = json.loads(visit.saved("#save-json"))
    assert (one["source"], other["source"], other["faces"]) == ("astronaut.png", "plain.png", [])
    expected = Reader().read(ASTRONAUT).to_dict()["faces"][0]
    assert one["faces"][0].keys() == expected.keys()
    assert one["faces"][0]["emotion"] == expected["emotion"]
    rows = list(csv.DictReader(io.StringIO(visit.saved("#save-csv").decode())))
    assert [row["face"] for row in rows] == ["0", ""]
    assert float(rows[0]["happy"]) == one["faces"][0]["probs"]["happy"]
    annotated = Image.open(io.BytesIO(visit.saved(".card:has-text('astronaut.png') .actions button")))
    original = Image.open(ASTRONAUT).convert("RGB")
    assert annotated.size == original.size
    assert 0 < (np.asarray(annotated.convert("RGB")) != np.asarray(original)).mean() < 0.1


def test_the_threshold_makes_faces_unsure(visit: Visit) -> None:
    page = visit.page
    reader = Reader(abstain="card")
    sour = Image.fromarray(golden_image("sour"))
    blurred = (np.asarray(sour.filter(ImageFilter.GaussianBlur(tenths / 10))) for tenths in range(20, 60, 2))
    unsure = next(image for image in blurred for face in reader.read(image) if face.emotion is None)
    visit.read(EXAMPLE, file("unsure.png", encode(unsure)))
    assert page.locator(".box.e-unsure").count() == 1  # as measured for the model
    page.locator("#threshold").fill("0")
    wait_until(page, "document.querySelectorAll('.box.e-unsure').length === 0")
    assert not page.is_checked("#measured")
    page.locator("#measured").check(force=True)
    wait_until(page, "document.querySelectorAll('.box.e-unsure').length === 1")
    assert re.fullmatch(r"\d+ to \d+ %", page.inner_text("#threshold-text"))
    page.locator("#threshold").fill("0")
    page.locator("#threshold").focus()
    page.keyboard.press("End")
    assert page.locator("#threshold-text").text_content() == "90 %"
    faces = [reading["faces"][0] for reading in json.loads(visit.saved("#save-json"))]
    assert [face["emotion"] for face in faces] == ["happy", None]
    page.locator(".box.e-unsure").wait_for()
    assert page.locator(".box.e-unsure").text_content() == "unsure"
    assert "unsure, most likely" in (page.locator(".box.e-unsure").get_attribute("aria-label") or "")
    page.locator("#threshold").focus()
    page.keyboard.press("Home")
    page.locator(".box.e-unsure").wait_for(state="detached")


def test_each_map_can_have_its_own_scale(visit: Visit) -> None:
    visit.read(EXAMPLE)
    visit.page.locator(".pick input[value=angry]").check(force=True)
    opacity = (
        "(() => { const map = document.querySelector('.seen .map'); let sum = 0;"
        "const { data } = map.getContext('2d').getImageData(0, 0, map.width, map.height);"
        "for (let k = 3; k < data.length; k += 4) sum += data[k]; return sum; })()"
    )
    pale = visit.page.evaluate(opacity)
    visit.page.locator("#own-scale").check(force=True)
    wait_until(visit.page, f"{opacity} > {2 * pale}")


def test_bad_files_get_a_line_each_and_the_page_reads_on(visit: Visit) -> None:
    whole = ASTRONAUT.read_bytes()
    damaged = bytearray(whole)
    damaged[2000:60000] = bytes(58000)
    huge = bytearray(whole)
    huge[16:24] = (30_000).to_bytes(4, "big") * 2
    cases = {
        "notes.txt": (b"no picture at all", "not an image that this page reads"),
        "empty.png": (b"", "empty"),
        "cut.png": (whole[:9000], "cut off"),
        "damaged.png": (bytes(damaged), "damaged"),
        "huge.png": (bytes(huge), "million"),
        "wide.png": (encode(Image.new("RGB", (65_536, 2))), "65,535 a side"),
    }
    visit.read(*(file(name, content) for name, (content, _) in cases.items()), EXAMPLE)
    lines = visit.page.locator("#errors p").all_text_contents()
    assert len(lines) == len(cases)
    for line, (name, (_, why)) in zip(lines, cases.items(), strict=True):
        assert line.startswith(name)
        assert why in line
    assert visit.page.locator("#cards .card").count() == 1
    visit.page.locator("#errors button").first.click()
    assert visit.page.locator("#errors p").count() == len(cases) - 1


def test_a_crowd_and_an_image_without_faces(visit: Visit) -> None:
    head = golden_image("astronaut")[4:196:2, 128:320:2]
    crowd = np.full((5 * 104 + 8, 10 * 104 + 8, 3), 96, np.uint8)
    for index in range(50):
        y, x = 8 + 104 * (index // 10), 8 + 104 * (index % 10)
        crowd[y : y + 96, x : x + 96] = head
    visit.read(file("crowd.png", encode(crowd)), file("no_face.png", encode(golden_image("no_face"))))
    found = visit.page.locator(".card", has_text="crowd.png").locator(".box").count()
    assert found == len(Reader().read(crowd).faces)
    assert found >= 45
    card = visit.page.locator(".card", has_text="crowd.png")
    assert card.locator(".face").count() == 8
    card.locator("summary").click()
    card.locator(".face").nth(8).wait_for()
    assert card.locator(".face").count() == found
    assert "No face was found" in (visit.page.locator(".card", has_text="no_face.png").text_content() or "")


def test_everything_is_reached_by_the_keyboard(visit: Visit) -> None:
    page = visit.page
    page.locator("body").click(position={"x": 2, "y": 2})
    visit.read(EXAMPLE)
    page.locator(".skip").focus()
    names = []
    for _ in range(16):
        page.keyboard.press("Tab")
        names.append(page.evaluate("() => { const e = document.activeElement; return e.id || e.className || e.name }"))
    wanted = ["files", "start", "threshold", "maps", "save-json", "clear"]
    assert [name for name in dict.fromkeys(names) if name in wanted] == wanted
    assert "box" in names
    page.locator(".box").focus()
    plain = page.locator(".image").screenshot()
    page.locator(".pick input:checked").focus()
    assert changed(plain, page.locator(".image").screenshot()) > 0.005  # the map goes with the focus
    page.keyboard.press("ArrowDown")
    assert page.locator(".pick input:checked").get_attribute("value") == "sad"
    unnamed = "e => !(e.labels?.length || e.ariaLabel || e.textContent.trim() || e.getAttribute('aria-labelledby'))"
    controls = page.locator("button:visible, input:not([hidden])")
    assert not [index for index in range(controls.count()) if controls.nth(index).evaluate(unnamed)]


def test_it_fits_a_phone(visit: Visit) -> None:
    page = visit.page
    page.set_viewport_size({"width": 390, "height": 780})
    visit.read(file("several.png", encode(golden_image("several"))))
    grounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        grounds.append(page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor"))
    assert grounds == ["rgb(247, 245, 241)", "rgb(20, 20, 22)"]
    page.locator(".box").first.click()
    assert page.locator(".face.marked").count() == 1
    assert list(problems_of(page)) == []
    page.set_viewport_size({"width": 1280, "height": 720})


def test_the_build_carries_the_licences_of_what_it_carries() -> None:
    dist = build()
    assert "MIT License" in (dist / "runtime" / "LICENSE").read_text()
    assert "Apache License" in (dist / "models" / f"{DEFAULT_MODEL}.LICENSE").read_text()
    assert (dist / "models" / "blazeface-short-range.NOTICE").is_file()
