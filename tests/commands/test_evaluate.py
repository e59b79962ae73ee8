"""`mien evaluate`: files, the report in a real browser, foreign models, and mistakes in one line."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._emotions import SEVEN
from mien.commands import app
from mien.lab.train.devices import Devices
from mien.lab.train.loop import fit
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import tiny
from support.written_files import foreign_files

Draw = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder of cartoon faces, all seven emotions, ten each; two of them are exact copies."""
    folder = tmp_path_factory.mktemp("own") / "cartoons"
    faces = cartoon_set()
    for number in range(70):
        path = folder / str(SEVEN[int(faces.labels[number])]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(faces.images[number].numpy()).save(path)
    (folder / "sad" / "copy.png").write_bytes((folder / "sad" / "4.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def report(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    done = evaluate("mien-0", "--data", str(own), "--out", str(out))
    assert done.exit_code == 0, done.output
    return out


def evaluate(*words: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", *words])


def test_an_own_folder(own: Path, report: Path) -> None:
    assert foreign_files(report) == []
    told = json.loads((report / "metrics.json").read_text())
    assert (told["split"], told["evaluated"], told["total"]) == ("all", 71, 71)
    assert (told["all"]["n"], told["clean"]["n"]) == (71, 70)
    assert "tta" not in told
    assert {"command", "commit", "data_sha256", "machine"} <= told["provenance"].keys()
    assert told["provenance"]["data_sha256"] == told["data_sha256"]
    with np.load(report / "predictions.npz") as file:
        right = float((file["probs"].argmax(1) == file["labels"]).mean())
        assert file["emotions"].tolist() == [str(e) for e in SEVEN]
    assert right == pytest.approx(told["all"]["accuracy"])
    assert str(own.parent) not in (report / "metrics.json").read_text()


def test_a_full_disk_keeps_the_old_files_together(own: Path, report: Path, largest_file: Callable[[int], None]) -> None:
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    largest_file(20_000)  # bytes: enough for the predictions, not for the page
    done = evaluate("mien-0", "--data", str(own), "--out", str(report), "--tta", "flip")
    assert done.exit_code == 2
    assert "report.html: cannot be written (file too large)" in done.stderr
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def test_the_page_says_everything_and_loads_nothing(report: Path) -> None:
    text = (report / "report.html").read_text()
    for heading in (
        "Metrics",
        "Confusion matrix",
        "By emotion",
        "Calibration",
        "Selective prediction",
        "Most confused pairs",
    ):
        assert f"<h2>{heading}</h2>" in text
    assert "95 % intervals" in text
    assert "A threshold that is chosen and evaluated on the same faces" in text
    links = re.findall(r'(?:src|href)="([^"]{0,40})', text)
    assert all(link.startswith(("data:", "#")) for link in links)
    assert 'alt="map"' in text
    assert "do not publish" in text


def test_views_are_named_only_where_asked_for(own: Path, tmp_path: Path) -> None:
    done = evaluate("mien-0", "--data", str(own), "--out", str(tmp_path), "--tta", "ten")
    assert done.exit_code == 0, done.output
    assert "TTA ten" in done.stdout
    assert json.loads((tmp_path / "metrics.json").read_text())["tta"] == "ten"
    assert "five crops and their mirror images" in (tmp_path / "report.html").read_text()


def test_a_run_with_its_curves_and_maps(own: Path, tmp_path: Path) -> None:
    """The folder of a recipe with one run in it, as `mien train` leaves it."""
    faces = cartoon_set()
    run = tmp_path / "tiny" / "seed-0"
    recipe = tiny(data={"size": 16}, train={"epochs": 2})
    assert fit(recipe, faces, run, devices=Devices("cpu"), provenance={"commit": "c", "data_sha256": faces.sha256})
    done = evaluate(str(tmp_path / "tiny"), "--data", str(own), "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<h2>Training</h2>" in text
    assert 'aria-label="accuracy over 2 epochs' in text
    assert "probabilities as trained" in text
    assert 'alt="map"' in text  # HiResCAM of the dense head


def test_a_foreign_model_by_its_toml(own: Path, tmp_path: Path) -> None:
    """A plain graph as others export one: floats in, logits out, an order of labels of its own, one no emotion."""
    pytest.importorskip("onnx", reason="the export needs onnx")
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = np.random.default_rng(0).normal(0, 0.05, (48 * 48, 8)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["face"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["n", 1, 48, 48])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "theirs.onnx")
    labels = ["neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "-"]
    settings = f'model = "theirs.onnx"\nlabels = {labels!r}\nsize = 48\nmean = 0.5\nstd = 0.5\n'.replace("'", '"')
    (tmp_path / "theirs.toml").write_text(settings + 'outputs = "logits"\n')
    done = evaluate(str(tmp_path / "theirs.toml"), "--data", str(own), "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert told["emotions"] == labels[:7]
    faces = [Image.open(path) for path in sorted(own.glob("*/*.png"))]
    crops = np.stack([np.asarray(face) for face in faces]).reshape(71, -1).astype(np.float32) / 255
    guess = ((crops - 0.5) / 0.5 @ weights)[:, :7].argmax(1)
    truth = [labels.index(path.parent.name) for path in sorted(own.glob("*/*.png"))]
    assert told["all"]["accuracy"] == pytest.approx(np.mean(guess == truth))
    assert 'alt="map"' not in (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "theirs.toml").write_text(settings)
    wrong = evaluate(str(tmp_path / "theirs.toml"), "--data", str(own), "--out", str(tmp_path / "out2"))
    assert wrong.exit_code == 2
    assert "does not return probabilities" in wrong.output
    (tmp_path / "theirs.toml").write_text(settings.replace(', "-"', ""))
    wrong = evaluate(str(tmp_path / "theirs.toml"), "--data", str(own), "--out", str(tmp_path / "out2"))
    assert wrong.exit_code == 2
    assert "names 7 labels, but the model returns [1, 8]" in wrong.output
    assert not (tmp_path / "out2").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["no-such-model"], "no-such-model"),
        (["mien-0", "--split", "Public"], "there is no such split as"),
        (["mien-0", "--split", "PrivateTest"], "has no rows in PrivateTest; it has Training"),
        (["mien-0", "--tta", "three"], "known are none, flip, six, ten"),
        (["mien-0", "--map", "sad=glum"], "is no emotion"),
        (["mien-0", "--map", "grin=happy"], "there is no label 'grin'"),
    ],
)
def test_mistakes_are_one_line(own: Path, tmp_path: Path, words: list[str], says: str) -> None:
    done = evaluate(*words, "--data", str(own), "--out", str(tmp_path / "out"))
    assert done.exit_code == 2
    assert says in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_an_empty_set_and_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no folder of a label" in evaluate("mien-0", "--data", str(tmp_path / "empty")).output
    assert "no such file or folder" in evaluate("mien-0", "--data", str(tmp_path / "nowhere")).output


def test_a_place_that_cannot_be_written_is_reported_before_the_work(own: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here already")
    done = evaluate("mien-0", "--data", str(own), "--out", str(tmp_path / "file" / "out"))
    assert done.exit_code == 2
    assert "cannot be written" in done.output
    assert "mien-0 predicts" not in done.output
    assert (tmp_path / "file").read_text() == "here already"


@pytest.mark.release
@pytest.mark.skipif(not os.environ.get("MIEN_DATA"), reason="FER-2013 is not here: set MIEN_DATA to its folder")
def test_mien_0_on_public_test_is_as_its_card_says(fer2013_parquet: Path, tmp_path: Path) -> None:
    done = evaluate("mien-0", "--data", str(fer2013_parquet), "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "metrics.json").read_text())
    assert told["all"]["n"] == told["total"] == 3589
    assert told["all"]["accuracy"] == pytest.approx(0.705, abs=0.002)
    assert told["ferplus"]["majority"]["n"] == 3186
    assert "PublicTest selected this model" in told["warnings"][0]
