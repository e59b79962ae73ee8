"""What the nets share: two halves, two kinds of head, a few layers, and the checks of their options."""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mien.lab.nets._pullback import Back, pull


class Net(nn.Module):
    """A classifier in two halves. ``forward(x)`` is ``head(features(x))``."""

    features: nn.Module
    head: nn.Module

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[N, C]`` of normalised images ``[N, channels, S, S]``."""
        logits: Tensor = self.head(self.features(x))
        return logits


class PooledHead(nn.Module):
    """Global average pooling, dropout, one linear layer.

    With this head the class activation map of class c is the features weighted by row c of ``linear.weight`` (Zhou et
    al., CVPR 2016), and its spatial mean plus the bias is the logit.
    """

    def __init__(self, width: int, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[N, C]`` of features ``[N, K, h, w]``."""
        logits: Tensor = self.linear(self.dropout(features.mean(dim=(2, 3))))
        return logits


@pull.register
def _(head: PooledHead, features: Tensor) -> tuple[Tensor, Back]:
    return pull(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head.linear), features)


class Dense(nn.Linear):
    """A hidden linear layer, followed by a rectifier: it is initialised as such, and not as a classifier."""


class DenseHead(nn.Module):
    """The features as one vector, then hidden layers with ReLU and dropout, then the classifier.

    A map of another size than ``grid`` x ``grid`` is average-pooled to it, so that the net takes images of any size.
    """

    def __init__(self, width: int, grid: int, classes: int, *, hidden: Sequence[int], dropout: float = 0.5) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(grid)
        layers: list[nn.Module] = []
        inputs = width * grid * grid
        for outputs in hidden:
            layers += [Dense(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[N, C]`` of features ``[N, K, h, w]``."""
        logits: Tensor = self.layers(self.pool(features).flatten(1))
        return logits


@pull.register
def _(head: DenseHead, features: Tensor) -> tuple[Tensor, Back]:
    return pull(nn.Sequential(head.pool, nn.Flatten(), head.layers), features)


def dense_net(
    features: nn.Module, channels: int, classes: int, *, size: int, hidden: Sequence[int], dropout: float
) -> Net:
    """``features`` with the dense head that fits their map of an image of ``size`` pixels.

    Raises ``TypeError`` when such an image is too small for the net.
    """
    # A copy without storage finds the size of the map, at no cost.
    probe = copy.deepcopy(features).to("meta").eval()
    try:
        _, width, grid, _ = probe(torch.empty(1, channels, size, size, device="meta")).shape
    except RuntimeError as error:
        raise TypeError(f"images of {size} px are too small for this net: {error}") from error
    return Net(features, DenseHead(width, grid, classes, hidden=hidden, dropout=dropout))


class Squeeze(nn.Module):
    """Squeeze-and-excitation (Hu et al., CVPR 2018): every channel scaled by a gate computed from all channel means."""

    def __init__(
        self, width: int, hidden: int, *, relu: type[nn.Module] = nn.ReLU, sigmoid: type[nn.Module] = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(width, hidden), relu(), nn.Linear(hidden, width), sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``[N, K, h, w]`` with its channels rescaled."""
        gates: Tensor = self.gate(x.mean(dim=(2, 3)))
        return x * gates[:, :, None, None]


def conv_norm(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, eps: float = 1e-5
) -> nn.Sequential:
    """A convolution without bias that keeps the size (but for its stride), and batch norm."""
    padding = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=eps))


def drop_branch(branch: Tensor, drop: float, *, training: bool) -> Tensor:
    """Stochastic depth (Huang et al., ECCV 2016): a share ``drop`` of the samples loses ``branch`` in training."""
    if not training or drop <= 0:
        return branch
    kept = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= drop
    return branch * kept / (1 - drop)


