"""Readings written as JSON lines, CSV, Parquet and as a page."""

import csv
import io
import json
import os
import re
import stat
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import MissingExtraError, OutputError
from mien._face import Box, Face, Reading
from mien.report import Csv, Html, JsonLines, Parquet, open_output

MODEL = {"Name": "test-net", "Accuracy": "69 % <of a test set>"}
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
VOID = {"meta", "img", "input", "br", "hr", "link", "source", "track", "wbr"}


def make_face(seed: int, *, sure: bool = True, emotions: tuple[Emotion, ...] = SEVEN) -> Face:
    generator = np.random.default_rng(seed)
    values = generator.dirichlet(np.full(len(emotions), 0.5))
    probs = dict(zip(emotions, map(float, values), strict=True))
    top = max(probs, key=probs.__getitem__)
    x, y = generator.uniform(5, 60, 2)
    maps = generator.normal(size=(len(emotions), 6, 6)).astype(np.float32)
    crop = generator.integers(0, 255, (48, 48), dtype=np.uint8)
    box = Box(x, y, x + 30, y + 36)
    return Face(box, 0.875, None, top if sure else None, probs[top], probs, maps, crop, np.eye(2, 3))


def make_reading(source: str = "a.jpg", *faces: Face, size: int = 100, note: str | None = None) -> Reading:
    pixels = np.full((size, size, 3), 180, np.uint8)
    return Reading(faces, source, (size, size), note=note, pixels=pixels)


def failed(source: str = "broken.jpg", error: str = "broken.jpg: cut off; copy it again") -> Reading:
    return Reading((), source, (0, 0), error=error)


def some_readings() -> list[Reading]:
    return [
        make_reading('größe 写真, "1".jpg', make_face(1), make_face(2, sure=False)),
        make_reading("empty.png", note="animated, 3 frames: the first was read"),
        failed(),
    ]


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


def interrupt(sink: Html | Parquet) -> None:
    with sink:
        sink.add(make_reading("a.jpg", make_face(1)))
        raise KeyboardInterrupt


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# JSON lines


def test_json_lines_round_trip() -> None:
    stream = io.StringIO()
    with JsonLines(stream) as sink:
        for reading in some_readings():
            sink.add(reading)
    lines = stream.getvalue().splitlines()
    assert [json.loads(line) for line in lines] == [reading.to_dict() for reading in some_readings()]
    assert "größe 写真" in lines[0]
    assert set(json.loads(lines[2])) == {"source", "faces", "error"}


def test_json_lines_flush_every_line(tmp_path: Path) -> None:
    with (tmp_path / "out.jsonl").open("w", encoding="utf-8") as stream, JsonLines(stream) as sink:
        sink.add(make_reading())
        assert (tmp_path / "out.jsonl").read_text("utf-8").count("\n") == 1


