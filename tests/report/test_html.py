"""Readings as one HTML page: valid, accessible, private, and with bounded memory."""

import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mien._emotions import CLASS_SETS, Emotion
from mien._errors import MienError
from mien._face import Detection, Reading
from mien.reader import Reader
from mien.report import Html
from mien.report.html import percent_html
from support.readings import failed, interrupt, leftovers, make_face, make_reading, some_readings

MODEL = {"Name": "test-net", "Accuracy": "69 % <of a test set>"}
VOID = {"meta", "img", "input", "br", "hr", "link", "source", "track", "wbr"}


class Checker(HTMLParser):
    """Collects tags and texts, and fails on a tag that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def values(self, name: str) -> list[str]:
        return [value for _, attributes in self.tags if (value := attributes.get(name)) is not None]

    def count(self, css_class: str) -> int:
        return sum(css_class in value.split() for value in self.values("class"))


def write_page(path: Path, readings: list[Reading], title: str = "A day") -> str:
    with Html(path, title=title, model=MODEL) as page:
        for reading in readings:
            page.add(reading)
    return path.read_text("utf-8")


def test_page_parses_and_shows_every_reading(tmp_path: Path) -> None:
    text = write_page(tmp_path / "page.html", some_readings())
    page = Checker(text)
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert (page.count("card"), page.count("face"), page.count("box")) == (2, 2, 2)
    assert "größe 写真" in page.text
    assert "animated, 3 frames: the first was read" in page.text
    assert "No face was found" in page.text
    assert "1 image could not be read" in page.text
    assert "broken.jpg: cut off; copy it again" in page.text
    assert "69 % <of a test set>" in page.text
    assert "does not\nread feelings" in page.text
    numbers = dict(re.findall(r"<dt>([\w ]+)</dt><dd>(\d+)</dd>", text))
    assert numbers == {"images": "3", "faces": "2", "unsure": "1", "without a face": "1", "unreadable": "1"}
    assert leftovers(tmp_path) == ["page.html"]


def test_page_shows_probabilities_in_the_order_of_the_model(tmp_path: Path) -> None:
    face = make_face(5, emotions=CLASS_SETS["eight"])
    page = Checker(write_page(tmp_path / "page.html", [make_reading("a.jpg", face)]))
    radios = [a for tag, a in page.tags if tag == "input" and a["name"] == "p1f1"]
    assert [a["value"] for a in radios] == [str(e) for e in CLASS_SETS["eight"]]
    assert [a["value"] for a in radios if "checked" in a] == [str(face.top)]
    assert "<dt>image</dt><dd>1</dd></div><div><dt>face</dt><dd>1</dd>" in (tmp_path / "page.html").read_text()
    widths = [float(v) for v in re.findall(r"--p:([\d.]+)%", " ".join(page.values("style")))]
    assert widths == pytest.approx([100 * p for p in face.probs.values()], abs=0.01)


def test_unsure_faces_are_labelled_unsure(tmp_path: Path) -> None:
    face = make_face(3, sure=False)
    text = write_page(tmp_path / "page.html", [make_reading("a.jpg", face)])
    assert '<span class="name">unsure</span>' in text
    assert f"most likely {face.top}" in text
    assert Checker(text).count("has-unsure") == 1


def test_page_loads_nothing(tmp_path: Path) -> None:
    text = write_page(tmp_path / "page.html", some_readings())
    page = Checker(text)
    assert page.values("src")
    assert all(value.startswith("data:image/") for value in page.values("src"))
    assert all(value.startswith("#") for value in page.values("href"))
    assert all(target.startswith("data:image/png;base64,") for target in re.findall(r"url\(([^)]*)\)", text))
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link|<iframe|srcset", re.sub(r"base64,[\w+/=]+", "", text))
    assert "default-src 'none'" in text


def test_page_is_accessible(tmp_path: Path) -> None:
    readings = [make_reading("a.jpg", make_face(1), make_face(2)), make_reading("b.jpg")]
    page = Checker(write_page(tmp_path / "page.html", readings))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all("alt" in attributes for attributes in images)
    assert any((attributes["alt"] or "").startswith("Image a.jpg: ") for attributes in images)
    identifiers = page.values("id")
    assert max(Counter(identifiers).values()) == 1
    assert {value[1:] for value in page.values("href")} <= set(identifiers)
    assert all(a.get("aria-label") for tag, a in page.tags if tag in ("section", "a") and a.get("class") != "skip")


@pytest.mark.parametrize("name", ["<script>alert(1)</script>.jpg", '"><img src=x onerror=alert(1)>.jpg', "'&amp;.jpg"])
def test_hostile_names_are_only_text(tmp_path: Path, name: str) -> None:
    readings = [make_reading(name, make_face(1), note=name), failed(name, f"{name}: no")]
    page = Checker(write_page(tmp_path / "page.html", readings, title=name))
    assert name in page.text
    assert not page.values("onerror")
    assert "script" not in {tag for tag, _ in page.tags}
    assert all(value.startswith("data:") for value in page.values("src"))


def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    assert "bad\\udcff.jpg" in write_page(
        tmp_path / "page.html", [make_reading("bad\udcff.jpg"), failed("bad\udcff.jpg")]
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (2500, 2)])
def test_images_of_odd_sizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), np.uint8)
    reading = Reading((make_face(1),), "odd.png", (shape[1], shape[0]), pixels=pixels)
    page = Checker(write_page(tmp_path / "page.html", [reading]))
    thumbnail = next(attributes for tag, attributes in page.tags if tag == "img")
    sides = [int(thumbnail[key] or 0) for key in ("width", "height")]
    assert min(sides) >= 1
    assert max(sides) <= 960


def test_smaller_faces_of_a_crowd_are_collapsed(tmp_path: Path) -> None:
    text = write_page(tmp_path / "page.html", [make_reading("crowd.jpg", *[make_face(i) for i in range(30)])])
    assert "<summary>22 smaller faces</summary>" in text
    assert Checker(text).count("face") == 30


def test_empty_run_is_a_valid_page(tmp_path: Path) -> None:
    assert Checker(write_page(tmp_path / "page.html", [])).count("card") == 0


def test_interrupted_page_is_complete_and_has_a_note(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    with pytest.raises(KeyboardInterrupt):
        interrupt(Html(path, title="x", model=MODEL))
    parsed = Checker(path.read_text("utf-8"))
    assert "Interrupted: this page is partial" in parsed.text
    assert parsed.count("card") == 1
    assert leftovers(tmp_path) == ["page.html"]


def test_any_other_exception_leaves_the_old_page(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old", "utf-8")
    with pytest.raises(MienError, match="keep_pixels"), Html(path, title="x", model=MODEL) as page:
        page.add(Reading((), "a.jpg", (5, 5)))
    assert path.read_text("utf-8") == "old"
    assert leftovers(tmp_path) == ["page.html"]


@pytest.mark.parametrize("name", ["mien-0", "mien-plus"])  # of the same emotions, and with contempt
def test_a_second_model_stands_beside_the_first(tmp_path: Path, astronaut: NDArray[np.uint8], name: str) -> None:
    first, second = Reader("mien-1"), Reader(name, detector="none")
    smile = first.read(astronaut, keep_pixels=True)
    frown = replace(smile.faces[0], probs=dict(zip(first.model.emotions, [0.9, 0.1, 0, 0, 0, 0, 0], strict=True)))
    with Html(tmp_path / "page.html", title="x", model=first.describe(), beside=second) as page:
        for each in (smile, replace(smile, faces=(frown,)), replace(smile, faces=())):
            page.add(each)
    text = (tmp_path / "page.html").read_text("utf-8")
    (face,) = second.read_at(astronaut, [Detection(frown.box, frown.score, frown.points)]).faces
    assert text.count(f"{name}, the lower bars: happy {percent_html(face.confidence)}") == 2
    assert Checker(text).count("has-differ") == Checker(text).count("differs") == 1
    assert "<dt>read differently</dt><dd>1</dd>" in text
    assert f"<dt>beside it</dt><dd>{name} (int8)</dd>" in text
    assert text.count('class="bar"') == 2 * 2 * len(first.model.emotions)


def test_the_summary_always_fits_its_reserved_space(tmp_path: Path) -> None:
    """Every emotion, unsure and no face, with counts of 10**12: no page has more."""
    page = Html(tmp_path / "page.html", title="x", model=MODEL, beside=Reader("mien-0", detector="none"))
    kinds = ("images", "faces", "unsure", "no-face", "differ")
    page._counts = Counter(dict.fromkeys((*map(str, Emotion), *kinds), 10**12))
    with pytest.raises(KeyboardInterrupt), page:
        raise KeyboardInterrupt
    assert Checker((tmp_path / "page.html").read_text("utf-8")).count("summary") == 1


def peak_of(path: Path, readings: Iterator[Reading]) -> int:
    tracemalloc.start()
    with Html(path, title="x", model=MODEL) as page:
        for reading in readings:
            page.add(reading)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    def readings(count: int) -> Iterator[Reading]:
        return (make_reading(f"{i}.jpg", make_face(i), make_face(i + 1), size=200) for i in range(count))

    write_page(tmp_path / "warm.html", list(readings(1)))
    few, *many = (peak_of(tmp_path / f"{count}.html", readings(count)) for count in (10, 200, 200))
    assert (tmp_path / "200.html").stat().st_size > 5e6
    assert min(many) < few + 500_000  # the lower one, as threads of other tests may allocate meanwhile


def test_pixels_are_not_changed(tmp_path: Path) -> None:
    reading = make_reading("a.jpg", make_face(1))
    kept: NDArray[np.uint8] | None = reading.pixels
    assert kept is not None
    before = kept.copy()
    write_page(tmp_path / "page.html", [reading])
    assert np.array_equal(kept, before)
