"""Exponential moving average of a net's weights, and of its batch-norm statistics with them."""

from copy import deepcopy

import torch
from torch import nn


class Average:
    """Keeps ``net``: the average of the weights that ``update`` has seen (Polyak averaging, exponential weights).

    The decay grows with the steps taken, so that the random first weights are forgotten soon. With ``decay`` 0 the
    average is the net itself, as of the last ``settle``: then a step costs nothing.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        """Follow ``net``, whose tensors must stay the same ones (loading a state changes them in place)."""
        self.net = deepcopy(net).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0
        # Listed once: walking through a deep net costs a millisecond, at every step.
        pairs = list(zip(self.net.state_dict().values(), net.state_dict().values(), strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._mine, self._theirs = [mine for mine, _ in floats], [theirs for _, theirs in floats]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]  # of batch norm

    @torch.no_grad()
    def update(self) -> None:
        """One step towards the weights of the net."""
        self.steps += 1
        if self.decay > 0:
            weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(self._mine, self._theirs, weight)

    @torch.no_grad()
    def settle(self) -> None:
        """What need not be done at every step, but before the average is used or saved."""
        for mine, theirs in self._counters:
            mine.copy_(theirs)
        if self.decay <= 0:
            torch._foreach_copy_(self._mine, self._theirs)
