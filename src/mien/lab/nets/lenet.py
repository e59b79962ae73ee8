"""A LeNet-style net (LeCun et al., Proc. IEEE 1998): the shallow baseline of document 000.

Two or three 5x5 convolutions without padding, each with ReLU and a max-pool, then dense layers. ReLU and max-pool
replace the tanh and the trained subsampling of 1998, as is usual today. With ``widths=(6, 16)``, ``hidden=(120, 84)``
and ``size=32`` it has the sizes of LeNet-5.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from mien.lab.nets._layers import Net, dense_net


def build(
    channels: int,
    classes: int,
    *,
    widths: Sequence[int] = (32, 64, 128),
    kernel: int = 5,
    norm: bool = False,
    hidden: Sequence[int] = (256,),
    size: int = 48,
    dropout: float = 0.5,
) -> Net:
    """Build a LeNet: one convolution for each of ``widths``, then dense layers.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        widths: Channels of the convolutions.
        kernel: Kernel size of the convolutions in pixels.
        norm: Whether each convolution has batch norm.
        hidden: Widths of the hidden dense layers.
        size: Side in pixels of the images that the dense layers fit.
        dropout: Dropout rate after each hidden layer, from 0 to 1.

    Returns:
        The net.

    Raises:
        TypeError: The images are too small for the net.
    """
    layers: list[nn.Module] = []
    for inputs, width in pairwise((channels, *widths)):
        layers.append(nn.Conv2d(inputs, width, kernel, bias=not norm))
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return dense_net(nn.Sequential(*layers), channels, classes, size=size, hidden=hidden, dropout=dropout)
