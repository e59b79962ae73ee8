"""`mien track` of several videos: files of each, a summary that is complete after each, samples and means."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')

from hostile_corpus import progressive_jpeg
from mien import MienError
from mien._emotions import SEVEN
from mien._errors import OutputError
from mien._face import Pixels
from mien.commands._options import read_time
from mien.commands.track_display import VideoTable
from mien.video.statistics import VideoStatistics
from support.cli import mien_here
from support.videos import head_of, walk, write_video


@pytest.fixture
def talks(tmp_path: Path, astronaut: Pixels) -> Path:
    """Two videos of a second each, one of them in a subfolder, a broken one, an annotated copy and a text."""
    folder = tmp_path / "talks"
    (folder / "sub").mkdir(parents=True)
    frames = walk(head_of(astronaut), [(60, 60)] * 10)
    for name in ("a.mp4", "sub/b.mkv"):
        write_video(folder / name, frames, [i / 10 for i in range(10)])
    (folder / "broken.mp4").write_text("text")
    (folder / "a.mp4.mien.mp4").write_text("a copy")
    (folder / "notes.txt").write_text("notes")
    return folder


def rows_of(path: Path) -> list[dict[str, Any]]:
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


def test_a_folder_of_videos_is_resumed(talks: Path, tmp_path: Path) -> None:
    words = ["track", "talks", "--fps", "5", "--out", "out", "--format", "csv", "--aggregate", "500ms"]
    (talks / "costly.mp4").write_bytes(progressive_jpeg(640, 600))
    done = mien_here(*words, cwd=tmp_path)
    (talks / "costly.mp4").unlink()
    assert done.returncode == 1, "two of four cannot be read"
    assert "talks/broken.mp4: cannot be opened" in done.stderr
    assert "talks/costly.mp4: this JPEG has too many scans" in done.stderr
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert files == {"summary.csv", "a.mp4.mien.csv", "sub/b.mkv.mien.csv"}
    rows = rows_of(tmp_path / "out" / "summary.csv")
    assert [(row["source"], row["frames"], row["tracks"]) for row in rows] == [
        ("talks/a.mp4", "5", "1"),
        ("talks/sub/b.mkv", "5", "1"),
    ]
    assert sum(float(rows[0][name]) for name in [*list(rows[0])[5:13]]) == pytest.approx(1, abs=1e-3)
    means = rows_of(tmp_path / "out" / "a.mp4.mien.csv")
    assert [(row["start"], row["end"], row["track_id"], row["frames"]) for row in means] == [
        ("0.0", "0.5", "1", "3"),
        ("0.5", "1.0", "1", "2"),
    ]
    before = (tmp_path / "out" / "a.mp4.mien.csv").stat().st_mtime_ns
    (tmp_path / "out" / "sub" / "b.mkv.mien.csv").unlink()
    write_video(talks / "broken.mp4", [np.zeros((48, 64, 3), np.uint8)] * 2, [0, 0.1])
    again = mien_here(*words, "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out" / "a.mp4.mien.csv").stat().st_mtime_ns == before
    assert [line.partition(": ")[2] for line in again.stderr.splitlines()] == [
        "2 of 3: talks/broken.mp4",
        "3 of 3: talks/sub/b.mkv",
    ]
    assert len(rows_of(tmp_path / "out" / "summary.csv")) == 3
    words[1] = "./talks"
    again = mien_here(*words, "--resume", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    for setting in (("--every", "1"), ("--min-quality", "0.9")):
        other = mien_here(*words, "--resume", *setting, cwd=tmp_path)
        assert (other.returncode, other.stderr.count("\n")) == (2, 1)
        assert "out/summary.csv: was made with other settings; use the same ones, or another folder" in other.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["talks", "--out", "a.csv"], "several videos have one place: --out FOLDER --format csv"),
        (["talks", "--json"], "several videos have one place: --out FOLDER --format csv"),
        (["talks/a.mp4", "--out", "a.csv", "--resume"], "--resume leaves out videos that are in a folder already"),
        (["talks", "--out", "-"], "several videos have one place: --out FOLDER --format csv"),
        (["talks/a.mp4", "--out", "-", "--resume"], "--resume leaves out videos that are in a folder already"),
        (["talks/a.mp4", "0"], "0: no such video; cameras, addresses and folders of frames are tracked one at a time"),
        (["http://me:p@ss@x/a", "--out", "o"], "http://x/a: no such video; cameras, addresses and folders of frames"),
        (["talks/a.mp4", "--aggregate", "1s"], "--aggregate averages in tables; add --format csv or --out FILE.csv"),
        (["talks/a.mp4", "talks/../talks/a.mp4"], "a video is named twice; name it once"),
        (
            ["talks/a.mp4", "--aggregate", "soon", "--json"],
            "'soon' is no time; write a number and its unit, such as 1s",
        ),
        (["talks/a.mp4", "--start", "9"], "talks/a.mp4: ends after 0.9 s, before the start; choose an earlier one"),
        (["talks/a.mp4", "--start", "2", "--end", "1"], "the end, 1 s, is not after the start, 2 s"),
    ],
)
def test_what_cannot_be_done_is_one_line(talks: Path, tmp_path: Path, words: list[str], line: str) -> None:
    before = sorted(talks.rglob("*"))
    done = mien_here("track", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert line in done.stderr
    assert sorted(talks.rglob("*")) == before
    assert [path.name for path in tmp_path.iterdir()] == ["talks"]


def test_a_folder_of_outputs_never_replaces_a_video(talks: Path, tmp_path: Path) -> None:
    (talks / "summary.csv").write_text("of another program")
    done = mien_here("track", "talks/a.mp4", "--out", "talks", cwd=tmp_path)
    assert done.returncode == 2
    assert "talks/summary.csv: exists and was not written by mien; name another file, or add --force" in done.stderr


def test_names_that_begin_like_formulas_are_resumed(talks: Path) -> None:
    (talks / "a.mp4").rename(talks / "=a.mp4")
    words = ["track", "=a.mp4", "sub/b.mkv", "--fps", "5", "--out", "out"]
    assert mien_here(*words, cwd=talks).returncode == 0
    before = (talks / "out" / "summary.csv").read_bytes()
    again = mien_here(*words, "--resume", cwd=talks)
    assert (again.returncode, again.stderr) == (0, "")
    (talks / "out" / "=a.mp4.mien.csv").unlink()
    again = mien_here(*words, "--resume", cwd=talks)
    assert (again.returncode, again.stderr.splitlines()[:1]) == (0, ["mien: 1 of 2: =a.mp4"])
    assert sorted((talks / "out" / "summary.csv").read_bytes().splitlines()) == sorted(before.splitlines())


def test_a_summary_that_another_program_has_saved(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    VideoTable(path, SEVEN, "settings", resume=False).add("\u00e4.mp4", VideoStatistics())
    text = path.read_text("utf-8")
    path.write_text(text, "utf-8-sig")
    assert VideoTable(path, SEVEN, "settings", resume=True).has("./\u00e4.mp4")
    for damaged in (text.encode("cp1252"), text.encode("utf-16"), text.replace(",", ";").encode(), b"source\na.mp4\n"):
        path.write_bytes(damaged)
        with pytest.raises(OutputError, match=r"summary\.csv: was changed by another program; name another folder"):
            VideoTable(path, SEVEN, "settings", resume=True)


def test_units_of_time() -> None:
    assert [read_time(text) for text in ("", "1s", "500ms", "2 min", "0.25s")] == [0, 1, 0.5, 120, 0.25]
    for text in ("1", "s", "-1s", "0s", "1h"):
        with pytest.raises(MienError, match="is no time"):
            read_time(text)
