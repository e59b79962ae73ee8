"""AlexNet, part of the survey of document 000, in the one-column form of Krizhevsky (arXiv:1404.5997).

This form lacks the two groups and the response normalisation of the original (Krizhevsky et al., NIPS 2012). Published:
61,100,840 parameters with 1000 classes at 224 px.
"""

from collections.abc import Sequence

from torch import nn

from mien.lab.nets._layers import Net, check_option, dense_net


def build(
    channels: int,
    classes: int,
    *,
    stem: str = "small",
    base: int = 64,
    hidden: Sequence[int] = (4096, 4096),
    size: int = 48,
    dropout: float = 0.5,
) -> Net:
    """Build an AlexNet: five convolutions, three max-pools, dense layers.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        stem: ``"imagenet"`` is the published 11x11 convolution of stride 4, too coarse for 48 px; ``"small"`` is
            5x5 with stride 1 and ends in a 5x5 map.
        base: Channels of the first convolution, 64 as published; the others have 3, 6, 4 and 4 times as many.
        hidden: Widths of the hidden dense layers.
        size: Side in pixels of the images that the dense layers fit.
        dropout: Dropout rate after each hidden layer, from 0 to 1.

    Returns:
        The net.

    Raises:
        TypeError: ``stem`` is unknown, or the images are too small for the net.
    """
    check_option("stem", stem, ("small", "imagenet"))
    kernel, stride = (5, 1) if stem == "small" else (11, 4)
    features = nn.Sequential(
        *(nn.Conv2d(channels, base, kernel, stride=stride, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(base, 3 * base, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(3 * base, 6 * base, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(6 * base, 4 * base, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(4 * base, 4 * base, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
    )
    return dense_net(features, channels, classes, size=size, hidden=hidden, dropout=dropout)
