"""The mien family: 3x3 convolutions only, residual, for int8 on ordinary processors.

Plain 3x3 convolutions at widths in multiples of 16 use an int8 core far better than depthwise or squeeze-and-excitation
nets (see the table in docs/results), so the family spends its budget on them alone. With widths 64, 128, 256, 512 and
two blocks a stage it is ResNet-18 (He et al., CVPR 2016) with the small-image stem; ``squeeze`` adds
squeeze-and-excitation (Hu et al., CVPR 2018) for teachers, which need not be fast.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mien.lab.nets._net import Net, PooledHead, conv_norm


class Squeeze(nn.Module):
    """Squeeze-and-excitation: every channel scaled by a gate computed from all channel means."""

    def __init__(self, width: int, *, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(8, width // reduction)
        self.gate = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``[N, K, h, w]`` with its channels rescaled."""
        gates: Tensor = self.gate(x.mean(dim=(2, 3)))
        return x * gates[:, :, None, None]


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016, basic block).

    ``drop`` is stochastic depth (Huang et al., ECCV 2016): the share of samples that skip the block's branch in
    training.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, squeeze: bool = False, drop: float = 0.0) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, stride=stride)
        self.second = conv_norm(outputs, outputs)
        self.squeeze = Squeeze(outputs) if squeeze else nn.Identity()
        straight = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if straight else conv_norm(inputs, outputs, kernel=1, stride=stride)
        self.relu = nn.ReLU()
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """``[N, outputs, h / stride, w / stride]``."""
        branch = self.squeeze(self.second(self.relu(self.first(x))))
        if self.training and self.drop > 0:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
            branch = branch * kept / (1 - self.drop)
        out: Tensor = self.relu(branch + self.shortcut(x))
        return out


def build(
    channels: int,
    classes: int,
    *,
    stem: int = 32,
    stem_stride: int = 1,
    widths: Sequence[int] = (48, 96, 192),
    depths: Sequence[int] = (2, 2, 2),
    strides: Sequence[int] = (2, 2, 2),
    squeeze: bool = False,
    dropout: float = 0.2,
    drop_path: float = 0.0,
) -> Net:
    """A net of one stem and ``len(widths)`` stages; stage i has ``depths[i]`` blocks of ``widths[i]`` channels.

    The first block of a stage has ``strides[i]``. ``dropout`` is before the classifier; ``drop_path`` the stochastic
    depth of the last block, growing linearly from 0 at the first.
    """
    if not len(widths) == len(depths) == len(strides):
        raise TypeError(
            f"widths, depths and strides need the same length, not {len(widths)}, {len(depths)}, {len(strides)}"
        )
    layers: list[nn.Module] = [conv_norm(channels, stem, stride=stem_stride), nn.ReLU()]
    inputs, count, total = stem, 0, max(1, sum(depths) - 1)
    for width, depth, stride in zip(widths, depths, strides, strict=True):
        for i in range(depth):
            drop = drop_path * count / total
            layers.append(Block(inputs, width, stride=stride if i == 0 else 1, squeeze=squeeze, drop=drop))
            inputs, count = width, count + 1
    return Net(nn.Sequential(*layers), PooledHead(inputs, classes, dropout=dropout))
