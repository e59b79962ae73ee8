"""Gradients of a head in plain tensor operations, so that an exported ONNX file can compute them without autograd.

``pull(layer, x)`` returns the output of a layer and its pullback (Griewank & Walther, Evaluating Derivatives, 2008): a
function from gradients by the output to gradients by ``x``. Gradients have one more axis than the tensors that they
belong to: ``[N, C, ...]`` are the gradients of C functions, here the logits of C classes.

Layers behave as in eval mode. A net whose head has another kind of layer registers a rule for it in its own file.
"""

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor, nn

from mien._errors import ModelError

Back = Callable[[Tensor], Tensor]


@singledispatch
def pull(layer: nn.Module, x: Tensor) -> tuple[Tensor, Back]:  # noqa: ARG001
    """Compute the output of a layer and its pullback.

    Args:
        layer: A layer of a kind that has a rule.
        x: The input of the layer.

    Returns:
        ``layer(x)``, and a function from gradients ``[N, C, *layer(x).shape[1:]]`` to gradients ``[N, C,
        *x.shape[1:]]``.

    Raises:
        ModelError: There is no rule for this kind of layer.
    """
    raise ModelError(f"no maps: there is no gradient rule for {type(layer).__name__}; give the net a pooled head")


@pull.register
def _(layers: nn.Sequential, x: Tensor) -> tuple[Tensor, Back]:
    backs: list[Back] = []
    for layer in layers:
        x, back = pull(layer, x)
        backs.insert(0, back)

    def back_all(gradients: Tensor) -> Tensor:
        for back in backs:
            gradients = back(gradients)
        return gradients

    return x, back_all


@pull.register(nn.Identity)
@pull.register(nn.Dropout)
def _(_: nn.Module, x: Tensor) -> tuple[Tensor, Back]:
    return x, lambda gradients: gradients


@pull.register
def _(layer: nn.Linear, x: Tensor) -> tuple[Tensor, Back]:
    return layer(x), lambda gradients: gradients @ layer.weight


@pull.register
def _(layer: nn.ReLU, x: Tensor) -> tuple[Tensor, Back]:
    slope = (x > 0).to(x.dtype).unsqueeze(1)
    return layer(x), lambda gradients: gradients * slope


@pull.register
def _(layer: nn.Hardswish, x: Tensor) -> tuple[Tensor, Back]:
    # x * clamp(x + 3, 0, 6) / 6: zero below -3, linear above 3, a parabola between.
    slope = torch.where(x.abs() < 3, x / 3 + 0.5, (x > 0).to(x.dtype)).unsqueeze(1)
    return layer(x), lambda gradients: gradients * slope


@pull.register
def _(layer: nn.Flatten, x: Tensor) -> tuple[Tensor, Back]:
    return layer(x), lambda gradients: torch.unflatten(gradients, 2, x.shape[1:])


@pull.register
def _(layer: nn.AdaptiveAvgPool2d, x: Tensor) -> tuple[Tensor, Back]:
    grid, (height, width) = layer.output_size, x.shape[2:]
    if grid == 1:
        return layer(x), lambda gradients: gradients.expand(-1, -1, -1, height, width) / (height * width)
    if height != grid or width != grid:
        mismatch = f"the head is built for maps of {grid}x{grid}, not {height}x{width}"
        raise ModelError(f"no maps: {mismatch}; set the net's option size to data.size")
    return x, lambda gradients: gradients


@pull.register
def _(layer: nn.LayerNorm, x: Tensor) -> tuple[Tensor, Back]:
    centred = x - x.mean(dim=-1, keepdim=True)
    std = (centred.square().mean(dim=-1, keepdim=True) + layer.eps).sqrt()
    normal, std = (centred / std).unsqueeze(1), std.unsqueeze(1)

    def back(gradients: Tensor) -> Tensor:
        weighted = gradients * layer.weight
        along = (weighted * normal).mean(dim=-1, keepdim=True)
        return (weighted - weighted.mean(dim=-1, keepdim=True) - normal * along) / std

    return layer(x), back
