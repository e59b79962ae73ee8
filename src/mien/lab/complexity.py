"""Parameters and multiply-accumulates (MACs) of a net, counted without computing anything."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mien.lab.nets._layers import EncoderBlock

__all__ = ["count_macs", "count_parameters", "to_meta"]


def count_parameters(net: nn.Module) -> int:
    """Return the number of parameters of ``net``.

    Args:
        net: Any module.
    """
    return sum(p.numel() for p in net.parameters())


def count_macs(net: nn.Module, size: int, *, channels: int = 1) -> int:
    """Count the multiply-accumulates of one image: convolutions, linear layers and attention scores.

    Norms, activations, pooling and gates are not counted, as in the tables of the papers.

    Args:
        net: The net; it is not changed.
        size: Side of the image in pixels.
        channels: Channels of the image.

    Returns:
        The number of multiply-accumulates.

    Example:
        >>> from torch import nn
        >>> count_macs(nn.Conv2d(1, 16, 3, padding=1), 48)
        331776
    """
    total = 0

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += _macs_of(layer, inputs[0], output)

    twin = to_meta(net).eval()
    for module in twin.modules():
        module.register_forward_hook(add)
    with torch.no_grad():
        twin(torch.empty(1, channels, size, size, device="meta"))
    return total


def to_meta(net: nn.Module) -> nn.Module:
    """Copy ``net`` to torch's meta device, which knows shapes only: running the copy costs nothing.

    Args:
        net: Any module; it is not changed.

    Returns:
        The copy.
    """
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
