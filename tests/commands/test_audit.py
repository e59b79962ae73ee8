"""`mien audit`: files, summary, and one clear line for each mistake."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from mien._emotions import SEVEN
from mien._format import percent
from mien.commands import app
from mien.lab.audit import load_faces
from mien.lab.data import FaceSet
from mien.lab.data.selection import read_exclude
from mien.lab.files import load_json
from support.synthetic_faces import cartoon_set
from support.written_files import foreign_files

PER_CLASS = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A labelled folder with a validation split; the first image of train/happy is also in val/happy and train/sad."""
    faces = cartoon_set(votes=False)
    for split, start in (("train", 0), ("val", 196)):
        for place in range(start, start + 7 * PER_CLASS):
            label = SEVEN[int(faces.labels[place])]
            (tmp_path / "set" / split / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(faces.images[place].numpy()).save(tmp_path / "set" / split / label / f"{place:03d}.png")
    copied = sorted((tmp_path / "set" / "train" / "happy").iterdir())[0].read_bytes()
    (tmp_path / "set" / "val" / "happy" / "copy.png").write_bytes(copied)
    (tmp_path / "set" / "train" / "sad" / "copy.png").write_bytes(copied)
    Image.new("L", (48, 48), 40).save(tmp_path / "set" / "train" / "sad" / "blank.png")
    return tmp_path / "set"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["audit", *map(str, words)])


def fails(*words: str | Path) -> str:
    result = run(*words)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1, lines
    return lines[0]


def test_a_folder_is_audited(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(folder, "--out", out, "--keep", out / ".." / out.name)
    assert (result.exit_code, "is the folder of the audit itself; name another" in result.output) == (2, True)
    result = run(folder, "--out", out, "--keep", tmp_path / "kept", "--near", "0.999")
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {"audit.json", "report.html", "exclude.txt"}
    assert foreign_files(out, tmp_path / "kept" / "audit.json") == []
    content = json.loads((out / "audit.json").read_text())
    assert content["faces"] == 14 * PER_CLASS + 3
    assert content["duplicates"]["training_rows_in_tests"] == 2
    assert content["duplicates"]["contradicting"]["rows"] == 3
    assert content["content"]["near_blank"] == 1
    assert content["label_errors"] is None
    assert content["provenance"]["data_sha256"] == load_faces(folder, {}).sha256
    assert "contradicting labels: 1 groups of 3 rows" in result.stdout
    assert str(tmp_path) not in (out / "audit.json").read_text()
    counts = load_json(tmp_path / "kept" / "audit.json")
    assert "rows" not in counts
    assert counts.items() <= content.items()
    faces = load_faces(folder, {})
    listed = read_exclude(out / "exclude.txt", faces)
    assert len(listed) == sum(content["excluded"].values()) - 2  # two rows have two reasons


def test_label_errors_from_a_file_go_into_the_list(folder: Path, tmp_path: Path) -> None:
    faces = load_faces(folder, {})
    training = faces.select(faces.usage == 0)
    given = training.labels.numpy().copy()
    given[4] = (given[4] + 2) % 7
    probs = np.full((len(given), 7), 0.01, np.float32)
    probs[np.arange(len(given)), given] = 0.94
    np.savez(tmp_path / "p.npz", rows=training.rows.numpy(), probs=probs)
    out = tmp_path / "out"
    result = run(
        folder, "--out", out, "--probabilities", tmp_path / "p.npz", "--exclude", "label-error", "--near", "0.999"
    )
    assert result.exit_code == 0, result.output
    assert "likely label errors: 1 of" in result.stdout
    favoured = (len(given) - 1) / len(given)  # a net that is hardly ever right flags nearly every label
    assert f"; the probabilities favour {percent(favoured)} of the labels" in result.stdout
    assert read_exclude(out / "exclude.txt", faces).tolist() == [int(training.rows[4])]
    assert "Likely label errors" in (out / "report.html").read_text()


def test_a_data_set_is_compared_with_another(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name in ("joy", "sad"):
        (other / name).mkdir(parents=True)
        Image.fromarray(np.random.default_rng(len(name)).integers(0, 255, (48, 48), dtype=np.uint8)).save(
            other / name / "1.png"
        )
    (other / "joy" / "2.png").write_bytes(sorted((folder / "train" / "happy").iterdir())[1].read_bytes())
    words = (folder, "--against", other, "--near", "0.999", "--out", tmp_path / "out")
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert "against other: 1 rows have a duplicate in it" in result.stdout
    text = (tmp_path / "out" / "exclude.txt").read_text()
    assert "leaked: duplicate of row 1 of other (Training)" in text
    assert "is no label here" in fails(*words, "--map", "glee=happy")


def test_a_model_that_was_not_trained_on_the_set_predicts_it(folder: Path, tmp_path: Path) -> None:
    result = run(folder, "--model", "mien-0", "--out", tmp_path / "out", "--near", "0.999")
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "audit.json").read_text())["label_errors"]
    assert content["evaluated"] == 14 * PER_CLASS + 3
    assert "mien-0, which has not learned from this set" in content["origin"]


def test_mistakes_are_one_line(folder: Path, tmp_path: Path) -> None:
    assert "unknown reason" in fails(folder, "--exclude", "blanks")
    assert "--near" in fails(folder, "--near", "2")
    assert "name one of them" in fails(folder, "--model", "mien-0", "--label-errors", "lenet")
    assert "--set changes the recipe" in fails(folder, "--set", "train.epochs=1")
    assert "needs --label-errors" in fails(folder, "--exclude", "label-error")
    assert "say LABEL=EMOTION" in fails(folder, "--map", "joy")
    assert "holds no arrays" in fails(folder, "--probabilities", tmp_path / "none.npz")
    assert "unknown recipe" in fails(folder, "--label-errors", "nothing", "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "audit.json").exists()
    fails(tmp_path / "nowhere")


def test_a_model_that_has_learned_from_the_set_is_refused(
    folder: Path, fer2013_faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mien.lab.audit.load_faces", lambda *_, **__: fer2013_faces)  # loaded once for all tests
    line = fails(folder, "--model", "mien-0", "--out", tmp_path / "out")
    assert "has learned from" in line
    assert "train folds of a recipe" in line


def test_folds_are_trained_once_and_their_probabilities_stored(folder: Path, tmp_path: Path) -> None:
    words = [
        "--label-errors",
        "baseline-cnn-tuned",
        "--device",
        "cpu",
        "--near",
        "0.999",
        "--out",
        tmp_path / "out",
    ]
    small = (
        "train.epochs=1",
        "train.batch_size=8",
        "net.options.widths=[4]",
        "net.options.hidden=[8]",
        "data.size=16",
    )
    for change in (*small, "train.precision=32-true"):
        words += ["--set", change]
    first = run(folder, *words)
    assert first.exit_code == 0, first.output
    assert "fold 5 of 5" in first.stderr
    again = run(folder, *words)
    assert "fold 5 of 5" not in again.stderr
    content = json.loads((tmp_path / "out" / "audit.json").read_text())["label_errors"]
    assert content["evaluated"] == 7 * PER_CLASS + 2 - 2  # Training, less the two duplicates of a validation face
    # The same probabilities, from the stored file.
    stored = run(
        folder, "--probabilities", tmp_path / "out" / "out-of-fold.npz", "--out", tmp_path / "two", "--near", "0.999"
    )
    assert stored.exit_code == 0, stored.output
    rows = [json.loads((tmp_path / name / "audit.json").read_text())["rows"]["label_errors"] for name in ("out", "two")]
    assert rows[0] == rows[1]
