"""An ensemble as one net: several nets with pooled heads, their features concatenated, one linear classifier.

With the weights of nets that were trained separately (``mien.lab.ensemble``), its logits are the mean of their logits,
which is the geometric mean of their probabilities (a logarithmic opinion pool). The head is pooled and linear, so its
class activation maps are exact: they are the mean of the members' maps.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mien.lab import nets
from mien.lab.nets._layers import Net, PooledHead


class EnsembleFeatures(nn.Module):
    """The features of several nets, concatenated.

    Args:
        parts: The feature modules; their maps of one image have the same side.
    """

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features of images.

        Args:
            x: ``[N, channels, S, S]``.

        Returns:
            ``[N, K1 + K2 + ..., h, w]``.
        """
        return torch.cat([part(x) for part in self.parts], dim=1)


def build(channels: int, classes: int, *, parts: Sequence[Mapping[str, Any]] = ({}, {}), dropout: float = 0.2) -> Net:
    """Build an ensemble.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        parts: One table for each member: its ``name`` (default: ``mien``) and the options of that net.
        dropout: Dropout rate before the classifier, from 0 to 1.

    Returns:
        The net.

    Raises:
        TypeError: ``parts`` is empty, or a member has no pooled linear head.
    """
    if not parts:
        raise TypeError("parts names no net")
    members = [nets.build(**{"name": "mien", **part}, channels=channels, classes=classes) for part in parts]
    width = 0
    for number, net in enumerate(members, start=1):
        if not isinstance(net.head, PooledHead):
            raise TypeError(f"part {number} has no pooled linear head; only nets with one can form an ensemble")
        width += net.head.linear.in_features
    return Net(EnsembleFeatures([net.features for net in members]), PooledHead(width, classes, dropout=dropout))
