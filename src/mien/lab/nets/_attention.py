"""Attention over places: by a map of gates (Woo et al., ECCV 2018) and by a transformer (Vaswani et al., NIPS 2017)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.lab.nets._net import Dense


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
        n, t, d = tokens.shape
        split = self.project(tokens).reshape(n, t, 3, self.heads, d // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        joined: Tensor = self.join(mixed.transpose(1, 2).reshape(n, t, d))
        return joined
