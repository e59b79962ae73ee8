"""Attention-guided training: a class activation map should lie on the face."""

import torch
from torch import Tensor
from torch.nn import functional as F

# Keeps the share defined where a map has no positive place; far below any map that says something.
_TINY = 1e-6


def class_maps(features: Tensor, weight: Tensor, classes: Tensor) -> Tensor:
    """Class activation maps ``[N, h, w]`` (Zhou et al., CVPR 2016) of one class for each face.

    ``features`` ``[N, K, h, w]``; ``weight`` ``[C, K]`` of the linear layer after pooling; ``classes`` int64 ``[N]``.
    """
    return torch.einsum("nkhw,nk->nhw", features.float(), weight.float()[classes])


def outside_share(maps: Tensor, oval: Tensor) -> Tensor:
    """Batch mean, 0..1, of the share of each map's positive part that lies outside of the face oval.

    ``maps`` ``[N, h, w]``; ``oval`` ``[N, 1, S, S]``, 1 inside: each place of a map counts as outside by the share of
    its pixels that are. A map without a positive place gives 0.
    """
    positive = maps.clamp(min=0)
    outside = 1 - F.adaptive_avg_pool2d(oval.float(), (maps.shape[-2], maps.shape[-1])).squeeze(1)
    shares = (positive * outside).sum(dim=(1, 2)) / positive.sum(dim=(1, 2)).clamp(min=_TINY)
    return shares.mean()
