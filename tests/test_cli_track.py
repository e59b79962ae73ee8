"""``mien track`` as a user meets it: every output, every refusal, Ctrl-C, and a camera that goes away."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

import av

from mien.__main__ import app
from mien.bundled import DEFAULT_MODEL
from mien.commands.track_show import LiveView
from mien.pipeline import Reader
from mien.stream import Tracker, open_source
from support.processes import rest_of
from support.videos import camera, head_of, walk, write_film, write_sound

Pixels = NDArray[np.uint8]
FRAMES = 24


@pytest.fixture(scope="module")
def pictures(astronaut: Pixels) -> list[Pixels]:
    return walk(head_of(astronaut), [(60 + 6 * i, 60) for i in range(FRAMES)])


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, pictures: list[Pixels]) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "walk.mp4", pictures, [i / 25 for i in range(FRAMES)])


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["track", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def decoded(path: Path) -> list[float]:
    """The times of all frames of a film; PyAV raises where it cannot be played."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def test_without_an_output_it_says_what_was_seen(film: Path) -> None:
    code, out, err = run(film)
    assert (code, err) == (0, "")
    assert "person" in out
    assert "1 person" in out
    assert f"{FRAMES} frames" in out
    assert "frames/s" in out


def test_every_output_at_once(film: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as parquet

    names = {option: tmp_path / f"out.{option}" for option in ("jsonl", "csv", "parquet", "html")} | {
        "video": tmp_path / "out.mp4"
    }
    code, out, err = run(film, *(part for option, path in names.items() for part in (f"--{option}", path)))
    assert (code, err) == (0, "")
    assert "1 person" in out
    lines = [json.loads(line) for line in names["jsonl"].read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert {face["id"] for line in lines for face in line["faces"]} == {1}
    assert len(list(csv.DictReader(names["csv"].read_text().splitlines()))) == FRAMES
    assert parquet.read_table(names["parquet"]).num_rows == FRAMES
    assert decoded(names["video"]) == pytest.approx([i / 25 for i in range(FRAMES)], abs=1e-3)
    page = names["html"].read_text()
    assert "walk.mp4" in page
    assert DEFAULT_MODEL in page
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in names.values())


def test_standard_output_holds_the_lines_alone(film: Path) -> None:
    code, out, err = run(film, "--jsonl", "-", "--every", 5)
    assert code == 0
    assert [json.loads(line)["frame"] for line in out.splitlines()] == list(range(FRAMES))
    assert "1 person" in err
    code, out, err = run(film, "--csv", "-", "--duration", "0.2")
    assert code == 0
    assert [row["frame"] for row in csv.DictReader(out.splitlines())] == list("01234")


def test_a_folder_of_frames(tmp_path: Path, pictures: list[Pixels]) -> None:
    for number, picture in enumerate(pictures[:4]):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    code, out, _ = run(tmp_path, "--fps", 10, "--jsonl", "-", "--smooth", 0)
    assert code == 0
    assert [json.loads(line)["seconds"] for line in out.splitlines()] == [0.0, 0.1, 0.2, 0.3]


def test_a_film_without_a_face_is_no_failure(tmp_path: Path) -> None:
    path = write_film(tmp_path / "empty.mp4", [np.full((48, 64, 3), 80, np.uint8)] * 4, [0, 0.1, 0.2, 0.3])
    code, out, err = run(
        path, "--csv", tmp_path / "a.csv", "--video", tmp_path / "b.mp4", "--html", tmp_path / "c.html"
    )
    assert (code, err) == (0, "")
    assert "no face found" in out
    assert len(decoded(tmp_path / "b.mp4")) == 4
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.mp4"], "nowhere.mp4: no such film; check the path"),
        (["notes.mp4"], "notes.mp4: cannot be opened"),
        (["song.m4a"], "song.m4a: there is no video in it"),
        (["folder"], "folder: no pictures in this folder"),
        (["97"], "camera 97: there is no such camera"),
        (["FILM", "--jsonl", "FILM"], "is the source as well; name another file"),
        (["FILM", "--csv", "a", "--jsonl", "./a"], "is the file of --jsonl as well; name another file"),
        (["FILM", "--csv", "none/a.csv"], "none/a.csv: cannot be written, its folder does not exist"),
        (["FILM", "--html", "none/a.html"], "none/a.html: cannot be written, its folder does not exist"),
        (["FILM", "--video", "folder"], "folder: is a folder; name a file in it"),
        (["FILM", "--model", "nobody"], "unknown model 'nobody'"),
    ],
)
def test_what_it_refuses(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.mp4").write_text("these are words")
    (tmp_path / "folder").mkdir()
    write_sound(tmp_path / "song.m4a")
    before = sorted(path.name for path in tmp_path.rglob("*")), film.read_bytes()
    code, out, err = run(*(str(film) if part == "FILM" else part for part in arguments))
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert (sorted(path.name for path in tmp_path.rglob("*")), film.read_bytes()) == before


def test_numbers_out_of_range_and_two_on_standard_output(film: Path) -> None:
    for wrong in (["--every", "0"], ["--smooth", "-1"], ["--fps", "0"], ["--jsonl", "-", "--csv", "-"]):
        code, _, err = run(film, *wrong)
        assert code == 2
        assert "Traceback" not in err


def test_pyav_is_named_where_it_is_missing(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = run(film)
    assert code == 2
    assert 'pip install "mien[video]"' in err


def test_a_film_that_is_cut_off_is_read_and_said(film: Path, tmp_path: Path) -> None:
    with av.open(str(film)) as whole, av.open(str(tmp_path / "whole.mkv"), "w") as copy:
        stream = copy.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    code, out, _ = run(tmp_path / "cut.mkv", "--jsonl", tmp_path / "a.jsonl")
    assert code == 0
    assert "the file ends early" in out
    assert 5 < len((tmp_path / "a.jsonl").read_text().splitlines()) < FRAMES


def test_a_camera_that_goes_away_leaves_whole_files_and_a_clear_line(tmp_path: Path, pictures: list[Pixels]) -> None:
    with camera(pictures) as server:
        server.release(len(pictures))
        code, out, err = run(server.address, "--video", tmp_path / "a.mp4", "--jsonl", tmp_path / "a.jsonl")
    assert code == 2
    assert "the camera or stream ended after" in err
    assert "frames dropped" in out
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert lines
    assert len(decoded(tmp_path / "a.mp4")) == len(lines)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is another signal there")
def test_ctrl_c_leaves_whole_files(tmp_path: Path, pictures: list[Pixels]) -> None:
    """A camera that never ends, stopped after its third line."""
    with camera(pictures * 40, hangs=True) as server:
        feeding = threading.Thread(target=server.release, args=(len(pictures) * 40,))
        feeding.start()
        names = {name: tmp_path / f"out.{name}" for name in ("csv", "html", "mp4")}
        command = [sys.executable, "-m", "mien", "track", server.address, "--jsonl", "-", "--csv", str(names["csv"])]
        command += ["--html", str(names["html"]), "--video", str(names["mp4"])]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as job:
            assert job.stdout is not None
            first = [job.stdout.readline() for _ in range(3)]
            job.send_signal(signal.SIGINT)
            rest, err = rest_of(job)
        feeding.join()
    assert job.returncode == 130, err
    assert err.strip().endswith("mien: stopped")
    lines = [json.loads(line) for line in (*first, *rest.splitlines())]
    rows = list(csv.DictReader(names["csv"].read_text().splitlines()))
    assert rows[-1]["frame"] == str(lines[-1]["frame"])
    assert len(decoded(names["mp4"])) == len(lines)
    assert "Interrupted" in names["html"].read_text()
    assert not list(tmp_path.glob(".mien-*")), "no draft is left behind"


def test_the_live_view_shows_every_face_and_its_bars(film: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with open_source(film) as frames, LiveView(frames, console) as view:
        tracker = Tracker(Reader())
        for frame in frames:
            moment = tracker.step(frame.pixels, frame.seconds)
            view.add(moment)
        shown = Console(file=io.StringIO(), width=80, color_system=None)
        shown.print(view.view(moment))
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    face = moment.faces[0]
    assert f"person {face.id}" in text
    assert f"{face.emotion} {face.confidence:.0%}" in text
    assert "frames/s" in text
    assert all(str(emotion) in text for emotion in face.probs)
    assert "\u2588" in text
    assert "person 1" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "mien-frames"]
