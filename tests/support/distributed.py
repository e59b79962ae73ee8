"""Folders of images for distributed runs, what one process reads in them, and detectors that end their process."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import mien
from mien._face import Box, Detection
from mien.cluster.plan import Plan
from mien.report.tables import parquet_rows

DEADLY = 13  # width of the images at which a ``DeadlyDetector`` ends its process


@dataclass(frozen=True)
class DeadlyDetector:
    """Finds one face in every image, and ends the process at images of a certain width, as a crash of a library does.

    Args:
        notes: A file to which each such image adds a byte.
        most: How many times the process ends; then the images are read like others.
    """

    notes: Path
    most: int = 1000
    name: str = "deadly"

    def __call__(self, pixels: NDArray[np.uint8]) -> list[Detection]:
        height, width = pixels.shape[:2]
        if width == DEADLY:
            with self.notes.open("ab") as file:
                file.write(b"x")
            if self.notes.stat().st_size <= self.most:
                os.kill(os.getpid(), signal.SIGKILL)
        return [Detection(Box(0, 0, width, height), 1.0, None)]


class WrongDetector:
    """Raises an error that is not one of mien's."""

    name = "wrong"

    def __call__(self, pixels: NDArray[np.uint8]) -> list[Detection]:
        raise ValueError(f"no faces in {pixels.shape[1]} columns")


def write_images(folder: Path, count: int, *, deadly: Sequence[int] = (), bad: Sequence[int] = ()) -> list[str]:
    """Write small images, some of which are deadly and some damaged; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number in range(count):
        path = folder / f"{number:05}.png"
        if number in bad:
            path.write_bytes(b"no image")
        else:
            Image.new("L", (DEADLY if number in deadly else 16, 16), 37 * number % 256).save(path)
        names.append(str(path))
    return names


def rows_of_one_process(reader: mien.Reader, sources: Sequence[str], **options: Any) -> list[dict[str, Any]]:
    """The rows that one process reads in the images of sources."""
    plan = Plan(sources, **{"fps": None, "column": None, **options})
    images = (image for block in plan for _, image in block.open())
    return [row for reading in reader.read_many(images) for row in parquet_rows(reading, reader.model.emotions)]


def written_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder, as any program reads them."""
    import pyarrow.parquet as parquet

    return list(parquet.read_table(folder).to_pylist())


def as_written(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with numbers as precise as Parquet files have them."""
    return [
        {key: float(np.float32(value)) if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    ]


def below(root: int) -> dict[int, int]:
    """The processes that a process has started, directly or not, and their memory in bytes."""
    parents, found = {}, {root: 0}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = (int(fields[1]), int(fields[21]) * os.sysconf("SC_PAGE_SIZE"))
    while more := {pid: size for pid, (parent, size) in parents.items() if parent in found and pid not in found}:
        found |= more
    del found[root]
    return found


def workers_of_ray(driver: int) -> list[int]:
    """The workers of the Ray that a process has started: an actor of Ray Data names itself after its class."""
    found = []
    for process in below(driver):
        with suppress(OSError):
            if Path(f"/proc/{process}/cmdline").read_bytes().startswith(b"ray::MapWorker(MapBatches(RayWorker))"):
                found.append(process)
    return found
