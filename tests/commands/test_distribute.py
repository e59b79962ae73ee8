"""`mien distribute`: one line and exit status 2 for what it cannot do, before Ray starts; ``tests/cluster`` runs it."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mien.commands import app
from mien.commands.distribute import _Progress
from support.cli import mien_here
from support.distributed import write_images

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
LINES: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing there": (("nowhere",), "nowhere: there is no such file or folder; check the path"),
    "a video": (("a.mp4",), "a.mp4: is a video; say how many frames a second to read of it (fps)"),
    "twice": (
        ("in", "in/00000.png"),
        "in/00000.png: is named twice, so its faces would be counted twice; name it once",
    ),
    "a web server": (("http://a.b/c",), "http://a.b/c: is no object store; copy the images to a folder or a bucket"),
    "an object store": (
        ("in", "--out", "s3://bucket/readings"),
        "s3:/bucket/readings: is no folder of this machine; write to one, and copy it to the store",
    ),
    "no cluster": (
        ("in", "--address", "127.0.0.1:1"),
        "127.0.0.1:1: no Ray cluster answers (connection refused); check the address and the network",
    ),
    "a part of a GPU too much": (
        ("in", "--gpus-per-worker", "1.5"),
        "gpus_per_worker is 1.5; it must be 0.0001 or more, and above 1 a whole number",
    ),
    "a dashboard of another Ray": (
        ("in", "--address", "127.0.0.1:1", "--dashboard"),
        "dashboard is that of the Ray which is started here; leave it out to join the one at address",
    ),
    "no number of bytes": (
        ("in", "--block-mb", "inf"),
        "--block-mb is inf; it must be a number from 0.001 to 1e+09",
    ),
    "a glob of tables": (("none/*.parquet",), "none/*.parquet: no file matches it; check the path"),
    "a glob of lists": (("*.txt",), "*.txt: cannot be read (no such file or directory); check the path"),
    "a bad option": (
        ("in", "--detector", "none", "--model", "none.onnx"),
        "none.onnx: no such model file; embedded models: mien-0, mien-1, mien-plus",
    ),
}


@pytest.mark.parametrize("what", LINES)
def test_wrong_arguments_are_one_line(what: str, tmp_path: Path) -> None:
    if what != "a bad option":
        pytest.importorskip("ray", reason="ray is not installed")
    write_images(tmp_path / "in", 2)
    (tmp_path / "a.mp4").write_bytes(b"")
    words, line = LINES[what]
    done = mien_here("distribute", "--out", "out", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"mien: {line}\n")
    assert (tmp_path / "out").exists() == (what == "no cluster")  # its plan is kept


def test_readings_go_to_a_new_folder_which_nothing_forces(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 2)
    done = mien_here("distribute", "in", "--out", "out", "--force", cwd=tmp_path)
    assert (done.returncode, done.stdout, "No such option: --force" in done.stderr) == (2, "", True)
    assert not (tmp_path / "out").exists()


def test_a_current_folder_that_was_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    write_images(tmp_path / "in", 1)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    done = CliRunner().invoke(app, ["distribute", str(tmp_path / "in"), "--out", str(tmp_path / "out")])
    line = "mien: the current folder: cannot be used (no such file or directory)\n"
    assert (done.exit_code, done.stderr) == (2, line)


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "in", 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    done = mien_here("distribute", "in", "--out", "out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, 'mien: ray is not installed; run: pip install "mien[ray]"\n')


def test_progress_in_a_log_is_a_line_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 105.0, 110.0, 120.0, 171.0, 300.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with _Progress() as progress:
        progress("starting Ray", 500, 2000)
        progress("waiting for free CPUs of the cluster", 500, 2000)
        for done in (700, 1000, 1500):
            progress("reading, 3 not read", done, 2000)
        progress("reading", 2500, 2500)  # the number of images is not known before a video ends
    assert capsys.readouterr().err.splitlines() == [
        "mien: waiting for free CPUs of the cluster",
        "mien: reading, 3 not read: 700 of 2,000 images, 20.0/s, 0:01:05 left",
        "mien: reading, 3 not read: 1,500 of 2,000 images, 14.1/s, 0:00:36 left",
        "mien: reading: 2,500 of 2,500 images, 10.0/s",
    ]
