"""The robustness test as a whole: result, files, report and recorded results."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from mien._emotions import SEVEN
from mien._errors import DataError
from mien._format import percent
from mien.lab.data import FaceSet, Split
from mien.lab.data.fer2013 import OFFICIAL_COUNTS
from mien.lab.files import load_json, save_json
from mien.lab.ledger import Ledger
from mien.lab.robustness.corruptions import CORRUPTIONS, choose_corruptions
from mien.lab.robustness.groups import GroupTable
from mien.lab.robustness.predictions import (
    read_reference,
)
from mien.lab.robustness.report import robustness_page, write_models
from mien.lab.robustness.run import RobustnessOptions, evaluate_robustness, name_models, run_robustness
from support.brightness_classifier import by_brightness
from support.paths import ROOT


def test_files_and_report_agree_with_the_result(faces: FaceSet, tmp_path: Path) -> None:
    halves = {row: "even" if row % 2 == 0 else "odd" for row in faces.rows.tolist()}
    models = {"light": by_brightness("light"), "<b>": by_brightness("<b>", SEVEN[:3])}
    options = RobustnessOptions(Split.PUBLIC_TEST, 0, choose_corruptions(["jpeg", "glasses"]))
    result = evaluate_robustness(models, faces, options, groups=GroupTable("h.csv", {"half": halves}, 2))
    save_json(tmp_path / "stress.json", result)
    assert load_json(tmp_path / "stress.json") == json.loads(json.dumps(result))
    files = {path.name: json.loads(path.read_text()) for path in write_models(result, tmp_path / "recorded")}
    assert set(files) == {"light.json", "groups-light.json", "b.json", "groups-b.json"}
    assert "groups" not in files["light.json"]["models"][0]
    assert files["groups-light.json"]["models"][0]["groups"] == json.loads(json.dumps(result["models"][0]["groups"]))
    text = robustness_page(result)
    accuracy = percent(result["models"][0]["clean"]["metrics"]["accuracy"]["value"])
    for each in (accuracy, "2 rows of h.csv are not in the data set"):
        assert each in text
    assert "no mean corruption error; light has other emotions" in text
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert "keep it on this computer" not in text.lower()
    assert text.count("<svg") == 2 + 2 * 2


def test_two_models_of_one_name_are_named_by_their_arguments() -> None:
    models = [by_brightness("x"), by_brightness("x"), by_brightness("y")]
    assert list(name_models(["runs/x", "x.onnx", "y"], models)) == ["runs/x", "x.onnx", "y"]
    with pytest.raises(DataError, match="named twice"):
        name_models(["x", "x"], models[:2])


def test_a_reference_that_predicts_private_faces_is_a_look(
    faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for row, label in enumerate(faces.labels[:35].tolist()):
        image = tmp_path / "own" / "test" / str(SEVEN[label]) / f"{row}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(faces.images[row].numpy()).save(image)
    counts = tuple(torch.bincount(faces.labels[:35], minlength=7).tolist())
    monkeypatch.setitem(OFFICIAL_COUNTS, Split.PRIVATE_TEST, counts)
    ledger, corruptions = Ledger(tmp_path / "looks.json"), choose_corruptions(["jpeg"])
    options = RobustnessOptions(Split.PRIVATE_TEST, 14, corruptions, ledger=ledger)
    run_robustness(["mien-0"], tmp_path / "own", options=options, reference="mien-1")
    assert [entry["recipe"] for entry in ledger.entries()] == ["mien-0", "mien-1"]


def test_recorded_metrics_agree_with_recorded_predictions() -> None:
    files = sorted(path for path in (ROOT / "results" / "stress").glob("*.json") if not path.stem.startswith("groups"))
    assert (ROOT / "results" / "stress" / "mien-0.json") in files
    for file in files:
        result = json.loads(file.read_text())
        model, recorded = result["models"][0], read_reference(file)
        assert recorded.clean.mean() == pytest.approx(model["clean"]["metrics"]["accuracy"]["value"], abs=1e-6)
        for name, conditions in model["corrupted"].items():
            assert recorded.corrupted[name].mean(axis=1) == pytest.approx(
                [c["metrics"]["accuracy"]["value"] for c in conditions], abs=1e-6
            )
        amounts = {each["name"]: tuple(each["amounts"]) for each in result["corruptions"]}
        table = {corruption.name: corruption.amounts for corruption in CORRUPTIONS}
        assert amounts.items() <= table.items()  # a new corruption needs no new results of old models
