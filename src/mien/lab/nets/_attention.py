"""Attention over places: by a map of gates (Woo et al., ECCV 2018) and by a transformer (Vaswani et al., NIPS 2017)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.lab.nets._net import Dense
from mien.lab.nets._pull import Back, pull


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
def _(block: EncoderBlock, tokens: Tensor) -> tuple[Tensor, Back]:
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
