"""MobileNetV3-Small (Howard et al., ICCV 2019): inverted residuals, hard swish, squeeze-and-excitation.

Published with 3 channels, 1000 classes and the dense head: 2,542,856 parameters.
"""

from collections import OrderedDict

from torch import nn

from mien.lab.nets._layers import EPS, Dense, Inverted, Net, PooledHead, Squeeze, check_option, conv_norm, divisible

# Kernel, inner channels, outputs, squeeze-and-excitation, hard swish (else ReLU), stride: table 2 of the paper.
_BLOCKS = (
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)
_STEM, _LAST, _HIDDEN = 16, 576, 1024


def build(channels: int, classes: int, *, stem: str = "small", head: str = "pooled", dropout: float = 0.2) -> Net:
    """Build a MobileNetV3-Small.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        stem: ``"imagenet"`` has the published stride 2 (a 2x2 map at 48 px), ``"small"`` has stride 1 (3x3).
        head: ``"dense"`` is published, with a hidden layer of 1024 after the pooling; ``"pooled"`` has none, so
            that its maps are class activation maps.
        dropout: Dropout rate before the classifier, from 0 to 1.

    Returns:
        The net.

    Raises:
        TypeError: ``stem`` or ``head`` is unknown.
    """
    check_option("stem", stem, ("small", "imagenet"))
    check_option("head", head, ("pooled", "dense"))
    inputs = _STEM
    convolution = conv_norm(channels, inputs, stride=1 if stem == "small" else 2, eps=EPS)
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(convolution, nn.Hardswish()))
    blocks: list[nn.Module] = []
    for kernel, inner, outputs, has_squeeze, has_swish, stride in _BLOCKS:
        squeeze = Squeeze(inner, divisible(inner / 4), sigmoid=nn.Hardsigmoid) if has_squeeze else None
        swish: type[nn.Module] = nn.Hardswish if has_swish else nn.ReLU
        blocks.append(Inverted(inputs, inner, outputs, kernel=kernel, stride=stride, activation=swish, squeeze=squeeze))
        inputs = outputs
    stages["blocks"] = nn.Sequential(*blocks)
    stages["last"] = nn.Sequential(conv_norm(inputs, _LAST, kernel=1, eps=EPS), nn.Hardswish())
    features = nn.Sequential(stages)
    if head == "pooled":
        return Net(features, PooledHead(_LAST, classes, dropout=dropout))
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    hidden = nn.Sequential(Dense(_LAST, _HIDDEN), nn.Hardswish(), nn.Dropout(dropout))
    return Net(features, nn.Sequential(pool, hidden, nn.Linear(_HIDDEN, classes)))
