"""`mien compare` on recorded predictions, studies of a family, and mistakes."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import docs_results
from mien._emotions import SEVEN, class_set
from mien._errors import DataError
from mien.bundled import BUNDLED, DEFAULT_MODEL
from mien.lab import files
from mien.lab.compare.compare import _calibration_notes
from mien.lab.compare.entries import load_entries
from mien.lab.data import FaceSet, Split
from mien.lab.data.datasets import load_test_set
from mien.lab.data.fer2013 import OFFICIAL_COUNTS
from mien.lab.ledger import Ledger, recorded_answers
from mien.lab.predictions import Predictions, select_rows
from mien.lab.recipe import dump, load
from support.cli import mien_here
from support.synthetic_faces import cartoon_set
from support.written_files import foreign_files

FAMILY = "vgg-vs-resnet"


def draw(root: Path, per_split: tuple[int, int, int]) -> Path:
    """A labelled folder of cartoons, for training, validation and test."""
    faces = cartoon_set(per_split=per_split)
    for row, (image, label, usage) in enumerate(zip(faces.images, faces.labels, faces.usage, strict=True)):
        place = root / ("train", "val", "test")[int(usage)] / SEVEN[int(label)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(place / f"{row:05d}.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """7 training and 210 validation cartoons."""
    return draw(tmp_path_factory.mktemp("drawn"), (7, 210, 0))


@pytest.fixture(scope="module")
def faces(folder: Path) -> FaceSet:
    return load_test_set(folder, SEVEN)


def record(root: Path, faces: FaceSet, name: str, right: float, *, seed: int = 0) -> Path:
    """A recorded run of a recipe whose predictions are the label for a share ``right`` of the faces."""
    recipe = load(name)
    selection = select_rows(faces, class_set(recipe.data.classes), Split.PUBLIC_TEST)
    labels, classes = selection.faces.labels.numpy(), len(selection.faces.emotions)
    generator = np.random.default_rng([seed, *map(ord, name)])
    predicted = np.where(generator.random(len(labels)) < right, labels, generator.integers(0, classes, len(labels)))
    probs = np.full((len(labels), classes), 0.2 / classes, np.float32)
    probs[np.arange(len(labels)), predicted] += 0.8
    rows = selection.faces.rows.numpy()
    metrics = Predictions(rows, probs, labels, selection.clean, selection.faces.emotions).metrics()
    place = root / "results" / name / f"seed-{seed}"
    place.mkdir(parents=True)
    content = {"recipe": name, "seed": seed, "claim": asdict(recipe.claim), "metrics": {"public": {"fp32": metrics}}}
    cost = {"parameters": 10, "macs": 20, "size": recipe.data.size, "epochs": 1, "seconds": 2, "machine": "m"}
    content |= cost | {"commit": "c", "evaluated_at": "c", "data_sha256": faces.sha256}
    (place / "metrics.json").write_text(json.dumps(content))
    (place / "recipe.json").write_text(json.dumps(dump(recipe)))
    np.savez(place / "predictions.npz", public_rows=rows, public_probs=probs)
    return place


def calibrate_record(place: Path, scale: list[float], private_rows: Sequence[int] | np.ndarray = ()) -> None:
    """Give a record a calibration, and make the probability of one class four times as large.

    With ``private_rows``, it has the same probabilities for these.
    """
    metrics, arrays = json.loads((place / "metrics.json").read_text()), dict(np.load(place / "predictions.npz"))
    (place / "metrics.json").write_text(json.dumps(metrics | {"calibration": {"scale": scale, "offset": [0.0] * 7}}))
    probs = arrays["public_probs"] * np.array([1, 1, 1, 4, 1, 1, 1], np.float32)
    arrays["public_probs"] = probs = probs / probs.sum(1, keepdims=True)
    private = {"private_rows": private_rows, "private_probs": probs} if len(private_rows) else {}
    np.savez(place / "predictions.npz", **arrays | private)


@pytest.fixture(scope="module")
def bench(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a record and what is none: no test may change it."""
    root = tmp_path_factory.mktemp("bench")
    record(root, faces, "conv4", 0.7)
    other = record(root, faces, "lenet", 0.7).rename(root / "results" / "other-data")
    metrics = json.loads((other / "metrics.json").read_text())
    (other / "metrics.json").write_text(json.dumps(metrics | {"data_sha256": "0" * 64}))
    (root / "begun" / "seed-0").mkdir(parents=True)
    (root / "begun" / "seed-0" / "checkpoint.pt").write_bytes(b"")
    (root / "metrics-only").mkdir()
    (root / "metrics-only" / "metrics.json").write_text("{}")
    return root


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Sequence[object]":
    monkeypatch.setattr(files, "CHECKOUT", tmp_path)  # of results/

    def command(*words: str) -> tuple[int, str, str]:
        done = mien_here("compare", *words, cwd=tmp_path, MIEN_DATA=str(folder))
        return done.returncode, done.stdout, done.stderr

    return command  # type: ignore[return-value]


