"""Muon: momentum whose every direction counts alike, for the weights of convolutions.

The momentum of a weight is seen as a matrix of ``(outputs, inputs x height x width)`` and replaced by (nearly) the
orthogonal matrix next to it, so that directions of small gradients are learnt as fast as those of large ones (Jordan et
al., "Muon: An optimizer for hidden layers in neural networks", 2024, who set their records of training CIFAR-10 with
it). The orthogonal matrix comes from five steps of a Newton-Schulz iteration, which are matrix products alone.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

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
