"""EfficientNet-B0 to B3 (Tan & Le, ICML 2019): inverted residuals, squeeze-and-excitation, SiLU, stochastic depth.

EfficientNet-Lite0 (Google, 2020) is B0 without squeeze-and-excitation and with ReLU6.

Published with 3 channels and 1000 classes: 5,288,548 parameters (B0) and 12,233,232 (B3, which document 001 compares).
"""

import math
from collections import OrderedDict

from torch import nn

from mien.lab.nets._layers import EPS, Inverted, Net, PooledHead, Squeeze, check_option, conv_norm, divisible

# Width and depth relative to B0, and dropout.
_VARIANTS = {0: (1.0, 1.0, 0.2), 1: (1.0, 1.1, 0.2), 2: (1.1, 1.2, 0.3), 3: (1.2, 1.4, 0.3)}
# Expansion, channels, blocks, stride of the first, kernel: the seven stages of B0 (table 1 of the paper).
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM, _LAST = 32, 1280


def build(
    channels: int,
    classes: int,
    *,
    variant: int = 0,
    stem: str = "small",
    lite: bool = False,
    dropout: float | None = None,
    drop_path: float = 0.2,
) -> Net:
    """Build an EfficientNet.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        variant: 0 to 3, for B0 to B3.
        stem: ``"imagenet"`` has the published stride 2 (a 2x2 map at 48 px), ``"small"`` has stride 1 (3x3).
        lite: Whether to build EfficientNet-Lite0 (variant 0).
        dropout: Dropout rate before the classifier; by default that of the variant.
        drop_path: Stochastic depth rate, below 1; block i of n, from 0, has i / n of it (the last of B0 15 / 16).

    Returns:
        The net.

    Raises:
        TypeError: ``variant`` or ``stem`` is unknown.
    """
    check_option("variant", variant, (0,) if lite else tuple(_VARIANTS))
    check_option("stem", stem, ("small", "imagenet"))
    width, depth, usual = _VARIANTS[variant]
    activation: type[nn.Module] = nn.ReLU6 if lite else nn.SiLU
    inputs, last = divisible(_STEM * width), divisible(_LAST * width)
    convolution = conv_norm(channels, inputs, stride=1 if stem == "small" else 2, eps=EPS)
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(convolution, activation()))
    depths = [math.ceil(stage[2] * depth) for stage in _STAGES]
    count = 0
    for number, (expansion, base, _, stride, kernel) in enumerate(_STAGES, start=1):
        outputs, blocks = divisible(base * width), []
        for i in range(depths[number - 1]):
            inner = inputs * expansion
            block = Inverted(
                *(inputs, inner, outputs),
                kernel=kernel,
                stride=stride if i == 0 else 1,
                activation=activation,
                # A quarter of the block's inputs, not of its inner channels as in MobileNetV3.
                squeeze=None if lite else Squeeze(inner, max(1, inputs // 4), relu=nn.SiLU),
                drop=drop_path * count / sum(depths),
            )
            blocks.append(block)
            inputs, count = outputs, count + 1
        stages[f"stage{number}"] = nn.Sequential(*blocks)
    stages["last"] = nn.Sequential(conv_norm(inputs, last, kernel=1, eps=EPS), activation())
    return Net(nn.Sequential(stages), PooledHead(last, classes, dropout=usual if dropout is None else dropout))
