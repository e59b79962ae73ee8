"""The four-layer CNN of document 004: four convolutions with batch norm and max-pool, three dense layers.

The document gives the filters (64, 128, 256, 512) but neither the kernel, nor the two hidden widths, nor the dropout:
3x3, 512 and 256, and 0.5 are chosen here, and are options.
"""

from collections.abc import Sequence

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
    """One convolution for each of ``widths``, one dense layer for each of ``hidden``, and the classifier.

    ``size`` is the side in pixels of the images that the dense layers are made for; at 48 the last map is 3x3.
    """
    layers: list[nn.Module] = []
    inputs = channels
    for width in widths:
        layers += [conv_norm(inputs, width, kernel=kernel), nn.ReLU(), nn.MaxPool2d(2)]
        inputs = width
    return dense_net(nn.Sequential(*layers), channels, classes, size=size, hidden=hidden, dropout=dropout)
