"""What the net is told about each face: a probability vector, mixed from its label, its FER+ votes and its teachers."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.lab.data import FaceSet, vote_distribution
from mien.lab.recipe import Target


def targets(faces: FaceSet, choice: Target) -> Tensor:
    """float32 ``[N, C]``, rows sum to 1: the smoothed label and, where a face has votes, a share of their distribution.

    A face without usable votes keeps the smoothed label alone. Label smoothing is Szegedy et al. (CVPR 2016), vote
    distributions as targets are Barsoum et al. (ICMI 2016).
    """
    classes = len(faces.emotions)
    hard = F.one_hot(faces.labels, classes).float()
    label = hard * (1 - choice.smoothing) + choice.smoothing / classes
    if choice.votes <= 0:
        return label
    votes = vote_distribution(faces).to(label.device)
    share = choice.votes * (votes.sum(dim=1, keepdim=True) > 0)
    return label * (1 - share) + votes * share


def class_weights(faces: FaceSet, power: float) -> Tensor:
    """float32 ``[C]``, mean 1 over the faces: inverse class frequency to ``power`` (0: all ones, 1: balanced)."""
    counts = torch.bincount(faces.labels, minlength=len(faces.emotions)).float().clamp(min=1)
    weights = counts**-power
    return weights * counts.sum() / (weights * counts).sum()


def soft_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Batch mean of the cross-entropy of ``logits`` ``[N, C]`` against ``target`` ``[N, C]``, classes weighted."""
    return -(weights * target * F.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
