"""`mien predict --resume`: after kill -9, Ctrl-C or more images, every image has its rows once."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from mien._errors import OutputError
from mien.report import tables
from mien.report.tables import Parquet
from support.cli import mien_here
from support.onnx_models import write_model
from support.readings import make_reading

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
COUNT = 60
# A row group has 4 rows, so that there are parts; a reading takes 20 ms, so that the signal comes in between.
SLOW = (
    "import sys, time; from mien.report import tables; tables._ROWS_PER_GROUP = 4;"
    "from mien.reader import Reader; prepare = Reader.prepare;"
    "Reader.prepare = lambda *a, **k: (time.sleep(0.02), prepare(*a, **k))[1];"
    "from mien.__main__ import main; sys.argv = ['mien', *sys.argv[1:]]; main()"
)


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "in").mkdir()
    for number in range(COUNT):
        Image.new("L", (8, 8), number).save(tmp_path / "in" / f"{number:02}.png")
    model = write_model(tmp_path / "tiny.onnx")
    return ["predict", "in", "--detector", "none", "--model", str(model), "--batch", "1", "--out", "out.parquet"]


def sources(path: Path) -> list[str]:
    table = parquet.read_table(path)
    return [Path(name).stem for name in table["source"].to_pylist()]


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ on Windows")
def test_a_killed_run_goes_on_where_it_was(words: list[str], tmp_path: Path) -> None:
    parts, path = tmp_path / ".out.parquet.parts", tmp_path / "out.parquet"
    with subprocess.Popen([sys.executable, "-c", SLOW, *words], cwd=tmp_path, stderr=subprocess.DEVNULL) as job:
        while len(list(parts.glob("*.parquet"))) < 2:
            assert job.poll() is None
            time.sleep(0.01)
        job.send_signal(signal.SIGKILL)
    assert not path.exists()
    refused = mien_here(*words, cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert (
        "an earlier run did not end, and what it read is kept; resume it, or remove .out.parquet.parts"
        in refused.stderr
    )
    done = mien_here(*words, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f" of {COUNT} images are done; " in done.stderr
    assert sources(path) == [f"{number:02}" for number in range(COUNT)]
    assert not parts.exists()
    Image.new("L", (8, 8)).save(tmp_path / "in" / "more.png")
    again = mien_here(*words, "--resume", cwd=tmp_path)
    assert f"{COUNT} of {COUNT + 1} images are done; 1 are left" in again.stderr
    assert sources(path) == [*(f"{number:02}" for number in range(COUNT)), "more"]
    for setting in (("--abstain", "0.5"), ("--min-quality", "0.9"), ("--max-faces", "1")):
        other = mien_here(*words, "--resume", *setting, cwd=tmp_path)
        assert (other.returncode, other.stderr.count("\n")) == (2, 1)
        assert "was made with other settings or by another program; use the same model and settings" in other.stderr


def test_only_one_parquet_file_is_resumed(words: list[str], tmp_path: Path) -> None:
    for more in (["--out", "page.html"], ["--json"]):
        done = mien_here(*words, *more, "--resume", cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "--resume continues one Parquet file; name it as the only output" in done.stderr


def write(path: Path, names: range, *, resume: bool, error: type[BaseException] | None = None) -> None:
    with Parquet(path, resume=resume) as table:
        for number in names:
            if f"{number}.png" not in table.done:
                table.add(make_reading(f"{number}.png"))
        if error is not None:
            raise error


def test_nothing_is_lost_or_doubled_however_a_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_ROWS_PER_GROUP", 4)
    path, parts = tmp_path / "a.parquet", tmp_path / ".a.parquet.parts"
    with pytest.raises(RuntimeError):
        write(path, range(9), resume=False, error=RuntimeError)
    assert not path.exists()
    kept = [file.read_bytes() for file in sorted(parts.iterdir())]
    assert kept
    with pytest.raises(KeyboardInterrupt):
        write(path, range(20), resume=True, error=KeyboardInterrupt)
    once = sorted(map(int, set(sources(path))))
    assert once == list(range(20))
    rows = parquet.read_table(path).num_rows
    parts.mkdir()  # as after kill -9 between the end of the file and the removal of its parts
    for number, content in enumerate(kept):
        (parts / f"{number:06}.parquet").write_bytes(content)
    write(path, range(20), resume=True)
    assert parquet.read_table(path).num_rows == rows
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    (tmp_path / ".a.parquet.parts").mkdir()
    (tmp_path / ".a.parquet.parts" / "000001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(OutputError, match=r"000001\.parquet: cannot be read .*; remove it or name another file"):
        write(tmp_path / "a.parquet", range(1), resume=True)
    assert [each.name for each in tmp_path.iterdir()] == [".a.parquet.parts"]


def test_a_source_that_is_named_twice_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two inputs may have one name, such as images from streams, and their rows may be in different parts."""
    monkeypatch.setattr(tables, "_ROWS_PER_GROUP", 2)
    path = tmp_path / "a.parquet"

    def read_twice() -> None:
        with Parquet(path) as table:
            for number in (1, 2, 1, 3):
                table.add(make_reading(f"{number}.png"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        read_twice()
    write(path, range(1, 5), resume=True)
    assert sorted(map(int, sources(path))) == [1, 1, 2, 3, 4]
