"""Numbers drawn for every image of a batch, on the generator's device."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mien.lab.augment.config import AugmentConfig


def uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """float32 ``[count]`` in ``low`` .. ``high``."""
    return torch.rand(count, device=generator.device, generator=generator) * (high - low) + low


def factor(count: int, strength: float, generator: Generator) -> Tensor:
    """float32 ``[count]``, log-uniform in 1/(1+strength) .. 1+strength."""
    edge = math.log1p(strength)
    return uniform(count, -edge, edge, generator).exp()


def relight(x: Tensor, s: AugmentConfig, generator: Generator) -> Tensor:
    """``x`` ``[N, 1, S, S]`` in 0..1, changed in place; the result may leave 0..1."""
    n = len(x)
    if s.gamma > 0:
        x.clamp_(1e-4, 1).pow_(_each(factor(n, s.gamma, generator)))
    if s.contrast > 0:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x.sub_(mean).mul_(_each(factor(n, s.contrast, generator))).add_(mean)
    if s.brightness > 0:
        x.mul_(_each(uniform(n, 1 - s.brightness, 1 + s.brightness, generator)))
    if s.brightness_shift > 0:
        x.add_(_each(uniform(n, -s.brightness_shift, s.brightness_shift, generator)))
    return x


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def degrade(x: Tensor, s: AugmentConfig, generator: Generator) -> Tensor:
    """Blur and noise, in place, for the share ``s.blur_noise_share`` of the images ``[N, 1, S, S]``."""
    n = len(x)
    chosen = (uniform(n, 0, 1, generator) < s.blur_noise_share).float()
    if s.blur > 0:
        x = _blur_some(x, chosen * uniform(n, 0, s.blur, generator), radius=max(3, math.ceil(3 * s.blur)))
    if s.noise > 0:
        sigma = chosen * uniform(n, 0, s.noise, generator)
        noise = torch.randn(x.shape, device=x.device, generator=generator)
        x.add_(noise.mul_(sigma[:, None, None, None]))
    return x


def _blur_some(x: Tensor, sigma: Tensor, *, radius: int) -> Tensor:
    if x.device.type != "cpu":  # to pick the images that need it would make the device wait for this process
        return blur(x, sigma, radius=radius)
    rows = sigma.nonzero()[:, 0]
    if len(rows) > 0:
        x[rows] = blur(x[rows], sigma[rows], radius=radius)
    return x


def blur(x: Tensor, sigma: Tensor, *, radius: int) -> Tensor:
    """Each image of ``[N, 1, S, S]`` convolved with its own Gaussian, as one grouped convolution a direction.

    ``sigma`` ``[N]`` in pixels; an image of 0 stays as it is. The Gaussian ends ``radius`` pixels from its centre.
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
    """Random erasing (Zhong et al., AAAI 2020), in place: one rectangle of uniform grey in a share of the images."""
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
    # Products of zeros and ones are exact, and faster here than a choice by a mask.
    x.sub_((x * rows).mul_(columns))
    return x.addcmul_(rows, columns * grey[:, None, None, None])
