"""Other processes give the readings of this one, and end with it, with an error, or when they are killed."""

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from PIL import Image

from mien import Reader, Reading, _errors
from mien._errors import MienError, MissingExtraError
from mien._face import Detection
from support.distributed import DeadlyDetector, WrongDetector, write_images
from support.paths import ROOT
from support.processes import rest_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")


def reading_processes(parent: int) -> list[int]:
    """The processes that read for another one."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            ours = int(path.read_text().rpartition(")")[2].split()[1]) == parent
            if ours and b"serve_images" in path.with_name("cmdline").read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def contents(reading: Reading) -> tuple[Any, ...]:
    """All of a reading, to the bit."""
    arrays = [array for face in reading for array in (face.maps, face.crop, face.to_image)]
    arrays += [] if reading.pixels is None else [reading.pixels]
    faces = [(face.box, face.score, face.points, face.emotion, face.confidence, face.probs) for face in reading]
    bits = [(array.tobytes(), array.shape, array.dtype, array.flags.writeable) for array in arrays]
    return reading.source, reading.size_wh, reading.note, reading.error, faces, bits


@pytest.mark.parametrize(("batch", "keep"), [(64, False), (64, True), (1, False), (5, False)])
def test_readings_are_those_of_one_process_to_the_bit(
    astronaut: np.ndarray, tmp_path: Path, batch: int, keep: bool
) -> None:
    names = write_images(tmp_path / "in", 5, bad=[2])
    for number in range(20):
        name = tmp_path / "in" / f"face-{number}.jpg"
        Image.fromarray(np.roll(astronaut, 9 * number, axis=1)[number:]).save(name)
        names.append(str(name))
    encoded = Path(names[7]).read_bytes()

    def images(stream: BinaryIO) -> Iterator[Any]:
        yield from names[:15]
        yield from (encoded, Path(names[8]), astronaut[::-1], memoryview(encoded), io.BytesIO(encoded), None)
        yield stream  # which cannot be sent
        yield from names[15:]

    reader = Reader(threads=2, abstain=0.5, max_faces=1)
    with Path(names[9]).open("rb") as stream:
        here = reader.read_many(images(stream), batch=batch, keep_pixels=keep)
        expected = [contents(reading) for reading in here]
    assert sum(len(faces) for *_, faces, _ in expected) > 20
    with Path(names[9]).open("rb") as stream:
        apart = reader.read_many(images(stream), batch=batch, keep_pixels=keep, workers=2)
        assert [contents(reading) for reading in apart] == expected
    assert not reading_processes(os.getpid())


@pytest.mark.parametrize(("threads", "workers"), [(2, 1), (1, 2)])
def test_arrays_may_change_and_streams_be_closed_before_the_next_image(
    astronaut: np.ndarray, threads: int, workers: int
) -> None:
    small = astronaut[::2, ::2]

    def images() -> Iterator[Any]:
        frame, encoded = np.empty_like(small), bytearray()
        for number in range(12):
            frame[:] = np.roll(small, 9 * number, axis=1)
            stream = io.BytesIO()
            Image.fromarray(frame).save(stream, "BMP")
            encoded[:] = stream.getvalue()
            stream.seek(0 if number < 9 else 10**6)
            with stream, Image.open(io.BytesIO(encoded)) as image:
                yield (frame, encoded, stream, image)[number % 4]
        frame[:], encoded[:] = 0, b""

    expected = [contents(reading) for reading in Reader().read_many(images())]
    assert [bool(error) for *_, error, _, _ in expected] == [number == 10 for number in range(12)]
    readings = Reader(threads=threads).read_many(images(), workers=workers)
    assert [contents(reading) for reading in readings] == expected


def test_programs_need_no_guard_and_may_bring_their_own_streams(astronaut: np.ndarray, tmp_path: Path) -> None:
    """A Python file in the folder of the images is not imported."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(astronaut).save(folder / "a.png")
    (folder / "numpy.py").write_text("raise SystemExit('a module of the folder')")
    (tmp_path / "program.py").write_text(
        "import io, mien\n"
        "class Named(io.BytesIO):\n"
        "    name = 'mine'\n"
        "content = open('a.png', 'rb').read()\n"
        "readings = list(mien.Reader().read_many([Named(content), 'a.png', Named(content)], workers=2))\n"
        "print([(reading.source, len(reading)) for reading in readings])\n"
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[('mine', 1), ('a.png', 1), ('mine', 1)]\n", "")


def test_errors_of_a_detector_are_named(astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = Reader(detector=WrongDetector()).read_many([astronaut] * 2, workers=2)
    with pytest.raises(
        MienError, match=r"the reader failed \(ValueError: no faces in 512 columns\); mend its detector"
    ):
        list(readings)
    monkeypatch.setattr(WrongDetector, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "WrongDetector", WrongDetector, raising=False)
    readings = Reader(detector=WrongDetector()).read_many([astronaut] * 2, workers=2)
    with pytest.raises(MienError, match="define its detector in a module, not in the program"):
        list(readings)


def test_all_errors_can_be_sent() -> None:
    classes = [value for value in vars(_errors).values() if isinstance(value, type) and issubclass(value, MienError)]
    for error in [kind("text") for kind in classes if kind is not MissingExtraError] + [
        MissingExtraError("av", "video")
    ]:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize(("batch", "most"), [(1, 1), (16, 16), (64, 64)])
def test_reading_is_lazy_and_closing_it_ends_the_processes(tmp_path: Path, batch: int, most: int) -> None:
    (name,) = write_images(tmp_path, 1)
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield name

    readings = Reader(detector="none").read_many(endless(), batch=batch, workers=2)
    assert taken == 0
    next(readings)
    assert 1 <= taken <= most
    assert reading_processes(os.getpid())
    readings.close()
    assert not reading_processes(os.getpid())


def test_a_killed_process_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "notes").write_bytes(b"")
    names = write_images(tmp_path / "in", 40, deadly=[20])
    readings = Reader(detector=DeadlyDetector(tmp_path / "notes")).read_many(names, workers=2)
    read = []
    with pytest.raises(MienError) as caught:
        read.extend(readings)
    assert [reading.source for reading in read] == names[: len(read)]
    assert len(read) >= 8
    where = f"{names[16]} to {names[23]}"
    assert str(caught.value) == f"{where}: its process ended (signal 9); read with one process, or fewer images"
    assert not reading_processes(os.getpid())


def test_an_error_of_the_images_is_raised(tmp_path: Path) -> None:
    names = write_images(tmp_path, 3)

    def images() -> Iterator[str]:
        yield from names
        raise OSError("the disk was unplugged")

    with pytest.raises(OSError, match="unplugged"):
        list(Reader(detector="none").read_many(images(), workers=2))
    assert not reading_processes(os.getpid())


def test_a_folder_that_was_removed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = write_images(tmp_path / "in", 1)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with pytest.raises(MienError, match=r"no other process can be started \(.*\); read with one"):
        list(Reader(detector="none").read_many([name], workers=2))


def test_a_detector_that_cannot_be_sent_is_one_line() -> None:
    class Local:
        name = "local"

        def __call__(self, _: np.ndarray) -> list[Detection]:
            return []

    with pytest.raises(MienError, match=r"the reader cannot be sent to other processes \(.*\); change its detector"):
        Reader(detector=Local()).read_many(["a.png"], workers=2)
    with pytest.raises(MienError, match="workers is -1; it must be 0 or more"):
        Reader(detector="none").read_many(["a.png"], workers=-1)


@pytest.fixture
def many(astronaut: np.ndarray, tmp_path: Path) -> Path:
    """A folder of 600 images."""
    (tmp_path / "many").mkdir()
    Image.fromarray(astronaut[::4, ::4]).save(tmp_path / "many" / "000.png")
    for number in range(1, 600):
        (tmp_path / "many" / f"{number:03}.png").hardlink_to(tmp_path / "many" / "000.png")
    return tmp_path


def predict(folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "mien", "predict", "many", "--threads", "2", *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_gone(processes: list[int]) -> None:
    while any(Path(f"/proc/{process}").exists() for process in processes):
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "status", "message"),
    [(signal.SIGINT, 130, "mien: stopped\n"), (signal.SIGTERM, 143, "mien: stopped\n"), (signal.SIGKILL, -9, "")],
)
def test_the_processes_end_with_the_command(many: Path, number: int, status: int, message: str) -> None:
    job = predict(many, "--json")
    assert job.stdout is not None
    first = job.stdout.readline()
    processes = reading_processes(job.pid)
    assert processes
    job.send_signal(number)
    output, errors = rest_of(job)
    assert (job.returncode, errors) == (status, message)
    assert 0 < (first + output).count("\n") < 600
    wait_until_gone(processes)


def test_a_killed_process_ends_the_command_which_resumes(many: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    job = predict(many, "--out", "out.parquet", "--batch", "8")
    while len(processes := reading_processes(job.pid)) < 2:
        assert job.poll() is None
        time.sleep(0.01)
    os.kill(processes[0], signal.SIGKILL)
    _, errors = job.communicate()
    assert job.returncode == 2
    assert errors.startswith("mien: ")
    assert errors.endswith("(signal 9); read with one process, or fewer images\n")
    assert errors.count("\n") == 1
    wait_until_gone(processes)
    again = predict(many, "--out", "out.parquet", "--resume")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    table = parquet.read_table(many / "out.parquet")
    assert table["source"].to_pylist() == [f"many/{number:03}.png" for number in range(600)]
