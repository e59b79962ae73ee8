"""Sharpness-aware steps: their gradients, what they restore, and that a recipe uses them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mien._errors import RecipeError
from mien.lab.recipe import Optimise, check_optimise
from mien.lab.train.devices import Devices
from mien.lab.train.fit import fit
from mien.lab.train.run import load_final
from mien.lab.train.step import take_step, uphill
from mien.lab.train.views import View
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import same, tiny


class Bowl(nn.Module):
    """A loss of ``mean((w x)^2)``, with a batch norm to see what becomes of its statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, -4.0]))
        self.norm = nn.BatchNorm1d(2, affine=False)

    def forward(self, x: Tensor, target: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        self.norm(x)
        return ((self.weight * x) ** 2).mean(), target


def view(count: int) -> View:
    x = torch.ones(count, 2)
    return View(x, torch.eye(2)[torch.arange(count) % 2], torch.zeros(count, 0))


def step(bowl: Bowl, batch: View, choice: Optimise) -> Tensor:
    fabric = Devices("cpu").launch("32-true")
    model, optimiser = fabric.setup(bowl, torch.optim.SGD(bowl.parameters(), lr=0.1))
    return take_step(fabric, model, optimiser, batch, choice)


def test_the_weights_are_moved_along_their_gradients_and_come_back_to_the_bit() -> None:
    bowl = Bowl()
    before = bowl.weight.detach().clone()
    bowl(*view(4))[0].backward()
    assert bowl.weight.grad is not None
    with uphill(bowl, radius=0.5):
        assert torch.allclose(bowl.weight, torch.tensor([3.3, -4.4]))  # uphill is outwards, by 0.5 in all
        assert not bowl.weight.grad.any()
    assert torch.equal(bowl.weight, before)


def test_they_come_back_when_the_training_is_interrupted_uphill() -> None:
    bowl = Bowl()
    bowl(*view(4))[0].backward()
    with pytest.raises(KeyboardInterrupt), uphill(bowl, radius=0.5):
        raise KeyboardInterrupt
    assert torch.equal(bowl.weight, torch.tensor([3.0, -4.0]))
    assert bowl.norm.momentum == 0.1


def test_no_gradient_is_no_climb() -> None:
    bowl = Bowl()
    bowl.weight.grad = torch.zeros(2)
    with uphill(bowl, radius=0.5):
        assert torch.equal(bowl.weight, torch.tensor([3.0, -4.0]))


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_takes_the_gradients_found_uphill(parts: int) -> None:
    bowl = Bowl()
    figures = step(bowl, view(8), Optimise(sharpness=0.5, scouts=0.5, accumulate=parts, batch=8))
    assert torch.allclose(bowl.weight, torch.tensor([3 - 0.33, -4 + 0.44]))  # the gradient is w, here that of 3.3, -4.4
    assert figures[0] == pytest.approx((3.3**2 + 4.4**2) / 2)


def test_batch_norms_learn_from_the_scouts_alone() -> None:
    bowl = Bowl()
    x = view(8)._replace(x=torch.arange(16.0).view(8, 2))
    step(bowl, x, Optimise(sharpness=0.5, scouts=0.25, batch=8))
    assert bowl.norm.running_mean is not None
    assert torch.allclose(bowl.norm.running_mean, 0.1 * x.x[:2].mean(0))


def test_a_recipe_that_asks_for_it_learns_otherwise_and_resumes_to_the_bit(tmp_path: Path) -> None:
    faces, found = cartoon_set(), {}

    def stop(event: dict[str, Any]) -> None:
        if event.get("epoch") == 2:
            raise KeyboardInterrupt

    for name, sharpness in (("plain", 0.0), ("flat", 0.05), ("halted", 0.05)):
        recipe = tiny(optimise={"sharpness": sharpness})
        if name == "halted":
            with pytest.raises(KeyboardInterrupt):
                fit(recipe, faces, tmp_path / name, devices=Devices("cpu"), report=stop)
        assert fit(recipe, faces, tmp_path / name, devices=Devices("cpu"))
        found[name] = load_final(tmp_path / name).net.state_dict()
    assert not same(found["plain"], found["flat"])
    assert same(found["halted"], found["flat"])


@pytest.mark.parametrize("wrong", [{"sharpness": -0.1}, {"scouts": 0.0}, {"scouts": 1.5}])
def test_strengths_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        check_optimise(Optimise(**wrong), "optimise")
