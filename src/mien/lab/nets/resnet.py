"""ResNet-18, 34 and 50 (He et al., CVPR 2016).

Published, with 3 channels, 1000 classes and ``stem="imagenet"``: 11,689,512, 21,797,672 and 25,557,032 parameters.
"""

from mien.lab.nets._layers import (
    Block,
    Bottleneck,
    Net,
    PooledHead,
    check_option,
    residual_features,
    start_as_shortcuts,
)

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


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
    """ResNet of ``depth`` 18, 34 or 50; the stages are ``features.stem`` and ``features.stage1`` to ``stage4``.

    ``stem`` ``"imagenet"`` is the published 7x7 convolution and max-pool, a map of 2x2 at 48 px; ``"small"`` is one 3x3
    convolution with stride 1, a map of 6x6; ``"half"`` one with stride 2, a map of 3x3. ``base`` is the width of the
    first stage, 64 as published. ``drop_path`` is the stochastic depth of the last block.
    ``zero_init_residual`` lets every block begin as its shortcut.
    """
    check_option("depth", depth, tuple(_DEPTHS))
    block = Bottleneck if depth >= 50 else Block
    features = residual_features(channels, block, _DEPTHS[depth], stem=stem, base=base, drop_path=drop_path)
    if zero_init_residual:
        start_as_shortcuts(features)
    return Net(features, PooledHead(8 * base * block.expansion, classes, dropout=dropout))
