"""`mien record` writes the predictions of the net, and no face."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mien._errors import DataError, ModelError, OutputError, RecipeError
from mien.lab.data import FaceSet, Split
from mien.lab.data.datasets import mix_sets
from mien.lab.data.faceset import file_sha256
from mien.lab.data.fer2013 import OFFICIAL_COUNTS
from mien.lab.data.selection import validation_rows
from mien.lab.evaluate.evaluate import EvaluateOptions, evaluate
from mien.lab.evaluate.evaluation import check_uncalibrated, evaluate_task, prepare_evaluation
from mien.lab.evaluate.report import report_page
from mien.lab.evaluate.subjects import TestSet, answers_of_subject, find_subjects
from mien.lab.files import load_json, save_json
from mien.lab.inference import predict
from mien.lab.ledger import Ledger
from mien.lab.models import answers_of_model, open_model
from mien.lab.predictions import load_recorded
from mien.lab.recipe import fold_recipes
from mien.lab.record import record_folds, record_run
from mien.lab.train.devices import Devices
from mien.lab.train.loop import fit
from mien.lab.train.run import is_finished, load_final
from support.short_runs import LEARNING, small
from support.synthetic_faces import cartoon_set
from support.written_files import foreign_files

pytestmark = pytest.mark.usefixtures("fast_exports")


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set()


@pytest.fixture(scope="module")
def run(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    assert fit(
        small(*LEARNING, "train.epochs=12"),
        faces,
        folder,
        devices=Devices("cpu"),
        provenance={"commit": "c", "data_sha256": faces.sha256},
    )
    return folder


@pytest.fixture(scope="module")
def final(faces: FaceSet, run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Ledger]:
    """The final record of the run, of cartoons that count as FER-2013: its folder, its metrics and the ledger."""
    folder = tmp_path_factory.mktemp("final")
    ledger = Ledger(folder / "looks.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OFFICIAL_COUNTS, Split.PRIVATE_TEST, (10,) * 7)
        patch.setenv("MIEN_COMMIT", "5ca1ab1e")
        return folder / "out", record_run(run, faces, folder / "out", final=True, ledger=ledger), ledger


def test_a_final_record_is_a_look_and_the_same_answers_are_repeats(
    faces: FaceSet,
    run: Path,
    final: tuple[Path, dict[str, Any], Ledger],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(OFFICIAL_COUNTS, Split.PRIVATE_TEST, (10,) * 7)
    recorded, metrics, kept = final
    ledger = Ledger(tmp_path / "looks.json")
    ledger.path.write_bytes(kept.path.read_bytes())
    (entry,) = ledger.entries()
    found = metrics["metrics"]["private"]
    assert entry["accuracy"] == {key: found[key]["all"]["accuracy"] for key in ("fp32", "int8")}
    assert (entry["family"], entry["recipe"], entry["seed"], entry["why"]) == ("own mien", "mien-0", "0", "")
    # Of the weights, the recorded probabilities and the int8 file; on some processors the first two are equal.
    assert len(entry["answers"]) in (2, 3)
    monkeypatch.setattr("mien.lab.evaluate.evaluate.load_tests", lambda *_, **__: [TestSet(faces, "cartoons")])
    options = EvaluateOptions("PrivateTest", tmp_path / "report", ledger=ledger)
    evaluate(str(recorded), options=options)  # the int8 file
    ledger.add([answers_of_model(open_model(run), faces)], faces.sha256)  # the weights, calibrated
    (entry,) = ledger.entries()
    assert entry["repeats"] == 2
    (other := tmp_path / "recorded" / "other.onnx").parent.mkdir()
    for path in recorded.iterdir():
        (other.parent / path.name).write_bytes(path.read_bytes())
    other.write_bytes(b"another net")
    answers = answers_of_model(replace(open_model("mien-0"), path=other), faces)
    assert answers.digests == (file_sha256(other),)  # not what was recorded beside it
    with pytest.raises(DataError, match=r"own mien: PrivateTest was looked at once, last mien-0, seed 0 on"):
        evaluate(str(run), options=replace(options, tta="flip"))
    monkeypatch.setenv("MIEN_COMMIT", "5ca1ab1e+")
    with pytest.raises(DataError, match=r"the code differs from its commit 5ca1ab1e, .* commit or undo the changes"):
        record_run(run, faces, tmp_path / "other", final=True, ledger=ledger)
    monkeypatch.setenv("MIEN_COMMIT", "5ca1ab1e")
    with pytest.raises(DataError, match="or say why it is looked at again"):  # another calibration is another answer
        record_run(run, faces, tmp_path / "other", final=True, calibration="temperature", ledger=ledger)
    assert not (tmp_path / "other").exists()
    again = replace(options, tta="flip", ledger=replace(ledger, again="what two views add"))
    _, evaluations = evaluate(str(run), options=again)
    assert "PrivateTest was looked at 2 times" in " ".join(evaluations["cartoons"][0].warnings())
    assert ledger.entries()[1]["accuracy"].keys() == {"fp32 flip"}


def test_the_record_is_complete_and_consistent(faces: FaceSet, final: tuple[Path, dict[str, Any], Ledger]) -> None:
    tmp_path, metrics, _ = final
    assert foreign_files(tmp_path) == []
    written = {path.name for path in tmp_path.iterdir()}
    assert {"metrics.json", "predictions.npz", "log.jsonl", "recipe.json", "curves.png", "confusion.svg"} <= written
    assert load_json(tmp_path / "metrics.json") == json.loads(json.dumps(metrics))
    assert metrics["epochs"] == 12
    assert f"PrivateTest: {100 * metrics['metrics']['private']['fp32']['all']['accuracy']:.1f} %" in (
        tmp_path / "confusion.svg"
    ).read_text("utf-8")
    assert {"commit", "data_sha256", "evaluated_at", "macs", "parameters", "seed"} <= metrics.keys()
    with np.load(tmp_path / "predictions.npz") as predictions:
        for split, first in (("public", 196), ("private", 266)):
            rows, probs = predictions[f"{split}_rows"], predictions[f"{split}_probs"]
            assert rows.tolist() == list(range(first, first + 70))
            right = float((probs.argmax(1) == faces.labels.numpy()[rows]).mean())
            assert right == pytest.approx(metrics["metrics"][split]["fp32"]["all"]["accuracy"], abs=0.02)


@pytest.fixture(scope="module")
def mixed(faces: FaceSet) -> FaceSet:
    other = replace(faces.split(Split.TRAINING).select(torch.arange(14)), sha256="other", source="other")
    return mix_sets(faces, [(other, 1.0)])


@pytest.fixture(scope="module")
def part(mixed: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with mixed-in faces, recorded without int8, without PrivateTest and with a temperature."""
    folder = tmp_path_factory.mktemp("part")
    chosen = small(*LEARNING, "train.epochs=2")
    origin = {"commit": "c", "data_sha256": mixed.sha256}
    assert fit(chosen, mixed, folder / "run", devices=Devices("cpu"), provenance=origin)
    record_run(folder / "run", mixed, folder / "out", int8=False, calibration="temperature")
    return folder


