"""Numbers drawn for every image of a batch, on the generator's device."""

import math

import torch
from torch import Generator, Tensor


def uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """float32 ``[count]`` in ``low`` .. ``high``."""
    return torch.rand(count, device=generator.device, generator=generator) * (high - low) + low


def factor(count: int, strength: float, generator: Generator) -> Tensor:
    """float32 ``[count]``, log-uniform in 1/(1+strength) .. 1+strength."""
    edge = math.log1p(strength)
    return uniform(count, -edge, edge, generator).exp()
