"""What is told of a stress test: its file, its page, and the tables of the docs."""

import json
from pathlib import Path

import pytest

from mien._emotions import SEVEN
from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.stress.groups import Groups
from mien.lab.stress.kept import write_each, write_json
from mien.lab.stress.reference import read_reference
from mien.lab.stress.report import report
from mien.lab.stress.spoilings import SPOILINGS, choose
from mien.lab.stress.stress import Trial, name_models, stress
from mien.lab.stress.tables import filled
from support.brightness_classifier import by_brightness
from support.paths import ROOT
from support.synthetic_faces import cartoon_set


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(70, 210, 0))


def test_the_file_and_the_page_say_what_was_found(faces: FaceSet, tmp_path: Path) -> None:
    halves = {row: "even" if row % 2 == 0 else "odd" for row in faces.rows.tolist()}
    models = {"light": by_brightness("light"), "<b>": by_brightness("<b>", SEVEN[:3])}
    trial = Trial(Split.PUBLIC_TEST, 0, choose(["jpeg", "glasses"]))
    said = stress(
        models, faces, trial, provenance={"command": "mien stress"}, groups=Groups("h.csv", {"half": halves}, 2)
    )
    write_json(said, tmp_path / "stress.json")
    assert json.loads((tmp_path / "stress.json").read_text()) == json.loads(json.dumps(said))
    kept = {path.name: json.loads(path.read_text()) for path in write_each(said, tmp_path / "kept")}
    assert set(kept) == {"light.json", "groups-light.json", "b.json", "groups-b.json"}
    assert "groups" not in kept["light.json"]["models"][0]
    assert kept["groups-light.json"]["models"][0]["groups"] == json.loads(json.dumps(said["models"][0]["groups"]))
    text = report(said)
    for each in (f"{said['models'][0]['clean']['accuracy']['value']:.1%}".replace("%", " %"), "2 rows of h.csv"):
        assert each in text
    assert "no mean corruption; light tells other emotions apart" in text
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert "keep it on this computer" not in text.lower()
    assert text.count("<svg") == 2 + 2 * 2


def test_two_models_of_one_name_are_told_apart() -> None:
    models = [by_brightness("x"), by_brightness("x"), by_brightness("y")]
    assert list(name_models(["runs/x", "x.onnx", "y"], models)) == ["runs/x", "x.onnx", "y"]
    with pytest.raises(DataError, match="named twice"):
        name_models(["x", "x"], models[:2])


def test_the_tables_of_the_docs_are_fresh() -> None:
    text = (ROOT / "docs" / "robustness.md").read_text()
    assert filled(text, ROOT / "results" / "stress") == text, "run: python -m mien.lab.stress.tables"


def test_the_kept_figures_hold_together() -> None:
    files = sorted(path for path in (ROOT / "results" / "stress").glob("*.json") if not path.stem.startswith("groups"))
    assert (ROOT / "results" / "stress" / "mien-0.json") in files
    for file in files:
        said = json.loads(file.read_text())
        model, kept = said["models"][0], read_reference(file)
        assert kept.clean.mean() == pytest.approx(model["clean"]["accuracy"]["value"], abs=1e-6)
        for name, five in model["spoilt"].items():
            assert kept.spoilt[name].mean(axis=1) == pytest.approx([c["accuracy"]["value"] for c in five], abs=1e-6)
        assert {s["name"]: tuple(s["amounts"]) for s in said["spoilings"]} == {s.name: s.amounts for s in SPOILINGS}
