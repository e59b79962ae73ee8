"""Modules that several nets share: the two halves of a net, two kinds of head, blocks, and checks of options."""

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mien.lab.nets._pullback import Back, pull

# Epsilon of the batch norms of EfficientNet and MobileNetV3, as published.
EPS = 1e-3


class Net(nn.Module):
    """A classifier in two halves: ``forward(x)`` is ``head(features(x))``.

    Args:
        features: Maps normalised images ``[N, channels, S, S]`` to features ``[N, K, h, w]``.
        head: Maps features to logits ``[N, C]``.
    """

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of images.

        Args:
            x: Normalised images ``[N, channels, S, S]``.

        Returns:
            Logits ``[N, C]``.
        """
        logits: Tensor = self.head(self.features(x))
        return logits


class PooledHead(nn.Module):
    """Global average pooling, dropout and one linear layer.

    With this head the class activation map of class c is the features weighted by row c of ``linear.weight`` (Zhou et
    al., CVPR 2016). The spatial mean of the map plus the bias is the logit.

    Args:
        width: Channels K of the features.
        classes: Number of classes C.
        dropout: Dropout rate before the linear layer, from 0 to 1.
    """

    def __init__(self, width: int, classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the logits of features.

        Args:
            features: ``[N, K, h, w]``.

        Returns:
            Logits ``[N, C]``.
        """
        logits: Tensor = self.linear(self.dropout(features.mean(dim=(2, 3))))
        return logits


@pull.register
def _(head: PooledHead, features: Tensor) -> tuple[Tensor, Back]:
    return pull(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head.linear), features)


class Dense(nn.Linear):
    """A hidden linear layer before a rectifier. It is initialised for that, unlike a classifier."""


class DenseHead(nn.Module):
    """The flattened features, hidden layers with ReLU and dropout, and a linear classifier.

    A map of another size than ``grid`` x ``grid`` is average-pooled to it, so the net takes images of any size.

    Args:
        width: Channels K of the features.
        grid: Side of the map that the first layer takes, in cells.
        classes: Number of classes C.
        hidden: Widths of the hidden layers.
        dropout: Dropout rate after each hidden layer, from 0 to 1.
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
        """Compute the logits of features.

        Args:
            features: ``[N, K, h, w]``.

        Returns:
            Logits ``[N, C]``.
        """
        logits: Tensor = self.layers(self.pool(features).flatten(1))
        return logits


@pull.register
def _(head: DenseHead, features: Tensor) -> tuple[Tensor, Back]:
    return pull(nn.Sequential(head.pool, nn.Flatten(), head.layers), features)


def dense_net(
    features: nn.Module, channels: int, classes: int, *, size: int, hidden: Sequence[int], dropout: float
) -> Net:
    """Build a net from features and the dense head that fits their map.

    Args:
        features: The first half of the net.
        channels: Channels of the images.
        classes: Number of classes.
        size: Side in pixels of the images that the head fits.
        hidden: Widths of the hidden layers.
        dropout: Dropout rate after each hidden layer, from 0 to 1.

    Returns:
        The net.

    Raises:
        TypeError: Images of ``size`` are too small for the features.
    """
    # A copy on the meta device finds the size of the map without computing anything.
    probe = copy.deepcopy(features).to("meta").eval()
    try:
        _, width, grid, _ = probe(torch.empty(1, channels, size, size, device="meta")).shape
    except RuntimeError as error:
        raise TypeError(f"images of {size} px are too small for this net: {error}") from error
    return Net(features, DenseHead(width, grid, classes, hidden=hidden, dropout=dropout))


class Squeeze(nn.Module):
    """Squeeze-and-excitation (Hu et al., CVPR 2018): scales each channel by a gate computed from all channel means.

    Args:
        width: Channels K.
        hidden: Width of the hidden layer.
        relu: Activation of the hidden layer.
        sigmoid: Activation of the gates.
    """

    def __init__(
        self, width: int, hidden: int, *, relu: type[nn.Module] = nn.ReLU, sigmoid: type[nn.Module] = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(width, hidden), relu(), nn.Linear(hidden, width), sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Rescale the channels of maps.

        Args:
            x: ``[N, K, h, w]``.

        Returns:
            ``[N, K, h, w]``.
        """
        gates: Tensor = self.gate(x.mean(dim=(2, 3)))
        return x * gates[:, :, None, None]


