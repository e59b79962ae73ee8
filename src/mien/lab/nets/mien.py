"""The mien family: nets of 3x3 convolutions for int8 inference on CPUs, with residual, plain or RepVGG blocks.

Plain 3x3 convolutions with widths in multiples of 16 use int8 instructions far better than depthwise convolutions or
squeeze-and-excitation (decision 3 of the architecture). With widths 64, 128, 256, 512 and two blocks a stage the net
is ResNet-18 (He et al., CVPR 2016) with the small stem. ``squeeze`` adds squeeze-and-excitation (Hu et al., CVPR 2018)
for teachers, which need not be fast.

``blur`` low-passes the image and what the strided blocks after the first stage read (anti-aliasing, Zhang, ICML 2019),
so that a shift by a pixel changes the maps less. It has no weights: nets with and without it have the same ones. In the
first stage it costs more accuracy than it gives steadiness.

The other two kinds of block have two 3x3 convolutions without a shortcut. ``"reparam"`` learns each convolution as the
sum of three branches and is exported as ``"plain"`` (Ding et al., RepVGG, CVPR 2021).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.lab.nets._layers import Block, Branched, Net, PooledHead, check_option, conv_norm


def low_pass(x: Tensor, share: float) -> Tensor:
    """Filter each channel with ``(share, 1 - 2 * share, share)`` along rows and columns; zeros are outside.

    Args:
        x: ``[N, K, h, w]``.
        share: Weight of each of the two neighbours, 0..0.25.

    Returns:
        ``[N, K, h, w]``.
    """
    weights = torch.tensor((share, 1 - 2 * share, share), dtype=x.dtype, device=x.device)
    kernel = (weights[:, None] * weights).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, padding=1, groups=x.shape[1])


class BlurredStem(nn.Sequential):
    """Layers that read a blurred image; their weights have the names of ``nn.Sequential``.

    Args:
        layers: The layers.
        share: As of ``low_pass``.
    """

    def __init__(self, *layers: nn.Module, share: float) -> None:
        super().__init__(*layers)
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Filter an image and compute the layers.

        Args:
            x: ``[N, K, h, w]``.

        Returns:
            What the layers return.
        """
        output: Tensor = super().forward(low_pass(x, self.share))  # type: ignore[no-untyped-call]
        return output


class BlurredBlock(Block):
    """A block that reads blurred maps; its weights have the names of ``Block``.

    Args:
        inputs: As of ``Block``.
        outputs: As of ``Block``.
        stride: As of ``Block``.
        squeeze: As of ``Block``.
        drop: As of ``Block``.
        share: As of ``low_pass``.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, squeeze: bool, drop: float, share: float) -> None:
        super().__init__(inputs, outputs, stride=stride, squeeze=squeeze, drop=drop)
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Filter maps and compute the block.

        Args:
            x: ``[N, K, h, w]``.

        Returns:
            What the block returns.
        """
        return super().forward(low_pass(x, self.share))


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
    blur: float = 0.0,
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
        blur: Weight of each neighbour in the filter of the image and of what strided residual blocks after the first
            stage read: 0 for no filter, 0.25 for the binomial one.
        squeeze: Whether residual blocks have squeeze-and-excitation.
        dropout: Dropout rate before the classifier, from 0 to 1.
        drop_path: Stochastic depth rate of the last residual block, below 1; it grows linearly from 0 at the first.

    Returns:
        The net.

    Raises:
        TypeError: Options have values that are not allowed, or do not fit each other.
    """
    check_option("block", block, ("residual", "plain", "reparam"))
    if not 0 <= blur <= 0.25:
        raise TypeError(f"blur is from 0 to 0.25, not {blur}")
    if block != "residual" and (blur > 0 or squeeze or drop_path > 0):
        raise TypeError(f"blur, squeeze and drop_path need block 'residual', not {block!r}")
    if not len(widths) == len(depths) == len(strides):
        raise TypeError(
            f"widths, depths and strides need the same length, not {len(widths)}, {len(depths)}, {len(strides)}"
        )
    first_layers = conv_norm(channels, stem, stride=stem_stride)
    layers: list[nn.Module] = [BlurredStem(*first_layers, share=blur) if blur > 0 else first_layers, nn.ReLU()]
    convolution: Callable[..., nn.Module] = Branched if block == "reparam" else conv_norm
    inputs, count, total = stem, 0, max(1, sum(depths) - 1)
    for stage, (width, depth, stride) in enumerate(zip(widths, depths, strides, strict=True)):
        for i in range(depth):
            first = stride if i == 0 else 1
            if block == "residual":
                drop = drop_path * count / total
                kind = partial(BlurredBlock, share=blur) if blur > 0 and stage > 0 and first > 1 else Block
                layers.append(kind(inputs, width, stride=first, squeeze=squeeze, drop=drop))
            else:
                pair = (convolution(inputs, width, stride=first), nn.ReLU(), convolution(width, width), nn.ReLU())
                layers.append(nn.Sequential(*pair))
            inputs, count = width, count + 1
    return Net(nn.Sequential(*layers), PooledHead(inputs, classes, dropout=dropout))
