"""`mien models` and `mien benchmark`: output with test models and with the embedded ones."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import mien
from mien import _measure, infer
from mien.commands import _benchmark, app
from mien.detect import DETECTORS, open_detector
from mien.infer import bundled_models
from support.onnx_models import write_model
from support.paths import ROOT

CARD: dict[str, Any] = {
    "name": "mien-9",
    "accuracy": {"private": 0.7012, "private_clean": 0.695, "interval": [0.686, 0.716]},
    "ece": 0.0213,
    "parameters": 1_560_000,
    "macs": 128_000_000,
    "recipe": "mien-9",
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One embedded model with a card, one without."""
    for file in ("model.onnx", "model-fp32.onnx"):
        write_model(tmp_path / "mien-9" / file, metadata={"precision": "int8" if file == "model.onnx" else "fp32"})
    (tmp_path / "mien-9" / "card.json").write_text(json.dumps(CARD))
    (tmp_path / "mien-9" / "card.md").write_text("# mien-9\n\nReads *faces*.\n")
    write_model(tmp_path / "bare" / "model.onnx")
    monkeypatch.setattr(infer, "BUNDLED", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("bundled")
def test_the_list_shows_the_metrics_of_the_cards() -> None:
    result = run("models")
    assert result.exit_code == 0, result.stderr
    shown = " ".join(result.stdout.split())
    for row in (
        "model tiny mien-9",
        "accuracy, PrivateTest - 70.1 %",
        "95 % interval - 68.6 to 71.6 %",
        "accuracy, PrivateTest without copies - 69.5 %",
        "expected calibration error - 0.021",
        "parameters - 1.6 M",
        "multiply-adds per crop - 128.0 M",
    ):
        assert row in shown, result.stdout
    assert "macro F1" not in shown
    assert f"detectors: {', '.join(DETECTORS)}" in shown


def test_the_list_as_json(bundled: Path) -> None:
    listed = json.loads(run("models", "--json").stdout)
    assert listed["detectors"] == list(DETECTORS)
    bare, card = listed["models"]
    assert bare["precision"] == "fp32"
    sizes = {key: (bundled / "mien-9" / file).stat().st_size for key, file in infer.PRECISIONS.items()}
    assert card == {**CARD, "files": sizes}


def test_one_card(bundled: Path) -> None:
    assert run("models", "mien-9").stdout == "# mien-9\n\nReads *faces*.\n"
    assert json.loads(run("models", "mien-9", "--json").stdout)["ece"] == CARD["ece"]
    assert json.loads(run("models", "bare").stdout)["licence"] == "Apache-2.0"
    unknown = run("models", "mein-9")
    assert (unknown.exit_code, unknown.stderr.count("\n")) == (2, 1)
    assert "did you mean 'mien-9'" in unknown.stderr
    (bundled / "mien-9" / "card.json").write_text("{half")
    damaged = run("models")
    assert damaged.exit_code == 2
    assert "the card is no JSON" in damaged.stderr


def test_a_package_without_models_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "BUNDLED", tmp_path / "absent")
    result = run("models")
    assert result.exit_code == 0
    assert "no classifier is embedded" in result.stdout


@pytest.mark.parametrize("name", bundled_models())
def test_the_cards_of_the_embedded_models_are_complete(name: str) -> None:
    card = json.loads(run("models", name, "--json").stdout)
    assert {"accuracy", "balanced_accuracy", "macro_f1", "ece", "parameters", "macs", "licence"} <= set(card)
    assert card["name"] == name
    assert 0 < card["accuracy"]["private"] < 1
    assert run("models", name).stdout.strip()


