"""Photometric augmentation of a batch (light, blur, noise, JPEG, erasing) and the draws that all steps use.

JPEG is the luminance path of a baseline encoder and decoder (ITU-T T.81): 8x8 blocks, discrete cosine transform
(A.3.3), quantisation with the example table K.1, scaled by quality as in libjpeg. The lossless steps are left out.
`tests/lab/augment/test_augment.py` compares the result with Pillow.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mien.lab.augment.config import AugmentConfig

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


def uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """Draw uniform numbers.

    Args:
        count: How many.
        low: Lower bound.
        high: Upper bound.
        generator: Source of the random numbers.

    Returns:
        float32 ``[count]`` in ``low`` .. ``high`` on the generator's device.
    """
    return torch.rand(count, device=generator.device, generator=generator) * (high - low) + low


def factor(count: int, strength: float, generator: Generator) -> Tensor:
    """Draw log-uniform factors.

    Args:
        count: How many.
        strength: At least 0; 0 gives 1.
        generator: Source of the random numbers.

    Returns:
        float32 ``[count]`` in 1/(1+strength) .. 1+strength.
    """
    edge = math.log1p(strength)
    return uniform(count, -edge, edge, generator).exp()


def relight(x: Tensor, s: AugmentConfig, generator: Generator) -> Tensor:
    """Change gamma, contrast and brightness of each image.

    Args:
        x: float32 ``[N, 1, S, S]`` in 0..1; changed in place.
        s: ``gamma``, ``contrast``, ``brightness`` and ``brightness_shift`` are used.
        generator: Source of the random numbers.

    Returns:
        ``x``; values may be outside of 0..1.
    """
    n = len(x)
    if s.gamma > 0:
        x.clamp_(1e-4, 1).pow_(_per_image(factor(n, s.gamma, generator)))
    if s.contrast > 0:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x.sub_(mean).mul_(_per_image(factor(n, s.contrast, generator))).add_(mean)
    if s.brightness > 0:
        x.mul_(_per_image(uniform(n, 1 - s.brightness, 1 + s.brightness, generator)))
    if s.brightness_shift > 0:
        x.add_(_per_image(uniform(n, -s.brightness_shift, s.brightness_shift, generator)))
    return x


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def degrade(x: Tensor, s: AugmentConfig, generator: Generator) -> Tensor:
    """Add blur and noise to a share of the images.

    Args:
        x: float32 ``[N, 1, S, S]``; may be changed in place.
        s: ``blur``, ``noise`` and ``blur_noise_share`` are used.
        generator: Source of the random numbers.

    Returns:
        float32 ``[N, 1, S, S]``.
    """
    n = len(x)
    chosen = (uniform(n, 0, 1, generator) < s.blur_noise_share).float()
    if s.blur > 0:
        sigma, radius = chosen * uniform(n, 0, s.blur, generator), max(3, math.ceil(3 * s.blur))
        if x.device.type != "cpu":  # selecting rows by a mask would synchronise the device with this process
            x = blur(x, sigma, radius=radius)
        elif len(rows := sigma.nonzero()[:, 0]) > 0:
            x[rows] = blur(x[rows], sigma[rows], radius=radius)
    if s.noise > 0:
        sigma = chosen * uniform(n, 0, s.noise, generator)
        x.add_(torch.randn(x.shape, device=x.device, generator=generator).mul_(_per_image(sigma)))
    return x


def blur(x: Tensor, sigma: Tensor, *, radius: int) -> Tensor:
    """Convolve each image with a Gaussian of its own, as one grouped convolution per direction.

    Args:
        x: ``[N, 1, S, S]``.
        sigma: Standard deviations ``[N]`` in pixels; 0 leaves an image as it is.
        radius: Distance in pixels at which the Gaussians are cut off.

    Returns:
        ``[N, 1, S, S]``.
    """
    n = len(x)
    offsets = torch.arange(-radius, radius + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    flat = F.pad(x.transpose(0, 1), (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=n)
    return flat.transpose(0, 1)


def erase(x: Tensor, s: AugmentConfig, generator: Generator) -> Tensor:
    """Random erasing (Zhong et al., AAAI 2020): one rectangle of uniform grey in a share of the images.

    Args:
        x: float32 ``[N, 1, S, S]`` in 0..1; changed in place.
        s: ``random_erasing`` is the share of images, ``erasing_area`` the range of the rectangle's area.
        generator: Source of the random numbers.

    Returns:
        ``x``.
    """
    if s.random_erasing <= 0:
        return x
    n, side = len(x), x.shape[-1]
    area = uniform(n, *s.erasing_area, generator)
    aspect = factor(n, 1.0, generator)
    half_w, half_h = (area * aspect).sqrt() / 2, (area / aspect).sqrt() / 2
    cx, cy, grey = (uniform(n, 0, 1, generator) for _ in range(3))
    at = (torch.arange(side, device=x.device) + 0.5) / side
    columns = ((at - cx[:, None]).abs() < half_w[:, None]).float()[:, None, None, :]
    rows = ((at - cy[:, None]).abs() < half_h[:, None]).float()
    rows = (rows * (uniform(n, 0, 1, generator) < s.random_erasing)[:, None])[:, None, :, None]
    # Products of zeros and ones are exact, and faster here than a selection by a mask.
    x.sub_((x * rows).mul_(columns))
    return x.addcmul_(rows, columns * _per_image(grey))


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
