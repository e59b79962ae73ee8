"""The card of a user's own export: every sentence is true of its own run and data."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien.lab import recipe as recipes
from mien.lab.data.datasets import load_set
from mien.lab.export.card import card_markdown
from mien.lab.export.release import export_model
from mien.lab.provenance import provenance
from mien.lab.recipe import Recipe
from mien.lab.train.loop import fit
from mien.lab.train.run import load_final
from support.custom_datasets import Draw, fill
from support.short_runs import CPU, ONE_BLOCK

pytestmark = pytest.mark.usefixtures("fast_exports")

OWN = ["data.classes=happy,sad,surprise", "data.size=16", "train.epochs=1", "train.batch_size=12"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_face: Draw) -> Path:
    """Faces of three emotions, one of which is not among the validation faces; one image is damaged."""
    folder = tmp_path_factory.mktemp("own") / "my_faces"
    fill(folder / "train", ["happy", "sad", "surprise"], draw_face, count=12)
    fill(folder / "val", ["happy", "sad"], draw_face, count=6, seed=9000)
    (folder / "train" / "sad" / "cut.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """The shipped recipe with changes, trained for an epoch on own faces and exported."""
    out = tmp_path_factory.mktemp("exported")
    recipe = recipes.load("mien-0", [*ONE_BLOCK, *OWN, "train.precision=32-true", "data.skip_unreadable=true"])
    faces = load_set(folder, recipe)
    fit(recipe, faces, out / "run", devices=CPU, provenance=provenance(faces.sha256, faces.note))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mien.lab.export.release.INT8_LOSS", 100)  # of an untrained net
        card = export_model(load_final(out / "run"), faces, out / "model")
    assert set(card["metrics"]) == {"public"}
    assert card["emotions"] == ["happy", "sad", "surprise"]
    assert card["data_note"] == faces.note
    return recipe, out / "model"


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_card_says_only_what_is_true_of_its_run(exported: tuple[Recipe, Path], folder: Path) -> None:
    text = words((exported[1] / "card.md").read_text("utf-8"))
    assert text.startswith("# mien-0 Names one of 3 emotions in a grey face of 16 x 16 pixels.")
    assert "Trained with the recipe `mien-0` of mien, changed: " in text
    for change in ('data.classes = "happy,sad,surprise"', "data.size = 16", "train.epochs = 1", "net.options.stem"):
        assert change in text
    assert "PublicTest calibrated the model and validated the training; PrivateTest was not evaluated." in text
    assert "data: my_faces, sha256" in text
    assert "1 of 49 images is unreadable and left out: my_faces/train/sad/cut.png" in text
    assert "without Training rows copied in a test split" in text
    assert "| surprise | - | " in text
    assert str(folder.parent) not in text
    for untrue in ("first embedded model", "70.7", "H200", "results/", "FER-2013", "with FER+", "choices.md", "`none`"):
        assert untrue not in text, untrue


def test_an_own_recipe_describes_itself(exported: tuple[Recipe, Path]) -> None:
    recipe, card = exported[0], json.loads((exported[1] / "card.json").read_text("utf-8"))
    own = replace(recipe, name="mine", about="Reads the smiles of our actors.", data=replace(recipe.data, folds=3))
    text = words(card_markdown(own, {**card, "name": "mine"}))
    assert text.startswith("# mine Reads the smiles of our actors. Names one of 3 emotions in a grey face of 16 x 16")
    assert "of mien, changed" not in text
    assert "PublicTest calibrated the model; PrivateTest was not evaluated." in text
