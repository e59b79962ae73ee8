"""The steps of a run: what is frozen, batches in parts, clipping, averages, and losses that are no number."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mien._errors import DivergedError
from mien.lab import checkpoint
from mien.lab.data import FaceSet
from mien.lab.train.fit import Devices, fit
from mien.lab.train.run import build, load_final
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import same, tiny

CPU = Devices("cpu")


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set()


def weights(folder: Path) -> dict[str, Tensor]:
    return load_final(folder).net.state_dict()


@pytest.mark.parametrize("decay", [0.0, 1e30], ids=["the loss", "the weights alone"])
def test_divergence_keeps_the_epochs_before(decay: float, faces: FaceSet, tmp_path: Path) -> None:
    # With one step an epoch, the loss of that step still is a number.
    diverges = {"epochs": 2, "rate": 1e30, "decay": decay, "batch": 196 if decay else 28, "warmup": 0.0}
    recipe = tiny(phases=[{"optimise": {"epochs": 2}}, {"optimise": diverges}])
    with pytest.raises(DivergedError, match=r"in epoch 3; lower optimise\.rate"):
        fit(recipe, faces, tmp_path, devices=CPU)
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    assert state["epoch"] == 2
    assert all(value.isfinite().all() for value in state["objective"].values())


def test_what_is_frozen_stays_as_it_was(faces: FaceSet, tmp_path: Path) -> None:
    assert fit(tiny(phases=[{"freeze": ["features"]}]), faces, tmp_path, devices=CPU)
    torch.manual_seed(0)
    before, after = build(tiny()).state_dict(), weights(tmp_path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("head.")}


def test_a_batch_in_parts_is_the_whole_batch(faces: FaceSet, tmp_path: Path) -> None:
    for parts in (1, 4):
        recipe = tiny(options={"norm": False, "dropout": 0.0}, optimise={"accumulate": parts, "clip": 1.0})
        assert fit(recipe, faces, tmp_path / str(parts), devices=CPU)
    whole, parts_of_it = weights(tmp_path / "1"), weights(tmp_path / "4")
    assert all(torch.allclose(whole[name], parts_of_it[name], atol=1e-5) for name in whole)
    assert not same(whole, parts_of_it)  # the parts were really computed on their own


def test_gradients_are_clipped(faces: FaceSet, tmp_path: Path) -> None:
    clipped = {"clip": 1e-6, "momentum": 0.0, "rate": 1.0, "decay": 0.0, "ema": 0.0}
    recipe = tiny(options={"norm": False}, optimise={**clipped, "schedule": "constant", "warmup": 0.0, "epochs": 1})
    assert fit(recipe, faces, tmp_path, devices=CPU)
    torch.manual_seed(0)
    before, after = build(recipe).state_dict(), weights(tmp_path)
    moved = math.sqrt(sum(float((after[name] - before[name]).double().square().sum()) for name in before))
    assert 1e-6 < moved < 7 * 1e-6 * 1.05  # seven steps, whose directions agree in part


def test_an_average_runs_on_through_the_phases(faces: FaceSet, tmp_path: Path) -> None:
    phases = [{"optimise": {"epochs": 1}}, {"optimise": {"epochs": 1, "batch": 49}}]
    assert fit(tiny(phases=phases), faces, tmp_path / "runs", devices=CPU)
    assert checkpoint.load(tmp_path / "runs" / "checkpoint.pt")["steps"] == 196 // 28 + 196 // 49
    assert fit(tiny(phases=[*phases, {"optimise": {"epochs": 1, "ema": 0.0}}]), faces, tmp_path / "ends", devices=CPU)
    state = checkpoint.load(tmp_path / "ends" / "checkpoint.pt")
    learned = {name.removeprefix("net."): value for name, value in state["objective"].items()}
    assert same(learned, state["average"])
