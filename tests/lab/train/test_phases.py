"""Runs with phases: fallbacks, best epoch, resumption to the bit, freezing, accumulation, clipping, averages."""

import dataclasses
import json
import math
import resource
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mien._errors import DataError, DivergedError, OutputError, RecipeError
from mien.commands._progress import epoch_line
from mien.lab.data import FaceSet
from mien.lab.files import load_state
from mien.lab.inference import predict
from mien.lab.recipe import Recipe
from mien.lab.train.devices import Devices
from mien.lab.train.logging import EpochRecord, epoch_of_result, read_log
from mien.lab.train.loop import fit
from mien.lab.train.losses import Objective
from mien.lab.train.run import build_net, load_final
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import same, tiny

CPU = Devices("cpu")
STILL = {
    "lr": 1e-12,
    "ema_decay": 0.0,
    "schedule": "plateau",
    "patience": 0,
    "factor": 0.5,
    "min_lr_factor": 0.9,
    "warmup": 0.0,
}
TO_SGD = {"optimizer": "sgd", "lr": 0.05, "schedule": "cosine"}
EXPLODES = {"lr": 1e30, "schedule": "plateau", "warmup": 0.0}

# Every way in which a run can be in the middle of something.
RUNS = {
    "one phase": tiny(train={"schedule": "one-cycle", "optimizer": "adam", "lr": 0.01}),
    "plateau": tiny(train={"schedule": "plateau", "patience": 0, "lr": 1e-4, "warmup": 0.0, "epochs": 4}),
    "phases": tiny(
        phases=[
            {"freeze": ["features"], "dropout": 0.5, "train": {"epochs": 2, "optimizer": "adamw", "lr": 0.01}},
            {"freeze": ["features.0", "features.1"], "train": {"epochs": 1, "batch_size": 56, "ema_decay": 0.5}},
            {"train": {"epochs": 2, "clip_grad": 0.5, "accumulate_steps": 2}},
        ],
        checkpoint="best",
    ),
    "another size first": tiny(phases=[{"size": 24, "train": {"epochs": 2}}, {"train": {"epochs": 1}}]),
    "fallback from a plateau": tiny(
        options={"norm": False, "dropout": 0.0}, train={"optimizer": "adam", "epochs": 6, **STILL, "fallback": TO_SGD}
    ),
    "fallback from a loss that is no number": tiny(
        phases=[{"train": {"epochs": 2}}, {"train": {"epochs": 3, **EXPLODES, "fallback": TO_SGD}}],
    ),
    "fallback in the last epoch of a phase": tiny(
        phases=[
            {"train": {"epochs": 1}},
            {"train": {"epochs": 1, **EXPLODES, "fallback": TO_SGD}},
            {"train": {"epochs": 1, "optimizer": "adam", "lr": 1e-3}},
        ],
    ),
}


class Killed(BaseException):
    """As sudden as kill -9: nothing is written on its way."""


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set()


