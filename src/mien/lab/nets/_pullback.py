"""A head and the way back of its gradients, in plain tensor operations, so that an exported file can walk it, too.

``pull(layer, x)`` is the layer's answer together with a function that takes gradients by the answer to gradients by
``x`` (the pullback of Griewank & Walther, Evaluating Derivatives, 2008). Gradients have one axis more than what they
belong to: ``[N, C, ...]`` are those of C functions at once, here the logits of C classes.

Layers are as in eval mode. A net whose head has a layer of another kind registers that layer's rule in its own file.
"""

from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor, nn

from mien._errors import ModelError

Back = Callable[[Tensor], Tensor]


@singledispatch
def pull(layer: nn.Module, x: Tensor) -> tuple[Tensor, Back]:  # noqa: ARG001
    """``layer(x)``, and gradients ``[N, C, *layer(x).shape[1:]]`` by it -> gradients ``[N, C, *x.shape[1:]]`` by ``x``.

    Raises ``ModelError`` for a layer that has no rule.
    """
    raise ModelError(f"no maps: the gradient of a {type(layer).__name__} is not written; give the net a pooled head")


@pull.register
def _(layers: nn.Sequential, x: Tensor) -> tuple[Tensor, Back]:
    backs: list[Back] = []
    for layer in layers:
        x, back = pull(layer, x)
        backs.insert(0, back)

    def all_back(gradients: Tensor) -> Tensor:
        for back in backs:
            gradients = back(gradients)
        return gradients

    return x, all_back


@pull.register(nn.Identity)
@pull.register(nn.Dropout)
def _(_: nn.Module, x: Tensor) -> tuple[Tensor, Back]:
    return x, lambda gradients: gradients


@pull.register
def _(layer: nn.Linear, x: Tensor) -> tuple[Tensor, Back]:
    return layer(x), lambda gradients: gradients @ layer.weight


@pull.register
def _(layer: nn.ReLU, x: Tensor) -> tuple[Tensor, Back]:
    passed = (x > 0).to(x.dtype).unsqueeze(1)
    return layer(x), lambda gradients: gradients * passed


@pull.register
def _(layer: nn.Hardswish, x: Tensor) -> tuple[Tensor, Back]:
    # x * clamp(x + 3, 0, 6) / 6: flat below -3, straight above 3, a parabola between.
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
        made = f"the head is made for maps of {grid}x{grid}, not {height}x{width}"
        raise ModelError(f"no maps: {made}; give the net the option size = data.size")
    return x, lambda gradients: gradients


@pull.register
def _(layer: nn.LayerNorm, x: Tensor) -> tuple[Tensor, Back]:
    centred = x - x.mean(dim=-1, keepdim=True)
    spread = (centred.square().mean(dim=-1, keepdim=True) + layer.eps).sqrt()
    normal, spread = (centred / spread).unsqueeze(1), spread.unsqueeze(1)

    def back(gradients: Tensor) -> Tensor:
        weighted = gradients * layer.weight
        along = (weighted * normal).mean(dim=-1, keepdim=True)
        return (weighted - weighted.mean(dim=-1, keepdim=True) - normal * along) / spread

    return layer(x), back
