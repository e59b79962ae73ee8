"""Sources become blocks: cut by bytes, in the order of one process, each image once."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mien._errors import MienError
from mien._inputs import expand_inputs
from mien.cluster.blocks import ImageBlock
from mien.cluster.plan import Plan
from support.distributed import write_images
from support.paths import ROOT
from support.videos import times, write_video

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
import pyarrow.parquet as parquet


def plan(*sources: str, block_bytes: int = 10**6, **options: Any) -> list[ImageBlock]:
    return list(Plan(sources, **{"fps": None, "column": None, "block_bytes": block_bytes, **options}))


def names(blocks: Sequence[ImageBlock]) -> list[str]:
    return [name for block in blocks for name in block.names]


def write_table(path: Path, rows: int = 10, **columns: Any) -> str:
    values = {name: column[:rows] for name, column in columns.items()}
    parquet.write_table(pyarrow.table(values), path, row_group_size=4)
    return str(path)


def test_folders_are_cut_by_bytes_in_the_order_of_one_process(tmp_path: Path) -> None:
    write_images(tmp_path / "in" / "b", 5)
    write_images(tmp_path / "in", 6)
    (tmp_path / "in" / "notes.pdf").write_bytes(b"")
    most = 3 * (tmp_path / "in" / "00000.png").stat().st_size
    made = Plan([str(tmp_path / "in")], fps=None, column=None, block_bytes=most)
    blocks = list(made)
    assert len(blocks) > 3
    assert names(blocks) == expand_inputs([str(tmp_path / "in")]).sources
    for block in blocks:
        assert block.images == len(block.names)
        assert sum(Path(name).stat().st_size for name in block.names) <= most
    assert made.left_out == {"files of other kinds": 1}
    assert [ImageBlock(**block.to_dict()) for block in blocks] == blocks


def test_small_images_are_cut_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.cluster.plan.BLOCK_IMAGES", 4)
    monkeypatch.setattr("mien.cluster.plan.BLOCK_BYTES", 10**6)
    images = write_images(tmp_path / "in", 10)
    table = write_table(tmp_path / "a.parquet", image=[Path(name).read_bytes() for name in images])
    for source in (str(tmp_path / "in"), table):
        assert [block.images for block in plan(source)] == [4, 4, 2]
        assert [block.images for block in plan(source, block_bytes=2 * 10**6)] == [8, 2]  # which also have more images


def test_globs_lists_and_addresses_of_files_name_the_same_images(tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 5)
    (tmp_path / "in" / ".hidden.png").write_bytes(b"")
    (tmp_path / "in" / "a.mien.png").write_bytes(b"")
    (tmp_path / "list.txt").write_text("\ufeff" + "\n".join(images) + "\n\n")
    assert names(plan(str(tmp_path / "in" / "*.png"))) == [*images, str(tmp_path / "in" / "a.mien.png")]
    assert names(plan(str(tmp_path / "list.txt"))) == images
    addresses = [f"file://{name}" for name in images]
    for address in (f"file://{tmp_path}/in", f"file://{tmp_path}/in/*.png", f"file://{tmp_path}/**/0*.png"):
        assert names(plan(address)) == addresses
    assert names(plan(addresses[2])) == [addresses[2]]
    assert names(plan(f"{tmp_path}/li*.txt")) == images


@pytest.mark.parametrize("kind", ["bytes", "names", "both"])
def test_tables_are_cut_at_row_groups(kind: str, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 10)
    contents = [Path(name).read_bytes() for name in images]
    both = [{"bytes": content, "path": None} for content in contents]
    column = {"bytes": contents, "names": images, "both": both}[kind]
    table = write_table(tmp_path / "a.parquet", file=column, label=[*range(10)])
    (whole,) = plan(table, block_bytes=10**7)
    assert (whole.images, whole.start, whole.end, whole.column) == (10, 0, 10, "file")
    parts = plan(table, block_bytes=400_000 if kind == "names" else 4 * len(contents[0]) + 300)
    assert [(part.start, part.end) for part in parts] == [(0, 4), (4, 8), (8, 10)]
    single = plan(table, block_bytes=1)
    assert [(part.start, part.end) for part in single] == [(row, row + 1) for row in range(10)]


@pytest.mark.parametrize("column", ["image", "image.bytes"])
def test_tables_are_cut_by_the_bytes_of_their_column(column: str, tmp_path: Path) -> None:
    values = [{"bytes": b"x" * 1000, "path": None}] * 8 if column == "image" else [b"x" * 1000] * 8
    kind = None if column == "image" else pyarrow.binary()
    table = pyarrow.table({column: pyarrow.array(values, kind), "other": [b"y" * 5000] * 8})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=4, use_dictionary=False)
    parts = plan(str(tmp_path / "a.parquet"), column=column, block_bytes=9000)
    assert [(part.start, part.end) for part in parts] == [(0, 4), (4, 8)]


def test_lists_have_the_names_of_any_system(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"in/a.png\r\n \r\nin/ b.png\r\n\xff.png\ns3://bucket/c d.png")
    assert names(plan(str(tmp_path / "list.txt"))) == ["in/a.png", "in/ b.png", "\udcff.png", "s3://bucket/c d.png"]


def test_addresses_have_the_names_of_any_store(tmp_path: Path) -> None:
    for name in ("a?b.png", "a[1].png", "a b\n\u65e5.png", "a!.png", "a\\.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    address = f"file://{tmp_path}"
    assert names(plan(address)) == sorted(f"{address}/{path.name}" for path in tmp_path.iterdir())
    for word, found in {
        "a?b.png": ["a?b.png"],
        "a[1].png": ["a[1].png"],
        "a[[]1].png": ["a[1].png"],
        "a[!? [\\]*.png": ["a!.png"],
        "a[\\]*": ["a\\.png"],
        "*\u65e5.png": ["a b\n\u65e5.png"],
    }.items():
        assert names(plan(f"{address}/{word}")) == [f"{address}/{name}" for name in found]
    (block,) = plan(f"{address}/a?b.png")
    assert [image.read() for _, image in block.open()] == [(tmp_path / "a?b.png").read_bytes()]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary", "binary_view"])
def test_tables_of_any_program_are_read(kind: str, tmp_path: Path) -> None:
    images = write_images(tmp_path / "in", 2)
    column = pyarrow.array([Path(name).read_bytes() for name in images] if kind == "binary_view" else images)
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(getattr(pyarrow, kind)())
    table = write_table(tmp_path / "a.parquet", **{"image.old": ["", ""], "image": column})
    (block,) = plan(table, column="image")
    assert (block.images, block.column) == (2, "image")
    opened = [image for _, image in block.open()]
    if kind == "binary_view":
        assert [image.read() for image in opened] == column.to_pylist()  # type: ignore[union-attr]
    else:
        assert opened == images


def test_videos_are_split_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    import numpy as np

    video = write_video(tmp_path / "a.mp4", [np.zeros((32, 32, 3), np.uint8)] * 50, times(50, 10.0))
    monkeypatch.setattr("mien.cluster.plan._VIDEO_SECONDS", 2.0)
    parts = plan(str(video), fps=2.0)
    assert [(part.start, part.end, part.images) for part in parts] == [(0, 2.0, 4), (2.0, 4.0, 4), (4.0, None, 2)]
    Image.new("L", (8, 8)).save(tmp_path / "b.png")
    assert names(plan(str(tmp_path))) == [str(tmp_path / "b.png")]
    assert names(plan(str(tmp_path), fps=0.1)) == [str(video), str(tmp_path / "b.png")]
    (tmp_path / "c.mp4").write_bytes(b"no video")
    assert plan(str(tmp_path / "c.mp4"), fps=1.0)[0].errors


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing there": (("nowhere",), "nowhere: there is no such file or folder; check the path"),
    "no list": (("nowhere.txt",), "nowhere.txt: cannot be read (no such file or directory); check the path"),
    "twice": (("in", "./in/00001.png"), "./in/00001.png: is named twice, so its faces would be counted twice"),
    "twice in a list": (("twice.txt",), "in/00001.png: is named twice"),
    "twice in a table": (("twice.parquet",), "in/00001.png: is named twice"),
    "a video": (("a.mp4",), "a.mp4: is a video; say how many frames a second to read of it"),
    "other columns": (("a.parquet", "b.parquet"), "b.parquet: has no column 'image', as a.parquet has; it has other"),
    "other types": (("a.parquet", "c.parquet"), "'image' is of the type string, but binary in a.parquet; write them"),
    "no images": (("d.parquet",), "d.parquet: its column 'image' is of the type int64; it must be bytes, names or"),
    "which column": (("e.parquet",), "e.parquet: which column has the images, or their names? Name it; the table has"),
    "no table": (("f.parquet",), "f.parquet: cannot be read as Parquet (Parquet magic bytes not found"),
    "no object": (("file:///nowhere/at/all",), "file:///nowhere/at/all: there is no such object or folder; check its"),
    "a glob of tables": (("none/*.parquet",), "none/*.parquet: no file matches it; check the path"),
    "no object of a glob": (("a.parquet", f"file://{ROOT}/docs/*.jpgg"), ".jpgg: nothing matches it; check its name"),
    "no image in a folder": ((f"file://{ROOT}/docs/how-to",), "docs/how-to: nothing in it can be read; check its name"),
    "a web server": (("https://a.b/c",), "https://a.b/c: is no object store; copy the images to a folder or a bucket"),
    "a password": (
        ("s3://me@x.org:p@ss@bucket/x",),
        "an address of s3:// has a password in it; set it in the environment",
    ),
    "a list in UTF-16": (("utf-16.txt",), "utf-16.txt: has zero bytes; write it in UTF-8, with a name a line"),
    "a list of find -print0": (("zeros.txt",), "zeros.txt: has zero bytes; write it in UTF-8, with a name a line"),
    "columns of one name": (("g.parquet",), "g.parquet: has several columns 'image'; keep one of them"),
    "a wrong glob": (
        ("file:///[z-a]",),
        "file:///[z-a]: cannot be listed (bad character range z-a at position 2); check",
    ),
    "a store without its package": (("hf://datasets/x",), "hf:// is no object store that can be read here ("),
    "no store": (("nothing://bucket/x",), "nothing:// is no object store that can be read here"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_sources_are_one_line(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = write_images(Path("in"), 3)
    Path("twice.txt").write_text("\n".join([*images, images[1]]))
    write_table(Path("twice.parquet"), file=[*images, images[1]])
    Path("a.mp4").write_bytes(b"")
    write_table(Path("a.parquet"), image=[b"x"])
    write_table(Path("b.parquet"), other=[b"x"])
    write_table(Path("c.parquet"), image=["x"])
    write_table(Path("d.parquet"), image=[1])
    write_table(Path("e.parquet"), one=[b"x"], two=[b"x"])
    Path("f.parquet").write_bytes(b"nothing of that kind")
    parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array([b"x"])] * 2, names=["image"] * 2), "g.parquet")
    Path("utf-16.txt").write_text("in/00000.png\n", encoding="utf-16")
    Path("zeros.txt").write_bytes(b"in/00000.png\0in/00001.png\0")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    sources, message = BAD[what]
    with pytest.raises(MienError) as error:
        plan(*sources, column="image" if what in ("no images", "columns of one name") else None)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
