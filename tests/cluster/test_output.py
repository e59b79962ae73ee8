"""The folder of a run: partitions appear whole, and what the manifest does not name does not count."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mien._errors import OutputError
from mien._output import protect_files
from mien.cluster.blocks import ImageBlock
from mien.cluster.output import Partitions

GIVEN = {"sources": ["in"], "fps": None}
COUNTS = {"images": 2, "faces": 3, "failed": 1}


def folder_with(path: Path, *, blocks: int = 3, done: int = 2) -> Path:
    with Partitions(path, GIVEN, resume=False) as partitions:
        partitions.plan(ImageBlock(2, [f"{number}.png"]) for number in range(blocks))
        for number in range(done):
            partitions.add(number, b"rows of %d" % number, **COUNTS)
    return path


def left(path: Path) -> list[int]:
    with Partitions(path, GIVEN, resume=True) as partitions:
        return [number for number, _ in partitions.blocks()]


def test_a_run_goes_on_with_what_the_manifest_does_not_name(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "new" / "out")
    with Partitions(path, GIVEN, resume=True) as partitions:
        assert (partitions.size, partitions.total, partitions.home) == (3, 6, str(Path.cwd()))
        assert [partitions.count(name) for name in COUNTS] == [4, 6, 2]
        ((number, line),) = partitions.blocks()
        assert (number, ImageBlock(**json.loads(line))) == (2, ImageBlock(2, ["2.png"]))
        partitions.add(2, b"", **COUNTS)
        partitions.finish()
    with Partitions(path, GIVEN, resume=True) as partitions:
        assert list(partitions.blocks()) == []
        partitions.finish()
    lines = (path / "_manifest.jsonl").read_text().splitlines()
    assert json.loads(lines.pop()) == {"complete": True, "partitions": 3, "images": 6}
    assert [json.loads(line)["partition"] for line in lines] == [0, 1, 2]
    assert sorted(each.name for each in path.iterdir()) == [
        "_manifest.jsonl",
        "_plan.jsonl",
        *(f"part-000000{number}.parquet" for number in range(3)),
    ]


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_torn_manifest_counts_up_to_its_last_line(cut: int, tmp_path: Path) -> None:
    manifest = folder_with(tmp_path / "out") / "_manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-cut])
    (tmp_path / "out" / ".mien-0123456789ab.part").write_bytes(b"a draft of the run that was killed")
    assert left(tmp_path / "out") == [1, 2]
    with Partitions(tmp_path / "out", GIVEN, resume=True) as partitions:
        partitions.add(1, b"again", **COUNTS)
    assert left(tmp_path / "out") == [2]
    assert not list((tmp_path / "out").glob(".*"))


def test_a_partition_that_is_damaged_or_gone_is_read_again(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "out", done=3)
    (path / "part-0000000.parquet").write_bytes(b"rows of 1")
    (path / "part-0000002.parquet").unlink()
    with protect_files([]), Partitions(path, GIVEN, resume=True) as partitions:
        assert [number for number, _ in partitions.blocks()] == [0, 2]
        assert not (path / "part-0000000.parquet").exists()  # a program that reads the folder would fail
        partitions.add(0, b"other bytes than before", **COUNTS)
    assert left(path) == [2]


def test_folders_of_others_are_refused(tmp_path: Path) -> None:
    path = folder_with(tmp_path / "out")
    before = {each.name: each.read_bytes() for each in path.iterdir()}
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_bytes(b"")
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "_manifest.jsonl").write_text('{"of": "another program"}\n')
    other = GIVEN | {"fps": 2.0, "version": 1}
    refused = {
        "has an earlier run; resume it, or name another folder": (path, GIVEN, False),
        "is of another run (with other fps, version); name another folder": (path, other, True),
        "has files that are not of such a run; name a new folder": (tmp_path / "other", GIVEN, True),
        "is a file; name a folder to write to": (tmp_path / "file", GIVEN, False),
        "cannot be written (not a directory)": (tmp_path / "file" / "below", GIVEN, False),
    }
    with (
        pytest.raises(OutputError, match="another: has files that are not"),
        Partitions(tmp_path / "another", GIVEN, resume=False),
    ):
        pass
    for message, (folder, given, resume) in refused.items():
        with pytest.raises(OutputError) as error, Partitions(folder, given, resume=resume):
            pass
        assert str(error.value).startswith(f"{folder}: {message}")
    with (
        Partitions(path, GIVEN, resume=True),
        pytest.raises(OutputError, match="another run writes here; wait for it"),
        Partitions(path, GIVEN, resume=True),
    ):
        pass
    assert {each.name: each.read_bytes() for each in path.iterdir()} == before
    (path / "_plan.jsonl").write_text("{")
    with pytest.raises(OutputError, match=r"_plan\.jsonl: is damaged"):
        left(path)


def test_a_plan_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> "list[ImageBlock]":
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Partitions(tmp_path / "new" / "out", GIVEN, resume=False) as partitions:
        partitions.plan(block for block in fails())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with Partitions(tmp_path / "mine", GIVEN, resume=False):
        pass
    assert (tmp_path / "mine").is_dir()


def test_a_full_disk_loses_nothing(tmp_path: Path, largest_file: Callable[[int], None]) -> None:
    path = folder_with(tmp_path / "out", done=1)
    with Partitions(path, GIVEN, resume=True) as partitions:
        largest_file(2000)
        with pytest.raises(OutputError, match=r"part-0000001\.parquet: cannot be written .*; free space"):
            partitions.add(1, b"x" * 5000, **COUNTS)
        partitions.add(2, b"x", **COUNTS)
        assert not list(path.glob("*1.parquet")) + list(path.glob(".*"))
    assert left(path) == [1]
    with Partitions(path, GIVEN, resume=True) as partitions:
        largest_file((path / "_manifest.jsonl").stat().st_size + 10)
        with pytest.raises(OutputError, match=r"_manifest\.jsonl: cannot be written"):
            partitions.add(1, b"x", **COUNTS)
    assert left(path) == [1]
