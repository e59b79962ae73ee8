"""The mien family: nets of 3x3 convolutions for int8 inference on CPUs, with residual, plain or RepVGG blocks.

Plain 3x3 convolutions with widths in multiples of 16 use int8 instructions far better than depthwise convolutions or
squeeze-and-excitation (decision 3 of the architecture). With widths 64, 128, 256, 512 and two blocks a stage the net
is ResNet-18 (He et al., CVPR 2016) with the small stem. ``squeeze`` adds squeeze-and-excitation (Hu et al., CVPR 2018)
for teachers, which need not be fast.

``blur`` low-passes what the strided blocks read (anti-aliasing, Zhang, ICML 2019), so that a shift by a pixel changes
the maps less. It has no weights: nets with and without it have the same ones.

The other two kinds of block have two 3x3 convolutions without a shortcut. ``"reparam"`` learns each convolution as the
sum of three branches and is exported as ``"plain"`` (Ding et al., RepVGG, CVPR 2021).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.lab.nets._layers import Block, Branched, Net, PooledHead, check_option, conv_norm


class Blur(nn.Module):
    """A binomial filter of 3x3 pixels on each channel, with the edge repeated."""

    def forward(self, x: Tensor) -> Tensor:
        """Blur maps.

        Args:
            x: ``[N, K, h, w]``.

        Returns:
            ``[N, K, h, w]``.
        """
        weights = torch.tensor((0.25, 0.5, 0.25), dtype=x.dtype, device=x.device)
        kernel = (weights[:, None] * weights).expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, groups=x.shape[1])


class _BlurredBlock(Block):
    """A block that reads blurred maps; its weights have the names of ``Block``."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, squeeze: bool, drop: float) -> None:
        super().__init__(inputs, outputs, stride=stride, squeeze=squeeze, drop=drop)
        self.blur = Blur()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.blur(x))


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
    blur: bool = False,
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
        blur: Whether residual blocks with a stride read blurred maps.
        squeeze: Whether residual blocks have squeeze-and-excitation.
        dropout: Dropout rate before the classifier, from 0 to 1.
        drop_path: Stochastic depth rate of the last residual block; it grows linearly from 0 at the first block.

    Returns:
        The net.

    Raises:
        TypeError: Options have values that are not allowed, or do not fit each other.
    """
    check_option("block", block, ("residual", "plain", "reparam"))
    if block != "residual" and (blur or squeeze or drop_path > 0):
        raise TypeError(f"blur, squeeze and drop_path need block 'residual', not {block!r}")
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
                kind = _BlurredBlock if blur and first > 1 else Block
                layers.append(kind(inputs, width, stride=first, squeeze=squeeze, drop=drop))
            else:
                pair = (convolution(inputs, width, stride=first), nn.ReLU(), convolution(width, width), nn.ReLU())
                layers.append(nn.Sequential(*pair))
            inputs, count = width, count + 1
    return Net(nn.Sequential(*layers), PooledHead(inputs, classes, dropout=dropout))
