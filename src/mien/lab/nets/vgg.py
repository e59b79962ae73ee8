"""VGG (Simonyan & Zisserman, ICLR 2015) with batch norm and a pooled head."""

from torch import nn

from mien.lab.nets._net import Net, PooledHead, conv_norm

# Convolutions of each of the five blocks; a 2x2 max-pool stands between the blocks.
_BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


def build(channels: int, classes: int, *, depth: int = 16, dropout: float = 0.5, last_pool: bool = False) -> Net:
    """VGG of ``depth`` 11, 13, 16 or 19. At 48 px the last map is 3x3, or 1x1 with ``last_pool``."""
    if depth not in _BLOCKS:
        raise TypeError(f"depth is one of {', '.join(map(str, _BLOCKS))}, not {depth}")
    layers: list[nn.Module] = []
    inputs = channels
    for block, (count, width) in enumerate(zip(_BLOCKS[depth], _WIDTHS, strict=True)):
        for _ in range(count):
            layers += [conv_norm(inputs, width), nn.ReLU()]
            inputs = width
        if block < len(_WIDTHS) - 1 or last_pool:
            layers.append(nn.MaxPool2d(2))
    return Net(nn.Sequential(*layers), PooledHead(inputs, classes, dropout=dropout))