def test_a_run_is_measured_before_and_after_its_calibration(faces: FaceSet, run: Path, tmp_path: Path) -> None:
    (subject,) = find_subjects(str(run))
    task = prepare_evaluation(subject, TestSet(faces, "cartoons"), Split.PUBLIC_TEST)
    both, raw = evaluate_task(task), evaluate_task(task, uncalibrated=True)
    with_it, without = (answers_of_subject(subject, faces, "none", uncalibrated=each) for each in (False, True))
    assert set(with_it.digests).isdisjoint(without.digests)
    assert with_it.settings != without.settings
    assert both.uncalibrated == {key: pytest.approx(raw.metrics["all"][key]) for key in ("log_loss", "brier", "ece")}
    assert both.metrics["all"]["log_loss"] < both.uncalibrated["log_loss"]
    assert both.to_json()["uncalibrated"] == both.uncalibrated
    assert "before calibration" in report_page(both, {})
    assert not raw.uncalibrated
    metrics = record_run(run, faces, tmp_path / "seed-0", int8=False)
    assert metrics["uncalibrated"] == {"public": {k: pytest.approx(v) for k, v in both.uncalibrated.items()}}
    (recorded,) = find_subjects(str(tmp_path / "seed-0"))
    with pytest.raises(ModelError, match="contains its calibration; name the run"):
        check_uncalibrated(recorded)


