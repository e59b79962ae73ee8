"""The networks: one architecture a file, each ending in ``build(channels, classes, **options)``.

Every net is two halves, ``features(x) -> [N, K, h, w]`` and ``head(features) -> logits [N, C]``, and its forward pass
is the one after the other. There is no registry: a recipe names its net and the module of that name is imported.
"""

import importlib
import pkgutil
from difflib import get_close_matches
from typing import Any

from torch import nn

from mien._errors import RecipeError
from mien.lab.nets._net import Net

__all__ = ["Net", "build", "names"]


def names() -> tuple[str, ...]:
    """The nets that a recipe can name: the modules of this folder without an underscore."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def build(name: str, *, channels: int, classes: int, **options: Any) -> Net:
    """The net ``name`` for inputs of ``channels`` channels and ``classes`` classes, with random weights.

    Raises ``RecipeError`` for an unknown net and for an option that the net does not have.
    """
    if name not in names():
        near = get_close_matches(name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"unknown net {name!r}{hint} (there are: {', '.join(names())})")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    try:
        net: Net = module.build(channels, classes, **options)
    except TypeError as error:
        raise RecipeError(f"net {name!r}: {error}") from error
    for layer in net.modules():
        _initialise(layer)
    return net


def _initialise(layer: nn.Module) -> None:
    """He et al. (ICCV 2015), fan-out, for convolutions; small normal weights for the classifier."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
