"""Memorisation: is a made face nearer to a training face than new real faces are?"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Standard deviation of the blur, in pixels of a 48-pixel face: what differs by noise alone shall look the same.
BLUR = 1.0
# Faces compared at once; 512 x 56,000 distances are 115 MB.
CHUNK = 512


def outlook(images: Tensor) -> Tensor:
    """uint8 ``[N, S, S]`` -> float32 ``[N, S*S/4]``: blurred, halved, brightness and contrast taken out.

    Each row has mean 0 and length 1, so the distance of two rows is ``sqrt(2 - 2 r)`` of their correlation r.
    """
    at = torch.arange(-3, 4, device=images.device)
    kernel = torch.exp(-0.5 * (at / BLUR) ** 2)
    kernel = (kernel / kernel.sum())[None, None, :, None]
    rows = []
    for part in torch.split(images, 1024):
        x = F.pad(part.unsqueeze(1).float(), (3,) * 4, mode="replicate")
        x = F.avg_pool2d(F.conv2d(F.conv2d(x, kernel), kernel.transpose(2, 3)), 2).flatten(1)
        rows.append(F.normalize(x - x.mean(1, keepdim=True), eps=1e-3))
    return torch.cat(rows)


def nearest(queries: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """For each of ``queries`` ``[N, D]`` the Euclidean distance to the nearest of ``references`` and its row."""
    found = [torch.cdist(part, references).min(dim=1) for part in torch.split(queries, CHUNK)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def nearest_face(images: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """As ``nearest``, for uint8 faces by ``outlook``; a training face counts as it is and mirrored."""
    references = outlook(torch.cat([training, training.flip(2)]))
    distance, row = nearest(outlook(images), references)
    return distance, row % len(training)


def share_below(distances: Tensor, real: Tensor, quantile: float) -> float:
    """Share of ``distances`` below that ``quantile`` of the distances of new ``real`` faces.

    Made faces that are as new as real ones have the share ``quantile``; copies have a share near 1.
    """
    return float((distances < torch.quantile(real, quantile)).float().mean())
