"""Exponential moving average of a net's weights, and of its batch-norm statistics with them."""

from copy import deepcopy

import torch
from torch import nn


class Average:
    """Keeps ``net``: the average of the weights seen by ``update`` (Polyak averaging with exponential weights).

    The decay grows with the steps taken, so that the random first weights are forgotten soon.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.net = deepcopy(net).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """One step towards the weights of ``net``."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine, theirs = self.net.state_dict(), net.state_dict()
        floats = [key for key, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[k] for k in floats], [theirs[k] for k in floats], weight)
        for key in mine.keys() - floats:  # counters of batch norm
            mine[key].copy_(theirs[key])
