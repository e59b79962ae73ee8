"""Readings as JSON lines, CSV and Parquet; files appear complete or not at all."""

import csv
import io
import json
import os
import stat
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mien
from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import MissingExtraError, OutputError
from mien._face import QUALITY_COLUMNS, Reading
from mien.report import Csv, Html, JsonLines, Parquet, open_output
from support.readings import failed, interrupt, leftovers, make_face, make_reading, some_readings

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def test_json_lines_round_trip() -> None:
    stream = io.StringIO()
    with JsonLines(stream) as sink:
        for reading in some_readings():
            sink.add(reading)
    lines = stream.getvalue().splitlines()
    assert [json.loads(line) for line in lines] == [reading.to_dict() for reading in some_readings()]
    assert "größe 写真" in lines[0]
    assert set(json.loads(lines[2])) == {"source", "size_wh", "faces", "error"}


def test_json_lines_flush_every_line(tmp_path: Path) -> None:
    with (tmp_path / "out.jsonl").open("w", encoding="utf-8") as stream, JsonLines(stream) as sink:
        sink.add(make_reading())
        assert (tmp_path / "out.jsonl").read_text("utf-8").count("\n") == 1


@pytest.mark.parametrize(("encoding", "source"), [("ascii", "größe.jpg"), ("utf-8", "bad\udcff.jpg")])
def test_json_lines_escape_what_the_stream_cannot_encode(encoding: str, source: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    JsonLines(stream).add(make_reading(source))
    assert json.loads(raw.getvalue().decode("ascii"))["source"] == source


def test_csv_reads_back() -> None:
    stream = io.StringIO()
    with Csv(stream, SEVEN) as sink:
        for reading in some_readings():
            sink.add(reading)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    sure, unsure, empty, broken = rows
    expected = some_readings()[0].faces[0]
    names = ["source", "face", "x1", "y1", "x2", "y2", "score", "emotion", "confidence", *map(str, SEVEN)]
    assert list(sure)[:16] == names
    assert list(sure)[16:23] == [*QUALITY_COLUMNS, "image_width", "image_height", "right_eye_x"]
    found = expected.quality.to_dict()
    assert [sure[name] and float(sure[name]) for name in QUALITY_COLUMNS] == [v or 0.0 for v in found.values()]
    assert list(sure)[-2:] == ["left_ear_y", "error"]
    assert (sure["image_width"], sure["right_eye_x"], unsure["right_eye_x"]) == ("100", "7.5", "")
    assert sure["source"] == 'größe 写真, "1".jpg'
    assert (sure["face"], unsure["face"]) == ("0", "1")
    assert sure["emotion"] == expected.emotion
    assert [float(sure[str(e)]) for e in SEVEN] == pytest.approx(list(expected.probs.values()), abs=1e-4)
    assert float(sure["x2"]) == pytest.approx(expected.box.x2, abs=0.05)
    assert unsure["emotion"] == ""
    assert float(unsure["confidence"]) > 0
    assert empty["source"] == "empty.png"
    assert {value for key, value in empty.items() if key not in ("source", "image_width", "image_height")} == {""}
    assert broken["error"] == "broken.jpg: cut off; copy it again"
    assert broken["face"] == ""


def test_csv_without_readings_has_its_header_and_unencodable_names_are_escaped() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    with Csv(stream, CLASS_SETS["three"]) as sink:
        assert "confidence,angry,fear,happy,quality" in raw.getvalue().decode()
        sink.add(failed("bad\udcff.jpg", "no"))
    assert "bad\\udcff.jpg" in raw.getvalue().decode()


def test_raw_csv_reads_back_whatever_is_in_a_name() -> None:
    names = ["a\rb.png", "a\nb.png", "a\r\nb.png", 'a"b,c.png', "=1.png"]
    stream = io.StringIO(newline="")
    with Csv(stream, SEVEN, raw=True) as table:
        for name in names:
            table.add(Reading((), name, (1, 1)))
    stream.seek(0)
    assert [row["source"] for row in csv.DictReader(stream)] == names


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
    with pytest.raises(OutputError, match="no file has a null byte in its name"), sink(tmp_path / "a\0b"):
        pass


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


def test_an_interrupted_parquet_file_has_what_was_read(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with pytest.raises(KeyboardInterrupt):
        interrupt(Parquet(tmp_path / "table.parquet"))
    assert leftovers(tmp_path) == ["table.parquet"]
    assert parquet.read_table(tmp_path / "table.parquet").num_rows == 1


def test_parquet_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # the import then fails, as where it is not installed
    with pytest.raises(MissingExtraError, match=r"mien\[parquet\]"), Parquet(tmp_path / "table.parquet"):
        pass
    assert leftovers(tmp_path) == []


def test_a_data_frame_has_the_rows_of_csv_with_types(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = mien.to_pandas(some_readings())
    stream = io.StringIO()
    with Csv(stream, SEVEN) as sink:
        for reading in some_readings():
            sink.add(reading)
    assert list(table.columns) == stream.getvalue().splitlines()[0].split(",")
    assert table.face.tolist() == [0, 1, pandas.NA, pandas.NA]
    assert (table.image_width.dtype, table.happy.dtype) == ("Int32", "float64")
    assert table.emotion.isna().tolist() == [False, True, True, True]
    assert table.left_ear_x.isna().all()
    assert table.mouth_y[0] == 19.0
    assert mien.to_pandas(some_readings()[0]).equals(table[:2])
    assert len(mien.to_pandas([])) == 0
    with Parquet(tmp_path / "faces.parquet", emotions=SEVEN) as written:
        for reading in some_readings():
            written.add(reading)
    assert list(pandas.read_parquet(tmp_path / "faces.parquet").columns) == list(table.columns)


def test_a_data_frame_of_several_models_has_all_their_emotions() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    other = make_face(3, emotions=CLASS_SETS["three"])
    table = mien.to_pandas([make_reading("a", other), make_reading("b", make_face(1))])
    assert [name for name in table.columns if name in list(Emotion)] == [str(e) for e in Emotion if e in SEVEN]
    assert table.sad.isna().tolist() == [True, False]


def test_pandas_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"mien\[pandas\]"):
        mien.to_pandas([])


def test_faces_as_detections_of_supervision() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where OpenCV is not installed
        supervision = pytest.importorskip("supervision")
    one, unsure = make_face(1), make_face(2, sure=False)
    found = make_reading("a.jpg", one, unsure).to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.xyxy == pytest.approx(np.array([one.box, unsure.box]))
    assert found.confidence == pytest.approx([one.confidence, unsure.confidence])
    assert found.class_id.tolist() == [SEVEN.index(one.top), len(SEVEN)]
    assert found.data["class_name"].tolist() == [str(one.top), "unsure"]
    assert found.data["probs"] == pytest.approx(np.array([[*face.probs.values()] for face in (one, unsure)]))
    assert len(found[found.confidence < 0]) == len(make_reading().to_supervision()) == 0


def test_supervision_that_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match=r'not installed; run: pip install "mien\[supervision\]"'):
        make_reading().to_supervision()


@pytest.mark.skipif(os.name != "posix", reason="folders are locked on POSIX systems alone")
@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_do_not_write_one_parquet_file(resume: bool, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "out.parquet"
    with Parquet(path) as table:
        table.add(Reading((), "a.png", (8, 8)))
        with pytest.raises(OutputError, match="another run writes here; wait for it"), Parquet(path, resume=resume):
            pass
    with Parquet(path, resume=True) as table:
        assert table.done == {"a.png"}
    assert [each.name for each in tmp_path.iterdir()] == ["out.parquet"]


def test_the_last_lines_that_cannot_be_written_leave_no_file(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits the size of files on POSIX systems")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OutputError), JsonLines(tmp_path / "a.json", array=True) as lines:  # noqa: PT012
            lines.add(Reading((), "a.png", (8, 8)))
            size = next(tmp_path.iterdir()).stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_killed_before_its_first_part_keeps_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / ".a.parquet.parts").mkdir()
    (tmp_path / ".a.parquet.parts" / ".mien-0.part").write_bytes(b"PAR1")
    with Parquet(tmp_path / "a.parquet") as table:
        table.add(Reading((), "a.png", (8, 8)))
    assert [each.name for each in tmp_path.iterdir()] == ["a.parquet"]
