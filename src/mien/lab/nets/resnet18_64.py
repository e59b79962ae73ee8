"""The modified ResNet-18 of document 000: 3x3 stem with stride 1, no max-pool, dropout 0.3 before the classifier.

The document does not mention the max-pool, but demands "spatial integrity until the GAP layer": at 64 px the last map
is 8x8.
"""

from mien.lab.nets import resnet
from mien.lab.nets._layers import Net


def build(channels: int, classes: int, *, base: int = 64, dropout: float = 0.3, drop_path: float = 0.0) -> Net:
    """Build a ResNet-18 with the small stem.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        base: Channels of the first stage; 64 as published.
        dropout: Dropout rate before the classifier, from 0 to 1.
        drop_path: Stochastic depth rate of the last block, below 1; it grows linearly from 0 at the first
            block.

    Returns:
        The net.
    """
    return resnet.build(channels, classes, depth=18, stem="small", base=base, dropout=dropout, drop_path=drop_path)
