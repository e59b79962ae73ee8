"""20,000 images on two workers: killed workers and drivers change no row, and the memory stays flat."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from support.distributed import below, workers_of_ray, write_images
from support.paths import ROOT

pytest.importorskip("ray", reason="ray is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
pytestmark = [
    pytest.mark.release,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]
COUNT = 20_000
SIDE = 112  # pixels
GROWTH = 1.1  # of the memory from the second fifth of a run to the last, at most


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the images in ``in/``, a few of them damaged, and in ``one.parquet`` what one process reads."""
    folder = tmp_path_factory.mktemp("scale")
    (folder / "in").mkdir()
    generator = np.random.default_rng(0)
    with Image.open(ROOT / "examples" / "astronaut.png") as picture:
        face = picture.convert("RGB").crop((140, 10, 320, 190)).resize((SIDE + 24, SIDE + 24))
    for number in range(COUNT):
        x, y = generator.integers(0, 24, 2).tolist()
        image = ImageEnhance.Brightness(face.crop((x, y, x + SIDE, y + SIDE))).enhance(generator.uniform(0.5, 1.2))
        image.save(folder / "in" / f"{number:05}.jpg", quality=85)
    for number in range(0, COUNT, COUNT // 5):
        (folder / "in" / f"{number:05}.jpg").write_bytes(b"no image")
    subprocess.run([*mien("predict"), "--out", "one.parquet"], cwd=folder, stderr=subprocess.DEVNULL, check=False)
    return folder


def mien(command: str) -> list[str]:
    return [sys.executable, "-m", "mien", command, "in", "--detector", "none"]


def distribute(folder: Path, out: str, *words: str) -> "subprocess.Popen[str]":
    command = [*mien("distribute"), "--out", out, "--workers", "2", "--block-mb", "0.5", *words]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def partitions(out: Path) -> int:
    with suppress(OSError):
        return (out / "_manifest.jsonl").read_bytes().count(b"\n")
    return 0


def watch(job: "subprocess.Popen[str]", out: Path, action: Callable[[int], object]) -> Iterator[int]:
    """Call an action with the number of partitions until the job has ended; yield the memory of its processes.

    It begins with the first partition: until then, processes start.
    """
    while job.poll() is None:
        done = partitions(out)
        action(done)
        if done:
            yield sum(below(job.pid).values())
        time.sleep(0.25)


def test_a_killed_worker_changes_no_row_and_memory_is_flat(folder: Path) -> None:
    killed: list[int] = []

    def kill(done: int) -> None:
        if done > 60 and not killed:
            killed.append(min(workers_of_ray(job.pid)))
            os.kill(killed[0], signal.SIGKILL)

    job = distribute(folder, "out")
    memory = list(watch(job, folder / "out", kill))
    output, errors = job.communicate()
    assert job.returncode == 1  # some images are damaged
    assert (
        output
        == f"out: {COUNT:,} images, {COUNT - 5:,} faces, 5 not read, in {partitions(folder / 'out') - 1} partitions\n"
    )
    assert killed
    assert all(line.startswith("mien: reading, ") for line in errors.splitlines()), errors
    one, out = parquet.read_table(folder / "one.parquet"), parquet.read_table(folder / "out")
    assert out.num_rows >= COUNT
    assert out.equals(one)
    complete = json.loads((folder / "out" / "_manifest.jsonl").read_text().splitlines()[-1])
    assert complete == {"complete": True, "partitions": complete["partitions"], "images": COUNT}
    fifths = [memory[i * len(memory) // 5 : (i + 1) * len(memory) // 5] for i in range(5)]
    print("memory in MB:", [round(median(part) / 1e6) for part in fifths])
    assert median(fifths[4]) < GROWTH * median(fifths[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_driver_that_is_stopped_while_ray_starts_leaves_nothing(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    write_images(tmp_path / "in", 1)
    job = distribute(tmp_path, "out")
    folders: list[Path] = []
    while not folders:  # Ray takes seconds to start after it has made its folder
        assert job.poll() is None
        folders = list(Path("/tmp").glob(f"mien-ray-*/session_*_{job.pid}"))
        time.sleep(0.05)
    job.send_signal(number)
    assert job.communicate() == ("", "mien: stopped\n")
    assert job.returncode == 128 + number
    assert not folders[0].parent.exists()


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_run_whose_ray_ends_is_one_line_and_resumes(name: str, tmp_path: Path) -> None:
    write_images(tmp_path / "in", 400)
    words = ("--block-mb", "0.001", "--resume")
    job = distribute(tmp_path, "out", *words)
    while partitions(tmp_path / "out") < 3:
        assert job.poll() is None
        time.sleep(0.1)
    started = below(job.pid)
    programs = {each: Path(f"/proc/{each}/cmdline").read_bytes().partition(b"\0")[0] for each in started}
    os.kill(next(each for each, program in programs.items() if program.endswith(name.encode())), signal.SIGKILL)
    output, errors = job.communicate()
    assert (job.returncode, output) == (2, "")
    cure = "what was read is kept: look at the memory of the machine, and resume the run"
    assert errors.endswith(f"mien: Ray stopped (its process {name} ended); {cure}\n")
    assert errors.count("\n") <= 2  # one of progress
    while any(Path(f"/proc/{process}").exists() for process in started):  # nothing is left of it
        time.sleep(0.1)
    job = distribute(tmp_path, "out", *words)
    assert job.communicate()[0].startswith("out: 400 images, 400 faces, 0 not read")


def test_a_driver_that_is_killed_three_times_changes_no_row(folder: Path) -> None:
    done, blocks = [0], partitions(folder / "out")
    for share in (0.1, 0.4, 0.7):
        job = distribute(folder, "again", "--resume")
        started: set[int] = set()
        for _ in watch(job, folder / "again", lambda _count: None):
            started |= set(below(job.pid))
            if partitions(folder / "again") > share * blocks:
                job.kill()
        job.communicate()
        assert job.returncode == -signal.SIGKILL
        done.append(partitions(folder / "again"))
        while any(Path(f"/proc/{process}").exists() for process in started):  # nothing is left of it
            time.sleep(0.1)
    assert all(before < after for before, after in pairwise(done))
    job = distribute(folder, "again", "--resume")
    job.communicate()
    assert job.returncode == 1
    assert parquet.read_table(folder / "again").equals(parquet.read_table(folder / "one.parquet"))
