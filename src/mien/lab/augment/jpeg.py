"""JPEG compression as an augmentation: the luminance path of a baseline encoder and decoder, for a whole batch.

ITU-T T.81: 8x8 blocks, discrete cosine transform (A.3.3), quantisation with the example table K.1, scaled by quality as
in libjpeg. The lossless steps are left out. `tests/lab/augment/test_augment.py` compares the result with Pillow.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mien.lab.augment.config import AugmentConfig
from mien.lab.augment.photometric import uniform

_BLOCK = 8
# Table K.1 of T.81: luminance quantisation at quality 50, one row per vertical frequency, ascending.
_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def compress(x: Tensor, s: AugmentConfig, generator: Generator) -> Tensor:
    """Compress a share of a batch as JPEG.

    Args:
        x: float32 ``[N, 1, S, S]`` in 0..1; may be changed in place.
        s: ``jpeg`` is the share of images, ``jpeg_quality`` the range of their quality.
        generator: Source of the random numbers.

    Returns:
        float32 ``[N, 1, S, S]`` in 0..1.
    """
    if s.jpeg <= 0:
        return x
    chosen = uniform(len(x), 0, 1, generator) < s.jpeg
    quality = uniform(len(x), *s.jpeg_quality, generator).round()
    if x.device.type != "cpu":  # selecting rows by a mask would synchronise the device with this process
        return torch.where(chosen[:, None, None, None], jpeg(x, quality), x)
    rows = chosen.nonzero()[:, 0]
    x[rows] = jpeg(x[rows], quality[rows])
    return x


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress grey images as JPEG. Sides are padded to a multiple of 8 with their edge, as in libjpeg.

    Args:
        x: float32 ``[N, 1, S, S]`` in 0..1.
        quality: float32 ``[N]``, whole numbers in 1..100.

    Returns:
        float32 ``[N, 1, S, S]`` in 0..1, in whole grey levels.
    """
    n, side = len(x), x.shape[-1]
    padded = F.pad(x.clamp(0, 1), (0, -side % _BLOCK, 0, -side % _BLOCK), mode="replicate")
    across = padded.shape[-1] // _BLOCK
    levels = (padded * 255).round() - 128
    blocks = levels.view(n, across, _BLOCK, across, _BLOCK).transpose(2, 3)
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    table = torch.tensor(_TABLE, dtype=torch.float32, device=quality.device)
    steps = ((table * scale[:, None, None] + 50) / 100).floor().clamp(1, 255)[:, None, None]
    dct = _dct_basis(x.device)
    coefficients = ((dct @ blocks @ dct.T) / steps).round() * steps
    decoded = (dct.T @ coefficients @ dct).transpose(2, 3).reshape_as(padded)
    return ((decoded + 128).round().clamp(0, 255) / 255)[..., :side, :side]


def _dct_basis(device: torch.device) -> Tensor:
    """The orthonormal cosine transform of 8 samples, ``[frequency, position]``."""
    position = torch.arange(_BLOCK, device=device)
    basis = torch.cos((2 * position + 1) * position[:, None] * (math.pi / (2 * _BLOCK))) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    return basis
