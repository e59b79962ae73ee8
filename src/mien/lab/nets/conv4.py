"""The four-layer CNN of document 004: four convolutions with batch norm and max-pool, three dense layers.

The document gives the filters (64, 128, 256, 512), but not the kernel (here 3x3), the two hidden widths (512 and 256)
and the dropout (0.5). All are options.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from mien.lab.nets._layers import Net, conv_norm, dense_net


def build(
    channels: int,
    classes: int,
    *,
    widths: Sequence[int] = (64, 128, 256, 512),
    kernel: int = 3,
    hidden: Sequence[int] = (512, 256),
    size: int = 48,
    dropout: float = 0.5,
) -> Net:
    """Build the four-layer CNN.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        widths: Channels of each convolution, one block each.
        kernel: Kernel size of the convolutions in pixels.
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
        layers += [conv_norm(inputs, width, kernel=kernel), nn.ReLU(), nn.MaxPool2d(2)]
    return dense_net(nn.Sequential(*layers), channels, classes, size=size, hidden=hidden, dropout=dropout)
