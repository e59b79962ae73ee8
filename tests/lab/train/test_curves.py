"""Training curves: complete files, small, with the right marks."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien._errors import OutputError
from mien.lab import recipe as recipes
from mien.lab.recipe import Recipe
from mien.lab.train.curves import draw_curves
from mien.lab.train.logging import EpochRecord

PHASES = """
name = "phased"
about = "Two phases and a fallback."
checkpoint = "best"
[train]
schedule = "plateau"
fallback = { optimizer = "sgd" }
epochs = 6
[[phases]]
name = "head alone"
[[phases]]
name = "everything"
"""


def record(epoch: int, split: str = "public", **more: object) -> EpochRecord:
    better = 1 - 1 / (1 + epoch)
    metrics = {"epoch": epoch, "loss": 2 - better, "accuracy": better, "lr": 0.1 / epoch, "seconds": 1.5}
    validation = {"val_split": split, "val_accuracy": better - 0.1, "val_log_loss": 2.1 - better}
    return EpochRecord(**{**metrics, **validation, **more})


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def has_hue(image: np.ndarray, hue: tuple[int, int, int]) -> bool:
    return bool((np.abs(image - hue).sum(axis=2) < 12).sum() > 20)


@pytest.fixture
def phased(tmp_path: Path) -> Recipe:
    path = tmp_path / "phased.toml"
    path.write_text(PHASES)
    return recipes.load(str(path))


def test_training_and_validation_are_drawn_on_a_light_background(tmp_path: Path) -> None:
    draw_curves(recipes.load("mien-0"), [record(epoch) for epoch in range(1, 6)], tmp_path / "curves.png")
    image = pixels(tmp_path / "curves.png")
    assert np.median(image) == 255
    assert has_hue(image, (230, 159, 0))
    assert has_hue(image, (0, 114, 178))
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_phases_and_the_fallback_are_marked(phased: Recipe, tmp_path: Path) -> None:
    plain = [record(epoch) for epoch in range(1, 11)]
    marked = [replace(r, fallback="sgd") if r.epoch == 4 else r for r in plain]
    draw_curves(phased, plain, tmp_path / "plain.png")
    draw_curves(phased, marked, tmp_path / "marked.png")
    band, line = (241, 244, 248), (213, 94, 0)
    assert has_hue(pixels(tmp_path / "plain.png"), band)
    assert not has_hue(pixels(tmp_path / "plain.png"), line)
    assert has_hue(pixels(tmp_path / "marked.png"), line)


@pytest.mark.parametrize(
    "history",
    [
        [record(1)],
        [record(1, "fold"), record(2, "fold")],
        [EpochRecord(epoch=1, loss=1.0, accuracy=0.2, lr=0.1, seconds=1.0)],
        [record(1), record(2, loss=math.nan, accuracy=0.1), record(3)],
    ],
    ids=["one epoch", "folds", "nothing to validate on", "a loss that is not a number"],
)
def test_every_valid_log_can_be_drawn(history: list[EpochRecord], tmp_path: Path) -> None:
    draw_curves(recipes.load("mien-0"), history, tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").std() > 5


def test_the_line_connects_validated_epochs(tmp_path: Path) -> None:
    validated = [record(epoch) for epoch in range(1, 61)]
    some = [
        r if r.epoch % 3 == 0 else EpochRecord(epoch=r.epoch, loss=r.loss, accuracy=r.accuracy, lr=r.lr)
        for r in validated
    ]
    for name, history in (("all", validated), ("some", some)):
        draw_curves(recipes.load("mien-0"), history, tmp_path / f"{name}.png")
    blue = [np.abs(pixels(tmp_path / f"{name}.png") - (0, 114, 178)).sum(axis=2) < 12 for name in ("all", "some")]
    assert blue[1].sum() > 0.9 * blue[0].sum()


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"curves\.png: cannot be written"):
        draw_curves(recipes.load("mien-0"), [record(1)], tmp_path / "file" / "curves.png")
