"""Evaluations: votes, confused pairs, mistakes, custom sets, several sets and seeds, and refusals."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="the lab is not installed")

from scipy import stats
from torch.nn import functional

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import DataError, ModelError
from mien.infer import find_model
from mien.lab.compare.entries import load_entries
from mien.lab.data import FaceSet, Split
from mien.lab.data.datasets import load_set, read_map, read_split
from mien.lab.evaluate.evaluate import EvaluateOptions, evaluate
from mien.lab.evaluate.evaluation import (
    Direction,
    Task,
    evaluate_task,
    find_pairs,
    map_faces,
    most_confident_mistakes,
    predict_faces,
    prepare_evaluation,
)
from mien.lab.evaluate.report import report_page
from mien.lab.evaluate.subjects import TestSet, find_subjects, load_tests, select
from mien.lab.predictions import Predictions, compare_with_votes, resize_faces, select_rows
from mien.lab.recipe import dump, load
from mien.lab.record import record_run
from mien.lab.train.devices import Devices
from mien.lab.train.loop import fit
from support.linear_classifier import evaluation, reader, subject
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import tiny


def test_seven_classes_against_the_majority_of_votes() -> None:
    faces = cartoon_set()
    votes = faces.votes.clone()
    first = int((faces.usage == 1).nonzero()[0])
    votes[first] = torch.tensor([5, 5, 0, 0, 0, 0, 0, 0, 0, 0])  # no majority
    votes[first + 1] = torch.tensor([0, 0, 0, 0, 0, 0, 0, 9, 1, 0])  # contempt
    votes[first + 2] = torch.tensor([0, 9, 0, 0, 0, 0, 0, 0, 1, 0])  # happiness, where the label says fear
    faces = replace(faces, votes=votes)
    found = evaluation(faces, reader())
    result = found.votes["majority"]
    assert (result["n"], result["total"]) == (68, 70)
    assert result["account"] == {
        "no majority, or pixels from JPEG": 1,
        "majority for an emotion that the model does not know": 1,
    }
    guess = found.predictions.probs.argmax(1)
    wanted = found.predictions.labels.copy()
    wanted[2] = SEVEN.index(Emotion.HAPPY)
    assert result["agreement"] == pytest.approx((guess == wanted)[2:].mean())
    assert result["label_agreement"] == pytest.approx(67 / 68)
    assert found.votes["distribution"]["n"] == 69  # contempt alone is no vote for the seven


def test_eight_classes_are_evaluated_on_the_majority() -> None:
    found = evaluation(cartoon_set(), reader(CLASS_SETS["eight"]))
    assert "FER+ majority" in found.selection.protocol
    assert found.votes["majority"]["agreement"] == pytest.approx(found.metrics["all"]["accuracy"])
    result = found.votes["distribution"]
    assert result["log_loss"] == pytest.approx(result["kl"] + result["vote_entropy"])
    assert result["vote_entropy"] == pytest.approx(stats.entropy([0.8, 0.2]) * 6 / 7, rel=0.02)
    text = report_page(found, {})
    assert "majority accuracy" in text
    assert "single votes dropped as noise" in text


def test_a_set_without_votes_has_no_such_section() -> None:
    faces = cartoon_set(votes=False)
    found = evaluation(faces, reader())
    assert found.votes is None
    assert "votes of FER+" not in report_page(found, {})
    assert compare_with_votes(found.predictions, found.selection, faces) is None


def test_pairs_are_counted_both_ways_and_ranked() -> None:
    confusion = np.diag([10] * 7)
    confusion[2, 4], confusion[4, 2], confusion[2, 3], confusion[0, 1] = 7, 5, 1, 2
    pairs = {(p.forward.label, p.forward.predicted): p for p in find_pairs(confusion.tolist(), SEVEN)}
    assert list(pairs)[:4] == [("fear", "happy"), ("angry", "happy"), ("fear", "surprise"), ("neutral", "sad")]
    assert list(pairs)[4:] == [("fear", "sad"), ("angry", "disgust")]
    top = pairs[Emotion.FEAR, Emotion.SAD]
    assert (top.rank, top.forward.count, top.backward.count, top.forward.support) == (1, 7, 5, 18)
    assert top.forward.rate == pytest.approx(7 / 18)
    three = find_pairs([[1, 0, 0], [0, 1, 0], [0, 0, 0]], CLASS_SETS["three"])
    assert [p.forward.rate for p in three] == [0.0, 0.0]
    assert [p.backward.rate for p in three] == [None, None]


def test_the_most_confident_mistakes_come_first_and_copies_once() -> None:
    faces = cartoon_set().select(torch.tensor([0, 7, 14, 21, 21, 28]))  # all angry; the fourth twice
    probs = np.full((6, 7), 0.01, np.float32)
    probs[:, 4] = [0.5, 0.9, 0.6, 0.8, 0.8, 0.3]
    probs[5, 0] = 0.6
    probs /= probs.sum(1, keepdims=True)
    predictions = Predictions(faces.rows.numpy(), probs, faces.labels.numpy(), np.ones(6, bool), SEVEN)
    found = most_confident_mistakes(predictions, faces, Direction(Emotion.ANGRY, Emotion.SAD, 5, 6), limit=3)
    assert found.tolist() == [1, 3, 2]
    assert len(most_confident_mistakes(predictions, faces, Direction(Emotion.SAD, Emotion.ANGRY, 0, 0))) == 0


def test_the_gallery_shows_the_map_of_the_wrong_emotion() -> None:
    faces, model = cartoon_set().select(torch.arange(40)), reader()
    maps = map_faces(model, faces)
    assert np.array_equal(maps, model(faces.images.numpy())[1])
    assert map_faces(None, faces) is None


def test_test_time_augmentation_averages_the_views() -> None:
    faces, model = cartoon_set().select(torch.arange(300)), reader()
    images, calls = faces.images.numpy(), []
    one = predict_faces(model, faces, progress=lambda *words: calls.append(words))
    assert np.allclose(one, model(images)[0])
    assert [words[1:] for words in calls] == [(256, 300), (300, 300)]
    flip = predict_faces(model, faces, tta="flip")
    mirrored = model(np.ascontiguousarray(images[:, :, ::-1]))[0]
    assert np.allclose(flip, (model(images)[0] + mirrored) / 2, atol=1e-6)
    ten = predict_faces(model, faces, tta="ten")
    assert np.allclose(ten.sum(1), 1, atol=1e-5)
    both = predict_faces(model, replace(faces, images=faces.images.flip(2)), tta="ten")
    assert np.allclose(ten, both, atol=1e-5)  # a mirrored face has the same ten views
    assert not np.allclose(ten, flip, atol=1e-4)
    six = predict_faces(model, faces, tta="six")
    small = functional.pad(faces.images[:, None].float(), (2, 2, 2, 2), mode="replicate").byte()[:, 0]
    sizes = [faces.images, faces.images[:, 2:46, 2:46], small]
    seen = [resize_faces(replace(faces, images=view), model.size) for size in sizes for view in (size, size.flip(2))]
    expected = np.mean([model(np.ascontiguousarray(crops))[0] for crops in seen], axis=0)
    assert np.allclose(six, expected, atol=1e-6)


def test_missing_classes_are_named_and_the_counts_add_up() -> None:
    faces = cartoon_set()
    found = evaluation(faces.select(faces.labels != 1), reader())
    assert found.metrics["all"]["absent"] == ["disgust"]
    assert any("No face of disgust" in warning for warning in found.warnings())
    assert "disgust" not in found.class_intervals["recall"]
    report_page(found, {})
    three = evaluation(faces, reader(CLASS_SETS["three"]))
    result = three.to_json()
    assert result["evaluated"] + sum(result["excluded"].values()) == result["total"] == 70
    assert result["excluded"]["disgust: not among the model's classes"] == 10


def test_selections_that_cannot_be_evaluated_are_refused() -> None:
    faces = cartoon_set()
    with pytest.raises(DataError, match="one class alone"):
        evaluation(faces.select(faces.labels == 3), reader())
    with pytest.raises(DataError, match="no row is left"):
        evaluation(faces.select(faces.labels == 6), reader(CLASS_SETS["three"]))
    with pytest.raises(DataError, match=r"no rows in PrivateTest; it has Training, PublicTest; choose one"):
        evaluation(faces.select(faces.usage < 2), reader(), Split.PRIVATE_TEST)
    with pytest.raises(DataError, match="choose one of these, or all"):
        evaluation(faces.select(faces.usage != 1), reader())
    with pytest.raises(DataError, match=r"such split.*PublicTest"):
        read_split("Public")


def test_outputs_that_are_not_probabilities_are_refused() -> None:
    good = reader()
    wrong = {
        "sum differs from 1": lambda crops: (good(crops)[0] * 2, None),
        "labels do not match": lambda crops: (good(crops)[0][:, :5], None),
        "not finite": lambda crops: (good(crops)[0] * np.nan, None),
    }
    for message, predict_wrong in wrong.items():
        with pytest.raises(ModelError, match=message):
            evaluation(cartoon_set(), replace(good, predict=predict_wrong))


Draw = Callable[..., np.ndarray]


def test_a_set_without_splits_is_evaluated_as_a_whole_unless_it_was_trained_on() -> None:
    faces = replace(cartoon_set(), usage=torch.zeros(336, dtype=torch.long))
    assert evaluation(faces, reader()).selection.split == "all"
    learned = replace(reader(), about={"data_sha256": faces.sha256})
    found = evaluation(faces, learned)
    assert found.selection.split == "PublicTest"
    assert 40 < len(found.predictions.labels) < 60
    assert any("PublicTest selected this model" in warning for warning in found.warnings())
    assert any("contains training faces" in w for w in evaluation(faces, learned, "all").warnings())


def fill(folder: Path, names: list[str], draw: Draw, *, count: int = 6, seed: int = 0) -> Path:
    for number, name in enumerate(names):
        for face in range(count):
            path = folder / name / f"{face}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(60, seed=seed + 1000 * number + face)).save(path)
    return folder


def test_rows_that_a_label_map_excludes_are_counted(tmp_path: Path, draw_face: Draw) -> None:
    own = fill(tmp_path / "own", ["smile", "sad", "fear", "contempt", "other"], draw_face)
    (test,) = load_tests([own], SEVEN, size=48, label_map=read_map(["Smile=happy", "other="]))
    selection = select(test, SEVEN, None)
    assert selection.account == {
        "contempt: not among the model's classes": 6,
        "label other: excluded by the label map": 6,
    }
    assert (selection.total, len(selection.faces)) == (30, 18)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["smile"], "say LABEL=EMOTION"),
        (["smile=hapy"], r"'hapy' is no emotion; .*did you mean 'happy'\?"),
        (["grin=happy"], r"there is no label 'grin'.*the labels are .*smile"),
        ([], r"'smile' is no emotion that mien knows.*smile=happy"),
    ],
)
def test_wrong_label_maps_are_refused(tmp_path: Path, draw_face: Draw, words: list[str], message: str) -> None:
    own = fill(tmp_path / "own", ["smile", "sad"], draw_face, count=1)
    with pytest.raises(DataError, match=message):
        load_tests([own], SEVEN, size=48, label_map=read_map(words))


def test_every_set_has_a_name_that_no_other_has(tmp_path: Path, draw_face: Draw) -> None:
    places = [
        fill(tmp_path / place, ["happy", "sad"], draw_face, count=1) for place in ("a/faces-2", "b/faces", "c/FACES")
    ]
    names = [test.name for test in load_tests([*places, places[0]], SEVEN, size=48, label_map={})]
    assert names == ["faces-2", "faces", "FACES-3", "faces-2-2"]  # folders, some systems ignore the case


def test_a_set_may_be_a_test_set_alone(tmp_path: Path, draw_face: Draw) -> None:
    own = fill(tmp_path / "own", ["test/happy", "test/sad"], draw_face)
    (test,) = load_tests([own], SEVEN, size=48, label_map={})
    with pytest.raises(DataError, match="no rows in PublicTest; it has PrivateTest; choose one"):
        select(test, SEVEN, None)
    assert len(select(test, SEVEN, Split.PRIVATE_TEST).faces) == 12


@pytest.mark.usefixtures("fast_exports")
def test_a_run_has_the_same_figures_wherever_they_are_computed(tmp_path: Path) -> None:
    faces, chosen = cartoon_set(), tiny(train={"epochs": 2})
    for row in range(len(faces)):  # train/ and test/, but no val/
        path = (
            tmp_path / "own" / ("test" if faces.usage[row] == 2 else "train") / SEVEN[faces.labels[row]] / f"{row}.png"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(faces.images[row].numpy()).save(path)
    own, run, recorded = (tmp_path / name for name in ("own", "run", "recorded"))
    learned = load_set(own, chosen)
    fit(chosen, learned, run, devices=Devices("cpu"), provenance={"commit": "c", "data_sha256": learned.sha256})
    found = record_run(run, learned, recorded, final=True, int8=False)["metrics"]
    for split, key in ((None, "public"), ("PrivateTest", "private")):
        _, evaluated = evaluate(str(run), [own], options=EvaluateOptions(split, tmp_path / key))
        (here,) = evaluated["own"]
        assert here.metrics["all"]["log_loss"] == pytest.approx(found[key]["fp32"]["all"]["log_loss"], abs=1e-3)
        assert "fitted on PublicTest" in here.subject.about["calibration"]
        entries = load_entries([str(run), str(recorded)], own, Split(f"{key.capitalize()}Test")).entries
        for entry in entries:
            np.testing.assert_allclose(entry.predictions.probs, here.predictions.probs, atol=1e-3)


def recorded_run(folder: Path, faces: FaceSet, seed: int) -> None:
    """A folder as `mien record` writes it: real predictions of a linear classifier for PublicTest."""
    chosen = select_rows(faces, SEVEN, Split.PUBLIC_TEST).faces
    folder.mkdir(parents=True)
    probs = reader(seed=seed)(chosen.images.numpy())[0]
    np.savez(folder / "predictions.npz", public_rows=chosen.rows.numpy(), public_probs=probs)
    result = {"recipe": "linear", "seed": seed, "metrics": {}, "data_sha256": faces.sha256, "commit": "c"}
    (folder / "metrics.json").write_text(json.dumps(result))
    (folder / "recipe.json").write_text(json.dumps({"data": {"classes": "seven", "size": 48}}))


def test_seeds_are_summarised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = cartoon_set()
    for seed in (0, 1, 2):
        recorded_run(tmp_path / "linear" / f"seed-{seed}", faces, seed)
    monkeypatch.setattr(
        "mien.lab.evaluate.evaluate.load_tests", lambda *_, **__: [TestSet(faces, "FER-2013")]
    )  # the cartoons replace a file of FER-2013, which no test may contain
    options = EvaluateOptions(out=tmp_path / "out")
    folder, evaluated = evaluate(str(tmp_path / "linear"), options=options)
    result = json.loads((folder / "metrics.json").read_text())
    accuracies = [e.metrics["all"]["accuracy"] for e in evaluated["FER-2013"]]
    assert len(set(accuracies)) == 3
    spread = result["summary"]["all"]["accuracy"]
    assert spread == pytest.approx({"mean": np.mean(accuracies), "std": np.std(accuracies, ddof=1), "n": 3})
    assert [seed["seed"] for seed in result["seeds"]] == ["0", "1", "2"]
    assert "3 seeds" in (folder / "report.html").read_text()
    text = (folder / "seed-1" / "report.html").read_text()
    assert "without a model there are no maps" in text
    with np.load(folder / "seed-1" / "predictions.npz") as file:
        assert set(file.files) == {"rows", "labels", "probs", "clean", "emotions"}
    with pytest.raises(DataError, match="no test-time augmentation"):
        evaluate(str(tmp_path / "linear"), options=replace(options, tta="flip"))
    with pytest.raises(DataError, match="single splits"):
        evaluate(str(tmp_path / "linear"), options=replace(options, split="all"))


def test_runs_of_different_trainings_are_not_seeds_of_one(tmp_path: Path) -> None:
    folder, faces = tmp_path / "linear", cartoon_set()
    for seed in (0, 1):
        recorded_run(folder / f"seed-{seed}", faces, seed)
        changes = [f"seed={seed}", f"train.epochs={3 - seed}"]
        (folder / f"seed-{seed}" / "recipe.json").write_text(json.dumps(dump(load("mien-0", changes))))
    with pytest.raises(DataError, match=r"seeds 0 and 1 are different trainings \(train.epochs\); evaluate them one"):
        find_subjects(str(folder))
    (folder / "seed-1" / "recipe.json").write_text(json.dumps(dump(load("mien-0", ["seed=1", "train.epochs=3"]))))
    assert [subject.seed for subject in find_subjects(str(folder))] == ["0", "1"]
    recorded_run(folder / "seed-2", faces, 1)
    with pytest.raises(DataError, match="two of its runs have the seed 1"):
        find_subjects(str(folder))


def test_exported_files_have_the_seeds_of_their_folders(tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / f"seed-{seed}").mkdir()
        shutil.copy(find_model("mien-0"), tmp_path / f"seed-{seed}" / "model.onnx")
    assert [subject.seed for subject in find_subjects(str(tmp_path))] == ["0", "1"]
    shutil.copy(find_model("mien-1"), tmp_path / "seed-1" / "model.onnx")
    with pytest.raises(DataError, match=r"seeds 0 and 1 are different trainings \(name\)"):
        find_subjects(str(tmp_path))


def test_seeds_of_a_folder_without_anything(tmp_path: Path) -> None:
    (tmp_path / "seed-0").mkdir()
    with pytest.raises(ModelError):
        find_subjects(str(tmp_path))


def test_two_sets_show_what_transfers(tmp_path: Path, draw_face: Draw) -> None:
    one = fill(tmp_path / "one", [str(e) for e in SEVEN], draw_face, count=3)
    other = fill(tmp_path / "x" / "one", ["grin", "sad", "fear"], draw_face, count=4, seed=77)
    options = EvaluateOptions(out=tmp_path / "out", label_map=read_map(["grin=happy"]))
    folder, evaluated = evaluate("mien-0", [one, other], options=options)
    assert list(evaluated) == ["one", "one-2"]
    result = json.loads((folder / "metrics.json").read_text())
    assert result["sets"]["one-2"]["all"]["absent"] == ["angry", "disgust", "surprise", "neutral"]
    assert result["sets"]["one"]["evaluated"] == 21
    text = (folder / "report.html").read_text()
    assert 'href="one-2/report.html"' in text
    assert (folder / "one-2" / "metrics.json").is_file()


def test_the_prepared_rows_are_the_evaluated_rows() -> None:
    task = prepare_evaluation(subject(reader()), TestSet(cartoon_set(), "cartoons"), Split.TRAINING)
    assert isinstance(task, Task)
    assert evaluate_task(task).predictions.rows.tolist() == task.selection.faces.rows.tolist()
