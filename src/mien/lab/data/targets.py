"""What the net is told about each face: a probability vector, mixed from its label and its FER+ votes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.lab.data import FaceSet, vote_distribution
from mien.lab.recipe import TargetConfig


def targets(faces: FaceSet, choice: TargetConfig) -> Tensor:
    """float32 ``[N, C]``, rows sum to 1: the smoothed label and, where a face has votes, a share of their distribution.

    A face without usable votes keeps the smoothed label alone. Label smoothing is Szegedy et al. (CVPR 2016), vote
    distributions as targets are Barsoum et al. (ICMI 2016). Raises ``DataError`` for votes from a set without.
    """
    classes = len(faces.emotions)
    hard = F.one_hot(faces.labels, classes).float()
    label = hard * (1 - choice.label_smoothing) + choice.label_smoothing / classes
    if choice.vote_weight <= 0:
        return label
    votes = vote_distribution(faces).to(label.device)
    share = choice.vote_weight * (votes.sum(dim=1, keepdim=True) > 0)
    return label * (1 - share) + votes * share


def class_weights(faces: FaceSet, choice: TargetConfig) -> Tensor:
    """float32 ``[C]``, mean 1 over the faces: what each class's loss is multiplied by.

    Inverse frequency to the power ``choice.class_weight_power`` (0: all ones, 1: balanced), or the inverse of the
    effective number of samples, ``(1 - beta^n) / (1 - beta)``, for beta = ``choice.effective_number_beta`` (Cui et al.,
    CVPR 2019). The counts are those of the set, not of an epoch that repeats some classes. A class without faces is
    weighted as if it had one.
    """
    counts = torch.bincount(faces.labels, minlength=len(faces.emotions)).double()  # beta^n loses its digits in float32
    present, beta = counts.clamp(min=1), choice.effective_number_beta
    weights = (1 - beta) / (1 - beta**present) if beta > 0 else present**-choice.class_weight_power
    return (weights * counts.sum() / (weights * counts).sum()).float()
