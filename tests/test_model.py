"""Whatever reads faces, opened by ``open_model``: names, files, folders and runs, and the rows they are judged on."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import DataError, ModelError
from mien.lab.data import FaceSet, Split
from mien.lab.data.faces import FERPLUS_COLUMNS
from mien.lab.judge.examine import FERPLUS_PROTOCOL, examine, select_rows
from mien.lab.model import Model, open_model
from mien.lab.train.fit import Devices, fit
from support.onnx_models import write_model
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import tiny


def crops(count: int = 5, side: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(56, 28, 14))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, faces: FaceSet) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny" / "seed-0"
    said = {"commit": "abc", "data_sha256": faces.sha256}
    fit(tiny(optimise={"epochs": 1}), faces, folder, devices=Devices("cpu"), provenance=said)
    return folder


def check(model: Model) -> np.ndarray:
    seen = crops(5, model.size)
    probs, _ = model(seen)
    assert probs.dtype == np.float32
    assert probs.shape == (5, len(model.emotions))
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(model(seen[:1])[0], probs[:1], atol=2e-3)  # int8 is scaled by what it reads together
    return probs


def test_the_embedded_model_by_its_name() -> None:
    model = open_model("mien-0")
    check(model)
    assert (model.name, model.emotions, model.trained) == ("mien-0", SEVEN, None)
    assert model.about["precision"] == "int8"
    assert open_model("mien-0", precision="fp32").about["precision"] == "fp32"
    maps = model(crops())[1]
    assert maps is not None
    assert maps.shape[:2] == (5, 7)


def test_a_file_of_the_contract_and_a_folder_that_holds_one(tmp_path: Path) -> None:
    path = write_model(tmp_path / "seed-3" / "model.onnx")
    assert "seed" not in open_model(path).about
    (path.parent / "metrics.json").write_text('{"seed": 3}')
    model = open_model(path.parent)
    np.testing.assert_array_equal(check(model), check(open_model(path)))
    assert model.about["seed"] == "3"


def test_a_run_is_the_torch_net_calibrated_on_its_own_faces_alone(run: Path, faces: FaceSet) -> None:
    plain = open_model(run)
    check(plain)
    assert plain.trained is not None
    assert plain.about["calibration"] == "none: probabilities as trained"
    assert plain.about["commit"] == "abc"
    np.testing.assert_array_equal(check(open_model(run.parent)), check(plain))  # the recipe's folder with one run
    calibrated = open_model(run, faces=faces)
    assert calibrated.about["calibration"].startswith("fitted on PublicTest")
    assert np.abs(check(calibrated) - check(plain)).max() > 1e-4
    other = open_model(run, faces=replace(faces, sha256="1" * 64))
    np.testing.assert_array_equal(check(other), check(plain))


def test_several_runs_of_a_recipe_have_to_be_told_apart(run: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        shutil.copytree(run, tmp_path / f"seed-{seed}")
    with pytest.raises(ModelError, match=r"several runs \(seed-0, seed-1\); name one of them"):
        open_model(tmp_path)


def test_kept_answers_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "answers.npz").write_bytes(b"")
    with pytest.raises(ModelError, match="holds the answers of a run, but no model"):
        open_model(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no int8 file \(model.onnx\); name a folder that holds a model"):
        open_model(tmp_path / "empty")
    with pytest.raises(ModelError, match=r"unknown model 'mien-00'; did you mean 'mien-0'\?"):
        open_model("mien-00")


def test_other_crops_and_other_answers_are_refused(tmp_path: Path) -> None:
    model = open_model(write_model(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"reads crops of uint8 \[N, 48, 48\], not uint8 \[2, 40, 40\]"):
        model(crops(2, 40))
    with pytest.raises(ModelError, match=r"not float64 \[5, 48, 48\]"):
        model(crops().astype(float))  # type: ignore[arg-type]

    def says(probs: np.ndarray) -> Model:
        return Model("wrong", SEVEN, 48, {}, tmp_path, lambda _: (probs, None))

    with pytest.raises(ModelError, match="values that are no numbers"):
        says(np.full((5, 7), np.nan, np.float32))(crops())
    with pytest.raises(ModelError, match=r'no probabilities: .* for logits, say outputs = "logits"'):
        says(np.ones((5, 7), np.float32))(crops())
    with pytest.raises(ModelError, match="a row is negative"):
        says(np.tile(np.float32([2, -1, 0, 0, 0, 0, 0]), (5, 1)))(crops())


def answering(emotions: tuple[Emotion, ...]) -> Model:
    even = 1 / len(emotions)
    return Model("even", emotions, 48, {}, Path(), lambda c: (np.full((len(c), len(emotions)), even, np.float32), None))


def test_every_row_is_judged_or_accounted_for(faces: FaceSet) -> None:
    seven = select_rows(faces, SEVEN, Split.PUBLIC_TEST)
    assert (seven.total, len(seven.faces), seven.account) == (28, 28, {})
    six = tuple(emotion for emotion in SEVEN if emotion is not Emotion.DISGUST)
    chosen = select_rows(faces, six, Split.PUBLIC_TEST)
    assert chosen.account == {"disgust: not among the model's classes": 4}
    assert len(chosen.faces) + sum(chosen.account.values()) == chosen.total
    assert select_rows(faces, SEVEN).total == len(faces)
    answers = examine(answering(six), chosen)
    truth = {row: faces.emotions[label] for row, label in zip(faces.rows.tolist(), faces.labels.tolist(), strict=True)}
    assert [six[label] for label in answers.labels] == [truth[row] for row in answers.rows]


def test_a_model_that_knows_contempt_is_judged_on_the_majority_of_votes(faces: FaceSet) -> None:
    votes = faces.votes.clone()  # type: ignore[union-attr]
    public = np.flatnonzero(faces.usage.numpy() == 1)
    contempt, happiness = FERPLUS_COLUMNS.index("contempt"), FERPLUS_COLUMNS.index("happiness")
    votes[public[0]] = torch.eye(10, dtype=torch.uint8)[contempt] * 10
    votes[public[1]] = (torch.eye(10, dtype=torch.uint8)[contempt] + torch.eye(10, dtype=torch.uint8)[happiness]) * 5
    jpeg = faces.pixels_from_jpeg.clone()  # type: ignore[union-attr]
    jpeg[public[2]] = True
    chosen = select_rows(replace(faces, votes=votes, pixels_from_jpeg=jpeg), CLASS_SETS["eight"], Split.PUBLIC_TEST)
    assert chosen.protocol == FERPLUS_PROTOCOL
    assert chosen.account == {
        "pixels from JPEG, whose votes may be another picture's": 1,
        "no majority of votes for one emotion": 1,
    }
    assert len(chosen.faces) == 26
    assert chosen.faces.emotions[int(chosen.faces.labels[0])] is Emotion.CONTEMPT


def test_where_nothing_can_be_judged_the_set_is_named(faces: FaceSet) -> None:
    with pytest.raises(DataError, match=r"one class alone \(happy\) is left"):
        select_rows(faces.select(faces.labels == SEVEN.index("happy")), SEVEN, Split.PUBLIC_TEST)
    with pytest.raises(DataError, match="cartoons: has no rows in PrivateTest; it has Training, PublicTest"):
        select_rows(faces.select(faces.usage < 2), SEVEN, Split.PRIVATE_TEST)
