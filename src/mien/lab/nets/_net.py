"""What the nets share: two halves, two kinds of head, a few layers, and the checks of their options."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mien.lab.nets._pull import Back, pull


class Net(nn.Module):
    """A classifier in two halves. ``forward(x)`` is ``head(features(x))``."""

    features: nn.Module
    head: nn.Module

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[N, C]`` of normalised images ``[N, channels, S, S]``."""
        logits: Tensor = self.head(self.features(x))
        return logits


class PooledHead(nn.Module):
    """Global average pooling, dropout, one linear layer.

    With this head the class activation map of class c is the features weighted by row c of ``linear.weight`` (Zhou et
    al., CVPR 2016), and its spatial mean plus the bias is the logit.
    """

    def __init__(self, width: int, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[N, C]`` of features ``[N, K, h, w]``."""
        logits: Tensor = self.linear(self.dropout(features.mean(dim=(2, 3))))
        return logits


@pull.register
def _(head: PooledHead, features: Tensor) -> tuple[Tensor, Back]:
    return pull(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head.linear), features)


class Dense(nn.Linear):
    """A hidden linear layer, followed by a rectifier: it is initialised as such, and not as a classifier."""


class DenseHead(nn.Module):
    """The features as one vector, then hidden layers with ReLU and dropout, then the classifier.

    A map of another size than ``grid`` x ``grid`` is average-pooled to it, so that the net takes images of any size.
    """

    def __init__(self, width: int, grid: int, classes: int, *, hidden: Sequence[int], dropout: float = 0.5) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(grid)
        layers: list[nn.Module] = []
        inputs = width * grid * grid
        for outputs in hidden:
            layers += [Dense(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[N, C]`` of features ``[N, K, h, w]``."""
        logits: Tensor = self.layers(self.pool(features).flatten(1))
        return logits


@pull.register
def _(head: DenseHead, features: Tensor) -> tuple[Tensor, Back]:
    return pull(nn.Sequential(head.pool, nn.Flatten(), head.layers), features)


def dense_net(
    features: nn.Module, channels: int, classes: int, *, size: int, hidden: Sequence[int], dropout: float
) -> Net:
    """``features`` with the dense head that fits their map of an image of ``size`` pixels.

    Raises ``TypeError`` when such an image is too small for the net.
    """
    # A copy without storage finds the size of the map, at no cost.
    probe = copy.deepcopy(features).to("meta").eval()
    try:
        _, width, grid, _ = probe(torch.empty(1, channels, size, size, device="meta")).shape
    except RuntimeError as error:
        raise TypeError(f"images of {size} px are too small for this net: {error}") from error
    return Net(features, DenseHead(width, grid, classes, hidden=hidden, dropout=dropout))


class Squeeze(nn.Module):
    """Squeeze-and-excitation (Hu et al., CVPR 2018): every channel scaled by a gate computed from all channel means."""

    def __init__(
        self, width: int, hidden: int, *, relu: type[nn.Module] = nn.ReLU, sigmoid: type[nn.Module] = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(width, hidden), relu(), nn.Linear(hidden, width), sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``[N, K, h, w]`` with its channels rescaled."""
        gates: Tensor = self.gate(x.mean(dim=(2, 3)))
        return x * gates[:, :, None, None]


def conv_norm(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, eps: float = 1e-5
) -> nn.Sequential:
    """A convolution without bias that keeps the size (but for its stride), and batch norm."""
    padding = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=eps))


def drop_branch(branch: Tensor, drop: float, *, training: bool) -> Tensor:
    """Stochastic depth (Huang et al., ECCV 2016): a share ``drop`` of the samples loses ``branch`` in training."""
    if not training or drop <= 0:
        return branch
    kept = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= drop
    return branch * kept / (1 - drop)


def divisible(width: float, *, by: int = 8) -> int:
    """``width`` rounded to a multiple of ``by``, but never down by more than a tenth (Sandler et al., CVPR 2018)."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded if rounded >= 0.9 * width else rounded + by


def check_option(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raises ``TypeError`` when the option ``name`` of a net has a ``value`` that is not ``allowed``."""
    if value not in allowed:
        raise TypeError(f"{name} is one of {', '.join(map(repr, allowed))}, not {value!r}")
