"""The optimiser of a stage: parameter groups by module prefix, decay for weights alone."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mien._errors import RecipeError
from mien._suggest import suggest
from mien.lab.recipe import TrainConfig
from mien.lab.train.schedule import within


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


STEPS = 5


COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of x, x^3 and x^5: singular values end between 0.68 and 1.14, quickly


def orthogonal(matrix: Tensor) -> Tensor:
    """About the orthogonal factor of ``matrix``: its singular vectors, with values near one.

    Computed in bfloat16, which is enough for a direction and four times as fast; returned in the type of ``matrix``.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = (x / (x.norm() + 1e-7)).bfloat16()  # no singular value above one, where the iteration holds
    for _ in range(STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for weights of four dimensions; Nesterov SGD for all others: the classifier, norms, biases.

    A step moves a convolution's weight by ``lr`` times a matrix of singular values near one, whatever the size of its
    gradient; decay is decoupled from it, ``lr * weight_decay`` of the weight a step.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step for every parameter that has a gradient; returns what ``closure``, which computes them, returns."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        convolution = parameter.ndim == 4
        if not convolution:  # decay as SGD has it, a part of the gradient
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        ahead = gradient.add(momentum, alpha=group["momentum"])
        if convolution:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            ahead = orthogonal(ahead.flatten(1)).view_as(ahead)
        parameter.add_(ahead, alpha=-group["lr"])


def build_optimiser(objective: nn.Module, choice: TrainConfig) -> torch.optim.Optimizer:
    """An optimiser of all parameters of ``objective`` that learn, each group with its ``share`` of the rate.

    ``choice.lr_factors`` and ``choice.weight_decays`` name modules: the longest prefix of a parameter's name counts.
    Norms and biases, which are vectors, are never decayed. Raises ``RecipeError`` for a prefix that no module has.
    """
    _check_prefixes(objective, choice)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for full_name, parameter in objective.named_parameters():
        name = full_name.removeprefix("net.")  # of the objective, whose other parts are few
        if parameter.requires_grad:
            share = choice.lr_factors.get(_longest(name, tuple(choice.lr_factors)), 1.0)
            decay = choice.weight_decays.get(_longest(name, tuple(choice.weight_decays)), choice.weight_decay)
            groups.setdefault((share, decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    if not groups:
        raise RecipeError("every module is frozen; a phase must leave something to learn")
    listed = [
        {"params": parameters, "weight_decay": decay, "share": share, "lr": choice.lr * share}
        for (share, decay), parameters in groups.items()
    ]
    if choice.optimizer == "adamw":
        return torch.optim.AdamW(listed)
    if choice.optimizer == "adam":
        return torch.optim.Adam(listed)
    if choice.optimizer == "muon":
        return Muon(listed, lr=choice.lr, momentum=choice.momentum)
    return torch.optim.SGD(listed, lr=choice.lr, momentum=choice.momentum, nesterov=choice.momentum > 0)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of ``rate``."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


def _longest(name: str, prefixes: tuple[str, ...]) -> str:
    return max((prefix for prefix in prefixes if within(name, [prefix])), key=len, default="")


def _check_prefixes(objective: nn.Module, choice: TrainConfig) -> None:
    known = [name.removeprefix("net.") for name, _ in objective.named_modules() if name]
    for prefix in (*choice.lr_factors, *choice.weight_decays):
        if prefix not in known:
            raise RecipeError(
                f"train.lr_factors and weight_decays: the net has no module {prefix!r}{suggest(prefix, known)}"
            )