def test_private_faces_are_evaluated_only_on_request(part: Path) -> None:
    assert set(load_json(part / "out" / "metrics.json")["metrics"]) == {"public"}
    with np.load(part / "out" / "predictions.npz") as predictions:
        assert set(predictions.files) == {"public_rows", "public_probs"}


def test_the_predictions_of_a_run_with_mixed_in_faces_are_those_of_the_main_set(
    faces: FaceSet, mixed: FaceSet, part: Path
) -> None:
    metrics = load_json(part / "out" / "metrics.json")
    assert metrics["data_sha256"] == mixed.sha256 != faces.sha256 == metrics["evaluation_sha256"]
    predictions, selection = load_recorded(part / "out", faces, Split.PUBLIC_TEST)
    assert predictions.rows.tolist() == selection.faces.rows.tolist()
    with pytest.raises(DataError, match="its predictions belong to other faces"):
        load_recorded(part / "out", replace(faces, sha256="another"), Split.PUBLIC_TEST)


def test_without_int8_there_is_neither_its_file_nor_its_metrics(part: Path) -> None:
    assert set(load_json(part / "out" / "metrics.json")["metrics"]["public"]) == {"fp32"}
    assert not (part / "out" / "model.onnx").exists()


def test_a_temperature_does_not_change_any_prediction(mixed: FaceSet, part: Path) -> None:
    found = load_json(part / "out" / "metrics.json")["calibration"]
    assert len(set(found["scale"])) == 1
    assert set(found["offset"]) == {0.0}
    assert load_json(part / "out" / "recipe.json")["calibration"] == "temperature"
    trained, public = load_final(part / "run"), mixed.split(Split.PUBLIC_TEST)
    with np.load(part / "out" / "predictions.npz") as predictions:
        predicted = predictions["public_probs"].argmax(1).tolist()
    assert predicted == predict(trained.net, public.images, trained.recipe.data.size).argmax(1).tolist()
    with pytest.raises(RecipeError, match="calibration is one of vector, temperature, not 'platt'"):
        record_run(part / "run", mixed, part / "out", calibration="platt")
    assert is_finished(part / "run", replace(trained.recipe, calibration="temperature"), mixed.sha256)


