"""One step of the optimiser: the gradients of a batch, computed in parts."""

from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from mien.lab.recipe import Optimise
from mien.lab.train.views import View


def take_step(fabric: Fabric, model: Any, optimiser: Any, view: View, choice: Optimise) -> Tensor:
    """Move ``model`` by one step on ``view``; returns mean loss, share of right answers, and if it was clipped."""
    optimiser.zero_grad()
    parts = [View(*part) for part in zip(*(torch.chunk(column, choice.accumulate) for column in view), strict=True)]
    figures = _gradients(fabric, model, parts)
    clipped = torch.zeros((), device=fabric.device)
    if choice.clip > 0:
        # A norm that is not finite shows at the end of the epoch, where a fallback may catch it.
        norm = fabric.clip_gradients(model, optimiser, max_norm=choice.clip, error_if_nonfinite=False)
        assert norm is not None  # of the gradients as they were
        clipped = (norm > choice.clip).float()
    optimiser.step()
    return torch.cat([figures, clipped[None]])


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
