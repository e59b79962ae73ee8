"""A worker whose process ends reads the rest, and gives up only the image that ends it twice."""

import os
import pickle
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest

import mien
from mien._errors import MienError
from mien.cluster.blocks import ImageBlock
from mien.cluster.worker import BlockReader
from mien.report.tables import parquet_rows
from support.distributed import DeadlyDetector, rows_of_one_process, write_images
from support.onnx_models import write_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals differ on Windows")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    path = tmp_path / "notes"
    path.write_bytes(b"")
    return path


def read(
    notes: Path, block: ImageBlock, *, most: int = 1000, threads: int = 1
) -> tuple[mien.Reader, list[list[dict[str, object]]]]:
    reader = mien.Reader(detector=DeadlyDetector(notes, most), threads=threads)
    blocks = BlockReader(pickle.dumps(reader), reader.model.emotions, str(Path.cwd()), sys.path)
    try:
        return reader, blocks.read(block)
    finally:
        blocks.close()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_image_that_ends_the_process_is_tried_twice(notes: Path, tmp_path: Path, threads: int) -> None:
    names = write_images(tmp_path / "in", 12, deadly=[3, 11], bad=[5])
    reader, images = read(notes, ImageBlock(12, names), threads=threads)
    reason = "its process ended (signal 9) twice while it was read; look at the image by itself"
    expected = [
        mien.Reading((), name, (0, 0), error=f"{name}: {reason}") if number in (3, 11) else reading
        for number, (name, reading) in enumerate(
            zip(names, mien.Reader(detector=DeadlyDetector(notes, 0)).read_many(names), strict=True)
        )
    ]
    assert images == [parquet_rows(reading, reader.model.emotions) for reading in expected]
    # Two of each while it was tried, one while it was expected. Of several threads, two may die of the same process.
    assert len(notes.read_bytes()) in ([6] if threads == 1 else range(6, 9))


def test_an_object_may_be_as_large_as_the_reader_takes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path, side = tmp_path / "large.pgm", 8200  # 67 MB
    with path.open("wb") as file:
        file.truncate(file.write(b"P5 8200 8200 255\n") + side * side)
    for name in (str(path), f"file://{path}"):
        for max_bytes, reason in ((100 * 2**20, None), (1000, f"{name}: the file exceeds the limit of 1,000 bytes; ")):
            reader = mien.Reader(detector="none", max_bytes=max_bytes)
            with closing(BlockReader(pickle.dumps(reader), reader.model.emotions, str(tmp_path), sys.path)) as blocks:
                ((row,),) = blocks.read(ImageBlock(1, [name]))
            assert (row["error"] is None) == (reason is None)
            assert (row["error"] or "").startswith(reason or "")


def test_a_process_that_is_killed_once_loses_nothing(notes: Path, tmp_path: Path) -> None:
    names = write_images(tmp_path / "in", 8, deadly=[0, 4, 7])
    reader, images = read(notes, ImageBlock(8, names), most=1)
    assert [row for rows in images for row in rows] == rows_of_one_process(reader, names)


def test_a_process_that_is_killed_between_blocks_is_started_again(notes: Path, tmp_path: Path) -> None:
    names = write_images(tmp_path / "in", 3)
    reader = mien.Reader(detector=DeadlyDetector(notes))
    with closing(BlockReader(pickle.dumps(reader), reader.model.emotions, str(Path.cwd()), sys.path)) as blocks:
        first = blocks.read(ImageBlock(3, names))
        (process,) = children()
        os.kill(process, signal.SIGKILL)
        assert blocks.read(ImageBlock(3, names)) == first


def test_a_block_that_cannot_be_opened_is_one_row(notes: Path, tmp_path: Path) -> None:
    _, (((row,)),) = read(notes, ImageBlock(9, [str(tmp_path / "none.parquet")], column="image", start=0, end=9))
    assert row["source"] == f"{tmp_path}/none.parquet, rows 0 to 9"
    assert row["error"].startswith(f"{tmp_path}/none.parquet: cannot be read as Parquet (")


def test_a_reader_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.onnx")
    reader = mien.Reader(model, detector="none")
    pickled = pickle.dumps(reader)
    model.unlink()
    with (
        closing(BlockReader(pickled, reader.model.emotions, str(Path.cwd()), sys.path)) as blocks,
        pytest.raises(
            MienError, match=r"a worker cannot open the reader \(.*tiny\.onnx: no such model file\); install"
        ),
    ):
        blocks.read(ImageBlock(1, ["a.png"]))


def children() -> list[int]:
    """The processes of block readers that this one has started; a test process has others, too."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(number) for number in found if b"serve_blocks" in Path(f"/proc/{number}/cmdline").read_bytes()]
