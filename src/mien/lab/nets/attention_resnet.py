"""The attention ResNet of document 003: basic blocks, one map of spatial attention, a pooled head.

The text says two blocks a stage, but the printed parameters (73,984 / 230,144 / 919,040 / 3,673,600, in all "about 4.9
million") are those of one block, which is the default. The last number is misprinted: a block from 256 to 512 channels
like the three before it has 3,673,088 parameters, 512 fewer. So the total with 3 channels and 7 classes is 4,909,896;
the printed rows add up to 4,910,408.
"""

import torch
from torch import Tensor, nn

from mien.lab.nets._layers import Block, Net, PooledHead, residual_features


class PointAttention(nn.Module):
    """Scales each cell by a gate computed from its own channels: 1x1 convolution to one map, sigmoid.

    Args:
        width: Channels K.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Rescale the cells of maps.

        Args:
            x: ``[N, K, h, w]``.

        Returns:
            ``[N, K, h, w]``.
        """
        return x * torch.sigmoid(self.gate(x))


def build(
    channels: int,
    classes: int,
    *,
    depth: int = 1,
    stem: str = "imagenet",
    base: int = 64,
    attention: bool = True,
    dropout: float = 0.5,
) -> Net:
    """Build the attention ResNet.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        depth: Basic blocks in each of the four stages; 1 gives the published number of parameters.
        stem: ``"imagenet"`` is the published 7x7 convolution and max-pool (a 2x2 map at 48 px), ``"small"`` one 3x3
            convolution (6x6), ``"half"`` one 3x3 convolution of stride 2 (3x3).
        base: Channels of the first stage; 64 as published.
        attention: Whether the last map is scaled by spatial attention.
        dropout: Dropout rate before the classifier, from 0 to 1.

    Returns:
        The net.

    Raises:
        TypeError: ``depth`` is below 1, or ``stem`` is unknown.
    """
    if depth < 1:
        raise TypeError(f"depth is the number of blocks in each stage, at least 1, not {depth}")
    features = residual_features(channels, Block, (depth,) * 4, stem=stem, base=base)
    if attention:
        features.add_module("attention", PointAttention(8 * base))
    return Net(features, PooledHead(8 * base, classes, dropout=dropout))
