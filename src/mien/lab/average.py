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
        mine = self.net.state_dict()
        self._floats = [key for key, value in mine.items() if value.is_floating_point()]
        self._counters = [key for key in mine if key not in self._floats]  # of batch norm

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """One step towards the weights of ``net``."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine, theirs = self.net.state_dict(), net.state_dict()
        torch._foreach_lerp_([mine[key] for key in self._floats], [theirs[key] for key in self._floats], weight)
        torch._foreach_copy_([mine[key] for key in self._counters], [theirs[key] for key in self._counters])
