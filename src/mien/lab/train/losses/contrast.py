"""Supervised contrastive learning (Khosla et al., NeurIPS 2020) as an auxiliary loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Values of the space in which faces are compared, as in the paper.
WIDTH = 128


class Contrast(nn.Module):
    """A projection head (linear, ReLU, linear) on pooled features, and the loss on what it makes of a batch."""

    def __init__(self, inputs: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.project = nn.Sequential(nn.Linear(inputs, inputs), nn.ReLU(), nn.Linear(inputs, WIDTH))

    def forward(self, pooled: Tensor, target: Tensor) -> Tensor:
        """The loss of ``pooled`` ``[N, K]``, a face's class being the largest entry of its ``target`` ``[N, C]``."""
        return contrastive_loss(self.project(pooled), target.argmax(dim=1), self.temperature)


def contrastive_loss(embedded: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """``L_out`` of the paper: faces ``[N, D]`` drawn to the others of their ``labels`` ``[N]``, pushed from the rest.

    The mean, over all faces that have another of their class in the batch, of the mean over those others of
    ``-log(exp(similarity) / sum of exp(similarity) to all others)``; similarity is the cosine over ``temperature``.
    A batch in which no face has another of its class gives 0.
    """
    unit = F.normalize(embedded.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    similar = (unit @ unit.T / temperature).masked_fill(itself, torch.finfo(torch.float32).min)
    log_share = F.log_softmax(similar, dim=1).masked_fill(itself, 0)
    positive = ((labels[:, None] == labels[None, :]) & ~itself).float()
    others = positive.sum(dim=1)
    each = -(positive * log_share).sum(dim=1) / others.clamp(min=1)
    return each.sum() / (others > 0).sum().clamp(min=1)
