"""The networks: one architecture a file, each ending in ``build(channels, classes, **options)``.

Every net is two halves, ``features(x) -> [N, K, h, w]`` and ``head(features) -> logits [N, C]``, and its forward pass
is the one after the other. There is no registry: a recipe names its net and the module of that name is imported;
``timm/NAME`` is any convolutional net of timm (``mien[hub]``).

Defaults are for grey faces of 48 pixels. Where the published net would shrink such a face to a map of 1x1 or 2x2, it
has the option ``stem``: ``"small"`` (the default) keeps the resolution longer, ``"imagenet"`` is the published one.
"""

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

from torch import nn

from mien._errors import RecipeError
from mien.lab.nets import _timm as _hub
from mien.lab.nets._layers import Dense, Net

__all__ = ["Net", "build", "default", "names", "options"]


def names() -> tuple[str, ...]:
    """The nets that a recipe can name: the modules of this folder without an underscore."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def options(name: str) -> tuple[str, ...]:
    """The options of the net ``name``. Raises ``RecipeError`` for an unknown net."""
    parameters = inspect.signature(_builder(name)).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def default(name: str, option: str) -> Any:
    """What ``build`` of the net takes where ``option`` is not set, ``None`` where it has no such option."""
    found = inspect.signature(_builder(name)).parameters.get(option)
    return None if found is None or found.default is found.empty else found.default


def build(name: str, *, channels: int, classes: int, **options: Any) -> Net:
    """The net ``name`` for inputs of ``channels`` channels and ``classes`` classes, with random weights.

    ``name`` is one of ``names()`` (dashes may stand for its underscores) or ``timm/NAME``. Raises ``RecipeError`` for
    an unknown net and for an option that the net does not have or a value it does not take.
    """
    _check_options(name, tuple(options))
    try:
        net = _builder(name)(channels, classes, **options)
        # A net of timm knows how its features begin.
        for layer in (net.head if name.startswith(_hub.PREFIX) else net).modules():
            _initialise(layer)
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:  # torch's for odd values
        raise RecipeError(f"net {name!r}: {(str(error) or type(error).__name__).splitlines()[0]}") from error
    return net


def _check_options(name: str, given: Sequence[str]) -> None:
    parameters = inspect.signature(_builder(name)).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):  # a net of timm checks its own
        return
    known = options(name)
    for option in given:
        if option not in known:
            near = get_close_matches(option, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"net {name!r} has no option {option!r}{hint} (it has: {', '.join(known)})")


def _builder(name: str) -> Callable[..., Net]:
    if name.startswith(_hub.PREFIX):
        return partial(_hub.build, name)
    module_name = name.replace("-", "_")
    if module_name not in names():
        near = get_close_matches(module_name, names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RecipeError(f"unknown net {name!r}{hint} (there are: {', '.join(names())}, and timm/NAME)")
    build: Callable[..., Net] = importlib.import_module(f"{__name__}.{module_name}").build
    return build


def _initialise(layer: nn.Module) -> None:
    """He et al. (ICCV 2015) for what stands before a rectifier; small normal weights for every other linear layer.

    Fan-out for convolutions (a group's own outputs, or depthwise ones would start far too small), fan-in for dense
    layers, which have no norm to set their scale right.
    """
    if isinstance(layer, nn.Conv2d):
        fan = layer.weight[:, 0].numel() // layer.groups
        nn.init.normal_(layer.weight, std=math.sqrt(2) / math.sqrt(fan))
    elif isinstance(layer, nn.Linear):
        std = math.sqrt(2 / layer.in_features) if isinstance(layer, Dense) else 0.01
        nn.init.normal_(layer.weight, std=std)
    if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
        nn.init.zeros_(layer.bias)
