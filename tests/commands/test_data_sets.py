"""`mien synthesize`: synthetic faces from a custom folder, training with them, and mistakes."""

import json
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from mien._emotions import SEVEN
from mien.lab.train.devices import Devices
from support.cli import mien_here
from support.short_runs import ONE_BLOCK
from support.synthetic_faces import cartoon_set
from support.written_files import foreign_files


def mien(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return mien_here(*words, cwd=cwd, MIEN_DATA="", COLUMNS="200")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder of 18 training and 8 validation cartoons a class."""
    faces = cartoon_set(per_split=(126, 56, 0))
    root = tmp_path_factory.mktemp("drawn")
    for row, (image, label, usage) in enumerate(zip(faces.images, faces.labels, faces.usage, strict=True)):
        folder = root / ("train", "val")[int(usage)] / SEVEN[int(label)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{row:05d}.png")
    return root


def test_synthetic_faces_are_written_evaluated_and_trained_on(drawn: Path, tmp_path: Path) -> None:
    command = ("synthesize", "disgust", "fear", "-n", "12", "--data", str(drawn), "--out", "made", "--steps", "3")
    made = mien(*command, "--device", "cpu", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "training the GAN" in made.stderr
    lines = made.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["disgust", "fear"]
    assert "kernel distance" in lines[0]
    evaluation = json.loads((tmp_path / "made" / "evaluation.json").read_text())
    assert evaluation["provenance"]["command"].startswith("mien synthesize disgust fear")
    computed = evaluation["provenance"]["train_precision"]
    assert computed == Devices("cpu").precision("bf16-mixed")
    assert made.stderr.count("no bf16 instructions") == (computed == "32-true")
    assert evaluation["emotions"]["fear"]["held_out"] == 8
    assert {p.name for p in (tmp_path / "made").iterdir()} == {
        ".gan",
        "contact.png",
        "disgust",
        "fear",
        "evaluation.json",
    }
    assert len(list((tmp_path / "made" / "disgust").glob("0*.png"))) == 12
    assert foreign_files(tmp_path / "made") == []

    short = ["train.epochs=1", "train.batch_size=25", "train.precision=32-true"]
    also = 'data.extra=[{path="made"}]'
    trained = mien("train", "mien-plain", *ONE_BLOCK, *short, also, "--data", str(drawn), "--out", "run", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "24 faces of made mixed into Training" in trained.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["disgusst"], "did you mean 'disgust'?"),
        (["contempt"], "unknown emotion 'contempt'"),
        (["disgust", "--classes", "nine"], "data.classes are one of"),
        (["disgust", "--train-precision", "int4"], "precision"),
    ],
)
def test_mistakes_are_one_line_and_status_two(words: list[str], message: str, drawn: Path, tmp_path: Path) -> None:
    done = mien("synthesize", *words, "--data", str(drawn), "--out", "made", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_no_faces_at_all_are_refused(drawn: Path, tmp_path: Path) -> None:
    done = mien("synthesize", "disgust", "-n", "0", "--data", str(drawn), "--out", "made", cwd=tmp_path)
    assert done.returncode == 2
    assert "-n" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unusable_folder_is_reported_first(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "made").touch()
    done = mien("synthesize", "disgust", "--data", str(drawn), "--out", "made", cwd=tmp_path)
    assert done.returncode == 2
    assert "made: is a file; name a folder to write to" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_time_limit_stops_with_a_checkpoint(drawn: Path, tmp_path: Path) -> None:
    command = ("synthesize", "disgust", "--data", str(drawn), "--out", "made", "--time-limit", "0.001")
    done = mien(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the same command resumes" in done.stdout
    assert not (tmp_path / "made" / "disgust").exists()
