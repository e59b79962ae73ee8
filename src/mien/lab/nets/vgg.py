"""VGG (Simonyan & Zisserman, ICLR 2015), with or without batch norm, with the published dense head or a pooled one.

Published (the study of document 002 trains depths 16 and 19 with ``head="dense"``): 1000 classes at 224 px, no norm,
138,357,544 parameters (16) and 143,667,240 (19). At 48 px the dense head starts from 512 values.
"""

from collections.abc import Sequence

from torch import nn

from mien.lab.nets._layers import Net, PooledHead, check_option, conv_norm, dense_net

# Convolutions of each of the five blocks; between the blocks are 2x2 max-pools.
_BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (1, 2, 4, 8, 8)  # of the blocks, relative to the first


def build(
    channels: int,
    classes: int,
    *,
    depth: int = 16,
    base: int = 64,
    norm: bool = True,
    head: str = "pooled",
    hidden: Sequence[int] = (4096, 4096),
    size: int = 48,
    dropout: float = 0.5,
    last_pool: bool | None = None,
) -> Net:
    """Build a VGG.

    Without batch norm this is the net of the paper. The paper trains deeper nets from the weights of depth 11, which is
    not needed with He initialisation.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        depth: 11, 13, 16 or 19.
        base: Channels of the first block; 64 as published.
        norm: Whether convolutions have batch norm; the paper has none.
        head: ``"pooled"`` (global average pooling) or ``"dense"`` (as published).
        hidden: Widths of the hidden layers of the dense head.
        size: Side in pixels of the images that the dense layers fit.
        dropout: Dropout rate of the head, from 0 to 1.
        last_pool: Whether a max-pool follows the last block; by default only with the dense head, because at 48 px
            it leaves a 1x1 map.

    Returns:
        The net.

    Raises:
        TypeError: An option has a value that is not allowed.
    """
    check_option("depth", depth, tuple(_BLOCKS))
    check_option("head", head, ("pooled", "dense"))
    last_pool = head == "dense" if last_pool is None else last_pool
    layers: list[nn.Module] = []
    inputs = channels
    for block, (count, factor) in enumerate(zip(_BLOCKS[depth], _WIDTHS, strict=True)):
        width = factor * base
        for _ in range(count):
            layers += [conv_norm(inputs, width) if norm else nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        if block < len(_WIDTHS) - 1 or last_pool:
            layers.append(nn.MaxPool2d(2))
    features = nn.Sequential(*layers)
    if head == "dense":
        return dense_net(features, channels, classes, size=size, hidden=hidden, dropout=dropout)
    return Net(features, PooledHead(inputs, classes, dropout=dropout))
