"""The hybrid ResNet-50 of document 001: adapter, backbone, attention, transformer, class branches.

Each module has an option that switches it off. The document upsamples the faces to 224 px first, which is the business
of the recipe's ``data.size``: there the map is 7x7, 49 tokens; at 48 px it is 2x2.

Its "layers 100 to 175" count those of Keras. There the blocks of ``features.backbone.stage3`` begin at 81, 93, 103,
113, 123 and 133, those of ``stage4`` at 143, 155 and 165.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mien.lab.nets._attention import EncoderBlock, SpatialAttention
from mien.lab.nets._net import Dense, Net, PooledHead, Squeeze, check_option
from mien.lab.nets._residual import Bottleneck, residual_features

_WIDTH = 2048  # channels of the backbone's last map
# (happy, surprise, neutral) and (angry, disgust, fear, sad) in the order of FER-2013.
GROUPS = ((3, 5, 6), (0, 1, 2, 4))


class Duplicate(nn.Module):
    """The grey channel three times: what the learnable adapter stands for."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, 3, h, w]`` of ``[N, 1 or 3, h, w]``."""
        return x.expand(-1, 3, -1, -1)


class TokenEncoder(nn.Module):
    """Places as tokens: 1x1 projection, one encoder block, the mean over all tokens."""

    def __init__(self, inputs: int, width: int, heads: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs, width, 1)
        self.block = EncoderBlock(width, heads, hidden=4 * width)

    def forward(self, features: Tensor) -> Tensor:
        """``[N, width]`` of features ``[N, inputs, h, w]``."""
        tokens = self.project(features).flatten(2).transpose(1, 2)
        mean: Tensor = self.block(tokens).mean(dim=1)
        return mean


class BranchHead(nn.Module):
    """Backbone and transformer features side by side, given to one branch of dense layers for each group of classes.

    A branch answers for its own classes only; the logits of all branches together are the net's. Without ``groups`` a
    single linear layer answers for every class.
    """

    def __init__(
        self,
        classes: int,
        *,
        encoder: TokenEncoder | None,
        groups: Sequence[Sequence[int]],
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        inputs = _WIDTH + (encoder.project.out_channels if encoder is not None else 0)
        members = [index for group in groups for index in group] or list(range(classes))
        if groups:
            self.branches = nn.ModuleList(_branch(inputs, hidden, len(group), dropout) for group in groups)
        else:
            self.branches = nn.ModuleList([nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, classes))])
        self.register_buffer("order", torch.tensor(members).argsort(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``[N, C]`` of features ``[N, 2048, h, w]``."""
        pooled = features.mean(dim=(2, 3))
        if self.encoder is not None:
            pooled = torch.cat([pooled, self.encoder(features)], dim=1)
        logits = torch.cat([branch(pooled) for branch in self.branches], dim=1)
        return logits.index_select(1, self.get_buffer("order"))


def _branch(inputs: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(Dense(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes))


def build(
    channels: int,
    classes: int,
    *,
    adapter: bool = True,
    attention: str = "both",
    transformer: bool = True,
    branches: Sequence[Sequence[int]] = GROUPS,
    stem: str = "imagenet",
    width: int = 512,
    heads: int = 8,
    hidden: int = 256,
    dropout: float = 0.3,
) -> Net:
    """``attention`` is ``"both"``, ``"channel"``, ``"spatial"`` or ``"none"``; ``branches`` lists the classes of each.

    An empty ``branches`` is one linear layer for all classes; without the transformer as well, the head is the pooled
    one. Without ``adapter`` the grey channel is used three times. ``width`` and ``heads`` are the transformer's,
    ``hidden`` the width of a branch's dense layer, which the document does not give; ``dropout`` follows it. ``stem``
    ``"imagenet"`` is the published one; ``"small"`` leaves a map of 6x6 at 48 px.
    """
    check_option("attention", attention, ("both", "channel", "spatial", "none"))
    if branches and sorted(index for group in branches for index in group) != list(range(classes)):
        raise TypeError(f"branches must hold each class from 0 to {classes - 1} once, not {branches!r}")
    if not adapter and channels not in (1, 3):
        raise TypeError(f"without adapter the images have 1 or 3 channels, not {channels}")
    features = _features(channels, adapter=adapter, attention=attention, stem=stem)
    if not transformer and not branches:
        return Net(features, PooledHead(_WIDTH, classes, dropout=dropout))
    encoder = TokenEncoder(_WIDTH, width, heads) if transformer else None
    return Net(features, BranchHead(classes, encoder=encoder, groups=branches, hidden=hidden, dropout=dropout))


def _features(channels: int, *, adapter: bool, attention: str, stem: str) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["adapter"] = nn.Conv2d(channels, 3, 1) if adapter else Duplicate()
    parts["backbone"] = residual_features(3, Bottleneck, (3, 4, 6, 3), stem=stem)
    if attention in ("both", "channel"):
        parts["channel"] = Squeeze(_WIDTH, _WIDTH // 16)
    if attention in ("both", "spatial"):
        parts["spatial"] = SpatialAttention()
    return nn.Sequential(parts)