def test_recorded_predictions_against_an_embedded_model(run, faces: FaceSet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    calibrate_record(record(tmp_path, faces, "conv4", 0.9), [1.0] * 7)
    record(tmp_path, faces, "lenet", 0.5)
    status, out, err = run("--no-latency", "--keep", "metrics")
    assert status == 0, err
    assert "vector scaling, fitted on PublicTest; it replaces their own: conv4 (temperature)." in err
    assert "vector, instead of temperature" in (tmp_path / "reports" / "compare" / "report.html").read_text()
    assert out.splitlines()[0].startswith("conv4")
    assert json.loads((tmp_path / "metrics" / "PublicTest.json").read_text())["models"][0]["name"] == "conv4"
    assert "pairs differ in accuracy by more than noise" in out
    values = json.loads((tmp_path / "reports" / "compare" / "comparison.json").read_text())
    assert [m["name"] for m in values["models"]] == ["conv4", "lenet", DEFAULT_MODEL]
    assert values["models"][0]["claim"]["metrics"]["accuracy"] == 0.518
    calibrations = [tuple(m["calibration"].values()) for m in values["models"]]  # of the model, of the comparison
    assert calibrations == [("temperature", "vector"), (None, None), ("vector", "vector")]
    assert values["models"][0]["metrics"]["all"]["log_loss"] < values["models"][0]["own"]["log_loss"]
    assert values["models"][2]["int8_bytes"] > 1_000_000
    assert values["common"]["n"] == 180
    assert values["provenance"]["data_sha256"] == faces.sha256


def test_on_private_test_a_new_calibration_is_a_new_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OFFICIAL_COUNTS, Split.PRIVATE_TEST, (10,) * 7)
    data = draw(tmp_path / "drawn", (7, 70, 70))
    faces, ledger = load_test_set(data, SEVEN), Ledger(tmp_path / "looks.json")
    places = [record(tmp_path, faces, name, 0.5) for name in ("conv4", "conv4-tuned")]
    for place, scale in zip(places, ([1.0] * 6 + [2.0], [1.0] * 7), strict=True):
        calibrate_record(place, scale, select_rows(faces, SEVEN, Split.PRIVATE_TEST).faces.rows.numpy())
    names = [str(place) for place in places]
    replace(ledger, again="of another day").add([recorded_answers(place) for place in places], faces.sha256)
    with pytest.raises(
        DataError, match=r"looked at 2 times.*new answers of .*conv4-tuned.*; compare each with its own"
    ):
        load_entries(names, data, Split.PRIVATE_TEST, ledger=ledger)
    own = load_entries(names, data, Split.PRIVATE_TEST, ledger=ledger, own_calibration=True)
    assert [entry.own for entry in own.entries] == [None, None]
    assert "conv4 (vector), conv4-tuned (temperature)" in _calibration_notes(own.entries)[0]
    assert len(ledger.entries()) == 2
    allowed = replace(ledger, again="calibrated alike")
    found = load_entries(names, data, Split.PRIVATE_TEST, ledger=allowed).entries
    assert (found[0].own, found[1].calibration) == (None, "temperature")
    assert [entry["why"] for entry in ledger.entries()][-1] == "calibrated alike"
    assert (found[1].predictions.probs[:, 3] < own.entries[1].predictions.probs[:, 3]).all()


