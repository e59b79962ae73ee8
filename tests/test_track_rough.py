"""``mien track`` handled roughly: signals at bad moments, full disks, servers that hang, generators nobody reads."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

import av

import mien
import mien.stream.source
from mien import SourceError
from mien.__main__ import app
from mien.stream import open_source
from support.processes import rest_of
from support.videos import camera, shades, write_film

UNIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and devices are others there")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", shades(12), [i / 25 for i in range(12)])


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["track", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "mien", "track", *map(str, arguments)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def opened(path: Path) -> int:
    """How often this process holds a file open."""
    return sum(number.resolve() == path for number in Path("/proc/self/fd").iterdir())


@UNIX
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_service_that_is_told_to_end_leaves_whole_files(tmp_path: Path, number: int, status: int) -> None:
    names = {name: tmp_path / f"out.{name}" for name in ("csv", "html", "mp4")}
    with camera(shades(40) * 40, hangs=True) as server:
        server.release(1600)
        options = ["--csv", names["csv"], "--html", names["html"], "--video", names["mp4"]]
        with start(server.address, "--jsonl", "-", *options) as job:
            assert job.stdout is not None
            first = [job.stdout.readline() for _ in range(3)]
            job.send_signal(number)
            rest, err = rest_of(job)
    assert job.returncode == status, err
    assert err.strip().endswith("mien: stopped")
    with av.open(str(names["mp4"])) as container:
        assert sum(1 for _ in container.decode(video=0)) == len(first) + len(rest.splitlines())
    assert "Interrupted" in names["html"].read_text()
    assert not list(tmp_path.glob(".mien-*")), "no draft is left behind"


@UNIX
def test_ctrl_c_while_the_files_are_closed_waits_for_them(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mien.stream.timeline import Timeline

    write = Timeline.write

    def pressed(self: Timeline, path: str, *, partial: bool = False) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        write(self, path, partial=partial)

    monkeypatch.setattr(Timeline, "write", pressed)
    code, _, _ = run(film, "--html", tmp_path / "a.html", "--csv", tmp_path / "a.csv")
    assert code == 0
    assert "Interrupted" not in (tmp_path / "a.html").read_text()
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 13


def test_a_stop_before_the_first_frame_is_heard(film: Path) -> None:
    with open_source(film) as frames:
        frames.stop()
        assert list(frames) == []


@UNIX
def test_ctrl_c_while_a_server_lets_one_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with start(f"http://127.0.0.1:{silent.getsockname()[1]}/film.mp4") as job:
            silent.settimeout(30)
            line, _ = silent.accept()
            asked = time.monotonic()
            job.send_signal(signal.SIGINT)
            _, err = job.communicate(timeout=60)
        line.close()
    assert time.monotonic() - asked < 8
    assert (job.returncode, err.strip()) == (130, "mien: stopped")


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(mien.stream.source, "OPEN_SECONDS", 0.4)
    said = r"cannot be opened \(no answer for 0\.4 s\)"
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SourceError, match=said):
        open_source(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/film.mp4")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--video", "-"], "--video -: only --jsonl and --csv can go to standard output; name a file"),
        (["--html", "-"], "--html -: only --jsonl and --csv can go to standard output; name a file"),
        (["--parquet", "-"], "--parquet -: only"),
        (["--video", "out.avi"], "--video out.avi: the film is an MP4; name it out.mp4"),
        (["--video", "out.jpg"], "--video out.jpg: the film is an MP4; name it out.mp4"),
        (["--html", "out.mp4"], "--html out.mp4: is the name of another kind of file; name it out.html"),
        (["--csv", "out.PARQUET"], "--csv out.PARQUET: is the name of another kind of file; name it out.csv"),
    ],
)
def test_names_that_belong_to_other_files(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(film, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_no_name_is_no_folder() -> None:
    code, _, err = run("")
    assert code == 2
    assert "name a film, a camera, an address or a folder" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("option", ["--video", "--jsonl", "--csv", "--parquet", "--html"])
def test_a_full_disk_names_the_file(film: Path, tmp_path: Path, option: str) -> None:
    if option == "--parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    code, _, err = run(film, option, full)
    assert code == 2
    assert err.startswith(f"mien: {full}: ")
    assert "no space left on device" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="limits of file size need a Unix system")
def test_a_refused_table_is_called_by_its_own_name(film: Path, tmp_path: Path) -> None:
    """The draft beside it has a name that the user never gave."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200));"
        "from mien.__main__ import main; sys.argv = ['mien', *sys.argv[1:]]; main()"
    )
    command = [sys.executable, "-c", code, "track", str(film), "--jsonl", str(tmp_path / "a.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"mien: {tmp_path / 'a.jsonl'}: cannot be written (file too large)")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="there is no /proc")
def test_a_generator_that_nobody_reads_closes_its_film(film: Path) -> None:
    reader = mien.Reader()
    moments = mien.track(film, reader=reader)
    assert opened(film)
    moments.close()
    assert not opened(film)
    moments = mien.track(film, reader=reader)
    del moments
    assert not opened(film)
    assert not [thread for thread in threading.enumerate() if thread.name == "mien-frames"]


def test_frames_are_gone_through_once(film: Path) -> None:
    with open_source(film) as frames:
        assert len(list(frames)) == 12
        with pytest.raises(SourceError, match="its frames were read already; open it again"):
            list(frames)
    with open_source(os.fsencode(film)) as frames:  # type: ignore[arg-type]
        assert len(list(frames)) == 12, "a name in bytes is a name"


@UNIX
def test_ctrl_c_while_a_camera_hangs_ends_at_once_and_without_a_crash() -> None:
    with camera(shades(9), hangs=True) as server:
        server.release(9)
        with start(server.address, "--jsonl", "-") as job:
            assert job.stdout is not None
            job.stdout.readline()
            asked = time.monotonic()
            job.send_signal(signal.SIGINT)
            _, err = rest_of(job)
    assert job.returncode == 130, err
    assert err.strip().endswith("mien: stopped")
    assert time.monotonic() - asked < 3.5
