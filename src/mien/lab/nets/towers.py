"""Several nets side by side as one: each sees the face for itself, and one linear layer answers from what all see.

With the weights of nets that were trained apart, as `mien join` sets them, its logits are the mean of theirs: an
ensemble by the geometric mean of probabilities (a logarithmic opinion pool), in one file and one forward pass. The head
is a pooled linear one, so the class activation maps are the mean of the parts' maps, and as exact.

Trained as one net, towers learn to complete each other and err alike. ``apart``, each learns from faces of its own, its
share of every batch, as if it were alone: several nets come out of one training, at the cost of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien._errors import RecipeError
from mien.lab import nets
from mien.lab.nets._net import Net, PooledHead


class Towers(nn.Module):
    """``forward(x)``: the features of all ``parts``, one after another: ``[N, K1 + K2 + ..., h, w]``."""

    def __init__(self, parts: Sequence[nn.Module], *, apart: bool = False) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.apart = apart

    def forward(self, x: Tensor) -> Tensor:
        """Raises ``RuntimeError`` where the parts' maps of ``x`` ``[N, channels, S, S]`` have different sides.

        Raises ``RecipeError`` in training ``apart``, where there are fewer faces than parts.

        In training ``apart``, a face has the features of one part, as many times as there are parts; the rest are zero.
        So what the head answers is that part's own answer, and later, when all see a face, the mean of theirs.
        """
        if not (self.apart and self.training):
            return torch.cat([part(x) for part in self.parts], dim=1)
        if len(x) < len(self.parts):
            raise RecipeError(
                f"a batch has {len(x)} of the faces that {len(self.parts)} towers share, and so none for one of them; "
                "take a larger optimise.batch, a smaller optimise.accumulate, or net.options.apart=false"
            )
        shares = torch.tensor_split(x, len(self.parts))
        seen = [part(own) * len(self.parts) for part, own in zip(self.parts, shares, strict=True)]
        widths = [features.shape[1] for features in seen]
        rows = [F.pad(own, (0, 0, 0, 0, sum(widths[:i]), sum(widths[i + 1 :]))) for i, own in enumerate(seen)]
        return torch.cat(rows)


def build(
    channels: int,
    classes: int,
    *,
    parts: Sequence[Mapping[str, Any]] = ({}, {}),
    apart: bool = False,
    dropout: float = 0.2,
) -> Net:
    """A net of ``len(parts)`` towers, each a net of its own: its ``name`` (default: mien) and the options of that net.

    ``apart``: in training, each learns from its share of a batch, which must have several faces for each. ``dropout``
    is before the classifier. Parts need a pooled linear head, and maps of the same side.
    """
    if not parts:
        raise TypeError("parts names no net")
    built = [nets.build(**{"name": "mien", **part}, channels=channels, classes=classes) for part in parts]
    width = 0
    for number, net in enumerate(built, start=1):
        if not isinstance(net.head, PooledHead):
            raise TypeError(f"part {number} has no pooled linear head, which alone can be joined with others")
        width += net.head.linear.in_features
    return Net(Towers([net.features for net in built], apart=apart), PooledHead(width, classes, dropout=dropout))
