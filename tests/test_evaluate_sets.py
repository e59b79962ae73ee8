"""Evaluations of one's own sets, of several sets, and of several seeds."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import SEVEN  # noqa: E402
from mien._errors import DataError, ModelError  # noqa: E402
from mien.lab.data import FaceSet, Split  # noqa: E402
from mien.lab.evaluate.evaluate import Wish, evaluate  # noqa: E402
from mien.lab.evaluate.evaluation import Task, judge, prepare  # noqa: E402
from mien.lab.evaluate.sets import TestSet, load_tests, select  # noqa: E402
from mien.lab.evaluate.subject import find_subjects  # noqa: E402
from mien.lab.feed.asked import read_map  # noqa: E402
from mien.lab.judge.examine import select_rows  # noqa: E402
from support.linear_classifier import evaluation, reader, subject  # noqa: E402
from support.synthetic_faces import cartoon_set  # noqa: E402

Draw = Callable[..., np.ndarray]


def test_a_set_that_nobody_parted_is_judged_whole_unless_it_was_learned_from() -> None:
    faces = replace(cartoon_set(), usage=torch.zeros(336, dtype=torch.long))
    assert evaluation(faces, reader()).selection.split == "all"
    learned = replace(reader(), about={"data_sha256": faces.sha256})
    found = evaluation(faces, learned)
    assert found.selection.split == "PublicTest"
    assert 40 < len(found.answers.labels) < 60
    assert any("PublicTest chose this model" in warning for warning in found.warnings())
    assert any("it has learned from" in w for w in evaluation(faces, learned, "all").warnings())


def fill(folder: Path, names: list[str], draw: Draw, *, count: int = 6, seed: int = 0) -> Path:
    for number, name in enumerate(names):
        for face in range(count):
            path = folder / name / f"{face}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(60, seed=seed + 1000 * number + face)).save(path)
    return folder


def test_rows_that_a_map_leaves_out_are_accounted_for(tmp_path: Path, draw_face: Draw) -> None:
    own = fill(tmp_path / "own", ["smile", "sad", "fear", "contempt", "other"], draw_face)
    (test,) = load_tests([own], SEVEN, size=48, label_map=read_map(["Smile=happy", "other="]))
    selection = select(test, SEVEN, None)
    assert selection.account == {
        "contempt: not among the model's classes": 6,
        "label other: left out by --map": 6,
    }
    assert (selection.total, len(selection.faces)) == (30, 18)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["smile"], "say LABEL=EMOTION"),
        (["smile=hapy"], r"'hapy' is no emotion \(did you mean \"happy\"\?\)"),
        (["grin=happy"], r"no such label.*the labels are .*smile"),
        ([], r"'smile' is no emotion that mien knows.*--map smile=happy"),
    ],
)
def test_maps_that_mean_nothing(tmp_path: Path, draw_face: Draw, words: list[str], says: str) -> None:
    own = fill(tmp_path / "own", ["smile", "sad"], draw_face, count=1)
    with pytest.raises(DataError, match=says):
        load_tests([own], SEVEN, size=48, label_map=read_map(words))


def test_a_set_may_be_a_test_set_alone(tmp_path: Path, draw_face: Draw) -> None:
    own = fill(tmp_path / "own", ["test/happy", "test/sad"], draw_face)
    (test,) = load_tests([own], SEVEN, size=48, label_map={})
    with pytest.raises(DataError, match="no rows in PublicTest; it has PrivateTest; name one with --split"):
        select(test, SEVEN, None)
    assert len(select(test, SEVEN, Split.PRIVATE_TEST).faces) == 12


def kept_run(folder: Path, faces: FaceSet, seed: int) -> None:
    """A folder as `mien record` writes it: real answers of a linear classifier to PublicTest."""
    chosen = select_rows(faces, SEVEN, Split.PUBLIC_TEST).faces
    folder.mkdir(parents=True)
    probs = reader(seed=seed)(chosen.images.numpy())[0]
    np.savez(folder / "answers.npz", public_rows=chosen.rows.numpy(), public_probs=probs)
    told = {"recipe": "linear", "seed": seed, "judged": {}, "data_sha256": faces.sha256, "commit": "c"}
    (folder / "metrics.json").write_text(json.dumps(told))
    (folder / "recipe.json").write_text(json.dumps({"data": {"classes": "seven", "size": 48}}))


def test_seeds_are_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = cartoon_set()
    for seed in (0, 1, 2):
        kept_run(tmp_path / "linear" / f"seed-{seed}", faces, seed)
    monkeypatch.setattr(
        "mien.lab.evaluate.evaluate.load_tests", lambda *_, **__: [TestSet(faces, "FER-2013")]
    )  # the cartoons stand for a file of FER-2013, which no test may hold
    wish = Wish(out=tmp_path / "out")
    folder, judged = evaluate(str(tmp_path / "linear"), wish=wish)
    told = json.loads((folder / "metrics.json").read_text())
    accuracies = [e.judged["all"]["accuracy"] for e in judged["FER-2013"]]
    assert len(set(accuracies)) == 3
    spread = told["summary"]["all"]["accuracy"]
    assert spread == pytest.approx({"mean": np.mean(accuracies), "std": np.std(accuracies, ddof=1), "n": 3})
    assert [seed["seed"] for seed in told["seeds"]] == ["0", "1", "2"]
    assert "3 seeds" in (folder / "report.html").read_text()
    text = (folder / "seed-1" / "report.html").read_text()
    assert "no model here that could draw maps" in text
    with np.load(folder / "seed-1" / "answers.npz") as file:
        assert set(file.files) == {"rows", "labels", "probs", "clean", "emotions"}
    with pytest.raises(DataError, match="leave --views out"):
        evaluate(str(tmp_path / "linear"), wish=replace(wish, views="flip"))
    with pytest.raises(DataError, match="single splits"):
        evaluate(str(tmp_path / "linear"), wish=replace(wish, split="all"))


def test_seeds_of_a_folder_without_anything(tmp_path: Path) -> None:
    (tmp_path / "seed-0").mkdir()
    with pytest.raises(ModelError):
        find_subjects(str(tmp_path))


def test_two_sets_show_what_transfers(tmp_path: Path, draw_face: Draw) -> None:
    one = fill(tmp_path / "one", [str(e) for e in SEVEN], draw_face, count=3)
    other = fill(tmp_path / "x" / "one", ["grin", "sad", "fear"], draw_face, count=4, seed=77)
    wish = Wish(out=tmp_path / "out", label_map=read_map(["grin=happy"]))
    folder, judged = evaluate("mien-0", [one, other], wish=wish)
    assert list(judged) == ["one", "one-2"]
    told = json.loads((folder / "metrics.json").read_text())
    assert told["sets"]["one-2"]["all"]["absent"] == ["angry", "disgust", "surprise", "neutral"]
    assert told["sets"]["one"]["judged"] == 21
    text = (folder / "report.html").read_text()
    assert 'href="one-2/report.html"' in text
    assert (folder / "one-2" / "metrics.json").is_file()


def test_what_is_prepared_is_what_is_judged() -> None:
    task = prepare(subject(reader()), TestSet(cartoon_set(), "cartoons"), Split.TRAINING)
    assert isinstance(task, Task)
    assert judge(task, report=lambda *_: None).answers.rows.tolist() == task.selection.faces.rows.tolist()