def test_seeds_below_a_folder_are_all_taken(run, faces: FaceSet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for seed in (0, 1):
        record(tmp_path, faces, "conv4", 0.7, seed=seed)
    status, _, err = run("results/conv4", "--no-latency", "--out", "out")
    assert status == 0, err
    values = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert values["seeds"]["conv4"]["n"] == 2
    assert "Over seeds" in (tmp_path / "out" / "report.html").read_text()
    assert foreign_files(tmp_path / "out") == []


def test_a_family_becomes_a_study(run, faces: FaceSet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shares = {"vgg16-48-three-sgd": 0.5, "vgg16-48-three-adam": 0.9, "vgg19-48-three-sgd": 0.5}
    for member, share in (shares | {"vgg16-48-six-sgd": 0.5}).items():
        record(tmp_path, faces, f"{FAMILY}/{member}", share)
    unfinished = tmp_path / "runs" / FAMILY / "resnet50-48-six-sgd" / "seed-0"
    unfinished.mkdir(parents=True)
    (unfinished / "checkpoint.pt").write_bytes(b"")
    status, out, err = run("--grid", FAMILY, "--no-latency", "--out", "out", "--keep", "results/studies")
    assert status == 0, err
    assert "optimiser: sgd over adam -" in out
    assert f"missing {FAMILY}/vgg19-48-six-adam: not trained: mien train {FAMILY}/vgg19-48-six-adam" in out
    assert f"missing {FAMILY}/resnet50-48-six-sgd: begun, not finished" in out
    study = json.loads((tmp_path / "out" / "comparison.json").read_text())["study"]
    assert len(study["settings"]) == 4
    assert len(study["missing"]) == 8
    assert [each["agrees_with_voters"] for each in study["settings"]] == [None] * 4  # a set without votes
    assert [each["milliseconds"] for each in study["settings"]] == [None] * 4  # --no-latency
    (optimiser,) = [
        e
        for e in study["effects_on_shared_faces"]
        if e["axis"] == "optimiser" and e["metric"] == "accuracy" and e["within"] is None
    ]
    assert (optimiser["matched"], optimiser["interval"][1] < 0) == (1, True)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What each factor does" in page
    assert "fear as happy" in page
    text = docs_results.page(tmp_path / "results", cards=False)
    assert f"## Study `{FAMILY}`\n\n4 settings, evaluated on " in text
    assert "| optimiser: sgd over adam | **-" in text
    assert "| vgg16-48 | three | adam | 9" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--grid", "vgg-vs-resnt"), "unknown recipe 'vgg-vs-resnt'; did you mean 'vgg-vs-resnet'?"),
        (("--grid", "conv4"), "conv4 is no family"),
        (("--grid", FAMILY), "of its 12 members none is finished; a study needs two: mien train vgg-vs-resnet/vgg16"),
        (("--grid", FAMILY, "mien-0"), "--grid finds its runs itself"),
        (("mien-0",), "needs two models, and there is mien-0"),
        (("mien-0", "mien-0"), "mien-0: named twice"),
        (("mien-0", "begun"), "begun/seed-0: the run is not finished"),
        (("mien-0", "metrics-only"), "metrics-only: has metrics but no predictions"),
        (("mien-0", "mein-0"), "did you mean 'mien-0'?"),
        (("mien-0", "results/conv4", "--split", "PublicTst"), "did you mean 'PublicTest'?"),
        (("mien-0", "results/conv4", "--split", "all"), "has predictions of single splits only"),
        (("results/conv4", "mien-0", "--split", "PrivateTest"), "PrivateTest was not evaluated"),
        (("mien-0", "results/other-data"), "its predictions belong to other faces than"),
    ],
)
def test_what_is_wrong_is_one_line(run, bench: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(bench, tmp_path, dirs_exist_ok=True)
    status, out, err = run(*words, "--no-latency", "--out", "out")
    assert status == 2
    assert message in err
    assert [line for line in err.splitlines() if line != "predictions"] == [err.splitlines()[-1]]
    assert out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda probs: np.zeros_like(probs), "210 rows do not, the first (number 0) sums to 0.0000"),
        (lambda probs: np.where(np.arange(len(probs))[:, None] == 5, np.nan, probs), "1 rows do not, the first"),
        (lambda probs: probs[:, :6], "probabilities have shape [210, 6], not [210, 7]"),
        (lambda probs: probs[:-1], "probabilities have shape [209, 7], not [210, 7]"),
    ],
)
def test_recorded_values_that_are_no_probabilities(run, bench: Path, tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(bench, tmp_path, dirs_exist_ok=True)
    place = tmp_path / "results" / "conv4" / "seed-0"
    with np.load(place / "predictions.npz") as file:
        rows, probs = file["public_rows"], file["public_probs"]
    np.savez(place / "predictions.npz", public_rows=rows, public_probs=change(probs))
    status, _, err = run("results/conv4", "mien-0", "--no-latency", "--out", "out")
    assert status == 2
    assert message in err
    assert "predictions.npz" in err
    assert [line for line in err.splitlines() if line != "predictions"] == [err.splitlines()[-1]]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_reported_before_the_work(run, faces: FaceSet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    record(tmp_path, faces, "conv4", 0.7)
    (tmp_path / "file").write_text("here already")
    status, _, err = run("results/conv4", "no-such-model", "--out", "file")
    assert (status, err) == (2, "mien: file: is a file; name a folder to write to\n")
    assert (tmp_path / "file").read_text() == "here already"


def test_a_report_is_no_run(run, faces: FaceSet, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    place = record(tmp_path, faces, "conv4", 0.7)
    (place / "metrics.json").write_text(json.dumps({"model": "conv4", "about": {}}))
    status, _, err = run("results/conv4", "mien-0", "--no-latency")
    assert status == 2
    assert "is the report of an evaluation, not a run" in err


def test_faces_of_an_emotion_that_no_model_knows_are_accounted_for(  # type: ignore[no-untyped-def]
    run, folder: Path, tmp_path: Path
) -> None:
    for label in ("happy", "sad"):
        shutil.copytree(folder / "val" / label, tmp_path / "own" / label)
    shutil.copytree(folder / "val" / "fear", tmp_path / "own" / "contempt")
    status, _, err = run(
        "mien-0",
        str(BUNDLED / "mien-0" / "model-fp32.onnx"),
        "--data",
        "own",
        "--split",
        "all",
        "--no-latency",
        "--out",
        "out",
    )
    assert status == 0, err
    values = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert values["common"]["n"] == 60
    assert {tuple(m["left_out"].items()) for m in values["models"]} == {
        (("contempt: not among the model's classes", 30),)
    }
