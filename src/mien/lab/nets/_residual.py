"""The residual blocks of He et al. (CVPR 2016), and the stages that several nets build of them."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from mien.lab.nets._net import Squeeze, check_option, conv_norm, drop_branch

# Stride of the first block of each of the four stages; the channels inside the blocks double from stage to stage.
_STRIDES = (1, 2, 2, 2)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (the basic block).

    ``drop`` is stochastic depth: the share of samples that skip the block's branch in training.
    """

    expansion = 1

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, squeeze: bool = False, drop: float = 0.0) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, stride=stride)
        self.second = conv_norm(outputs, outputs)
        self.squeeze = Squeeze(outputs, max(8, outputs // 16)) if squeeze else nn.Identity()
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU()
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """``[N, outputs, h / stride, w / stride]``."""
        branch = self.squeeze(self.second(self.relu(self.first(x))))
        out: Tensor = self.relu(drop_branch(branch, self.drop, training=self.training) + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, four times as many channels outside as inside.

    The stride is the 3x3 convolution's, as in all weights that are passed around for torch; in the paper and in Keras
    it is the first 1x1's.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, *, stride: int = 1, drop: float = 0.0) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.first = conv_norm(inputs, width, kernel=1)
        self.second = conv_norm(width, width, stride=stride)
        self.third = conv_norm(width, outputs, kernel=1)
        self.shortcut = _shortcut(inputs, outputs, stride)
        self.relu = nn.ReLU()
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 4 * width, h / stride, w / stride]``."""
        branch = self.third(self.relu(self.second(self.relu(self.first(x)))))
        out: Tensor = self.relu(drop_branch(branch, self.drop, training=self.training) + self.shortcut(x))
        return out


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    straight = inputs == outputs and stride == 1
    return nn.Identity() if straight else conv_norm(inputs, outputs, kernel=1, stride=stride)


def residual_features(
    channels: int,
    block: type[Block] | type[Bottleneck],
    depths: Sequence[int],
    *,
    stem: str,
    base: int = 64,
    drop_path: float = 0.0,
) -> nn.Sequential:
    """``stem`` and ``stage1`` to ``stage4``, stage i of ``depths[i]`` blocks.

    Its maps are ``[N, 8 * base * block.expansion, h, w]``. ``base`` is the width of the stem and of the first stage's
    blocks, 64 as published. ``drop_path`` is the stochastic depth of the last block, growing linearly from 0 at the
    first. Raises ``TypeError`` for a base below 1.
    """
    if base < 1:
        raise TypeError(f"base is the width of the first stage, at least 1, not {base}")
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=residual_stem(channels, stem, base))
    inputs, count, last = base, 0, max(1, sum(depths) - 1)
    for number, (depth, stride) in enumerate(zip(depths, _STRIDES, strict=True), start=1):
        width = base * 2 ** (number - 1)
        blocks: list[nn.Module] = []
        for i in range(depth):
            blocks.append(block(inputs, width, stride=stride if i == 0 else 1, drop=drop_path * count / last))
            inputs, count = width * block.expansion, count + 1
        stages[f"stage{number}"] = nn.Sequential(*blocks)
    return nn.Sequential(stages)


def start_as_shortcuts(features: nn.Module) -> None:
    """Zero the scale of each block's last norm, so that its branch adds nothing at first (Goyal et al.,
    arXiv:1706.02677).

    Without that, branches add their variance to the shortcut's, and the gradient grows on its way back through the
    blocks: in a new ResNet-50 its norm is 155 instead of 3 on 64 faces of 48 px, and plain SGD leaves the rails.
    """
    for block in features.modules():
        if isinstance(block, (Block, Bottleneck)):
            last = block.second if isinstance(block, Block) else block.third
            norm = last[1]
            assert isinstance(norm, nn.BatchNorm2d)
            nn.init.zeros_(norm.weight)


def residual_stem(channels: int, stem: str, base: int = 64) -> nn.Sequential:
    """``"imagenet"``: 7x7 with stride 2 and a max-pool, a quarter of the size; ``"small"``: 3x3, the same size;
    ``"half"``: 3x3 with stride 2, half the size."""
    check_option("stem", stem, ("small", "half", "imagenet"))
    if stem != "imagenet":
        return nn.Sequential(conv_norm(channels, base, stride=1 if stem == "small" else 2), nn.ReLU())
    convolution = conv_norm(channels, base, kernel=7, stride=2)
    return nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1))
