"""Ensembles of runs: mean logits, provenance of every member, and use as any other run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mien._errors import DataError, MienError, RecipeError
from mien.commands import app
from mien.lab import nets
from mien.lab import recipe as recipes
from mien.lab.data import FaceSet, Split
from mien.lab.ensemble import combine_runs
from mien.lab.export.calibrate import Calibration
from mien.lab.export.onnx import Contract
from mien.lab.export.release import export_model
from mien.lab.files import load_state, save_state
from mien.lab.inference import predict
from mien.lab.recipe import parse
from mien.lab.record import record_run
from mien.lab.train.devices import Devices
from mien.lab.train.logging import read_log
from mien.lab.train.loop import fit
from mien.lab.train.run import load_final
from support.short_runs import short
from support.synthetic_faces import cartoon_set

pytestmark = pytest.mark.usefixtures("fast_exports")

PLAIN = Calibration(scale=(1.0,) * 7, offset=(0.0,) * 7)


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(70, 14, 7))


@pytest.fixture(scope="module")
def parts(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs whose nets have other widths and depths; the second is stored in half precision."""
    folder = tmp_path_factory.mktemp("parts")
    chosen = [short("train.epochs=6"), short("train.epochs=4", "net.options.widths=[16,16,24]", "seed=1")]
    for recipe, place in zip(chosen, (folder / "first", folder / "second"), strict=True):
        origin = {
            "commit": "c",
            "data_sha256": faces.sha256,
            "machine": "abacus",
            "torch": "2",
            "command": "mien train",
        }
        assert fit(recipe, faces, place, devices=Devices("cpu"), provenance=origin)
    state = load_state(folder / "second" / "final.pt")
    state["net"] = {key: v.half() if v.is_floating_point() else v for key, v in state["net"].items()}
    save_state(folder / "second" / "final.pt", state)
    return [folder / "first", folder / "second"]


