"""Training targets: a probability vector per face, from its label and its FER+ votes, and the weights of classes."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mien.lab.data.faceset import FaceSet, vote_distribution
from mien.lab.recipe import TargetConfig


def targets(faces: FaceSet, config: TargetConfig) -> Tensor:
    """Return the target of each face: its smoothed label and, where it has votes, a share of their distribution.

    Label smoothing is Szegedy et al. (CVPR 2016), vote distributions as targets are Barsoum et al. (ICMI 2016). The
    target of a face without usable votes is the smoothed label.

    Args:
        faces: N faces of C classes.
        config: ``label_smoothing`` and ``vote_weight``, both 0 to 1.

    Returns:
        float32 ``[N, C]``; each row sums to 1.

    Raises:
        DataError: ``vote_weight`` is above 0 and the set has no votes.
    """
    classes = len(faces.emotions)
    hard = F.one_hot(faces.labels, classes).float()
    label = hard * (1 - config.label_smoothing) + config.label_smoothing / classes
    if config.vote_weight <= 0:
        return label
    votes = vote_distribution(faces).to(label.device)
    share = config.vote_weight * (votes.sum(dim=1, keepdim=True) > 0)
    return label * (1 - share) + votes * share


def class_weights(faces: FaceSet, config: TargetConfig) -> Tensor:
    """Return the factor on each class's loss, with mean 1 over the faces.

    The weight is the inverse frequency to the power ``class_weight_power`` (0: all ones, 1: balanced). With
    ``effective_number_beta`` it is the inverse of the effective number of samples, ``(1 - beta^n) / (1 - beta)`` (Cui
    et al., CVPR 2019). Counts are those of the set, without oversampling. A class without faces counts as one face.

    Args:
        faces: Faces of C classes.
        config: ``class_weight_power`` and ``effective_number_beta``.

    Returns:
        float32 ``[C]``.
    """
    counts = torch.bincount(faces.labels, minlength=len(faces.emotions)).double()  # float32 is too coarse for beta^n
    present, beta = counts.clamp(min=1), config.effective_number_beta
    weights = (1 - beta) / (1 - beta**present) if beta > 0 else present**-config.class_weight_power
    return (weights * counts.sum() / (weights * counts).sum()).float()
