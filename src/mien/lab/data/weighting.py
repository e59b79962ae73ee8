"""How each training face counts: its target, the weight of its class, and how often it is in an epoch."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mien.lab.data.faceset import FaceSet, vote_distribution
from mien.lab.recipe import Recipe, TargetConfig


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


def row_weights(faces: FaceSet, recipe: Recipe) -> Tensor:
    """Return the mean number of times that each face is in an epoch.

    It is the product of the weight of its set, the balance of its class (``data.balance_power``) and the oversampling
    of its class (``data.oversample`` times ``minority.oversample``). Balancing does not change the length of an epoch:
    faces of large classes occur less than once, those of small classes more often. Oversampling makes the epoch longer.

    Args:
        faces: N training faces.
        recipe: The recipe.

    Returns:
        float32 ``[N]``.
    """
    weights = torch.ones(len(faces), device=faces.labels.device) if faces.weights is None else faces.weights.clone()
    if recipe.data.balance_power > 0:
        counts = torch.zeros(len(faces.emotions), device=weights.device).index_add_(0, faces.labels, weights)
        balanced = weights * counts.clamp(min=1e-9)[faces.labels] ** -recipe.data.balance_power
        weights = balanced * weights.sum() / balanced.sum()
    factors = dict(recipe.data.oversample)
    for emotion in recipe.minority.classes:
        factors[emotion] = factors.get(emotion, 1.0) * recipe.minority.oversample
    for emotion, times in factors.items():
        if emotion in faces.emotions:
            weights[faces.labels == faces.emotions.index(emotion)] *= times
    return weights


def epoch_length(weights: Tensor) -> int:
    """Return the number of faces in an epoch.

    Args:
        weights: float32 ``[N]``, as ``row_weights`` returns it.

    Returns:
        The rounded sum.
    """
    return round(float(weights.sum(dtype=torch.float64)))


def draw_epoch(weights: Tensor, generator: Generator) -> Tensor:
    """Draw the rows of one epoch in random order, by systematic sampling.

    The weights are laid end to end in a random order. From a random start, each step of length 1 draws the face at its
    position. So a face of weight 2.5 is drawn two or three times, and a face of weight 1 exactly once.

    Args:
        weights: float32 ``[N]``.
        generator: Source of the random numbers, on the device of the weights.

    Returns:
        int64 ``[epoch_length(weights)]``.
    """
    n, device = len(weights), weights.device
    order = torch.randperm(n, device=device, generator=generator)
    if bool((weights == 1).all()):
        return order
    start = torch.rand(1, device=device, generator=generator)
    # Summed on the CPU in double precision, so that every device draws the same faces.
    ends, length = weights[order].cpu().double().cumsum(0), epoch_length(weights)
    over = float(ends[-1]) - length  # -0.5 .. 0.5; the start leaves room for exactly ``length`` steps
    first = float(start) * (1 - abs(over)) + max(-over, 0.0)
    steps = (ends + first).floor().long()  # steps before each end
    steps[-1] = length
    times = steps.clamp(max=length).diff(prepend=torch.zeros(1, dtype=torch.long))
    rows = torch.repeat_interleave(order, times.to(device))
    return rows[torch.randperm(len(rows), device=device, generator=generator)]
