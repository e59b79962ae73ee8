"""The mien family: 3x3 convolutions only, for int8 on ordinary processors; residual, plain, or re-parameterised.

Plain 3x3 convolutions at widths in multiples of 16 use an int8 core far better than depthwise or squeeze-and-excitation
nets (docs/architecture.md, decision 3), so the family spends its budget on them alone. With widths 64, 128, 256, 512
and two blocks a stage it is ResNet-18 (He et al., CVPR 2016) with the small-image stem; ``squeeze`` adds
squeeze-and-excitation (Hu et al., CVPR 2018) for teachers, which need not be fast.

The other two kinds of block have the same two 3x3 convolutions without the shortcut around them: ``"plain"``, and
``"reparam"``, which learns each of them as the sum of three branches and is exported as the plain one (Ding et al.,
RepVGG, CVPR 2021).
"""

from collections.abc import Callable, Sequence

from torch import nn

from mien.lab.nets._layers import Block, Branched, Net, PooledHead, check_option, conv_norm


def build(
    channels: int,
    classes: int,
    *,
    stem: int = 32,
    stem_stride: int = 1,
    widths: Sequence[int] = (48, 96, 192),
    depths: Sequence[int] = (2, 2, 2),
    strides: Sequence[int] = (2, 2, 2),
    block: str = "residual",
    squeeze: bool = False,
    dropout: float = 0.2,
    drop_path: float = 0.0,
) -> Net:
    """Build a net of one stem and ``len(widths)`` stages.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        stem: Channels of the stem, a 3x3 convolution.
        stem_stride: Its stride.
        widths: Channels of each stage; multiples of 16 are fast in int8.
        depths: Blocks of each stage.
        strides: Stride of the first block of each stage.
        block: ``"residual"``, ``"plain"`` or ``"reparam"``.
        squeeze: Whether residual blocks have squeeze-and-excitation.
        dropout: Dropout rate before the classifier, from 0 to 1.
        drop_path: Stochastic depth rate of the last residual block; it grows linearly from 0 at the first block.

    Returns:
        The net.

    Raises:
        TypeError: Options have values that are not allowed, or do not fit each other.
    """
    check_option("block", block, ("residual", "plain", "reparam"))
    if block != "residual" and (squeeze or drop_path > 0):
        raise TypeError(f"squeeze and drop_path need block 'residual', not {block!r}")
    if not len(widths) == len(depths) == len(strides):
        raise TypeError(
            f"widths, depths and strides need the same length, not {len(widths)}, {len(depths)}, {len(strides)}"
        )
    layers: list[nn.Module] = [conv_norm(channels, stem, stride=stem_stride), nn.ReLU()]
    inputs, count, total = stem, 0, max(1, sum(depths) - 1)
    for width, depth, stride in zip(widths, depths, strides, strict=True):
        for i in range(depth):
            first = stride if i == 0 else 1
            if block == "residual":
                drop = drop_path * count / total
                layers.append(Block(inputs, width, stride=first, squeeze=squeeze, drop=drop))
            else:
                layers.append(_straight(conv_norm if block == "plain" else Branched, inputs, width, first))
            inputs, count = width, count + 1
    return Net(nn.Sequential(*layers), PooledHead(inputs, classes, dropout=dropout))


def _straight(convolution: Callable[..., nn.Module], inputs: int, width: int, stride: int) -> nn.Sequential:
    """Two convolutions, each with norm and ReLU, and nothing around them."""
    return nn.Sequential(convolution(inputs, width, stride=stride), nn.ReLU(), convolution(width, width), nn.ReLU())
