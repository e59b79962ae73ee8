"""Which training faces an epoch shows, and how often: sets mixed with weights, classes balanced or repeated."""

import torch
from torch import Generator, Tensor

from mien.lab.data import FaceSet
from mien.lab.recipe import Recipe


def row_weights(faces: FaceSet, recipe: Recipe) -> Tensor:
    """float32 ``[N]``: how often each face comes in an epoch, on average.

    The product of its set's weight, its class's repetition and its class's balance. Balancing keeps the length of an
    epoch: faces of large classes come less than once, those of small ones more often.
    """
    weights = torch.ones(len(faces), device=faces.labels.device) if faces.weights is None else faces.weights.clone()
    for emotion, times in _repeats(recipe).items():
        if emotion in faces.emotions:
            weights[faces.labels == faces.emotions.index(emotion)] *= times
    if recipe.data.balance > 0:
        counts = torch.zeros(len(faces.emotions), device=weights.device).index_add_(0, faces.labels, weights)
        balanced = weights * counts.clamp(min=1e-9)[faces.labels] ** -recipe.data.balance
        weights = balanced * weights.sum() / balanced.sum()
    return weights


def epoch_length(weights: Tensor) -> int:
    """Faces in an epoch."""
    return int(weights.sum().round())


def draw_epoch(weights: Tensor, generator: Generator) -> Tensor:
    """int64 ``[epoch_length]``: the rows of one epoch in random order.

    A face of weight 2.5 comes twice, and a third time in every other epoch; so every face of weight 1 comes once.
    """
    n, length = len(weights), epoch_length(weights)
    if bool((weights == 1).all()):
        return torch.randperm(n, device=weights.device, generator=generator)
    whole = weights.floor()
    chance = torch.rand(n, device=weights.device, generator=generator)
    times = (whole + (chance < weights - whole)).long()
    rows = torch.repeat_interleave(torch.arange(n, device=weights.device), times)
    rows = rows[torch.randperm(len(rows), device=weights.device, generator=generator)]
    if len(rows) < length:  # chance drew too few: fill up
        more = torch.multinomial(weights, length - len(rows), replacement=True, generator=generator)
        rows = torch.cat([rows, more])
    return rows[:length]


def _repeats(recipe: Recipe) -> dict[str, float]:
    repeats = dict(recipe.data.repeat)
    for emotion in recipe.minority.classes:
        repeats[emotion] = repeats.get(emotion, 1.0) * recipe.minority.repeat
    return repeats
