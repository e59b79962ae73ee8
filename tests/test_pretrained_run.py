"""A run that starts from a finished one: what is taken over, and how far it is drawn back to it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mien._emotions import CLASS_SETS
from mien._errors import DataError
from mien.lab import checkpoint
from mien.lab import recipe as recipes
from mien.lab.pretrained import blend, start
from mien.lab.recipe import Data, NetChoice, Recipe
from mien.lab.train.run import build, open_run


def with_net(name: str, weights: str, classes: str = "seven", **options: object) -> Recipe:
    return replace(recipes.load("conv4"), data=Data(classes=classes), net=NetChoice(name, options, weights))


def finished(folder: Path, recipe: Recipe, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state = build(recipe).state_dict()
    checkpoint.save(folder / "final.pt", {"recipe": recipes.dump(recipe), "net": state})
    return state


@pytest.mark.parametrize("classes", CLASS_SETS)
def test_a_run_can_start_from_a_finished_one(tmp_path: Path, classes: str) -> None:
    """The features always; the head with the same classes, but of other ones a row means another emotion."""
    state = finished(tmp_path / "old", with_net("lenet", "", norm=True), seed=1)
    recipe = with_net("lenet", str(tmp_path / "old"), classes, norm=True)
    weights = torch.ones(len(CLASS_SETS[classes]))
    net = open_run(recipe, tmp_path / "new", torch.device("cpu"), weights).net.state_dict()
    same = {name for name, value in net.items() if torch.equal(value, state[name])}
    assert {name for name in net if name.startswith("features.")} <= same
    assert ("head.layers.0.weight" in same) == (classes == "seven")


def test_of_a_head_with_other_layers_what_fits_is_taken(tmp_path: Path) -> None:
    state = finished(tmp_path, with_net("conv4", ""), seed=1)
    recipe = with_net("conv4", str(tmp_path), hidden=(512, 64))
    net = build(recipe)
    start(net, recipe)
    assert torch.equal(net.head.layers[0].weight, state["head.layers.0.weight"])
    assert net.head.layers[3].weight.shape == (64, 512)


@pytest.mark.parametrize("classes", ["seven", "eight"])
def test_a_net_is_drawn_towards_its_beginning(tmp_path: Path, classes: str) -> None:
    first = finished(tmp_path, with_net("lenet", "", norm=True), seed=1)
    recipe = with_net("lenet", str(tmp_path), classes, norm=True)
    recipe = replace(recipe, net=replace(recipe.net, stay=0.25))
    net = build(recipe)
    learned = {name: value.clone() for name, value in net.state_dict().items()}
    mixed = blend(learned, net, recipe)
    assert list(mixed) == list(learned)
    for name, value in mixed.items():
        begun = name.startswith("features.") or classes == "seven"  # the head of other classes had no beginning
        drawn = 0.75 * learned[name] + 0.25 * first[name] if begun and value.is_floating_point() else learned[name]
        torch.testing.assert_close(value, drawn)


def test_a_run_of_another_net_or_none_is_refused(tmp_path: Path) -> None:
    finished(tmp_path, with_net("conv4", ""), seed=1)
    recipe = with_net("lenet", str(tmp_path))
    with pytest.raises(DataError, match=r"\(conv4\) does not fit the net: 0\.0\.weight"):
        start(build(recipe), recipe)
    recipe = with_net("lenet", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no such file; train the run first"):
        start(build(recipe), recipe)
