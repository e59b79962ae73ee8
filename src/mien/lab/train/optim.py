"""Optimizers, their parameter groups, and the exponential moving average (EMA) of weights.

To add an optimizer, add its name to ``OPTIMIZERS`` of ``lab/recipe/schema.py`` and a line to ``_BUILDERS`` here.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mien._errors import RecipeError
from mien._suggest import suggest
from mien.lab.recipe import TrainConfig
from mien.lab.train.schedule import is_inside

if TYPE_CHECKING:  # it imports torch._dynamo, which takes seconds: only a training needs it
    from lightning_fabric.wrappers import _FabricOptimizer

Groups = list[dict[str, Any]]  # as torch.optim takes them


def build_optimizer(objective: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a segment over all parameters that are not frozen.

    Keys of ``config.lr_factors`` and ``config.weight_decays`` name modules. If a parameter is inside several of them,
    the longest name applies. Vectors (norms and biases) have no weight decay.

    Args:
        objective: An ``Objective``, or a net.
        config: The configuration of the segment.

    Returns:
        An optimizer whose groups hold their factor on the learning rate as ``"lr_factor"``.

    Raises:
        RecipeError: A named module does not exist, or everything is frozen.
    """
    known = [name.removeprefix("net.") for name, _ in objective.named_modules() if name]
    for module in (*config.lr_factors, *config.weight_decays):
        if module not in known:
            hint = suggest(module, known)
            raise RecipeError(f"train.lr_factors and weight_decays: the net has no module {module!r}{hint}")
    parameters: dict[tuple[float, float], list[nn.Parameter]] = {}
    for full_name, parameter in objective.named_parameters():
        name = full_name.removeprefix("net.")  # of an Objective
        if parameter.requires_grad:
            factor = config.lr_factors.get(_longest(name, config.lr_factors), 1.0)
            decay = config.weight_decays.get(_longest(name, config.weight_decays), config.weight_decay)
            parameters.setdefault((factor, decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    if not parameters:
        raise RecipeError("every module is frozen; a phase must leave a module to train")
    groups: Groups = [
        {"params": each, "weight_decay": decay, "lr_factor": factor, "lr": config.lr * factor}
        for (factor, decay), each in parameters.items()
    ]
    return _BUILDERS[config.optimizer](groups, config)


def set_lr(optimizer: "torch.optim.Optimizer | _FabricOptimizer", lr: float) -> None:
    """Set the learning rate of every parameter group.

    Args:
        optimizer: The result of ``build_optimizer``, also wrapped by Fabric.
        lr: The learning rate of groups with the factor 1.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


class ModelEma:
    """An exponential moving average of the weights of a net (Polyak averaging).

    The decay grows with the number of steps, so that the random first weights soon have no influence. With a decay of 0
    the average is a copy of the net, made in ``finish_epoch``.

    Attributes:
        net: The averaged net, in eval mode.
        decay: The largest decay, from 0 to below 1.
        steps: Number of calls of ``update``.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        """Copy the weights of a net.

        Args:
            net: The net that is trained. Its tensors must not be replaced; loading a state changes them in place.
            decay: The largest decay, from 0 to below 1.
        """
        self.net = deepcopy(net).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0
        # Listed once, because listing the tensors of a deep net takes a millisecond.
        pairs = list(zip(self.net.state_dict().values(), net.state_dict().values(), strict=True))
        self._averaged = [averaged for averaged, _ in pairs if averaged.is_floating_point()]
        self._current = [current for _, current in pairs if current.is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]  # of batch norms

    @torch.no_grad()
    def update(self) -> None:
        """Update the average; call it after every step."""
        self.steps += 1
        if self.decay > 0:
            weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
            torch._foreach_lerp_(self._averaged, self._current, weight)

    @torch.no_grad()
    def finish_epoch(self) -> None:
        """Copy the tensors that are not averaged; call it before the averaged net is used or saved."""
        for averaged, current in self._counters:
            averaged.copy_(current)
        if self.decay <= 0:
            torch._foreach_copy_(self._averaged, self._current)


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for weights of convolutions, Nesterov SGD for all other parameters.

    The step of a convolution is ``lr`` times a matrix with singular values near 1, which does not depend on the size of
    the gradient. Its weight decay is decoupled: a step subtracts ``lr * weight_decay`` times the weight.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        """Create the optimizer.

        Args:
            params: Parameters or groups, as for every optimizer of torch.
            lr: Learning rate.
            momentum: From 0 to below 1.
            weight_decay: At least 0; decoupled for convolutions, an L2 penalty for all others.
        """
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient.

        Args:
            closure: Computes the gradients and returns the loss; optional.

        Returns:
            The result of ``closure``.
        """
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        is_convolution = parameter.ndim == 4
        if not is_convolution:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        update = gradient.add(momentum, alpha=group["momentum"])  # Nesterov
        if is_convolution:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            update = orthogonalize(update.flatten(1)).view_as(update)
        parameter.add_(update, alpha=-group["lr"])


def orthogonalize(matrix: Tensor) -> Tensor:
    """Approximate the nearest orthogonal matrix: it has the same singular vectors and singular values near 1.

    It is computed in bfloat16, which is exact enough for a direction and four times as fast; in float32 where the
    device would emulate bfloat16, which takes 20 to 130 times as long.

    Args:
        matrix: float ``[M, N]``.

    Returns:
        ``[M, N]`` in the type of ``matrix``; zeros for a matrix of zeros.
    """
    from mien.lab.train.devices import computed_precision  # it imports Fabric

    has_bf16 = computed_precision("bf16-mixed", matrix.device.type) == "bf16-mixed"
    a, b, c = 3.4445, -4.7750, 2.0315  # of x, x^3 and x^5 (Newton-Schulz); singular values end between 0.68 and 1.14
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / (x.norm() + 1e-7)  # the iteration needs singular values of at most 1
    x = x.bfloat16() if has_bf16 else x
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)


_BUILDERS: Mapping[str, Callable[[Groups, TrainConfig], torch.optim.Optimizer]] = {
    "sgd": lambda groups, c: torch.optim.SGD(groups, lr=c.lr, momentum=c.momentum, nesterov=c.momentum > 0),
    "adam": lambda groups, _: torch.optim.Adam(groups),
    "adamw": lambda groups, _: torch.optim.AdamW(groups),
    "muon": lambda groups, c: Muon(groups, lr=c.lr, momentum=c.momentum),
}


def _longest(name: str, modules: Iterable[str]) -> str:
    """The longest name of the modules that a parameter is inside of; empty without any."""
    return max((module for module in modules if is_inside(name, [module])), key=len, default="")
