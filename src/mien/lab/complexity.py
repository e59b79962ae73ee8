"""Parameters and multiply-accumulates (MACs) of a net, counted without computing anything."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mien.lab.nets._layers import EncoderBlock
from mien.lab.nets.mien import BlurredBlock, BlurredStem


def count_parameters(net: nn.Module) -> int:
    """Return the number of parameters of a net.

    Args:
        net: Any module.

    Returns:
        The number of parameters.
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
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            total += output[0].numel() * layer.weight[0].numel()  # a linear layer may be applied to many tokens
        elif isinstance(layer, (BlurredStem, BlurredBlock)):
            total += 9 * inputs[0][0].numel()  # the filter
        elif isinstance(layer, EncoderBlock):
            tokens, width = inputs[0].shape[1:]
            total += 2 * tokens * tokens * width  # queries by keys, and the scores by the values

    copied = to_meta(net).eval()
    for module in copied.modules():
        module.register_forward_hook(add)
    with torch.no_grad():
        copied(torch.empty(1, channels, size, size, device="meta"))
    return total


def to_meta(net: nn.Module) -> nn.Module:
    """Copy a net to torch's meta device, which computes shapes only.

    Args:
        net: Any module; it is not changed.

    Returns:
        The copy, without its batch norms: they change no shape, and are most of the time on this device.
    """
    norms = (module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    copies: dict[int, Any] = {id(norm): nn.Identity() for norm in norms}
    copies |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in net.buffers()}
    for p in net.parameters():
        copies[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=False)
    return copy.deepcopy(net, copies)