def conv_norm(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, groups: int = 1, eps: float = 1e-5
) -> nn.Sequential:
    """Build a padded convolution without bias, followed by batch norm.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Side of the kernel in pixels; odd, so that only the stride changes the size.
        stride: Stride of the convolution.
        groups: Groups of the convolution.
        eps: Epsilon of the batch norm.

    Returns:
        The two layers.
    """
    padding = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=eps))


def drop_branch(branch: Tensor, drop: float, *, training: bool) -> Tensor:
    """Apply stochastic depth (Huang et al., ECCV 2016) to the branch of a residual block.

    Args:
        branch: ``[N, K, h, w]``.
        drop: Share of samples that lose the branch, from 0 to below 1.
        training: Whether the block is in training mode; else nothing is dropped.

    Returns:
        ``[N, K, h, w]``, rescaled so that its expectation stays the same.
    """
    if not training or drop <= 0:
        return branch
    kept = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= drop
    return branch * kept / (1 - drop)


def divisible(width: float) -> int:
    """Round a width to a multiple of 8, but never down by more than a tenth (Sandler et al., CVPR 2018).

    Args:
        width: The width.

    Returns:
        The rounded width.
    """
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


def check_option(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Check that the value of a net's option is allowed.

    Args:
        name: The option.
        value: Its value.
        allowed: All allowed values.

    Raises:
        TypeError: The value is not allowed.
    """
    if value not in allowed:
        raise TypeError(f"{name} is one of {', '.join(map(repr, allowed))}, not {value!r}")


class SpatialAttention(nn.Module):
    """Scales each cell by a gate: maximum and mean over its channels, a convolution, a sigmoid (CBAM, ECCV 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Rescale the cells of maps.

        Args:
            x: ``[N, K, h, w]``.

        Returns:
            ``[N, K, h, w]``.
        """
        pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
        return x * torch.sigmoid(self.gate(pooled))


class EncoderBlock(nn.Module):
    """A transformer encoder block: multi-head self-attention, then two linear layers, each with shortcut and norm.

    The scores are divided by the root of the width of one head, as is usual (document 001 prints that of all heads).

    Args:
        width: Width D of the tokens, a multiple of ``heads``.
        heads: Number of attention heads.
        hidden: Width between the two linear layers.

    Raises:
        TypeError: The width is not a multiple of ``heads``.
    """

    def __init__(self, width: int, heads: int, *, hidden: int) -> None:
        super().__init__()
        if width % heads:
            raise TypeError(f"the transformer's width {width} cannot be divided among {heads} heads")
        self.heads = heads
        # Queries, keys and values of all heads, without biases.
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.join = nn.Linear(width, width)
        self.think = nn.Sequential(Dense(width, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.dropout = nn.Dropout(0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode tokens.

        Args:
            tokens: ``[N, T, D]``.

        Returns:
            ``[N, T, D]``.
        """
        queries, keys, values = self._split(tokens)
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        attended = self.join(mixed.transpose(1, 2).flatten(2))
        tokens = self.norms[0](tokens + self.dropout(attended))
        out: Tensor = self.norms[1](tokens + self.dropout(self.think(tokens)))
        return out

    def _split(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values ``[N, heads, T, D / heads]``."""
        return torch.unflatten(self.project(tokens), -1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()


@pull.register
def _(block: EncoderBlock, tokens: Tensor) -> tuple[Tensor, Back]:
    attended, back_attended = _pull_attention(block, tokens)
    normed, back_normed = pull(block.norms[0], tokens + attended)
    hidden, back_hidden = pull(block.think, normed)
    out, back_out = pull(block.norms[1], normed + hidden)

    def back(gradients: Tensor) -> Tensor:
        gradients = back_out(gradients)
        gradients = back_normed(gradients + back_hidden(gradients))
        return gradients + back_attended(gradients)

    return out, back


def _pull_attention(block: EncoderBlock, tokens: Tensor) -> tuple[Tensor, Back]:
    """Pull back through the joining layer, the weighted values, the softmax, and the scores."""
    queries, keys, values = block._split(tokens)
    scale = queries.shape[-1] ** -0.5
    shares = (queries @ keys.mT * scale).softmax(dim=-1)
    joined, back_joined = pull(block.join, (shares @ values).transpose(1, 2).flatten(2))
    # One more axis, that of the differentiated functions: [N, 1, heads, T, ...].
    queries, keys, values, shares = (x.unsqueeze(1) for x in (queries, keys, values, shares))

    def back(gradients: Tensor) -> Tensor:
        by_mixed = torch.unflatten(back_joined(gradients), -1, (block.heads, -1)).transpose(2, 3)
        by_shares = by_mixed @ values.mT
        by_scores = shares * (by_shares - (by_shares * shares).sum(dim=-1, keepdim=True)) * scale
        by_parts = torch.stack([by_scores @ keys, by_scores.mT @ queries, shares.mT @ by_mixed], dim=2)
        return by_parts.permute(0, 1, 4, 2, 3, 5).flatten(3) @ block.project.weight

    return joined, back


class Inverted(nn.Module):
    """An inverted residual block: 1x1 convolution, depthwise convolution, squeeze, and a linear 1x1 convolution.

    It has a shortcut where the shape stays the same.

    Args:
        inputs: Input channels.
        inner: Channels of the depthwise convolution.
        outputs: Output channels.
        kernel: Side of the depthwise kernel, odd.
        stride: Stride of the depthwise convolution.
        activation: Activation after the first two convolutions.
        squeeze: Squeeze-and-excitation after the depthwise convolution; default: none.
        drop: Stochastic depth: the share of samples that skip the branch in training.
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
        self.has_shortcut = inputs == outputs and stride == 1
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: ``[N, inputs, h, w]``.

        Returns:
            ``[N, outputs, h / stride, w / stride]``.
        """
        branch: Tensor = self.branch(x)
        return x + drop_branch(branch, self.drop, training=self.training) if self.has_shortcut else branch


class Branched(nn.Module):
    """The sum of a 3x3 and a 1x1 convolution and, where the shape stays, of the input, each with batch norm.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Stride of the convolutions.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.wide = conv_norm(inputs, outputs, stride=stride)
        self.point = conv_norm(inputs, outputs, kernel=1, stride=stride)
        self.straight = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: ``[N, inputs, h, w]``.

        Returns:
            ``[N, outputs, h / stride, w / stride]``.
        """
        out: Tensor = self.wide(x) + self.point(x)
        return out if self.straight is None else out + self.straight(x)

    def fused(self) -> nn.Conv2d:
        """Return the 3x3 convolution with the same output as this block in eval mode."""
        wide: Any = self.wide  # torch types the layers of a Sequential as plain modules
        point: Any = self.point
        branches = [(wide[0].weight, wide[1]), (F.pad(point[0].weight, (1, 1, 1, 1)), point[1])]
        if self.straight is not None:
            identity = nn.init.dirac_(torch.zeros_like(wide[0].weight))  # the convolution that changes nothing
            branches.append((identity, self.straight))
        folded = [
            fuse_conv_bn_weights(kernel, None, n.running_mean, n.running_var, n.eps, n.weight, n.bias)
            for kernel, n in branches
        ]
        conv: nn.Conv2d = copy.deepcopy(wide[0])
        conv.weight = nn.Parameter(torch.stack([weight for weight, _ in folded]).sum(0), requires_grad=False)
        conv.bias = nn.Parameter(torch.stack([bias for _, bias in folded]).sum(0), requires_grad=False)
        return conv


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut (the basic block of ResNet).

    Args:
        inputs: Input channels.
        outputs: Output channels.
        stride: Stride of the first convolution.
        squeeze: Whether squeeze-and-excitation follows the convolutions.
        drop: Stochastic depth: the share of samples that skip the branch in training.
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
        """Apply the block.

        Args:
            x: ``[N, inputs, h, w]``.

        Returns:
            ``[N, outputs, h / stride, w / stride]``.
        """
        branch = self.squeeze(self.second(self.relu(self.first(x))))
        out: Tensor = self.relu(drop_branch(branch, self.drop, training=self.training) + self.shortcut(x))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut, with four times as many channels outside as inside.

    The 3x3 convolution has the stride, as in published weights for torch. In the paper and in Keras it is the first 1x1
    convolution.

    Args:
        inputs: Input channels.
        width: Channels inside; the block has ``4 * width`` output channels.
        stride: Stride of the 3x3 convolution.
        drop: Stochastic depth: the share of samples that skip the branch in training.
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
        """Apply the block.

        Args:
            x: ``[N, inputs, h, w]``.

        Returns:
            ``[N, 4 * width, h / stride, w / stride]``.
        """
        branch = self.third(self.relu(self.second(self.relu(self.first(x)))))
        out: Tensor = self.relu(drop_branch(branch, self.drop, training=self.training) + self.shortcut(x))
        return out


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    same_shape = inputs == outputs and stride == 1
    return nn.Identity() if same_shape else conv_norm(inputs, outputs, kernel=1, stride=stride)


# Depth of a ResNet -> its block, and the number of blocks of each stage.
RESNETS: dict[int, tuple[type[Block] | type[Bottleneck], tuple[int, ...]]] = {
    18: (Block, (2, 2, 2, 2)),
    34: (Block, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
}


def residual_features(
    channels: int,
    block: type[Block] | type[Bottleneck],
    depths: Sequence[int],
    *,
    stem: str,
    base: int = 64,
    drop_path: float = 0.0,
) -> nn.Sequential:
    """Build the features of a ResNet: ``stem`` and ``stage1`` to ``stage4``.

    Args:
        channels: Channels of the images.
        block: The kind of block.
        depths: Number of blocks of each of the four stages.
        stem: ``"imagenet"``: a 7x7 convolution of stride 2 and a max-pool, a quarter of the size; ``"small"``: a 3x3
            convolution, the same size; ``"half"``: a 3x3 convolution of stride 2, half the size.
        base: Width of the stem and of the blocks of the first stage; 64 as published.
        drop_path: Stochastic depth rate of the last block, below 1; it grows linearly from 0 at the first block.

    Returns:
        Maps images ``[N, channels, S, S]`` to ``[N, 8 * base * block.expansion, h, w]``.

    Raises:
        TypeError: ``base`` is below 1, or ``stem`` is unknown.
    """
    if base < 1:
        raise TypeError(f"base is the width of the first stage, at least 1, not {base}")
    check_option("stem", stem, ("small", "half", "imagenet"))
    if stem == "imagenet":
        first = [conv_norm(channels, base, kernel=7, stride=2), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
    else:
        first = [conv_norm(channels, base, stride=1 if stem == "small" else 2), nn.ReLU()]
    stages: OrderedDict[str, nn.Module] = OrderedDict(stem=nn.Sequential(*first))
    inputs, count, last = base, 0, max(1, sum(depths) - 1)
    for number, (depth, stride) in enumerate(zip(depths, (1, 2, 2, 2), strict=True), start=1):
        width = base * 2 ** (number - 1)
        blocks: list[nn.Module] = []
        for i in range(depth):
            blocks.append(block(inputs, width, stride=stride if i == 0 else 1, drop=drop_path * count / last))
            inputs, count = width * block.expansion, count + 1
        stages[f"stage{number}"] = nn.Sequential(*blocks)
    return nn.Sequential(stages)


def zero_last_norms(features: nn.Module) -> None:
    """Zero the scale of the last norm of each residual block (Goyal et al., arXiv:1706.02677).

    The blocks then start as their shortcuts. Otherwise each branch adds its variance to that of the shortcut, and the
    gradient grows on its way back: in a new ResNet-50 its norm is 155 instead of 3 on 64 faces of 48 px, and plain SGD
    diverges.

    Args:
        features: The result of ``residual_features``; changed in place.
    """
    for block in features.modules():
        if isinstance(block, (Block, Bottleneck)):
            norm = (block.second if isinstance(block, Block) else block.third)[1]
            assert isinstance(norm, nn.BatchNorm2d)
            nn.init.zeros_(norm.weight)