@pytest.fixture
def always_save(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.lab.train.loop.SAVE_EVERY", 0.0)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_final(folder).net.state_dict()


def history(folder: Path) -> list[dict[str, str]]:
    timed = ("seconds", "images_per_second")
    return [{key: repr(x) for key, x in asdict(r).items() if key not in timed} for r in load_final(folder).history]


@pytest.mark.usefixtures("always_save")
@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_after_every_epoch_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    faces = cartoon_set(per_split=(84, 28, 0))

    def kill(_: EpochRecord) -> None:
        raise Killed

    assert fit(RUNS[name], faces, tmp_path / "whole", devices=CPU)
    for _ in history(tmp_path / "whole"):
        with pytest.raises(Killed):
            fit(RUNS[name], faces, tmp_path / "parts", devices=CPU, on_epoch=kill)
    assert fit(RUNS[name], faces, tmp_path / "parts", devices=CPU, on_epoch=kill)
    assert history(tmp_path / "whole") == history(tmp_path / "parts")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert not any(w.isnan().any() for w in weights(tmp_path / "whole").values())


@pytest.mark.usefixtures("always_save")
def test_a_kill_between_any_two_files_loses_nothing(
    faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, replace, written = tiny(train={"epochs": 2}), Path.replace, 0

    def kill(temporary: Path, path: Path) -> Path:
        nonlocal written
        written += 1
        if written in (3, 5, 7):  # after the log and before the checkpoint, and so on: each is tried again
            raise Killed
        return replace(temporary, path)

    assert fit(recipe, faces, tmp_path / "whole", devices=CPU)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", kill)
        for _ in range(3):
            with pytest.raises(Killed):
                fit(recipe, faces, tmp_path / "parts", devices=CPU)
        assert fit(recipe, faces, tmp_path / "parts", devices=CPU)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    names = {path.name for path in (tmp_path / "parts").iterdir()}
    assert names == {"checkpoint.pt", "checkpoint-previous.pt", "final.pt", "log.jsonl", "recipe.json"}


def test_sgd_takes_over_after_a_plateau(faces: FaceSet, tmp_path: Path) -> None:
    assert fit(RUNS["fallback from a plateau"], faces, tmp_path, devices=CPU)
    records = load_final(tmp_path).history
    assert [record.fallback for record in records] == ["", "", "sgd", "", "", ""]
    assert max(record.lr for record in records[:3]) == 1e-12
    assert 0.035 < records[3].lr < 0.05
    assert records[-1].lr < 0.002  # a whole cosine in the epochs that are left
    assert records[-1].loss < records[0].loss


def test_a_phase_trains_on_faces_of_its_size(faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, original = [], Objective.forward
    monkeypatch.setattr(
        Objective, "forward", lambda self, x, *rest: (seen.append(x.shape[-1]), original(self, x, *rest))[1]
    )
    assert fit(RUNS["another size first"], faces, tmp_path, devices=CPU)
    steps = len(seen) // 3
    assert seen == [24] * 2 * steps + [16] * steps
    records = read_log(tmp_path)
    assert [record.size for record in records] == [24, 24, 0]
    assert " at 24 px  PublicTest " in epoch_line(records[0])
    assert " px" not in epoch_line(records[2])  # the size of the validation faces


@pytest.mark.parametrize(
    ("size", "message"),
    [(4, "phase 'first': size is at least 8, or 0 for data.size, not 4"), (8, "takes no faces of a phase's size=8")],
)
def test_an_impossible_size_is_refused(size: int, message: str, faces: FaceSet, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        fit(tiny(phases=[{"name": "first", "size": size}]), faces, tmp_path / "run", devices=CPU)


def test_after_a_nan_loss_the_run_returns_to_the_best_epoch(faces: FaceSet, tmp_path: Path) -> None:
    assert fit(RUNS["fallback from a loss that is no number"], faces, tmp_path, devices=CPU)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[2]["loss"] is None  # JSON has no NaN
    assert [line.get("fallback") for line in lines] == [None, None, "sgd", None, None]
    assert all(line["loss"] < 3 for line in lines[3:])


def test_after_a_nan_loss_in_the_last_epoch_the_best_epoch_is_the_result(faces: FaceSet, tmp_path: Path) -> None:
    phases = [{"train": {"epochs": 2}}, {"train": {"epochs": 1, **EXPLODES, "fallback": TO_SGD}}]
    assert fit(tiny(phases=phases), faces, tmp_path / "falls", devices=CPU)
    best = max(record.val_accuracy for record in load_final(tmp_path / "falls").history)
    assert accuracy(tmp_path / "falls", faces) == pytest.approx(best)
    said = epoch_of_result(tiny(phases=phases), read_log(tmp_path / "falls"))
    assert said.val_accuracy == best
    assert said.epoch == load_state(tmp_path / "falls" / "final.pt")["epoch"] < 3


def accuracy(folder: Path, faces: FaceSet) -> float:
    public = faces.select(faces.usage == 1)
    with torch.no_grad():
        right = predict(load_final(folder).net, public.images, 16).argmax(1) == public.labels
    return float(right.float().mean())


def test_the_best_epoch_is_the_result_if_the_recipe_says_so(faces: FaceSet, tmp_path: Path) -> None:
    spoils = {"epochs": 2, "lr": 2.0, "ema_decay": 0.0, "warmup": 0.0, "schedule": "constant"}
    learns = {"epochs": 6, "optimizer": "adam", "lr": 0.01}
    recipe = tiny(phases=[{"train": learns}, {"train": spoils}], checkpoint="best", augment={"flip": 0.0})
    assert fit(recipe, faces, tmp_path, devices=CPU)
    found = [record.val_accuracy for record in load_final(tmp_path).history]
    assert found[-1] < max(found)
    assert accuracy(tmp_path, faces) == pytest.approx(max(found))
    assert load_state(tmp_path / "final.pt")["epoch"] == found.index(max(found)) + 1


@pytest.fixture
def full_disk() -> Iterator[Any]:
    """A function after which no file can grow beyond a kilobyte: the system's own limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("always_save")
def test_a_full_disk_keeps_the_last_good_checkpoint(faces: FaceSet, tmp_path: Path, full_disk: Any) -> None:
    recipe, limits = tiny(), resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(record: EpochRecord) -> None:
        if record.epoch == 1:
            full_disk()

    with pytest.raises(OutputError, match="cannot be written"):
        fit(recipe, faces, tmp_path / "full", devices=CPU, on_epoch=fill)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load_state(tmp_path / "full" / "checkpoint.pt")["epoch"] == 1
    assert not list((tmp_path / "full").glob(".*"))
    assert fit(recipe, faces, tmp_path / "full", devices=CPU)
    assert fit(recipe, faces, tmp_path / "whole", devices=CPU)
    assert same(weights(tmp_path / "full"), weights(tmp_path / "whole"))


def test_a_final_that_was_removed_is_written_again_and_other_faces_are_refused(faces: FaceSet, tmp_path: Path) -> None:
    assert fit(tiny(checkpoint="best"), faces, tmp_path, devices=CPU)
    before = weights(tmp_path)
    (tmp_path / "final.pt").unlink()
    assert fit(tiny(checkpoint="best"), faces, tmp_path, devices=CPU)
    assert same(before, weights(tmp_path))
    with pytest.raises(DataError, match="run on other faces"):
        fit(tiny(checkpoint="best"), dataclasses.replace(faces, sha256="1" * 64), tmp_path, devices=CPU)


def test_a_setting_that_needs_validation_is_refused_without(faces: FaceSet, tmp_path: Path) -> None:
    training: FaceSet = faces.select(faces.usage == 0)
    needs: list[Recipe] = [tiny(checkpoint="best"), RUNS["plateau"]]
    for recipe in needs:
        with pytest.raises(DataError, match="no faces to validate on"):
            fit(recipe, training, tmp_path, devices=CPU)
    assert fit(tiny(), training, tmp_path, devices=CPU)


@pytest.mark.parametrize("decay", [0.0, 1e30], ids=["the loss", "the weights alone"])
def test_divergence_keeps_the_epochs_before(decay: float, faces: FaceSet, tmp_path: Path) -> None:
    # With one step an epoch, the loss of that step still is a number.
    diverges = {"epochs": 2, "lr": 1e30, "weight_decay": decay, "batch_size": 196 if decay else 28, "warmup": 0.0}
    recipe = tiny(phases=[{"train": {"epochs": 2}}, {"train": diverges}])
    with pytest.raises(DivergedError, match=r"in epoch 3; lower train\.lr"):
        fit(recipe, faces, tmp_path, devices=CPU)
    state = load_state(tmp_path / "checkpoint.pt")
    assert state["epoch"] == 2
    assert all(value.isfinite().all() for value in state["objective"].values())


def test_frozen_modules_do_not_change(faces: FaceSet, tmp_path: Path) -> None:
    assert fit(tiny(phases=[{"freeze": ["features"]}]), faces, tmp_path, devices=CPU)
    torch.manual_seed(0)
    before, after = build_net(tiny()).state_dict(), weights(tmp_path)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("head.")}


def test_a_batch_in_parts_is_the_whole_batch(faces: FaceSet, tmp_path: Path) -> None:
    for parts in (1, 4):
        recipe = tiny(options={"norm": False, "dropout": 0.0}, train={"accumulate_steps": parts, "clip_grad": 1.0})
        assert fit(recipe, faces, tmp_path / str(parts), devices=CPU)
    whole, parts_of_it = weights(tmp_path / "1"), weights(tmp_path / "4")
    assert all(torch.allclose(whole[name], parts_of_it[name], atol=1e-5) for name in whole)
    assert not same(whole, parts_of_it)  # the parts were really computed on their own


def test_gradients_are_clipped(faces: FaceSet, tmp_path: Path) -> None:
    clipped = {"clip_grad": 1e-6, "momentum": 0.0, "lr": 1.0, "weight_decay": 0.0, "ema_decay": 0.0}
    recipe = tiny(options={"norm": False}, train={**clipped, "schedule": "constant", "warmup": 0.0, "epochs": 1})
    assert fit(recipe, faces, tmp_path, devices=CPU)
    torch.manual_seed(0)
    before, after = build_net(recipe).state_dict(), weights(tmp_path)
    moved = math.sqrt(sum(float((after[name] - before[name]).double().square().sum()) for name in before))
    assert 1e-6 < moved < 7 * 1e-6 * 1.05  # seven steps, whose directions agree in part


def test_the_average_continues_through_the_phases(faces: FaceSet, tmp_path: Path) -> None:
    phases = [{"train": {"epochs": 1}}, {"train": {"epochs": 1, "batch_size": 49}}]
    assert fit(tiny(phases=phases), faces, tmp_path / "runs", devices=CPU)
    assert load_state(tmp_path / "runs" / "checkpoint.pt")["steps"] == 196 // 28 + 196 // 49
    assert fit(
        tiny(phases=[*phases, {"train": {"epochs": 1, "ema_decay": 0.0}}]), faces, tmp_path / "ends", devices=CPU
    )
    state = load_state(tmp_path / "ends" / "checkpoint.pt")
    learned = {name.removeprefix("net."): value for name, value in state["objective"].items()}
    assert same(learned, state["ema"])