@pytest.mark.parametrize(("encoding", "source"), [("ascii", "größe.jpg"), ("utf-8", "bad\udcff.jpg")])
def test_json_lines_spell_out_what_the_stream_cannot_hold(encoding: str, source: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    JsonLines(stream).add(make_reading(source))
    assert json.loads(raw.getvalue().decode("ascii"))["source"] == source


# CSV


def test_csv_reads_back() -> None:
    stream = io.StringIO()
    with Csv(stream, SEVEN) as sink:
        for reading in some_readings():
            sink.add(reading)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    sure, unsure, empty, broken = rows
    expected = some_readings()[0].faces[0]
    names = ["source", "face", "x1", "y1", "x2", "y2", "score", "emotion", "confidence", *map(str, SEVEN), "error"]
    assert list(sure) == names
    assert sure["source"] == 'größe 写真, "1".jpg'
    assert (sure["face"], unsure["face"]) == ("0", "1")
    assert sure["emotion"] == expected.emotion
    assert [float(sure[str(e)]) for e in SEVEN] == pytest.approx(list(expected.probs.values()), abs=1e-4)
    assert float(sure["x2"]) == pytest.approx(expected.box.x2, abs=0.05)
    assert unsure["emotion"] == ""
    assert float(unsure["confidence"]) > 0
    assert empty["source"] == "empty.png"
    assert {value for key, value in empty.items() if key != "source"} == {""}
    assert broken["error"] == "broken.jpg: cut off; copy it again"
    assert broken["face"] == ""


def test_csv_without_readings_has_its_header_and_unencodable_names_are_spelled_out() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    with Csv(stream, CLASS_SETS["three"]) as sink:
        assert raw.getvalue().decode().endswith("confidence,angry,fear,happy,error\n")
        sink.add(failed("bad\udcff.jpg", "no"))
    assert "bad\\udcff.jpg" in raw.getvalue().decode()


# Files: whole or not at all


def test_open_output_appears_whole_with_the_rights_of_the_umask(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old", "utf-8")
    with open_output(target) as stream:
        stream.write("größe\n")
        assert target.read_text("utf-8") == "old"
    assert target.read_bytes() == "größe\n".encode()
    assert leftovers(tmp_path) == ["table.csv"]
    if os.name == "posix":
        plain = tmp_path / "plain"
        plain.touch()
        assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_open_output_keeps_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old", "utf-8")
    with pytest.raises(RuntimeError):
        write_half(target)
    assert target.read_text("utf-8") == "old"
    assert leftovers(tmp_path) == ["table.csv"]


def write_half(target: Path) -> None:
    with open_output(target) as stream:
        stream.write("half")
        raise RuntimeError


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need rights elsewhere")
def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old", "utf-8")
    (tmp_path / "link").symlink_to("real")
    with open_output(tmp_path / "link") as stream:
        stream.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text("utf-8") == "new"


def file_sinks() -> list[Callable[[Path], Any]]:
    return [open_output, lambda path: Html(path, title="x", model={}), Parquet]


@pytest.mark.parametrize("sink", file_sinks(), ids=["text", "html", "parquet"])
def test_places_that_cannot_be_written_are_one_clear_line(tmp_path: Path, sink: Callable[[Path], Any]) -> None:
    if sink is Parquet:
        pytest.importorskip("pyarrow")
    for path, words in [(tmp_path / "no" / "f", "folder does not exist"), (tmp_path, "is a folder")]:
        with pytest.raises(OutputError, match=words) as caught, sink(path):
            pass
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    assert leftovers(tmp_path) == []


def write_something(sink: Any) -> None:
    with sink as opened:
        if hasattr(opened, "add"):
            opened.add(make_reading("a.jpg", make_face(1), size=400))
        else:
            opened.write("text")


@needs_full
@pytest.mark.parametrize("sink", file_sinks(), ids=["text", "html", "parquet"])
def test_a_full_disk_is_an_output_error_and_the_device_stays(sink: Callable[[Path], Any]) -> None:
    if sink is Parquet:
        pytest.importorskip("pyarrow")
    with pytest.raises(OutputError, match="no space left"):
        write_something(sink(FULL))
    assert stat.S_ISCHR(FULL.stat().st_mode)


@needs_full
@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_full_disk_under_a_stream_is_an_output_error(kind: str) -> None:
    stream = FULL.open("w", encoding="utf-8")
    with pytest.raises(OutputError, match="no space left") as caught:
        JsonLines(stream).add(make_reading()) if kind == "json" else Csv(stream, SEVEN).__enter__()
    assert "/dev/full" in str(caught.value)
    with pytest.raises(OSError, match="No space"):
        stream.close()


@pytest.mark.skipif(os.name != "posix", reason="pipes close otherwise elsewhere")
def test_a_closed_pipe_stays_a_broken_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (a descriptor; closed below)
    with pytest.raises(BrokenPipeError):
        JsonLines(stream).add(make_reading())
    with pytest.raises(BrokenPipeError):
        stream.close()


# Parquet


def test_parquet_round_trip(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.parquet"
    with Parquet(path) as sink:
        for reading in [*some_readings(), make_reading("bad\udcff.jpg")]:
            sink.add(reading)
    rows = parquet.read_table(path).to_pylist()
    expected = some_readings()[0].faces[0].to_dict()
    assert len(rows) == 5
    assert rows[0]["source"] == 'größe 写真, "1".jpg'
    assert [rows[0][k] for k in ("x1", "y1", "x2", "y2")] == pytest.approx(expected["box"], rel=1e-6)
    assert {e: rows[0][e] for e in expected["probs"]} == pytest.approx(expected["probs"], abs=1e-6)
    assert rows[0]["contempt"] is None
    assert [row["face"] for row in rows] == [0, 1, None, None, None]
    assert rows[1]["emotion"] is None
    assert rows[3]["error"] == "broken.jpg: cut off; copy it again"
    assert rows[4]["source"] == "bad\\udcff.jpg"


def test_parquet_streams_in_row_groups_and_may_be_empty(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with Parquet(tmp_path / "many.parquet", emotions=SEVEN) as sink:
        for _ in range(9000):
            sink.add(failed())
    with Parquet(tmp_path / "none.parquet") as sink:
        pass
    many = parquet.ParquetFile(tmp_path / "many.parquet")
    assert (many.metadata.num_rows, many.metadata.num_row_groups) == (9000, 3)
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_parquet_leaves_nothing_after_an_exception(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(KeyboardInterrupt):
        interrupt(Parquet(tmp_path / "table.parquet"))
    assert leftovers(tmp_path) == []


def test_parquet_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # the import then fails, as where it is not installed
    with pytest.raises(MissingExtraError, match=r"mien\[lab\]"), Parquet(tmp_path / "table.parquet"):
        pass
    assert leftovers(tmp_path) == []


# The page


def test_page_parses_and_shows_every_reading(tmp_path: Path) -> None:
    text = write_page(tmp_path / "page.html", some_readings())
    page = Checker(text)
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert (page.count("card"), page.count("face"), page.count("box")) == (2, 2, 2)
    assert "größe 写真" in page.text
    assert "animated, 3 frames: the first was read" in page.text
    assert "No face was found" in page.text
    assert "1 picture could not be read" in page.text
    assert "broken.jpg: cut off; copy it again" in page.text
    assert "69 % <of a test set>" in page.text
    assert "does not\nread feelings" in page.text
    figures = dict(re.findall(r"<dt>([\w ]+)</dt><dd>(\d+)</dd>", text))
    assert figures == {"pictures": "3", "faces": "2", "unsure": "1", "without a face": "1", "unreadable": "1"}
    assert leftovers(tmp_path) == ["page.html"]


def test_page_shows_probabilities_in_the_order_of_the_model(tmp_path: Path) -> None:
    face = make_face(5, emotions=CLASS_SETS["eight"])
    page = Checker(write_page(tmp_path / "page.html", [make_reading("a.jpg", face)]))
    radios = [a for tag, a in page.tags if tag == "input" and a["name"] == "p1f1"]
    assert [a["value"] for a in radios] == [str(e) for e in CLASS_SETS["eight"]]
    assert [a["value"] for a in radios if "checked" in a] == [str(face.top)]
    widths = [float(v) for v in re.findall(r"--p:([\d.]+)%", " ".join(page.values("style")))]
    assert widths == pytest.approx([100 * p for p in face.probs.values()], abs=0.01)


def test_unsure_faces_are_called_unsure(tmp_path: Path) -> None:
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
    assert any((attributes["alt"] or "").startswith("Picture a.jpg: ") for attributes in images)
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


def test_names_that_are_no_utf8_are_spelled_out(tmp_path: Path) -> None:
    assert "bad\\udcff.jpg" in write_page(
        tmp_path / "page.html", [make_reading("bad\udcff.jpg"), failed("bad\udcff.jpg")]
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (2500, 2)])
def test_pictures_of_odd_sizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = np.zeros((*shape, 3), np.uint8)
    reading = Reading((make_face(1),), "odd.png", (shape[1], shape[0]), pixels=pixels)
    page = Checker(write_page(tmp_path / "page.html", [reading]))
    thumbnail = next(attributes for tag, attributes in page.tags if tag == "img")
    sides = [int(thumbnail[key] or 0) for key in ("width", "height")]
    assert min(sides) >= 1
    assert max(sides) <= 960


def test_crowds_fold_their_smaller_faces(tmp_path: Path) -> None:
    text = write_page(tmp_path / "page.html", [make_reading("crowd.jpg", *[make_face(i) for i in range(30)])])
    assert "<summary>22 smaller faces</summary>" in text
    assert Checker(text).count("face") == 30


def test_empty_run_is_a_valid_page(tmp_path: Path) -> None:
    assert Checker(write_page(tmp_path / "page.html", [])).count("card") == 0


def test_interrupted_page_is_whole_and_says_so(tmp_path: Path) -> None:
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
    with pytest.raises(ValueError, match="keep_pixels"), Html(path, title="x", model=MODEL) as page:
        page.add(Reading((), "a.jpg", (5, 5)))
    assert path.read_text("utf-8") == "old"
    assert leftovers(tmp_path) == ["page.html"]


def test_the_summary_always_fits_its_room(tmp_path: Path) -> None:
    """Every emotion, unsure and no face, with counts of a million million: more will never stand in it."""
    page = Html(tmp_path / "page.html", title="x", model=MODEL)
    page._counts = Counter(dict.fromkeys((*map(str, Emotion), "pictures", "faces", "unsure", "nobody"), 10**12))
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


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    def readings(count: int) -> Iterator[Reading]:
        return (make_reading(f"{i}.jpg", make_face(i), make_face(i + 1), size=200) for i in range(count))

    write_page(tmp_path / "warm.html", list(readings(1)))
    few, many = peak_of(tmp_path / "few.html", readings(10)), peak_of(tmp_path / "many.html", readings(200))
    assert (tmp_path / "many.html").stat().st_size > 5e6
    assert many < few + 500_000


def test_pixels_are_not_changed(tmp_path: Path) -> None:
    reading = make_reading("a.jpg", make_face(1))
    kept: NDArray[np.uint8] | None = reading.pixels
    assert kept is not None
    before = kept.copy()
    write_page(tmp_path / "page.html", [reading])
    assert np.array_equal(kept, before)
