"""Faces -> fingerprints: short vectors whose inner product is never below the correlation of the two images.

An image less its mean, divided by its norm, is a unit vector x, and the Pearson correlation of two images is <x, y>.
Let P be the orthogonal projection onto the lowest frequencies of the cosine transform (what a perceptual hash keeps,
before it is cut to bits) and Q the rest. Then <x, y> = <Px, Py> + <Qx, Qy> <= <Px, Py> + |Qx| |Qy| (Cauchy-Schwarz).
The fingerprint is (Px, |Qx|): a search that keeps every pair above a threshold loses no pair of images above it.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FREQUENCIES = 8  # a side; of FER-2013's 579 million pairs, 1,217 then have to be compared pixel by pixel
_CHUNK = 4096  # images at a time


def fingerprints(images: NDArray[np.uint8]) -> Tensor:
    """float32 ``[N, 64]`` of uint8 ``[N, S, S]``; all zero for an image of one grey level: it correlates with nothing.

    The columns are the coefficients (vertical frequency x horizontal frequency, without the mean), then the norm of
    the rest.
    """
    side = min(FREQUENCIES, images.shape[-1])
    basis = cosines(images.shape[-1], side)
    parts = [_fingerprint(part, basis) for part in torch.split(torch.from_numpy(images), _CHUNK)]
    return torch.cat(parts) if parts else torch.empty(0, side * side)


def mirror_signs(columns: int) -> Tensor:
    """float32 ``[columns]``: what a fingerprint is multiplied by to be that of the image mirrored left to right."""
    side = math.isqrt(columns)
    signs = torch.tensor([1.0, -1.0])[torch.arange(columns) % side % 2]
    return torch.cat([signs[1:], torch.ones(1)])


def correlations(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pearson correlation of each image of uint8 ``[N, S, S]`` with that of the other at its place, float64 ``[N]``."""
    x, y = (images.reshape(len(images), -1).astype(np.float64) for images in (first, second))
    x -= x.mean(axis=1, keepdims=True)
    y -= y.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray((x * y).sum(axis=1) / np.maximum(norms, np.finfo(np.float64).tiny))


def cosines(size: int, count: int) -> Tensor:
    """float32 ``[count, size]``: the first rows of the orthonormal cosine transform (DCT-II)."""
    at = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    waves = torch.cos(math.pi * torch.arange(count, dtype=torch.float64)[:, None] * at) * math.sqrt(2 / size)
    waves[0] /= math.sqrt(2)
    return waves.float()


def _fingerprint(images: Tensor, basis: Tensor) -> Tensor:
    x = images.float()
    x -= x.mean(dim=(1, 2), keepdim=True)
    norm = x.flatten(1).norm(dim=1)
    low = (basis @ x @ basis.T).flatten(1)[:, 1:] / norm.clamp(min=1e-6)[:, None]
    rest = (1 - low.square().sum(dim=1)).clamp(min=0).sqrt()
    marks = torch.cat([low, rest[:, None]], dim=1)
    marks[norm == 0] = 0
    return marks
