"""Document 003's expansion: extra faces made once, each from a face of the set by exactly one transform.

Their set grew by 30 % of each class, whole faces only: 35,887 became 46,650. A fifth of that, drawn by class, is
9,330 faces: to the face what their report was validated on, so they split after they had expanded.
"""

import math

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mien.lab.data import FaceSet
from mien.lab.data.faces import concatenate

ROTATE = 15.0  # degrees, up to
SHIFT = 0.1  # share of the side, up to, in both directions
PATCH = (5, 10)  # pixels a side of an erased square, of faces of 48 pixels
_NATIVE = 48  # pixels a side that PATCH is given for
_CHUNK = 1024  # faces that are moved at a time


def expand(faces: FaceSet, share: float, *, seed: int) -> FaceSet:
    """``faces`` and behind them ``share`` x count made ones of every class, rounded down.

    Each is a different face of its class (once all have been taken, of all again) after one of: rotation, shift,
    mirroring, a black square. It keeps row, label, votes, usage and group of the face that it was made of.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.cat([_draw(faces.labels == label, share, generator) for label in range(len(faces.emotions))])
    made = faces.select(chosen)
    parts = [transform(part, generator) for part in torch.split(made.images, _CHUNK)]
    made.images.copy_(torch.cat(parts) if parts else made.images)
    return concatenate(faces, made)


def fifth(faces: FaceSet, *, seed: int) -> Tensor:
    """bool ``[N]``: a fifth of the faces, drawn by class; what rounding leaves goes to the largest remainders."""
    counts = np.bincount(faces.labels.numpy(), minlength=len(faces.emotions))
    quota = counts // 5
    left = math.ceil(len(faces) / 5) - int(quota.sum())
    quota[np.argsort(-(counts % 5), kind="stable")[:left]] += 1
    generator, chosen = torch.Generator().manual_seed(seed), torch.zeros(len(faces), dtype=torch.bool)
    for label, count in enumerate(quota.tolist()):
        rows = (faces.labels == label).nonzero().flatten()
        chosen[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return chosen


def transform(images: Tensor, generator: Generator) -> Tensor:
    """uint8 ``[N, S, S]``, each rotated, shifted, mirrored or with a black square: one of the four, equally often."""
    kind = torch.randint(4, (len(images),), generator=generator)
    angle = _uniform(len(images), generator) * math.radians(ROTATE) * (kind == 0)
    shift = torch.stack([_uniform(len(images), generator) for _ in range(2)], dim=1) * SHIFT * (kind == 1)[:, None]
    moved = kind < 2
    result = images.clone()
    result[moved] = _move(images[moved], angle[moved], shift[moved])
    result[kind == 2] = images[kind == 2].flip(-1)
    return torch.where(_squares(images, generator) & (kind == 3)[:, None, None], 0, result)


def _draw(of_class: Tensor, share: float, generator: Generator) -> Tensor:
    rows = of_class.nonzero().flatten()
    count = math.floor(share * len(rows) + 1e-9)
    rounds = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(-(-count // max(len(rows), 1)))]
    return torch.cat([rows[:0], *rounds])[:count]


def _uniform(count: int, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator) * 2 - 1


def _move(images: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
    """Rotated about the middle, or shifted; what comes in from outside repeats the edge."""
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([cos, -sin, 2 * shift[:, 0], sin, cos, 2 * shift[:, 1]], dim=1).view(-1, 2, 3)
    x = images.unsqueeze(1).float()
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return x.round().clamp(0, 255).to(torch.uint8).squeeze(1)


def _squares(images: Tensor, generator: Generator) -> Tensor:
    """bool ``[N, S, S]``: for each face one square that lies inside of it."""
    count, size = len(images), images.shape[-1]
    side = torch.randint(PATCH[0], PATCH[1] + 1, (count,), generator=generator) * size // _NATIVE
    corners = [(torch.rand(count, generator=generator) * (size - side + 1)).floor() for _ in range(2)]
    at = torch.arange(size)
    down, across = ((at >= c[:, None]) & (at < (c + side)[:, None]) for c in corners)
    return down[:, :, None] & across[:, None, :]
