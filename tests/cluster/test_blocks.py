"""Blocks open the same images as one process, whatever they are made of, and keep what cannot be opened as errors."""

import re
from pathlib import Path

import numpy as np
import pytest

import mien
from mien._errors import MienError
from mien.cluster.blocks import ImageBlock
from mien.cluster.plan import Plan
from support.distributed import rows_of_one_process, write_images
from support.videos import times, write_video

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
import pyarrow.parquet as parquet


@pytest.fixture(scope="module")
def reader() -> mien.Reader:
    return mien.Reader(detector="none")


def errors(reader: mien.Reader, block: ImageBlock, **options: object) -> list[str | None]:
    return [each.error for each in reader.read_many(image for _, image in block.open(**options))]


def test_images_of_tables_are_those_of_files(reader: mien.Reader, tmp_path: Path) -> None:
    files = write_images(tmp_path / "in", 9, bad=[2])
    contents = [Path(name).read_bytes() for name in files]
    both = [{"bytes": content, "path": name} for content, name in zip(contents, files, strict=True)]
    expected = [row | {"source": "", "error": None} for row in rows_of_one_process(reader, files)]
    addresses = [f"file://{name}" for name in files]
    for column in (contents, files, both, addresses):
        table = pyarrow.table({"image": column})
        parquet.write_table(table, tmp_path / "a.parquet", row_group_size=4)
        for options in ({}, {"block_bytes": 1}, {"block_bytes": 4 * len(contents[0])}):
            rows = rows_of_one_process(reader, [str(tmp_path / "a.parquet")], column="image", **options)
            assert [row["error"] is not None for row in rows] == [number == 2 for number in range(9)]
            assert [row | {"source": "", "error": None} for row in rows] == expected
            if column is contents:
                assert [row["source"] for row in rows] == [f"{tmp_path}/a.parquet#{number}" for number in range(9)]


def test_images_before_a_damaged_part_of_a_table_are_read(reader: mien.Reader, tmp_path: Path) -> None:
    (name,) = write_images(tmp_path / "in", 1)
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"image": [Path(name).read_bytes()] * 12}), path, row_group_size=6)
    page = parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = path.read_bytes()
    path.write_bytes(content[:page] + b"\xff" * 40 + content[page + 40 :])
    readings = reader.read_many(image for _, image in ImageBlock(12, [str(path)], column="image", end=12).open())
    assert [next(readings).error for _ in range(6)] == [None] * 6
    with pytest.raises(MienError, match=r"a\.parquet: cannot be read as Parquet \(.*; write it again"):
        next(readings)


def test_what_cannot_be_opened_is_an_error_of_its_image(reader: mien.Reader, tmp_path: Path) -> None:
    (good,) = write_images(tmp_path, 1)
    missing = f"file://{tmp_path}/none.png"
    block = ImageBlock(3, [good, missing, f"file://{good}"])
    assert errors(reader, block) == [
        None,
        f"{missing}: cannot be fetched (there is no such object); check name and rights",
        None,
    ]
    assert errors(reader, block, done=2) == [None]
    assert errors(reader, block, broken={0: "ended twice"})[0] == f"{good}: ended twice"
    assert errors(reader, ImageBlock(1, ["folder"], ["folder: closed"])) == ["folder: closed"]
    parquet.write_table(pyarrow.table({"image": pyarrow.array([None, b""], pyarrow.binary())}), tmp_path / "a.parquet")
    (empty,) = Plan([str(tmp_path / "a.parquet")], fps=None, column=None)
    assert errors(reader, empty) == [
        f"{tmp_path}/a.parquet#{row}: the row has no image; fill or remove it" for row in range(2)
    ]


@pytest.mark.parametrize("column", [{"image": [b"a"] * 3}, {"other": [b"a"] * 9}, {"image": [7] * 9}])
def test_a_table_that_has_changed_loses_no_row_silently(
    reader: mien.Reader, tmp_path: Path, column: dict[str, list[object]]
) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"image": [b"a"] * 9}), path)
    (block,) = Plan([str(path)], fps=None, column=None)
    parquet.write_table(pyarrow.table(column), path)
    if column == {"image": [7] * 9}:
        assert errors(reader, block) == [f"{path}#{row}: the row has no image; fill or remove it" for row in range(9)]
    else:
        with pytest.raises(MienError, match="has changed since the run began; read it into another folder"):
            errors(reader, block)


def test_a_video_that_breaks_off_has_a_row_that_says_so(
    reader: mien.Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    monkeypatch.setattr("mien.cluster.plan._VIDEO_SECONDS", 2.0)
    images = [np.full((32, 32, 3), 5 * number % 256, np.uint8) for number in range(60)]
    video = write_video(tmp_path / "a.mkv", images, times(60, 10.0))
    assert all(row["error"] is None for row in rows_of_one_process(reader, [str(video)], fps=2.0))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    rows = rows_of_one_process(reader, [str(video)], fps=2.0)
    failed = [row for row in rows if row["error"]]
    assert 2 < len(rows) < 11
    assert [row["source"] for row in failed] == [str(video), f"{video}#t=4.000"]
    assert failed[1]["error"] == f"{video}: none of its frames can be decoded; get the file again"
    assert re.fullmatch(
        r".*a\.mkv: the file ends early, after [1-4]\.\d of 5\.9 s; get the video again", failed[0]["error"]
    )


def test_parts_of_a_video_have_the_frames_of_the_whole(
    reader: mien.Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    images = [np.full((32, 32, 3), 5 * number, np.uint8) for number in range(50)]
    video = write_video(tmp_path / "a.mp4", images, times(50, 10.0, start=0.03), b_frames=2)
    for fps in (1.0, 3.0, 25.0):
        whole = rows_of_one_process(reader, [str(video)], fps=fps)
        monkeypatch.setattr("mien.cluster.plan._VIDEO_SECONDS", 0.8)
        assert len(list(Plan([str(video)], fps=fps, column=None))) > 3
        assert rows_of_one_process(reader, [str(video)], fps=fps) == whole
        monkeypatch.undo()
        assert len(whole) == {1.0: 5, 3.0: 15, 25.0: 50}[fps]
    assert whole[0]["source"] == f"{video}#t=0.000"
    address = rows_of_one_process(reader, [f"file://{video}"], fps=1.0)
    assert [row["source"] for row in address] == [f"file://{video}#t={second}.000" for second in range(5)]
    (tmp_path / "b.mp4").write_bytes(video.read_bytes()[:300])
    (row,) = rows_of_one_process(reader, [str(tmp_path / "b.mp4")], fps=1.0)
    assert row["error"].startswith(f"{tmp_path}/b.mp4: ")
