"""The hybrid ResNet-50 of document 001: adapter, backbone, attention, transformer, class branches.

Each module has an option that switches it off. The document upsamples the faces to 224 px first; here the recipe's
``data.size`` does that. At 224 px the map is 7x7 (49 tokens), at 48 px 2x2.

The document's "layers 100 to 175" are layers of Keras. There the blocks of ``features.backbone.stage3`` begin at 81,
93, 103, 113, 123 and 133, those of ``stage4`` at 143, 155 and 165.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mien._emotions import Emotion
from mien.lab.nets._layers import (
    RESNETS,
    Dense,
    EncoderBlock,
    Net,
    PooledHead,
    SpatialAttention,
    Squeeze,
    check_option,
    residual_features,
    zero_last_norms,
)
from mien.lab.nets._pullback import Back, pull

# The first branch of the document; the second one has the other classes.
BRANCHES = ((Emotion.HAPPY, Emotion.SURPRISE, Emotion.NEUTRAL),)


class Duplicate(nn.Module):
    """Repeats a grey channel three times. It replaces the learnable adapter."""

    def forward(self, x: Tensor) -> Tensor:
        """Return images with three channels.

        Args:
            x: ``[N, 1 or 3, h, w]``.

        Returns:
            ``[N, 3, h, w]``.
        """
        return x.expand(-1, 3, -1, -1)


class TokenEncoder(nn.Module):
    """A transformer over the cells of a map: 1x1 projection, one encoder block, the mean over all tokens.

    Args:
        inputs: Channels of the map.
        width: Width of the tokens.
        heads: Number of attention heads.
    """

    def __init__(self, inputs: int, width: int, heads: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs, width, 1)
        self.block = EncoderBlock(width, heads, hidden=4 * width)

    def forward(self, features: Tensor) -> Tensor:
        """Encode maps.

        Args:
            features: ``[N, inputs, h, w]``.

        Returns:
            ``[N, width]``.
        """
        tokens = self.project(features).flatten(2).transpose(1, 2)
        mean: Tensor = self.block(tokens).mean(dim=1)
        return mean


@pull.register
def _(encoder: TokenEncoder, features: Tensor) -> tuple[Tensor, Back]:
    projected = encoder.project(features)
    tokens, back_tokens = pull(encoder.block, projected.flatten(2).transpose(1, 2))

    def back(gradients: Tensor) -> Tensor:
        by_tokens = back_tokens(gradients.unsqueeze(2).expand(-1, -1, tokens.shape[1], -1) / tokens.shape[1])
        by_features = by_tokens @ encoder.project.weight.flatten(1)  # a 1x1 convolution is a linear layer at each cell
        return torch.unflatten(by_features.transpose(2, 3), 3, features.shape[2:])

    return tokens.mean(dim=1), back


class BranchHead(nn.Module):
    """One branch of dense layers for each group of classes, on pooled and transformer features.

    A branch computes the logits of its own classes. Without ``groups`` one linear layer computes all logits.

    Args:
        width: Channels K of the features.
        classes: Number of classes C.
        encoder: The transformer; ``None``: the branches take pooled features only.
        groups: Indices of the classes of each branch, each class once.
        hidden: Width of the hidden layer of each branch.
        dropout: Dropout rate before the last layer, from 0 to 1.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        *,
        encoder: TokenEncoder | None,
        groups: Sequence[Sequence[int]],
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        inputs = width + (encoder.project.out_channels if encoder is not None else 0)
        self.branches = nn.ModuleList()
        for group in groups:
            layers = (Dense(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, len(group)))
            self.branches.append(nn.Sequential(*layers))
        if not groups:
            self.branches.append(nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, classes)))
        members = [index for group in groups for index in group] or list(range(classes))
        self.register_buffer("order", torch.tensor(members).argsort(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Compute the logits of features.

        Args:
            features: ``[N, K, h, w]``.

        Returns:
            Logits ``[N, C]``.
        """
        pooled = features.mean(dim=(2, 3))
        if self.encoder is not None:
            pooled = torch.cat([pooled, self.encoder(features)], dim=1)
        logits = torch.cat([branch(pooled) for branch in self.branches], dim=1)
        return logits.index_select(1, self.get_buffer("order"))


@pull.register
def _(head: BranchHead, features: Tensor) -> tuple[Tensor, Back]:
    pooled, back_pooled = pull(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), features)
    parts, backs = [pooled], [back_pooled]
    if head.encoder is not None:
        encoded, back_encoded = pull(head.encoder, features)
        parts, backs = [pooled, encoded], [back_pooled, back_encoded]
    pulled = [pull(branch, torch.cat(parts, dim=1)) for branch in head.branches]
    logits = torch.cat([logits for logits, _ in pulled], dim=1)
    order = head.get_buffer("order")
    sizes, widths = [logits.shape[1] for logits, _ in pulled], [part.shape[1] for part in parts]

    def back(gradients: Tensor) -> Tensor:
        by_branch = torch.split(gradients.index_select(2, order.argsort()), sizes, dim=2)
        by_pooled = torch.stack([back_branch(g) for (_, back_branch), g in zip(pulled, by_branch, strict=True)]).sum(0)
        by_part = torch.split(by_pooled, widths, dim=2)
        return torch.stack([back_part(g) for back_part, g in zip(backs, by_part, strict=True)]).sum(0)

    return logits.index_select(1, order), back


def build(
    channels: int,
    classes: int,
    *,
    adapter: bool = True,
    attention: str = "both",
    transformer: bool = True,
    branches: Sequence[Sequence[str | int]] = BRANCHES,
    emotions: Sequence[str] = (),
    depth: int = 50,
    stem: str = "imagenet",
    base: int = 64,
    width: int = 512,
    heads: int = 8,
    hidden: int = 256,
    dropout: float = 0.3,
    zero_init_residual: bool = False,
) -> Net:
    """Build the hybrid ResNet; each of its modules can be switched off.

    Without the transformer and branches the head is the pooled one.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        adapter: Whether a learnable 1x1 convolution makes three channels; else the grey channel is repeated.
        attention: ``"both"``, ``"channel"``, ``"spatial"`` or ``"none"``.
        transformer: Whether an encoder block takes the cells of the last map as tokens.
        branches: The classes of each branch, by name or index. Names of emotions that are no class are skipped. The
            classes that no branch names have one more branch. Empty: one linear layer for all classes.
        emotions: Names of the classes in order; by default those of mien.
        depth: 18, 34 or 50 (as published).
        stem: ``"imagenet"`` is the published 7x7 convolution and max-pool (a 2x2 map at 48 px), ``"small"`` one 3x3
            convolution (6x6), ``"half"`` one 3x3 convolution of stride 2 (3x3).
        base: Channels of the backbone's first stage; 64 as published. Its last map has 8 times as many (32 times at
            depth 50).
        width: Width of the transformer.
        heads: Attention heads of the transformer.
        hidden: Width of the hidden layer of each branch; the document does not give it.
        dropout: Dropout rate after that layer, from 0 to 1.
        zero_init_residual: Whether the last batch norm of every block of the backbone starts at 0, so that the block
            starts as its shortcut (Goyal et al., 2017). For random weights.

    Returns:
        The net.

    Raises:
        TypeError: Options have values that are not allowed, or do not fit each other.
    """
    check_option("attention", attention, ("both", "channel", "spatial", "none"))
    check_option("depth", depth, tuple(RESNETS))
    groups = _groups(branches, classes, emotions or tuple(Emotion)[:classes])
    if not adapter and channels not in (1, 3):
        raise TypeError(f"without adapter the images have 1 or 3 channels, not {channels}")
    block, depths = RESNETS[depth]
    last = 8 * base * block.expansion
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["adapter"] = nn.Conv2d(channels, 3, 1) if adapter else Duplicate()
    parts["backbone"] = residual_features(3, block, depths, stem=stem, base=base)
    if zero_init_residual:
        zero_last_norms(parts["backbone"])
    if attention in ("both", "channel"):
        parts["channel"] = Squeeze(last, last // 16)
    if attention in ("both", "spatial"):
        parts["spatial"] = SpatialAttention()
    features = nn.Sequential(parts)
    if not transformer and not branches:
        return Net(features, PooledHead(last, classes, dropout=dropout))
    encoder = TokenEncoder(last, width, heads) if transformer else None
    return Net(features, BranchHead(last, classes, encoder=encoder, groups=groups, hidden=hidden, dropout=dropout))


def _groups(branches: Sequence[Sequence[str | int]], classes: int, emotions: Sequence[str]) -> list[list[int]]:
    """The indices of the classes of each branch; empty without branches."""
    groups: list[list[int]] = []
    for branch in branches:
        for member in branch:
            allowed = tuple(map(str, Emotion)) if isinstance(member, str) else range(classes)
            check_option("a class of branches", member, allowed)
        known = [member for member in branch if not isinstance(member, str) or member in emotions]
        groups.append([list(emotions).index(member) if isinstance(member, str) else member for member in known])
    named = [index for group in groups for index in group]
    if len(set(named)) < len(named):
        raise TypeError(f"branches name a class twice: {branches!r}")
    if branches:
        groups.append([index for index in range(classes) if index not in named])
    return [group for group in groups if group]
