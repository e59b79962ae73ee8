"""Photometric augmentation of a batch (light, blur, noise, random erasing) and the draws that all steps use."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mien.lab.augment.config import AugmentConfig


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
