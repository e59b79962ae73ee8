"""Muon against torch's Muon for matrices, and against torch's SGD for other parameters."""

import pytest
import torch
from torch import Tensor, nn

from mien.lab.recipe import TrainConfig
from mien.lab.train.optim import Muon, build_optimizer, orthogonalize
from mien.lab.train.run import build_net
from support.tiny_recipe import tiny


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (32, 32), (1, 9)])
def test_all_singular_values_become_alike(shape: tuple[int, int]) -> None:
    matrix = noise(*shape) * torch.logspace(0, -1, shape[1])  # some directions ten times as large as others
    near = orthogonalize(matrix)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ near @ v.T  # diagonal, where the singular vectors are those of the matrix
    assert near.dtype is torch.float32
    assert torch.linalg.svdvals(near).min() > 0.5
    assert torch.linalg.svdvals(near).max() < 1.25
    assert (inside - inside.diagonal().diag()).abs().max() < 0.05


@pytest.mark.parametrize(("instructions", "digits"), [({}, 1e-5), ({"avx512_bf16": True}, 0.05)])
def test_bfloat16_is_used_where_the_processor_has_it(
    instructions: dict[str, bool], digits: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    matrix = noise(16, 144)
    exact = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = exact @ exact.T
        exact = 3.4445 * exact + (-4.7750 * gram + 2.0315 * gram @ gram) @ exact
    error = float((orthogonalize(matrix) - exact).abs().max())
    assert digits / 1000 < error < digits


def test_no_gradient_is_no_step() -> None:
    assert not orthogonalize(torch.zeros(4, 9)).any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_moves_as_torchs_muon_moves_its_matrix(layout: torch.memory_format) -> None:
    ours = nn.Parameter(noise(8, 4, 3, 3).to(memory_format=layout))
    theirs = nn.Parameter(ours.detach().contiguous().flatten(1).clone())
    choice = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    mine, torchs = Muon([ours], **choice), torch.optim.Muon([theirs], **choice, nesterov=True)
    for step in range(1, 6):
        gradient = noise(8, 4, 3, 3, seed=step)
        ours.grad, theirs.grad = gradient.to(memory_format=layout), gradient.flatten(1)
        mine.step()
        torchs.step()
    assert ours.is_contiguous(memory_format=layout)
    assert torch.allclose(ours.flatten(1), theirs, atol=4e-3)  # bfloat16, summed in another order


@pytest.mark.parametrize("shape", [(8,), (7, 8)])
def test_all_else_moves_as_under_sgd(shape: tuple[int, ...]) -> None:
    ours, theirs = nn.Parameter(noise(*shape)), nn.Parameter(noise(*shape))
    choice = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    mine, torchs = Muon([ours], **choice), torch.optim.SGD([theirs], **choice, nesterov=True)
    for step in range(1, 6):
        ours.grad, theirs.grad = noise(*shape, seed=step), noise(*shape, seed=step)
        mine.step()
        torchs.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_recipe_that_asks_for_muon_gets_it_with_its_momentum_and_decay() -> None:
    optimiser = build_optimizer(
        build_net(tiny()), TrainConfig(optimizer="muon", lr=0.02, momentum=0.8, weight_decay=0.01)
    )
    assert isinstance(optimiser, Muon)
    groups = {group["weight_decay"]: group for group in optimiser.param_groups}
    assert set(groups) == {0.0, 0.01}
    assert all(group["momentum"] == 0.8 for group in groups.values())
    assert all(parameter.ndim == 1 for parameter in groups[0.0]["params"])