@pytest.mark.release
def test_the_benchmark_measures_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = write_model(tmp_path / "tiny.onnx")
    result = run("benchmark", "--json", "--seconds", "0", "--model", tiny)
    assert result.exit_code == 0, result.stderr
    measured = json.loads(result.stdout)
    assert {"processor", "cores", "onnxruntime", "python"} <= set(measured["machine"])
    values = measured["figures"]
    expected = {"import_s", "import_reader_s", "detect_ms_128x128", "images_per_second_1280x720"}
    expected |= {"cold_predict_s_640x480", "cold_predict_s_4000x3000"}
    expected |= {"crop_ms_fp32_batch_1", "crop_ms_fp32_batch_64", "crops_per_second_fp32", "share_of_plain_fp32"}
    expected |= {f"{what}_ms_{size}" for what in ("detect", "read") for size in ("640x480", "1280x720", "4000x3000")}
    if sys.platform != "win32":
        expected |= {"cold_predict_memory_mb_640x480", "cold_predict_memory_mb_4000x3000"}
    assert set(values) == expected
    assert all(value > 0 for value in values.values())
    with capsys.disabled():
        print(f"\nbenchmark of the tests' tiny model: {values}")


def test_the_benchmark_has_both_precisions_and_a_table(bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_benchmark, "_SIZES_WH", ((640, 480), (800, 600)))  # the real ones: see above
    monkeypatch.setattr(_benchmark, "_STREAM", 2)
    image = str(ROOT / "examples" / "astronaut.png")
    result = run("benchmark", "--seconds", "0", "--model", bundled / "mien-9", "--image", image)
    assert result.exit_code == 0, result.stderr
    for words in ("one crop, int8, alone", "one crop, fp32, alone", "mien predict", "800x600", "MB", "processor"):
        assert words in result.stdout


def test_an_image_without_a_face_is_refused(tmp_path: Path) -> None:
    white = tmp_path / "white.png"
    Image.new("RGB", (300, 300), "white").save(white)
    result = run("benchmark", "--seconds", "0", "--model", write_model(tmp_path / "tiny.onnx"), "--image", white)
    assert result.exit_code == 2
    assert result.stderr.startswith("mien: the detector finds no face in the image")


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_the_drawn_face_is_detected(size: int) -> None:
    drawn = _benchmark.draw_face(size)
    assert (drawn.shape, drawn.dtype) == ((size, size, 3), np.uint8)
    (face,) = open_detector()(drawn)
    assert abs((face.box.x1 + face.box.x2) / 2 - size / 2) < 0.05 * size


def test_median_takes_turns_and_warms_up() -> None:
    order: list[str] = []
    calls: list[Callable[[], None]] = [lambda: order.append("a"), lambda: order.append("b")]
    times = _measure.median_ms(*calls, seconds=0, least=3, warm_up=1)
    assert order == ["a", "b"] * 4
    assert all(0 <= taken < 100 for taken in times)


def test_the_machine_is_described() -> None:
    facts = _measure.environment("numpy", "no-such-package")
    assert facts["numpy"] == np.__version__
    assert facts["no-such-package"] == "not installed"
    assert all(facts.values())


def test_the_doctor_names_versions_extras_and_models() -> None:
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["mien"] == mien.__version__
    assert "CPUExecutionProvider" in found["providers"]
    assert found["int8 kernel"] in ("default", "exact, without VNNI")
    assert {model["model"] for model in found["models"]} == set(bundled_models())
    for model in found["models"]:
        path = infer.find_model(model["model"], precision=model["precision"])
        assert model["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("bundled")
def test_the_doctor_prints_a_table_and_hides_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_TOKEN", "secret")
    result = run("doctor")
    assert result.exit_code == 0, result.stderr
    assert "secret" not in result.stdout
    assert "mien works on this machine" in result.stdout
    assert "mien-9 fp32 reads a drawn face as" in " ".join(result.stdout.split())


def test_the_doctor_finds_a_damaged_model(bundled: Path) -> None:
    (bundled / "bare" / "model.onnx").write_bytes(b"mien_contract")
    result = run("doctor")
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_shells_can_complete_the_commands() -> None:
    environment = {"_MIEN_COMPLETE": "complete_bash", "COMP_WORDS": "mien ex", "COMP_CWORD": "1"}
    result = CliRunner(env=environment).invoke(app, [], prog_name="mien")
    assert result.stdout.split() == ["export", "explain"]


def test_accuracies_on_other_labels_are_set_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = run("models").stdout
    assert "other labels are another task" in shown
    assert "FER+ majority, 8" in shown
    assert "FER-2013, 7" in shown
