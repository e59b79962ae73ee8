"""Batched augmentation on the device: a pure function of the batch, the strengths and a generator.

One grid sample does flip, rotation, scale, shear and shift together, so that pixels are interpolated once; light,
blur, sensor noise and erasing follow. The whole set stays on the device as uint8: no workers, no image files in the
loop.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

FILLS = ("border", "zeros", "reflection")  # edge repeated, black, mirrored


@dataclass(frozen=True, slots=True)
class Augment:
    """Strengths; 0 switches a step off. "up to" means uniform between minus and plus the value."""

    flip: float = 0.5  # share of mirrored images
    rotate: float = 0.0  # degrees, up to
    shift: float = 0.0  # share of the side, up to
    scale: float = 0.0  # factor, log-uniform in 1/(1+scale) .. 1+scale
    shear: float = 0.0  # horizontal shear factor, up to
    brightness: float = 0.0  # added, images being 0..1, up to
    contrast: float = 0.0  # factor about the image's mean, log-uniform in 1/(1+contrast) .. 1+contrast
    gamma: float = 0.0  # exponent, log-uniform in 1/(1+gamma) .. 1+gamma
    blur: float = 0.0  # pixels, largest standard deviation of a Gaussian
    noise: float = 0.0  # largest standard deviation of added Gaussian noise, images being 0..1
    degrade: float = 1.0  # share of images that get blur and noise at all
    erase: float = 0.0  # share of images with an erased rectangle
    erase_area: tuple[float, float] = (0.02, 0.2)  # its area as share of the image
    mixup: float = 0.0  # alpha of the Beta distribution (Zhang et al., ICLR 2018)
    cutmix: float = 0.0  # alpha of CutMix (Yun et al., ICCV 2019)
    fill: str = "border"  # what lies outside of the image: one of FILLS


def augment(images: Tensor, strengths: Augment, generator: Generator) -> Tensor:
    """``images`` uint8 ``[N, S, S]`` -> augmented float32 ``[N, 1, S, S]`` in 0..1."""
    x = images.unsqueeze(1).float() / 255
    x = _move(x, strengths, generator)
    x = _relight(x, strengths, generator)
    x = _degrade(x, strengths, generator)
    return _erase(x.clamp(0, 1), strengths, generator)


def mixup(x: Tensor, target: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Every sample of ``x`` and its ``target`` ``[N, C]`` mixed with one other of the batch; unchanged for alpha 0."""
    if alpha <= 0:
        return x, target
    gammas = torch._standard_gamma(torch.full((2, len(x)), alpha, device=x.device), generator=generator)
    # The larger share stays with the sample itself; the tiny floor guards 0 / 0 for small alphas.
    share = (gammas.amax(0) + 1e-8) / (gammas.sum(0) + 1e-8)
    other = torch.randperm(len(x), device=x.device, generator=generator)
    pixels = share[:, None, None, None]
    return x * pixels + x[other] * (1 - pixels), target * share[:, None] + target[other] * (1 - share[:, None])


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(count, device=generator.device, generator=generator) * (high - low) + low


def _factor(count: int, strength: float, generator: Generator) -> Tensor:
    """Log-uniform factors in 1/(1+strength) .. 1+strength."""
    edge = math.log1p(strength)
    return _uniform(count, -edge, edge, generator).exp()


def _move(x: Tensor, s: Augment, generator: Generator) -> Tensor:
    n = len(x)
    angle = _uniform(n, -s.rotate, s.rotate, generator) * (math.pi / 180)
    size = 1 / _factor(n, s.scale, generator)
    shear = _uniform(n, -s.shear, s.shear, generator)
    mirror = torch.where(_uniform(n, 0, 1, generator) < s.flip, -1.0, 1.0)
    # The grid spans -1..1, so a shift of the whole side is 2.
    dx, dy = (2 * _uniform(n, -s.shift, s.shift, generator) for _ in range(2))
    cos, sin = angle.cos() * size, angle.sin() * size
    top = torch.stack([cos * mirror, cos * shear - sin, dx], dim=1)
    bottom = torch.stack([sin * mirror, sin * shear + cos, dy], dim=1)
    grid = F.affine_grid(torch.stack([top, bottom], dim=1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=s.fill, align_corners=False)


def _relight(x: Tensor, s: Augment, generator: Generator) -> Tensor:
    n = len(x)
    if s.gamma > 0:
        x = x.clamp(1e-4, 1) ** _factor(n, s.gamma, generator)[:, None, None, None]
    if s.contrast > 0:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = (x - mean) * _factor(n, s.contrast, generator)[:, None, None, None] + mean
    if s.brightness > 0:
        x = x + _uniform(n, -s.brightness, s.brightness, generator)[:, None, None, None]
    return x


def _degrade(x: Tensor, s: Augment, generator: Generator) -> Tensor:
    n = len(x)
    chosen = (_uniform(n, 0, 1, generator) < s.degrade).float()
    if s.blur > 0:
        x = _blur(x, chosen * _uniform(n, 0, s.blur, generator))
    if s.noise > 0:
        sigma = chosen * _uniform(n, 0, s.noise, generator)
        x = x + torch.randn(x.shape, device=x.device, generator=generator) * sigma[:, None, None, None]
    return x


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Each image of ``[N, 1, S, S]`` convolved with its own Gaussian, as one grouped convolution a direction."""
    n, radius = len(x), 3
    offsets = torch.arange(-radius, radius + 1, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-3)[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    flat = F.pad(x.transpose(0, 1), (radius,) * 4, mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n)
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=n)
    return flat.transpose(0, 1)


def _erase(x: Tensor, s: Augment, generator: Generator) -> Tensor:
    """Random erasing (Zhong et al., AAAI 2020): one rectangle of uniform grey in a share of the images."""
    if s.erase <= 0:
        return x
    n, side = len(x), x.shape[-1]
    area = _uniform(n, *s.erase_area, generator)
    aspect = _factor(n, 1.0, generator)
    half_w, half_h = (area * aspect).sqrt() / 2, (area / aspect).sqrt() / 2
    cx, cy, grey = (_uniform(n, 0, 1, generator) for _ in range(3))
    at = (torch.arange(side, device=x.device) + 0.5) / side
    inside_x = (at - cx[:, None]).abs() < half_w[:, None]
    inside_y = (at - cy[:, None]).abs() < half_h[:, None]
    chosen = _uniform(n, 0, 1, generator) < s.erase
    mask = (inside_y[:, :, None] & inside_x[:, None, :] & chosen[:, None, None])[:, None]
    return torch.where(mask, grey[:, None, None, None], x)
