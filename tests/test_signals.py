"""Signals at any moment: an orderly end, one line, and no traceback, also during imports."""

import csv
import io
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mien import Reader
from mien._signals import GracefulStop, exit_status, interrupt, interruptible, set_handlers
from mien.commands import app
from mien.video import open_source
from support.annotated_videos import frames_of
from support.paths import ROOT
from support.videos import shades, times, write_video

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals differ on Windows")

IMAGES = 8
OLDER = "<!-- Written by mien -->"  # the mark of its files, which it may replace
EXAMPLE = ROOT / "examples" / "astronaut.png"
# The program, which gets a signal when it imports a module.
SIGNAL_AT_IMPORT = """
import os, sys
from mien.__main__ import main
_, module, number, *words = sys.argv
sys.argv[1:] = words

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), int(number))

sys.meta_path.insert(0, Finder())
main()
"""
# A program that waits in C for what does not come (a lock that it has itself), or in Python.
WAITING = """
import ctypes, sys, threading, time
from mien import _signals
in_c = sys.argv[1] == "C"
_signals.set_handlers((lambda *_: None) if in_c else _signals.interrupt)  # a signal may come before the lock
_signals._GRACE_SECONDS = 0.2 if in_c else 600.0
libc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(256)
try:
    with _signals.ending_while_waiting():
        print("ready", flush=True)
        while in_c:
            libc.pthread_mutex_lock(lock)
        time.sleep(600)
except KeyboardInterrupt:
    print("interrupted,", threading.active_count(), "thread")
"""


@pytest.fixture(autouse=True)
def _not_ignored() -> Iterator[None]:
    """Programs ignore SIGINT in the background of a script and SIGHUP after nohup, and so do those that they start."""
    handlers = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, old in before.items():
        signal.signal(number, old)


@pytest.mark.parametrize(
    ("module", "number"), [("typer", signal.SIGINT), ("onnxruntime.capi", signal.SIGTERM), ("rich.box", signal.SIGHUP)]
)
def test_a_signal_during_an_import_is_one_line(module: str, number: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_AT_IMPORT, module, str(int(number)), "predict", str(EXAMPLE)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (128 + number, "mien: stopped\n")


@pytest.fixture
def _interrupting() -> Iterator[None]:
    """The handlers of the program, in this process."""
    before = set_handlers(interrupt)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_interrupting")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_ends_the_input_and_the_second_interrupts(number: signal.Signals, status: int) -> None:
    called = []
    with GracefulStop(lambda: called.append(1)) as signals:
        read = []
        for item in signals.until_stopped(range(5)):
            read.append(item)
            if item == 2:
                signal.raise_signal(number)
        assert (read, called) == ([0, 1, 2], [1])
        assert signals.error is not None
        assert exit_status(signals.error) == status
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as stopped:
        signal.raise_signal(number)
    assert exit_status(stopped.value) == status


@pytest.mark.usefixtures("_interrupting")
def test_a_wait_does_not_begin_after_a_signal() -> None:
    with GracefulStop():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt) as stopped, interruptible():
            raise AssertionError("the wait has begun")
    assert exit_status(stopped.value) == 143
    with interruptible():
        pass


@pytest.mark.usefixtures("_interrupting")
@pytest.mark.parametrize("threads", [1, 2])
def test_one_signal_interrupts_the_image_that_is_read_and_loses_none_before_it(threads: int) -> None:
    """Also an image on a pipe that never ends."""

    class Pipe(io.RawIOBase):
        name = "pipe"
        closing = threading.Event()

        def read(self, _: int = -1) -> bytes:
            os.kill(os.getpid(), signal.SIGTERM)
            self.closing.wait(20)
            return b""

    reader, pipe = Reader(detector="none", threads=threads), Pipe()
    face = np.zeros((64, 64, 3), np.uint8)
    read = []
    with (
        GracefulStop() as signals,
        closing(reader.read_many(signals.until_stopped([face, face, pipe]))) as readings,
        pytest.raises(KeyboardInterrupt) as stopped,
    ):
        read.extend(readings)
    pipe.closing.set()
    assert exit_status(stopped.value) == 143
    assert len(read) == 2 or threads > 1  # a thread may still be at the images before it


