"""How often each training face is in an epoch: weights of sets, class balance and oversampling."""

import torch
from torch import Generator, Tensor

from mien.lab.data.faceset import FaceSet
from mien.lab.recipe import Recipe


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
