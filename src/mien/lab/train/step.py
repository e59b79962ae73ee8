"""One step of the optimiser: the gradients of a batch, computed in parts, at the weights or uphill of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # what all batch norms are

from mien.lab.recipe import Optimise
from mien.lab.train.views import View


def take_step(fabric: Fabric, model: Any, optimiser: Any, view: View, choice: Optimise) -> Tensor:
    """Move ``model`` by one step on ``view``; returns mean loss, share of right answers, and if it was clipped.

    With ``choice.sharpness`` the gradients are those of a place uphill, and the loss is the one found there.
    """
    optimiser.zero_grad()
    parts = [View(*part) for part in zip(*(torch.chunk(column, choice.accumulate) for column in view), strict=True)]
    if choice.sharpness > 0:
        scouts = max(2, round(choice.scouts * len(parts[0].x)))  # two: a batch norm's fewest
        loss, _ = model(*(column[:scouts] for column in parts[0]))
        fabric.backward(loss)
        with uphill(model, choice.sharpness):
            figures = _gradients(fabric, model, parts)
    else:
        figures = _gradients(fabric, model, parts)
    clipped = torch.zeros((), device=fabric.device)
    if choice.clip > 0:
        # A norm that is not finite shows at the end of the epoch, where a fallback may catch it.
        norm = fabric.clip_gradients(model, optimiser, max_norm=choice.clip, error_if_nonfinite=False)
        assert norm is not None  # of the gradients as they were
        clipped = (norm > choice.clip).float()
    optimiser.step()
    return torch.cat([figures, clipped[None]])


@contextmanager
def uphill(model: nn.Module, radius: float) -> Iterator[None]:
    """Within: ``model`` with its weights moved by ``radius`` along their gradients, which are cleared.

    A minimum whose loss stays low there is a flat one, and flat ones generalise better (Foret et al., "Sharpness-aware
    minimization for efficiently improving generalization", 2021). Afterwards the weights are what they were, to the
    bit; the gradients stay. Batch norms keep the statistics that they had: those of weights nobody will use are no use.
    """
    pairs = [(parameter, parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
    moved: list[Tensor] = [parameter for parameter, _ in pairs]
    gradients = [gradient for _, gradient in pairs]
    with torch.no_grad():
        before = [parameter.clone() for parameter in moved]
        length = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, radius / (length + 1e-12))
        for parameter, climb in pairs:
            parameter.add_(climb)
        torch._foreach_zero_(gradients)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    pace = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(moved, before)
        for norm, momentum in zip(norms, pace, strict=True):
            norm.momentum = momentum


def _gradients(fabric: Fabric, model: Any, parts: list[View]) -> Tensor:
    """Add the gradients of the mean loss over ``parts``; that loss and the share of right answers."""
    figures = []
    for i, part in enumerate(parts):
        with fabric.no_backward_sync(model, enabled=i < len(parts) - 1):
            loss, logits = model(*part)
            fabric.backward(loss / len(parts))
        right = (logits.argmax(1) == part.target.argmax(1)).float().mean()
        figures.append(torch.stack([loss.detach().float(), right]))
    return torch.stack(figures).mean(0)
