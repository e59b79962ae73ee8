"""`mien track`: outputs, errors, signals, full disks, lost cameras, damaged frames, clocks that restart."""

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

import av

import mien
import mien.video.sources
from mien import SourceError
from mien.bundled import DEFAULT_MODEL
from mien.commands import app
from mien.commands.track_display import LiveView
from mien.reader import Reader
from mien.video import Tracker, open_source
from support.processes import rest_of
from support.videos import break_packets, camera, head_of, shades, walk, write_audio, write_video
from support.written_files import foreign_files

Pixels = NDArray[np.uint8]
FRAMES = 24


@pytest.fixture(scope="module")
def images(astronaut: Pixels) -> list[Pixels]:
    return walk(head_of(astronaut), [(60 + 6 * i, 60) for i in range(FRAMES)])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, images: list[Pixels]) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "walk.mp4", images, [i / 25 for i in range(FRAMES)])


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["track", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def decoded(path: Path) -> list[float]:
    """The times of all frames of a video; PyAV raises an error if it cannot be played."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]


def test_without_an_output_it_prints_a_summary(video: Path) -> None:
    code, out, err = run(video)
    assert (code, err) == (0, "")
    assert "track" in out
    assert "1 track" in out
    assert f"{FRAMES} frames" in out
    assert "frames/s" in out


def test_all_outputs_at_once(video: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as parquet

    names = {option: tmp_path / f"out.{option}" for option in ("jsonl", "csv", "parquet", "html")} | {
        "video": tmp_path / "out.mp4"
    }
    code, out, err = run(video, *(part for path in names.values() for part in ("--out", path)))
    assert (code, err) == (0, "")
    assert "1 track" in out
    lines = [json.loads(line) for line in names["jsonl"].read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert {face["track_id"] for line in lines for face in line["faces"]} == {1}
    assert len(list(csv.DictReader(names["csv"].read_text().splitlines()))) == FRAMES
    assert parquet.read_table(names["parquet"]).num_rows == FRAMES
    assert decoded(names["video"]) == pytest.approx([i / 25 for i in range(FRAMES)], abs=1e-3)
    page = names["html"].read_text()
    assert "walk.mp4" in page
    assert DEFAULT_MODEL in page
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in names.values())
    assert foreign_files(tmp_path) == []


def test_standard_output_contains_only_the_lines(video: Path) -> None:
    code, out, err = run(video, "--json", "--every", 5)
    assert code == 0
    assert [json.loads(line)["frame"] for line in out.splitlines()] == list(range(FRAMES))
    assert "1 track" in err
    code, out, err = run(video, "--format", "csv", "--end", "0.2")
    assert code == 0
    assert [row["frame"] for row in csv.DictReader(out.splitlines())] == list("01234")


def test_a_folder_of_frames(tmp_path: Path, images: list[Pixels]) -> None:
    for number, image in enumerate(images[:4]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    code, out, _ = run(tmp_path, "--rate", 10, "--json", "--smooth", 0)
    assert code == 0
    assert [json.loads(line)["seconds"] for line in out.splitlines()] == [0.0, 0.1, 0.2, 0.3]
    for _ in range(2):  # its own video does not make the folder one of videos
        code, out, _ = run(tmp_path, "--rate", 10, "--start", 0.1, "--out", tmp_path / "video.mp4")
        assert (code, "3 frames (0.2 s)" in out) == (0, True)


def test_a_video_without_a_face_is_not_an_error(tmp_path: Path) -> None:
    path = write_video(tmp_path / "empty.mp4", [np.full((48, 64, 3), 80, np.uint8)] * 4, [0, 0.1, 0.2, 0.3])
    code, out, err = run(path, "--out", tmp_path / "a.csv", "--out", tmp_path / "b.mp4", "--out", tmp_path / "c.html")
    assert (code, err) == (0, "")
    assert "no face found" in out
    assert len(decoded(tmp_path / "b.mp4")) == 4
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.mp4"], "nowhere.mp4: no such video; check the path"),
        (["notes.mp4"], "notes.mp4: cannot be opened"),
        (["song.m4a"], "song.m4a: there is no video in it"),
        (["folder"], "folder: no images in this folder"),
        (["97"], "camera 97: there is no such camera"),
        (["VIDEO", "--out", "VIDEO"], "is read by this command and would be lost"),
        (["VIDEO", "--out", "a.csv", "--out", "./a.csv"], "--out a.csv: two results cannot go there"),
        (["VIDEO", "--out", "a.csv", "--out", "b.csv"], "--out: name one file for each format"),
        (["VIDEO", "--out", "none/a.csv"], "none/a.csv: cannot be written, its folder does not exist"),
        (["VIDEO", "--out", "none/a.html"], "none/a.html: cannot be written, its folder does not exist"),
        (["VIDEO", "--model", "resnet"], "unknown model 'resnet'"),
    ],
)
def test_wrong_arguments_are_errors_in_one_line(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.mp4").write_text("this is text")
    (tmp_path / "folder").mkdir()
    write_audio(tmp_path / "song.m4a")
    before = sorted(path.name for path in tmp_path.rglob("*")), video.read_bytes()
    code, out, err = run(*(str(video) if part == "VIDEO" else part for part in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert (sorted(path.name for path in tmp_path.rglob("*")), video.read_bytes()) == before


def test_numbers_out_of_range_and_two_on_standard_output(video: Path) -> None:
    for wrong in (["--every", "0"], ["--smooth", "-1"], ["--rate", "0"], ["--json", "--format", "csv"]):
        code, _, err = run(video, *wrong)
        assert code == 2
        assert "Traceback" not in err


def test_missing_pyav_is_an_error_with_its_cure(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = run(video)
    assert code == 2
    assert 'pip install "mien[video]"' in err


def test_a_truncated_video_is_read_and_reported(video: Path, tmp_path: Path) -> None:
    with av.open(str(video)) as whole, av.open(str(tmp_path / "whole.mkv"), "w") as copy:
        stream = copy.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    data = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    code, out, _ = run(tmp_path / "cut.mkv", "--out", tmp_path / "a.jsonl")
    assert code == 0
    assert "the file ends early" in out
    assert 5 < len((tmp_path / "a.jsonl").read_text().splitlines()) < FRAMES


def test_a_lost_camera_leaves_complete_files_and_a_message(tmp_path: Path, images: list[Pixels]) -> None:
    with camera(images) as server:
        server.release(len(images))
        code, out, err = run(server.address, "--out", tmp_path / "a.mp4", "--out", tmp_path / "a.jsonl")
    assert code == 2
    assert "the camera or stream ended after" in err
    assert "frames dropped" in out
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    assert lines
    assert len(decoded(tmp_path / "a.mp4")) == len(lines)


def test_the_live_view_shows_every_face_and_its_bars(video: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with open_source(video) as frames, LiveView(frames, console) as view:
        tracker = Tracker(Reader())
        for frame in frames:
            result = tracker.step(frame.pixels, frame.seconds)
            view.add(result)
        shown = Console(file=io.StringIO(), width=80, color_system=None)
        shown.print(view.view(result))
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    face = result.faces[0]
    assert f"track {face.track_id}" in text
    assert f"{face.emotion} {face.confidence:.0%}" in text
    assert "frames/s" in text
    assert all(str(emotion) in text for emotion in face.probs)
    assert "\u2588" in text
    assert "track 1" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "mien-frames"]


UNIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and devices differ on Windows")


@pytest.fixture(scope="module")
def gray_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "video.mp4", shades(12), [i / 25 for i in range(12)])


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "mien", "track", *map(str, arguments)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def opened(path: Path) -> int:
    """How many handles of a file this process has."""
    return sum(number.resolve() == path for number in Path("/proc/self/fd").iterdir())


@UNIX
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_leave_complete_files(tmp_path: Path, number: int, status: int) -> None:
    names = {name: tmp_path / f"out.{name}" for name in ("csv", "html", "mp4")}
    with camera(shades(40) * 40, hangs=True) as server:
        server.release(1600)
        options = ["--out", names["csv"], "--out", names["html"], "--out", names["mp4"]]
        with start(server.address, "--json", *options) as job:
            assert job.stdout is not None
            first = [job.stdout.readline() for _ in range(3)]
            job.send_signal(number)
            rest, err = rest_of(job)
    assert job.returncode == status, err
    assert err.strip().endswith("mien: stopped")
    lines = [json.loads(line) for line in (*first, *rest.splitlines())]
    rows = list(csv.DictReader(names["csv"].read_text().splitlines()))
    assert [int(row["frame"]) for row in rows] == [line["frame"] for line in lines]
    assert len(decoded(names["mp4"])) == len(lines)
    assert "Interrupted" in names["html"].read_text()
    assert not list(tmp_path.glob(".mien-*")), "no temporary file remains"


@UNIX
def test_ctrl_c_does_not_interrupt_closing_the_files(
    gray_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mien.video.timeline import Timeline

    write = Timeline.write

    def interrupted(self: Timeline, path: str, *, partial: bool = False) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        write(self, path, partial=partial)

    monkeypatch.setattr(Timeline, "write", interrupted)
    code, _, _ = run(gray_video, "--out", tmp_path / "a.html", "--out", tmp_path / "a.csv")
    assert code == 0
    assert "Interrupted" not in (tmp_path / "a.html").read_text()
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 13


def test_a_stop_before_the_first_frame_works(gray_video: Path) -> None:
    with open_source(gray_video) as frames:
        frames.stop()
        assert list(frames) == []


@UNIX
def test_ctrl_c_works_while_a_server_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with start(f"http://127.0.0.1:{silent.getsockname()[1]}/video.mp4") as job:
            silent.settimeout(30)
            line, _ = silent.accept()
            start_time = time.monotonic()
            job.send_signal(signal.SIGINT)
            _, err = job.communicate(timeout=60)
        line.close()
    assert time.monotonic() - start_time < 8
    assert (job.returncode, err.strip()) == (130, "mien: stopped")


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_never_answers_times_out(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(mien.video.sources, "OPEN_SECONDS", 0.4)
    message = r"cannot be opened \(no answer for 0\.4 s\)"
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SourceError, match=message):
        open_source(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/video.mp4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "mp4"], "mp4 cannot go to standard output; name a file: --out FILE.mp4"),
        (["--out", "-", "--format", "html"], "html cannot go to standard output; name a file: --out FILE.html"),
        (["--out", "out.avi"], "--out out.avi: this suffix names no format; name a file .csv, .jsonl"),
        (["--format", "parqet"], "unknown --format 'parqet'; did you mean 'parquet'?"),
    ],
)
def test_suffixes_of_other_file_types_are_refused(
    gray_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(gray_video, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_empty_name_is_refused() -> None:
    code, _, err = run("")
    assert code == 2
    assert "name a video, a camera, an address or a folder" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("name", ["mp4", "jsonl", "csv", "parquet", "html"])
def test_a_full_disk_names_the_file(gray_video: Path, tmp_path: Path, name: str) -> None:
    if name == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    full = tmp_path / f"full.{name}"
    full.symlink_to("/dev/full")
    code, _, err = run(gray_video, "--out", full)
    assert code == 2
    assert err.startswith(f"mien: {full}: ")
    assert "no space left on device" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("full", ["video", "jsonl"])
def test_a_full_disk_ends_one_output_and_the_others_are_complete(gray_video: Path, tmp_path: Path, full: str) -> None:
    names = {name: tmp_path / f"out.{name}" for name in ("jsonl", "csv", "html")} | {"video": tmp_path / "out.mp4"}
    names[full].symlink_to("/dev/full")
    code, _, err = run(gray_video, *(part for path in names.values() for part in ("--out", path)))
    assert code == 2
    assert err.startswith(f"mien: {names[full]}: ")
    assert len(err.strip().splitlines()) == 1
    assert len(names["csv"].read_text().splitlines()) == 13
    assert "Interrupted" not in names["html"].read_text()
    if full == "video":
        assert len(names["jsonl"].read_text().splitlines()) == 12
    else:
        assert len(decoded(names["video"])) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in names.values())


@UNIX
def test_a_closed_pipe_ends_the_run_and_the_files_have_the_frames_until_then(tmp_path: Path) -> None:
    table, page = tmp_path / "a.csv", tmp_path / "a.html"
    with camera(shades(40) * 40, hangs=True) as server:
        server.release(1600)
        with start(server.address, "--json", "--out", table, "--out", page) as job:
            assert job.stdout is not None
            job.stdout.readline()
            job.stdout.close()
            _, err = job.communicate(timeout=60)
    assert job.returncode == 141, err
    assert len(table.read_text().splitlines()) > 1
    assert "Interrupted" in page.read_text()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="limits of file size need a Unix system")
def test_an_error_of_a_table_names_its_file(gray_video: Path, tmp_path: Path) -> None:
    """The message has the path of the user, not that of the temporary file."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200));"
        "from mien.__main__ import main; sys.argv = ['mien', *sys.argv[1:]]; main()"
    )
    command = [sys.executable, "-c", code, "track", str(gray_video), "--out", str(tmp_path / "a.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"mien: {tmp_path / 'a.jsonl'}: cannot be written (file too large)")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="there is no /proc")
def test_an_unused_generator_closes_its_video(gray_video: Path) -> None:
    reader = mien.Reader()
    results = mien.track(gray_video, reader=reader)
    assert opened(gray_video)
    results.close()
    assert not opened(gray_video)
    results = mien.track(gray_video, reader=reader)
    del results
    assert not opened(gray_video)
    assert not [thread for thread in threading.enumerate() if thread.name == "mien-frames"]


def test_frames_can_be_iterated_once(gray_video: Path) -> None:
    with open_source(gray_video) as frames:
        assert len(list(frames)) == 12
        with pytest.raises(SourceError, match="its frames were read already, or it was closed; open it again"):
            list(frames)
    with open_source(os.fsencode(gray_video)) as frames:  # type: ignore[arg-type]
        assert len(list(frames)) == 12, "a name may be bytes"


@UNIX
def test_ctrl_c_ends_at_once_without_a_crash_while_a_camera_hangs() -> None:
    with camera(shades(9), hangs=True) as server:
        server.release(9)
        with start(server.address, "--json") as job:
            assert job.stdout is not None
            job.stdout.readline()
            start_time = time.monotonic()
            job.send_signal(signal.SIGINT)
            _, err = rest_of(job)
    assert job.returncode == 130, err
    assert err.strip().endswith("mien: stopped")
    assert time.monotonic() - start_time < 3.5


def test_times_stay_in_sync_if_the_first_frames_are_broken(tmp_path: Path) -> None:
    """Broken frames before the first intact one take their time."""
    path = write_video(tmp_path / "video.mkv", shades(20), [i / 25 for i in range(20)], codec="mjpeg")
    break_packets(path, range(5))
    with open_source(path) as frames:
        given = [frame.seconds for frame in frames]
    assert given == pytest.approx([i / 25 for i in range(5, 20)], abs=2e-3)


def test_a_clock_that_restarts_continues(tmp_path: Path) -> None:
    """Two joined recordings of a broadcast: the clock of the second starts where that of the first started."""
    path = write_video(tmp_path / "video.ts", shades(40), [i / 10 for i in range(40)])
    twice = tmp_path / "twice.ts"
    twice.write_bytes(2 * path.read_bytes())
    with open_source(twice) as frames:
        given = [frame.seconds for frame in frames]
    assert len(given) == 80
    assert given == sorted(given)
    assert 7.4 <= given[-1] <= 8.0


def test_audio_continues_if_the_clock_restarts(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "video.ts"), "w") as container:
        stream, audio = container.add_stream("libx264", 10), container.add_stream("aac", 48000, layout="mono")
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number, image in enumerate(shades(40)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
            tone.sample_rate, tone.pts = 48000, 4800 * number
            container.mux(audio.encode(tone))
        container.mux(stream.encode())
        container.mux(audio.encode())
    twice = tmp_path / "twice.ts"
    twice.write_bytes(2 * (tmp_path / "video.ts").read_bytes())
    code, _, err = run(twice, "--out", tmp_path / "out.mp4")
    assert (code, err) == (0, "")
    with av.open(str(tmp_path / "out.mp4")) as container:
        ends = [float(stream.duration * stream.time_base) for stream in container.streams]
    assert ends == pytest.approx([8.0, 8.0], abs=0.4)