def divisible(width: float, *, by: int = 8) -> int:
    """``width`` rounded to a multiple of ``by``, but never down by more than a tenth (Sandler et al., CVPR 2018)."""
    rounded = max(by, int(width + by / 2) // by * by)
    return rounded if rounded >= 0.9 * width else rounded + by


def check_option(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raises ``TypeError`` when the option ``name`` of a net has a ``value`` that is not ``allowed``."""
    if value not in allowed:
        raise TypeError(f"{name} is one of {', '.join(map(repr, allowed))}, not {value!r}")


class SpatialAttention(nn.Module):
    """Every place scaled by a gate: the largest and the mean value over its channels, 7x7 convolution, sigmoid."""

    def __init__(self, *, kernel: int = 7) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``[N, K, h, w]`` with its places rescaled."""
        pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.gate(pooled))


class EncoderBlock(nn.Module):
    """One transformer encoder block: multi-head self-attention, then two linear layers, each with shortcut and norm.

    The scores are divided by the root of the width of one head, as is usual (document 001 prints that of all heads).
    """

    def __init__(self, width: int, heads: int, *, hidden: int, dropout: float = 0.1) -> None:
        super().__init__()
        if width % heads:
            raise TypeError(f"the transformer's width {width} cannot be divided among {heads} heads")
        self.heads = heads
        # Queries, keys and values of all heads, without biases: X W_Q, X W_K and X W_V.
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.join = nn.Linear(width, width)
        self.think = nn.Sequential(Dense(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[N, T, D]`` of tokens ``[N, T, D]``."""
        tokens = self.norms[0](tokens + self.dropout(self._attend(tokens)))
        out: Tensor = self.norms[1](tokens + self.dropout(self.think(tokens)))
        return out

    def _attend(self, tokens: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(*self._split(tokens))
        joined: Tensor = self.join(mixed.transpose(1, 2).flatten(2))
        return joined

    def _split(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``[N, heads, T, D / heads]``."""
        split = torch.unflatten(self.project(tokens), -1, (3, self.heads, -1))
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind()
        return queries, keys, values


@pull.register
def __attention(block: EncoderBlock, tokens: Tensor) -> tuple[Tensor, Back]:
    attended, back_attended = _pull_attention(block, tokens)
    mixed, back_mixed = pull(block.norms[0], tokens + attended)
    thought, back_thought = pull(block.think, mixed)
    out, back_out = pull(block.norms[1], mixed + thought)

    def back(gradients: Tensor) -> Tensor:
        gradients = back_out(gradients)
        gradients = back_mixed(gradients + back_thought(gradients))
        return gradients + back_attended(gradients)

    return out, back


def _pull_attention(block: EncoderBlock, tokens: Tensor) -> tuple[Tensor, Back]:
    """The block's attention: through the joining layer, the mixture of values, the softmax, and the scores."""
    queries, keys, values = block._split(tokens)
    scale = queries.shape[-1] ** -0.5
    shares = (queries @ keys.mT * scale).softmax(dim=-1)
    joined, back_joined = pull(block.join, (shares @ values).transpose(1, 2).flatten(2))
    # One more axis, that of the functions whose gradients come: [N, 1, heads, T, ...].
    queries, keys, values, shares = (x.unsqueeze(1) for x in (queries, keys, values, shares))

    def back(gradients: Tensor) -> Tensor:
        by_mixed = torch.unflatten(back_joined(gradients), -1, (block.heads, -1)).transpose(2, 3)
        by_shares = by_mixed @ values.mT
        by_scores = shares * (by_shares - (by_shares * shares).sum(dim=-1, keepdim=True)) * scale
        by_parts = torch.stack([by_scores @ keys, by_scores.mT @ queries, shares.mT @ by_mixed], dim=2)
        return by_parts.permute(0, 1, 4, 2, 3, 5).flatten(3) @ block.project.weight

    return joined, back


# Batch norm's epsilon in both published nets.
EPS = 1e-3


class Inverted(nn.Module):
    """1x1 to ``inner`` channels, depthwise, ``squeeze``, and 1x1 to ``outputs`` without activation.

    The shortcut is there where the shape stays; ``drop`` is the share of samples that skip its branch in training.
    """

    def __init__(
        self,
        inputs: int,
        inner: int,
        outputs: int,
        *,
        kernel: int,
        stride: int,
        activation: type[nn.Module],
        squeeze: Squeeze | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if inner != inputs:
            layers += [conv_norm(inputs, inner, kernel=1, eps=EPS), activation()]
        layers += [conv_norm(inner, inner, kernel=kernel, stride=stride, groups=inner, eps=EPS), activation()]
        layers += [squeeze] if squeeze is not None else []
        self.branch = nn.Sequential(*layers, conv_norm(inner, outputs, kernel=1, eps=EPS))
        self.straight = inputs == outputs and stride == 1
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """``[N, outputs, h / stride, w / stride]``."""
        branch: Tensor = self.branch(x)
        return x + drop_branch(branch, self.drop, training=self.training) if self.straight else branch


class Branched(nn.Module):
    """The sum of a 3x3 and a 1x1 convolution and, where the shape stays, of ``x`` itself, each with batch norm."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.wide = conv_norm(inputs, outputs, stride=stride)
        self.point = conv_norm(inputs, outputs, kernel=1, stride=stride)
        self.straight = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """``[N, outputs, h / stride, w / stride]``."""
        out: Tensor = self.wide(x) + self.point(x)
        return out if self.straight is None else out + self.straight(x)

    def fused(self) -> nn.Conv2d:
        """The 3x3 convolution that answers as this module does in eval mode."""
        kernels = [self.wide[0].weight, F.pad(_tensor(self.point[0].weight), (1, 1, 1, 1))]
        norms: list[nn.Module] = [self.wide[1], self.point[1]]
        if self.straight is not None:
            kernels.append(nn.init.dirac_(torch.zeros_like(_tensor(self.wide[0].weight))))  # leaves an image as it is
            norms.append(self.straight)
        folded = [_folded(_tensor(kernel), norm) for kernel, norm in zip(kernels, norms, strict=True)]
        one = copy.deepcopy(self.wide[0])
        assert isinstance(one, nn.Conv2d)
        one.weight = nn.Parameter(torch.stack([weight for weight, _ in folded]).sum(0), requires_grad=False)
        one.bias = nn.Parameter(torch.stack([bias for _, bias in folded]).sum(0), requires_grad=False)
        return one


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def _folded(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution by ``weight`` with the batch norm after it."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return fuse_conv_bn_weights(weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)


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
