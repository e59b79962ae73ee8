"""The mien family: nets of 3x3 convolutions for int8 inference on CPUs, with residual, plain or RepVGG blocks.

Plain 3x3 convolutions with widths in multiples of 16 use int8 instructions far better than depthwise convolutions or
squeeze-and-excitation (docs/architecture.md, decision 3). With widths 64, 128, 256, 512 and two blocks a stage the net
is ResNet-18 (He et al., CVPR 2016) with the small stem. ``squeeze`` adds squeeze-and-excitation (Hu et al., CVPR 2018)
for teachers, which need not be fast.

The other two kinds of block have two 3x3 convolutions without a shortcut. ``"reparam"`` learns each convolution as the
sum of three branches and is exported as ``"plain"`` (Ding et al., RepVGG, CVPR 2021).
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
    """Build a net with a stem and ``len(widths)`` stages.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        stem: Channels of the stem, a 3x3 convolution.
        stem_stride: Stride of the stem.
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
    convolution: Callable[..., nn.Module] = Branched if block == "reparam" else conv_norm
    inputs, count, total = stem, 0, max(1, sum(depths) - 1)
    for width, depth, stride in zip(widths, depths, strides, strict=True):
        for i in range(depth):
            first = stride if i == 0 else 1
            if block == "residual":
                drop = drop_path * count / total
                layers.append(Block(inputs, width, stride=first, squeeze=squeeze, drop=drop))
            else:
                pair = (convolution(inputs, width, stride=first), nn.ReLU(), convolution(width, width), nn.ReLU())
                layers.append(nn.Sequential(*pair))
            inputs, count = width, count + 1
    return Net(nn.Sequential(*layers), PooledHead(inputs, classes, dropout=dropout))