def test_other_faces_than_the_runs_are_refused(faces: FaceSet, run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds other faces .* than .* was trained on"):
        record_run(run, replace(faces, sha256="1" * 64), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folds_predict_every_face_of_training_and_public_test_once(faces: FaceSet, tmp_path: Path) -> None:
    images = faces.images.clone()
    images[30], images[40] = images[200], images[300]  # copies of faces of PublicTest and of PrivateTest
    copied = replace(faces, images=images)
    recipes = fold_recipes(small("train.epochs=1", "checkpoint=best"), 3, public=True)
    origin = {"commit": "c", "data_sha256": copied.sha256}
    for fold, chosen in enumerate(recipes):
        each = origin | {"commit": "cc-"[fold]}
        assert fit(chosen, copied, tmp_path / "run" / f"fold-{fold}", devices=Devices("cpu"), provenance=each)
    metrics = record_folds(tmp_path / "run", copied, tmp_path / "out")
    with np.load(tmp_path / "out" / "folds.npz") as kept:
        rows, probs = kept["rows"], kept["probs"]
    assert rows.tolist() == [row for row in range(266) if row != 40]  # a copy of PrivateTest was looked at
    found = metrics["metrics"]["folds"]["fp32"]
    assert found["all"]["accuracy"] == (probs.argmax(1) == faces.labels.numpy()[rows]).mean()
    assert (found["all"]["n"], found["clean"]["n"], len(metrics["folds"])) == (265, 264, 3)
    assert (metrics["commit"], metrics["data_sha256"]) == ("c; -", copied.sha256)
    together = [set(validation_rows(copied, chosen).rows.tolist()) for chosen in recipes]
    assert sum({30, 200} <= part for part in together) == 1
    with pytest.raises(OutputError, match="holds results of such a run already"):
        record_folds(tmp_path / "run", copied, tmp_path / "out")
    other = fold_recipes(small("train.epochs=1", "train.lr=0.01"), 3, public=True)[2]
    assert fit(other, copied, tmp_path / "other", devices=Devices("cpu"), provenance=origin)
    shutil.rmtree(tmp_path / "run" / "fold-2")
    with pytest.raises(DataError, match=r"fold-2.* no such file; train the run first"):
        record_folds(tmp_path / "run", copied, tmp_path / "second")
    (tmp_path / "other").rename(tmp_path / "run" / "fold-2")
    with pytest.raises(DataError, match="fold 2 is of another training; train all folds with one command"):
        record_folds(tmp_path / "run", copied, tmp_path / "second")


@pytest.fixture(scope="module")
def leaky(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is recorded without model files, which take seconds to export."""
    folder = tmp_path_factory.mktemp("leaky")
    chosen = small(*LEARNING, "train.epochs=2", "data.expand=0.3", "data.expand_first=true")
    fit(chosen, faces, folder, devices=Devices("cpu"), provenance={"commit": "c", "data_sha256": faces.sha256})
    return folder


@pytest.fixture(scope="module")
def recorded(faces: FaceSet, leaky: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of the leaky run: no test may change it."""
    folder = tmp_path_factory.mktemp("recorded") / "out"
    record_run(leaky, faces, folder, final=True)
    return folder


def test_a_leaky_run_is_evaluated_only_on_its_leaky_part(leaky: Path, recorded: Path) -> None:
    metrics = load_json(recorded / "metrics.json")
    assert set(metrics["metrics"]) == {"leaky"}
    figures, last = metrics["metrics"]["leaky"]["fp32"]["all"], load_final(leaky).history[-1]
    assert (figures["n"], figures["accuracy"]) == (87, pytest.approx(last.val_accuracy))
    assert set(content(recorded)) == {"metrics.json", "recipe.json", "log.jsonl", "confusion.svg", "curves.png"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_results_are_replaced_only_on_request(faces: FaceSet, leaky: Path, recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    before = content(tmp_path)
    with pytest.raises(OutputError, match="holds results of such a run already; name another folder"):
        record_run(leaky, faces, tmp_path)
    recipe = load_json(tmp_path / "recipe.json")
    save_json(tmp_path / "recipe.json", recipe | {"seed": 3, "data": recipe["data"] | {"fraction": 0.1}})
    with pytest.raises(OutputError, match=r"the results of another run \(other seed, data\)"):
        record_run(leaky, faces, tmp_path)
    record_run(leaky, faces, tmp_path, force=True)
    assert content(tmp_path) == before


def test_a_full_disk_names_the_folder_and_keeps_the_old_results(
    faces: FaceSet, leaky: Path, recorded: Path, tmp_path: Path, largest_file: Callable[[int], None]
) -> None:
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)
    before = content(tmp_path)
    largest_file(10_000)  # bytes: enough for the metrics, not for the curves
    with pytest.raises(OutputError, match=r"curves\.png: cannot be written \(file too large\)"):
        record_run(leaky, faces, tmp_path, force=True)
    assert content(tmp_path) == before


def test_an_unfinished_run_is_refused(faces: FaceSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train the run first"):
        record_run(tmp_path, faces, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from mien.lab.provenance import provenance

    monkeypatch.setattr("sys.argv", ["mien", "train", "conv4", "--data", "/home/someone/fer2013", "--out", "runs/x"])
    assert provenance("0")["command"] == "mien train conv4 --data .../fer2013 --out runs/x"
