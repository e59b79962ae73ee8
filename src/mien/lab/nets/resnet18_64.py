"""The modified ResNet-18 of document 000: 3x3 stem with stride 1, no max-pool, dropout 0.3 before the classifier.

The document does not speak of the max-pool, but wants "spatial integrity until the GAP layer": at its 64 px the last
map is 8x8.
"""

from mien.lab.nets import resnet
from mien.lab.nets._layers import Net


def build(channels: int, classes: int, *, base: int = 64, dropout: float = 0.3, drop_path: float = 0.0) -> Net:
    """ResNet-18 with the small-image stem.

    ``base`` is the width of the first stage, 64 as published; ``drop_path`` the stochastic depth of the last block.
    """
    return resnet.build(channels, classes, depth=18, stem="small", base=base, dropout=dropout, drop_path=drop_path)
