"""ResNet-18, 34 and 50 (He et al., CVPR 2016).

Published, with 3 channels, 1000 classes and ``stem="imagenet"``: 11,689,512, 21,797,672 and 25,557,032 parameters.
"""

from mien.lab.nets._layers import RESNETS, Net, PooledHead, check_option, residual_features, zero_last_norms


def build(
    channels: int,
    classes: int,
    *,
    depth: int = 18,
    stem: str = "small",
    base: int = 64,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    zero_init_residual: bool = False,
) -> Net:
    """Build a ResNet; its stages are ``features.stem`` and ``features.stage1`` to ``features.stage4``.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        depth: 18, 34 or 50.
        stem: ``"imagenet"`` is the published 7x7 convolution and max-pool (a 2x2 map at 48 px), ``"small"`` one 3x3
            convolution (6x6), ``"half"`` one 3x3 convolution of stride 2 (3x3).
        base: Channels of the first stage; 64 as published.
        dropout: Dropout rate before the classifier, from 0 to 1.
        drop_path: Stochastic depth rate of the last block, below 1; it grows linearly from 0 at the first
            block.
        zero_init_residual: Whether the last batch norm of every block starts at 0, so that the block starts as its
            shortcut (Goyal et al., 2017).

    Returns:
        The net.

    Raises:
        TypeError: An option has a value that is not allowed.
    """
    check_option("depth", depth, tuple(RESNETS))
    block, depths = RESNETS[depth]
    features = residual_features(channels, block, depths, stem=stem, base=base, drop_path=drop_path)
    if zero_init_residual:
        zero_last_norms(features)
    return Net(features, PooledHead(8 * base * block.expansion, classes, dropout=dropout))
