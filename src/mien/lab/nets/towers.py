"""Several nets side by side as one: each sees the face for itself, and one linear layer answers from what all see.

With the weights of nets that were trained apart, as `mien join` sets them, its logits are the mean of theirs: an
ensemble by the geometric mean of probabilities (a logarithmic opinion pool), in one file and one forward pass. The head
is a pooled linear one, so the class activation maps are the mean of the parts' maps, and as exact.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mien.lab import nets
from mien.lab.nets._layers import Net, PooledHead


class Towers(nn.Module):
    """``forward(x)``: the features of all ``parts``, one after another: ``[N, K1 + K2 + ..., h, w]``."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Raises ``RuntimeError`` where the parts' maps of ``x`` ``[N, channels, S, S]`` have different sides."""
        return torch.cat([part(x) for part in self.parts], dim=1)


def build(
    channels: int,
    classes: int,
    *,
    parts: Sequence[Mapping[str, Any]] = ({}, {}),
    dropout: float = 0.2,
) -> Net:
    """A net of ``len(parts)`` towers, each a net of its own: its ``name`` (default: mien) and the options of that net.

    ``dropout`` is before the classifier. Parts need a pooled linear head, and maps of the same side.
    """
    if not parts:
        raise TypeError("parts names no net")
    built = [nets.build(**{"name": "mien", **part}, channels=channels, classes=classes) for part in parts]
    width = 0
    for number, net in enumerate(built, start=1):
        if not isinstance(net.head, PooledHead):
            raise TypeError(f"part {number} has no pooled linear head, which alone can be joined with others")
        width += net.head.linear.in_features
    return Net(Towers([net.features for net in built]), PooledHead(width, classes, dropout=dropout))
