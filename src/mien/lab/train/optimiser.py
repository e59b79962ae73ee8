"""The optimiser of a stage: parameter groups by module prefix, decay for weights alone."""

import torch
from torch import nn

from mien._errors import RecipeError
from mien.lab.recipe import Optimise, nearest
from mien.lab.train.course import within
from mien.lab.train.muon import Muon


def build_optimiser(objective: nn.Module, choice: Optimise) -> torch.optim.Optimizer:
    """An optimiser of all parameters of ``objective`` that learn, each group with its ``share`` of the rate.

    ``choice.rates`` and ``choice.decays`` name modules: the longest prefix of a parameter's name counts. Norms and
    biases, which are vectors, are never decayed. Raises ``RecipeError`` for a prefix that no module has.
    """
    _check_prefixes(objective, choice)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for full_name, parameter in objective.named_parameters():
        name = full_name.removeprefix("net.")  # of the objective, whose other parts are few
        if parameter.requires_grad:
            share = choice.rates.get(_longest(name, tuple(choice.rates)), 1.0)
            decay = choice.decays.get(_longest(name, tuple(choice.decays)), choice.decay)
            groups.setdefault((share, decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    if not groups:
        raise RecipeError("every module is frozen; a phase must leave something to learn")
    listed = [
        {"params": parameters, "weight_decay": decay, "share": share, "lr": choice.rate * share}
        for (share, decay), parameters in groups.items()
    ]
    if choice.name == "adamw":
        return torch.optim.AdamW(listed)
    if choice.name == "adam":
        return torch.optim.Adam(listed)
    if choice.name == "muon":
        return Muon(listed, lr=choice.rate, momentum=choice.momentum)
    return torch.optim.SGD(listed, lr=choice.rate, momentum=choice.momentum, nesterov=choice.momentum > 0)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of ``rate``."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


def _longest(name: str, prefixes: tuple[str, ...]) -> str:
    return max((prefix for prefix in prefixes if within(name, [prefix])), key=len, default="")


def _check_prefixes(objective: nn.Module, choice: Optimise) -> None:
    known = [name.removeprefix("net.") for name, _ in objective.named_modules() if name]
    for prefix in (*choice.rates, *choice.decays):
        if prefix not in known:
            raise RecipeError(f"optimise.rates and decays: the net has no module {prefix!r}{nearest(prefix, known)}")
