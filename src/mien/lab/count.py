"""What a net costs: its parameters, and the multiply-accumulates of one face. Counting computes and changes nothing."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mien.lab.nets._layers import EncoderBlock


def parameters(net: nn.Module) -> int:
    """The trained numbers of ``net``."""
    return sum(p.numel() for p in net.parameters())


def macs(net: nn.Module, size: int, *, channels: int = 1) -> int:
    """Multiply-accumulates of one image of ``size`` pixels: convolutions, linear layers and attention scores.

    Norms, activations, pooling and gates are not counted, as in the papers' tables.
    """
    total = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += _macs_of(layer, inputs[0], output)

    twin = weightless(net).eval()
    for module in twin.modules():
        module.register_forward_hook(add)
    with torch.no_grad():
        twin(torch.empty(1, channels, size, size, device="meta"))
    return total


def weightless(net: nn.Module) -> nn.Module:
    """A copy of ``net`` without storage (on torch's meta device): it knows shapes only, and costs nothing to run."""
    tensors = [*net.parameters(), *net.buffers()]
    twins: dict[int, Any] = {id(t): torch.empty_like(t, device="meta", requires_grad=False) for t in tensors}
    for p in net.parameters():
        twins[id(p)] = nn.Parameter(twins[id(p)], requires_grad=False)
    return copy.deepcopy(net, twins)


def _macs_of(layer: nn.Module, inputs: Tensor, output: Tensor) -> int:
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        return output[0].numel() * layer.weight[0].numel()  # a linear layer may be applied to many tokens
    if isinstance(layer, EncoderBlock):
        tokens, width = inputs.shape[1:]
        return 2 * tokens * tokens * width  # queries by keys, and the scores by the values
    return 0
