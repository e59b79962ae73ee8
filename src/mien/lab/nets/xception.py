"""Xception (Chollet, CVPR 2017): depthwise separable convolutions with shortcuts, one of document 001's comparisons.

Published with 3 channels and 1000 classes: 22,855,952 parameters.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from mien.lab.nets._layers import Net, PooledHead, check_option, conv_norm

_MIDDLE = 728


class SeparableBlock(nn.Module):
    """Separable convolutions with a ReLU before each, and a shortcut.

    Args:
        widths: Channels before the first convolution and after each.
        halve: Whether the branch ends in a max-pool of stride 2, and the shortcut has a 1x1 convolution of that stride.
        relu: Whether the first convolution has a ReLU before it, too.
    """

    def __init__(self, widths: Sequence[int], *, halve: bool, relu: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise(widths)):
            layers += [nn.ReLU()] if relu or i > 0 else []
            layers.append(separable(inputs, outputs))
        layers += [nn.MaxPool2d(3, stride=2, padding=1)] if halve else []
        self.branch = nn.Sequential(*layers)
        self.shortcut = conv_norm(widths[0], widths[-1], kernel=1, stride=2) if halve else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: ``[N, widths[0], h, w]``.

        Returns:
            ``[N, widths[-1], h, w]``, or half as high and wide with ``halve``.
        """
        out: Tensor = self.branch(x) + self.shortcut(x)
        return out


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """Build a depthwise 3x3 convolution, a 1x1 convolution, and batch norm.

    Args:
        inputs: Input channels.
        outputs: Output channels.

    Returns:
        The three layers.
    """
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


def build(channels: int, classes: int, *, stem: str = "small", dropout: float = 0.5) -> Net:
    """Build an Xception; its stages are ``features.stem``, ``entry``, ``middle`` and ``exit`` (figure 5 of the paper).

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        stem: ``"imagenet"`` has the published stride 2 (a 2x2 map at 48 px), ``"small"`` has stride 1 (3x3).
        dropout: Dropout rate before the classifier, from 0 to 1.

    Returns:
        The net.

    Raises:
        TypeError: ``stem`` is unknown.
    """
    check_option("stem", stem, ("small", "imagenet"))
    small = stem == "small"  # the published convolutions have no padding
    first = nn.Conv2d(channels, 32, 3, stride=1 if small else 2, padding=int(small), bias=False)
    second = nn.Conv2d(32, 64, 3, padding=int(small), bias=False)
    flows: OrderedDict[str, nn.Module] = OrderedDict()
    flows["stem"] = nn.Sequential(first, nn.BatchNorm2d(32), nn.ReLU(), second, nn.BatchNorm2d(64), nn.ReLU())
    flows["entry"] = nn.Sequential(
        SeparableBlock((64, 128, 128), halve=True, relu=False),
        SeparableBlock((128, 256, 256), halve=True),
        SeparableBlock((256, _MIDDLE, _MIDDLE), halve=True),
    )
    flows["middle"] = nn.Sequential(*(SeparableBlock((_MIDDLE,) * 4, halve=False) for _ in range(8)))
    flows["exit"] = nn.Sequential(
        SeparableBlock((_MIDDLE, _MIDDLE, 1024), halve=True),
        *(separable(1024, 1536), nn.ReLU()),
        *(separable(1536, 2048), nn.ReLU()),
    )
    return Net(nn.Sequential(flows), PooledHead(2048, classes, dropout=dropout))