@pytest.mark.usefixtures("_interrupting")
def test_one_signal_interrupts_while_a_video_is_awaited_on_a_pipe(tmp_path: Path) -> None:
    pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')
    os.mkfifo(tmp_path / "pipe")
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        open_source(tmp_path / "pipe")
    os.close(os.open(tmp_path / "pipe", os.O_WRONLY))  # ends the thread


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulStop() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.error is None
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, and a video."""
    folder = tmp_path_factory.mktemp("inputs")
    for index, image in enumerate(shades(IMAGES)):
        Image.fromarray(image).save(folder / f"{index}.png")
    pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')
    write_video(folder / "video.mp4", shades(IMAGES), times(IMAGES))
    return folder


def outputs_of(command: str, inputs: Path, folder: Path) -> list[str]:
    """The arguments of a run whose output files exist already, with older results."""
    names = ["page.html"] if command == "predict" else ["page.html", "lines.jsonl", "video.mp4"]
    for name in names:
        (folder / name).write_text(OLDER)
    if command == "predict":
        more = ["--format", "csv", "--out", folder / "copies", "--detector", "none", "--batch", 2, inputs]
    else:
        more = ["--format", "csv", "--out", folder / "lines.jsonl", "--out", folder / "video.mp4", inputs / "video.mp4"]
    return [command, "--out", str(folder / "page.html"), *map(str, more)]


def check_outputs(command: str, folder: Path, status: int, out: str, err: str) -> int:
    """Check that all outputs of a run hold the same results, or are older ones. Returns the number of results."""
    assert status in (0, 130, 143), err
    note = err.splitlines()[-1:] if command == "track" else err.splitlines()  # track also prints its summary
    assert status == 0 or note == ["mien: stopped"], err
    rows = list(csv.DictReader(out.splitlines()))
    page = (folder / "page.html").read_text("utf-8")
    assert not list(folder.rglob(".*")), "no temporary file remains"
    if command == "predict":
        results = len({row["source"] for row in rows})
        copies = [Image.open(path) for path in folder.glob("copies/*")]
        for copy in copies:
            copy.load()
        assert len(copies) == results
        assert page.count("<article") == results
    else:
        results = len({row["frame"] for row in rows})
        lines = (folder / "lines.jsonl").read_text()
        assert lines.count('"frame"') == results
        if results:
            assert len(frames_of(folder / "video.mp4")) == results
    assert (page == OLDER) == (results == 0)
    assert ("nterrupted" in page) == (results > 0 and status != 0)
    assert status != 0 or results == IMAGES
    return results


@contextmanager
def interrupted_after(calls: float) -> Iterator[list[int]]:
    """Send SIGINT to this process when so many functions have been called. Yields their number in the end."""
    counted = [0]

    def count(_: FrameType, event: str, __: object) -> None:
        # Not when they return: Python loses what open() returns then, and the interrupt in a generator that ends.
        if event in ("call", "c_call"):
            counted[0] += 1
            if counted[0] == calls:
                signal.raise_signal(signal.SIGINT)

    sys.setprofile(count)
    try:
        yield counted
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("command", ["predict", "track"])
def test_ctrl_c_at_any_moment_loses_nothing(command: str, inputs: Path, tmp_path: Path) -> None:
    calls, found = 0, set()
    generator = random.Random(27)
    for run, moment in enumerate((math.inf, math.inf, *(generator.random() for _ in range(7)))):
        folder = tmp_path / str(run)
        folder.mkdir()
        words = outputs_of(command, inputs, folder)
        with interrupted_after(moment if moment == math.inf else round(calls * moment)) as counted:
            try:
                done = CliRunner().invoke(app, words)
            except KeyboardInterrupt:  # before the command begins, or after its end
                continue
        calls = calls if moment < 1 else counted[0]  # in the end that of the second run, which imports nothing
        found.add(check_outputs(command, folder, done.exit_code, done.stdout, done.stderr))
    assert found - {0, IMAGES}, "at least one of the runs has a part of the results"


# The program, which writes to a pipe as soon as it handles signals.
PIPE_AT_START = """
import os, sys
from mien.__main__ import main
_, pipe, *sys.argv[1:] = sys.argv

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "mien.commands":
            os.write(int(pipe), b"started")

sys.meta_path.insert(0, Finder())
main()
"""


@pytest.mark.release
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("command", ["predict", "track"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_real_signals_at_random_moments(command: str, number: signal.Signals, inputs: Path, tmp_path: Path) -> None:
    generator, longest, found = random.Random(number), 0.0, []
    for run in range(61):
        folder = tmp_path / str(run)
        folder.mkdir()
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", PIPE_AT_START, str(writing), *outputs_of(command, inputs, folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[writing],
        )
        os.close(writing)
        os.read(reading, 1)
        os.close(reading)
        start = time.monotonic()
        if longest:  # the first run is not stopped
            time.sleep(generator.random() * longest)
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
        longest = longest or time.monotonic() - start
        status = process.returncode
        ended = status == -number  # while Python itself shut down
        found.append(check_outputs(command, folder, 0 if ended else status, out, err))
    with_some = sum(0 < results < IMAGES for results in found)
    print(f"\n{command}, {number.name}: {len(found)} runs, {with_some} with a part of the results")


@pytest.mark.skipif(sys.platform != "linux", reason="the lock is made of the bytes that it has on Linux")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_program_that_waits_in_c_with_one_line(number: int) -> None:
    with waiting_program("C") as program:
        program.send_signal(number)
        output, errors = program.communicate()
    assert (program.returncode, output) == (128 + number, "")
    assert errors == "mien: stopped while it waited for another process\n"


def test_a_program_that_handles_the_signal_itself_goes_on() -> None:
    with waiting_program("Python") as program:
        program.send_signal(signal.SIGTERM)
        output, errors = program.communicate()
    assert (program.returncode, output, errors) == (0, "interrupted, 1 thread\n", "")


@contextmanager
def waiting_program(where: str) -> Iterator["subprocess.Popen[str]"]:
    words = [sys.executable, "-c", WAITING, where]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        try:
            yield program
        finally:
            program.kill()


def test_ctrl_c_while_readings_are_taken_gives_none_of_them_again() -> None:
    readings = Reader(detector="none").read_many([np.zeros((8, 8, 3), np.uint8)] * 4, batch=2)
    next(readings)
    with pytest.raises(KeyboardInterrupt):
        readings.throw(KeyboardInterrupt())
