"""The branched 3x3 convolution of RepVGG (Ding et al., CVPR 2021): three branches to learn with, one to work."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mien.lab.nets._net import conv_norm


class Branched(nn.Module):
    """The sum of a 3x3 and a 1x1 convolution and, where the shape stays, of ``x`` itself, each with batch norm."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.wide = conv_norm(inputs, outputs, stride=stride)
        self.point = conv_norm(inputs, outputs, kernel=1, stride=stride)
        self.straight = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """``[N, outputs, h / stride, w / stride]``."""
        out: Tensor = self.wide(x) + self.point(x)
        return out if self.straight is None else out + self.straight(x)

    def fused(self) -> nn.Conv2d:
        """The 3x3 convolution that answers as this module does in eval mode."""
        kernels = [self.wide[0].weight, F.pad(_tensor(self.point[0].weight), (1, 1, 1, 1))]
        norms: list[nn.Module] = [self.wide[1], self.point[1]]
        if self.straight is not None:
            kernels.append(nn.init.dirac_(torch.zeros_like(_tensor(self.wide[0].weight))))  # leaves an image as it is
            norms.append(self.straight)
        folded = [_folded(_tensor(kernel), norm) for kernel, norm in zip(kernels, norms, strict=True)]
        one = copy.deepcopy(self.wide[0])
        assert isinstance(one, nn.Conv2d)
        one.weight = nn.Parameter(torch.stack([weight for weight, _ in folded]).sum(0), requires_grad=False)
        one.bias = nn.Parameter(torch.stack([bias for _, bias in folded]).sum(0), requires_grad=False)
        return one


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _folded(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution by ``weight`` with the batch norm after it."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return fuse_conv_bn_weights(weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