@pytest.fixture(scope="module")
def ensemble(parts: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ensemble") / "pair"
    assert combine_runs(parts, out, name="pair").name == "pair"
    return out


def test_its_logits_are_the_mean_of_the_parts_logits(parts: list[Path], ensemble: Path, faces: FaceSet) -> None:
    public = faces.split(Split.PUBLIC_TEST).images
    first, second, both = (predict(load_final(folder).net, public, 48) for folder in (*parts, ensemble))
    torch.testing.assert_close(both, (first + second) / 2, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(first, second, atol=1e-2)


def test_its_maps_are_the_mean_of_the_parts_maps(parts: list[Path], ensemble: Path, faces: FaceSet) -> None:
    crops = faces.split(Split.PUBLIC_TEST).images
    first, second, both = (Contract(load_final(folder).net, PLAIN)(crops)[1] for folder in (*parts, ensemble))
    torch.testing.assert_close(both, (first + second) / 2, rtol=1e-3, atol=1e-3)


def test_it_records_all_members_and_their_total_cost(parts: list[Path], ensemble: Path) -> None:
    trained = load_final(ensemble)
    first, second = (load_final(part) for part in parts)
    assert [record.epoch for record in trained.history] == list(range(1, 11))
    assert [(r.epoch, r.net) for r in trained.history if r.net] == [
        (1, "mien-plain, seed 0"),
        (7, "mien-plain, seed 1"),
    ]
    assert sum(r.seconds for r in trained.history) == pytest.approx(
        sum(r.seconds for part in (first, second) for r in part.history)
    )
    assert [(p["recipe"], p["seed"], p["epochs"], p["machine"]) for p in trained.provenance["parts"]] == [
        ("mien-plain", 0, 6, "abacus"),
        ("mien-plain", 1, 4, "abacus"),
    ]
    assert "the mean of their logits" in trained.recipe.about
    assert parse(json.loads((ensemble / "recipe.json").read_text("utf-8")), where="recipe.json") == trained.recipe
    assert len(read_log(ensemble)) == 10


def test_it_is_recorded_and_exported_as_any_run(ensemble: Path, faces: FaceSet, tmp_path: Path) -> None:
    metrics = record_run(ensemble, faces, tmp_path / "record", int8=False)  # which the export has
    assert metrics["epochs"] == 10
    assert len(metrics["parts"]) == 2
    assert (tmp_path / "record" / "curves.png").stat().st_size > 10_000
    card = export_model(load_final(ensemble), faces, tmp_path / "model")
    assert card["name"] == "pair"
    made = (tmp_path / "model" / "card.md").read_text("utf-8").partition("## How it was made")[2]
    assert "- recipe `mien-plain`, seed 0, 6 epochs" in made
    assert "- recipe `mien-plain`, seed 1, 4 epochs" in made
    assert made.count("on abacus (torch 2), command `mien train` at commit `c`") == 2


def test_an_ensemble_may_be_a_member(parts: list[Path], ensemble: Path, faces: FaceSet, tmp_path: Path) -> None:
    """An ensemble counts as one run."""
    combine_runs([ensemble, parts[0]], tmp_path / "more", name="more")
    public = faces.split(Split.PUBLIC_TEST).images
    pair, first, more = (predict(load_final(f).net, public, 48) for f in (ensemble, parts[0], tmp_path / "more"))
    torch.testing.assert_close(more, (pair + first) / 2, rtol=1e-4, atol=1e-4)


def changed(run: Path, out: Path, **sections: dict[str, object]) -> Path:
    """A copy of the finished run with changes to its recipe."""
    state = load_state(run / "final.pt")
    for section, values in sections.items():
        state["recipe"][section] = {**state["recipe"][section], **values}
    save_state(out / "final.pt", state)
    return out


def test_runs_that_do_not_fit_are_refused_before_anything_is_written(
    parts: list[Path], ensemble: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="needs at least two runs"):
        combine_runs(parts[:1], out, name="one")
    with pytest.raises(DataError, match="pair: holds a run already"):
        combine_runs(parts, ensemble, name="pair")
    with pytest.raises(DataError, match=r"part: \[data\] of its recipe differs from that of"):
        combine_runs([parts[0], changed(parts[1], tmp_path / "part", data={"max_per_class": 3})], out, name="x")
    state = load_state(parts[1] / "final.pt")
    state["provenance"]["data_sha256"] = "1" * 64
    save_state(tmp_path / "others" / "final.pt", state)
    with pytest.raises(DataError, match="others: was trained on other faces than"):
        combine_runs([parts[0], tmp_path / "others"], out, name="x")
    leaky = [changed(part, tmp_path / part.name, data={"expand_first": True, "expand": 0.1}) for part in parts]
    with pytest.raises(DataError, match="first: has learned from validation faces"):
        combine_runs(leaky, out, name="x")
    assert not out.exists()


@pytest.mark.parametrize(
    ("net", "options", "why"),
    [
        ("conv4", {}, "other: conv4 has no pooled linear head"),
        ("mien", {"strides": [1, 1, 2]}, "other: its maps are 24 cells wide, those of .* 6"),
    ],
)
def test_nets_that_do_not_fit_are_refused(
    net: str, options: dict[str, object], why: str, parts: list[Path], tmp_path: Path
) -> None:
    recipe = replace(load_final(parts[0]).recipe, net=recipes.load("mien-plain").net)
    recipe = replace(recipe, net=replace(recipe.net, name=net, options=options))
    weights = nets.build(net, channels=1, classes=7, **options).state_dict()
    origin = load_final(parts[0]).provenance
    state = {"recipe": recipes.dump(recipe), "net": weights, "history": [], "provenance": origin}
    save_state(tmp_path / "other" / "final.pt", state)
    with pytest.raises(DataError, match=why):
        combine_runs([parts[0], tmp_path / "other"], tmp_path / "out", name="x")


def test_ensembles_are_a_net_of_parts_with_pooled_heads() -> None:
    net = nets.build("ensemble", channels=1, classes=7, parts=[{"strides": [1, 2, 2]}, {"name": "resnet", "depth": 18}])
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        net(torch.zeros(1, 1, 48, 48))
    with pytest.raises(RecipeError, match="part 2 has no pooled linear head"):
        nets.build("ensemble", channels=1, classes=7, parts=[{}, {"name": "conv4"}])
    with pytest.raises(RecipeError, match="parts names no net"):
        nets.build("ensemble", channels=1, classes=7, parts=[])
    with pytest.raises(RecipeError, match="no option 'width'; did you mean 'widths'"):
        nets.build("ensemble", channels=1, classes=7, parts=[{"width": 3}])


def test_a_recipe_may_train_an_ensemble_from_random_weights(faces: FaceSet, tmp_path: Path) -> None:
    small = "{stem=16, widths=[16, 16, 16], depths=[1, 1, 1]}"
    recipe = short("net.name=ensemble", "train.epochs=2", f"net.options={{parts=[{small}, {small}]}}")
    assert fit(recipe, faces, tmp_path / "run", devices=Devices("cpu"))
    assert np.isfinite(load_final(tmp_path / "run").history[-1].loss)


def test_the_command_prints_its_result_and_errors_in_one_line(parts: list[Path], tmp_path: Path) -> None:
    words = ["ensemble", *map(str, parts), "--out", str(tmp_path / "both")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("both: 2 nets, ")
    assert "MMAC a face" in done.output
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 2
    assert isinstance(again.exception, SystemExit | MienError)
    assert "holds a run already" in again.stderr
    assert "Traceback" not in again.output
