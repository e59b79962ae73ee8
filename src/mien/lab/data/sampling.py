"""Which training faces an epoch shows, and how often: sets mixed with weights, classes balanced or repeated."""

import math

import torch
from torch import Generator, Tensor

from mien._errors import RecipeError
from mien.lab.data import FaceSet
from mien.lab.recipe import Recipe


def row_weights(faces: FaceSet, recipe: Recipe) -> Tensor:
    """float32 ``[N]``: how often each face comes in an epoch, on average.

    The product of its set's weight, its class's balance and its class's repetition (``data.oversample`` times
    ``minority.oversample``). Balancing keeps the length of an epoch: faces of large classes come less than once,
    those of small ones more often. Repetition makes the epoch longer, also of balanced classes.
    Raises ``RecipeError`` for a repetition or balance below 0.
    """
    repeats = _repeats(recipe)
    weights = torch.ones(len(faces), device=faces.labels.device) if faces.weights is None else faces.weights.clone()
    if recipe.data.balance_power > 0:
        counts = torch.zeros(len(faces.emotions), device=weights.device).index_add_(0, faces.labels, weights)
        balanced = weights * counts.clamp(min=1e-9)[faces.labels] ** -recipe.data.balance_power
        weights = balanced * weights.sum() / balanced.sum()
    for emotion, times in repeats.items():
        if emotion in faces.emotions:
            weights[faces.labels == faces.emotions.index(emotion)] *= times
    return weights


def epoch_length(weights: Tensor) -> int:
    """Faces in an epoch."""
    return round(float(weights.sum(dtype=torch.float64)))


def draw_epoch(weights: Tensor, generator: Generator) -> Tensor:
    """int64 ``[epoch_length]``: the rows of one epoch in random order.

    A face of weight 2.5 comes twice, and a third time in every other epoch; so every face of weight 1 comes once.
    Systematic sampling: the weights lie end to end in a random order, and every whole step along them, from a random
    start, draws the face it falls on.
    """
    n, device = len(weights), weights.device
    order = torch.randperm(n, device=device, generator=generator)
    if bool((weights == 1).all()):
        return order
    start = torch.rand(1, device=device, generator=generator)
    # Summed by the CPU in double precision: the same faces on every device.
    ends = weights[order].cpu().double().cumsum(0)
    times = _steps(ends, float(start), epoch_length(weights)).diff(prepend=torch.zeros(1, dtype=torch.long))
    rows = torch.repeat_interleave(order, times.to(device))
    return rows[torch.randperm(len(rows), device=device, generator=generator)]


def _steps(ends: Tensor, start: float, length: int) -> Tensor:
    """How many steps lie before each of ``ends``; ``length`` before the last."""
    over = float(ends[-1]) - length  # -0.5 .. 0.5: the start lies where exactly ``length`` steps fit
    first = start * (1 - abs(over)) + max(-over, 0.0)
    steps = (ends + first).floor().long()
    steps[-1] = length
    return steps.clamp(max=length)


def _repeats(recipe: Recipe) -> dict[str, float]:
    """Emotion -> how often its faces come."""
    if not (math.isfinite(recipe.data.balance_power) and recipe.data.balance_power >= 0):
        raise RecipeError(f"recipe {recipe.name}: data.balance_power is at least 0, not {recipe.data.balance_power}")
    repeats = dict(recipe.data.oversample)
    for emotion in recipe.minority.classes:
        repeats[emotion] = repeats.get(emotion, 1.0) * recipe.minority.oversample
    for emotion, times in repeats.items():
        if not (math.isfinite(times) and times >= 0):
            raise RecipeError(f"recipe {recipe.name}: {emotion} cannot come {times} times: repeat is at least 0")
    return repeats
