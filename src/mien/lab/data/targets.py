"""What the net is told about each face: a probability vector, mixed from its label and its FER+ votes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.lab.data import FaceSet, vote_distribution
from mien.lab.recipe import TargetConfig


def targets(faces: FaceSet, choice: TargetConfig) -> Tensor:
    """Return the target of each face: its smoothed label and, where it has votes, a share of their distribution.

    Label smoothing is Szegedy et al. (CVPR 2016), vote distributions as targets are Barsoum et al. (ICMI 2016). A face
    without usable votes keeps the smoothed label alone.

    Args:
        faces: N faces of C classes.
        choice: ``label_smoothing`` and ``vote_weight``, both 0 to 1.

    Returns:
        float32 ``[N, C]``; each row sums to 1.

    Raises:
        DataError: ``vote_weight`` is above 0 and the set has no votes.
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
    """Return the factor on each class's loss, with mean 1 over the faces.

    The weight is the inverse frequency to the power ``class_weight_power`` (0: all ones, 1: balanced), or with
    ``effective_number_beta`` the inverse of the effective number of samples, ``(1 - beta^n) / (1 - beta)`` (Cui et
    al., CVPR
    2019). Counts are those of the set, not of an epoch that repeats classes. A class without faces counts as one face.

    Args:
        faces: Faces of C classes.
        choice: ``class_weight_power`` and ``effective_number_beta``.

    Returns:
        float32 ``[C]``.
    """
    counts = torch.bincount(faces.labels, minlength=len(faces.emotions)).double()  # beta^n loses its digits in float32
    present, beta = counts.clamp(min=1), choice.effective_number_beta
    weights = (1 - beta) / (1 - beta**present) if beta > 0 else present**-choice.class_weight_power
    return (weights * counts.sum() / (weights * counts).sum()).float()
