"""Flip, rotation, zoom, shear, shift and crop as one affine map per image, so that pixels are resampled only once.

A map is ``[2, 3]``. It takes a position in the result to its position in the original. Positions are ``(x, y)`` from
the centre, -1 to 1 over the side.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mien.lab.augment.config import AugmentConfig
from mien.lab.augment.photometric import factor, uniform

# Aspect ratios of a random crop are 3/4 to 4/3 (Szegedy et al., CVPR 2015).
_ASPECT = 4 / 3
# Centre and half axes of the face in FER-2013's framing, as shares of the side. The centre is between the eyes and
# above the mouth of `mien._framing.FER2013`. The width is 2.2 eye distances, as of adult faces; the height is from the
# hairline to the chin. The oval follows the outline of the mean Training face.
OVAL_CENTRE, OVAL_AXES = (0.494, 0.500), (0.385, 0.480)


def draw_affine(n: int, s: AugmentConfig, generator: Generator) -> Tensor:
    """Draw an affine map for each image of a batch.

    Args:
        n: Number of images.
        s: Strengths; those of geometry are used.
        generator: Source of the random numbers.

    Returns:
        float32 ``[n, 2, 3]`` on the generator's device.
    """
    angle = uniform(n, -s.rotate, s.rotate, generator) * (math.pi / 180)
    size = 1 / factor(n, s.scale, generator)
    shear = uniform(n, -s.shear, s.shear, generator)
    flip = 0.5 if s.n_crops == 10 else s.flip
    mirror = torch.where(uniform(n, 0, 1, generator) < flip, -1.0, 1.0)
    # The map spans -1..1, so a shift of the whole side is 2.
    dx, dy = (2 * uniform(n, -s.shift, s.shift, generator) for _ in range(2))
    cos, sin = angle.cos() * size, angle.sin() * size
    top = torch.stack([cos * mirror, cos * shear - sin, dx], dim=1)
    bottom = torch.stack([sin * mirror, sin * shear + cos, dy], dim=1)
    maps = torch.stack([top, bottom], dim=1)
    if s.zoom > 0:
        for axis in range(2):
            maps[:, :, axis] *= uniform(n, 1 - s.zoom, 1 + s.zoom, generator)[:, None]
    if s.min_crop_area > 0:
        sides, centre = _random_windows(n, s.min_crop_area, generator)
    elif s.n_crops > 0:  # four corners and the centre, equally often (Krizhevsky et al., NeurIPS 2012)
        place = torch.randint(0, 5, (n,), device=generator.device, generator=generator)
        corner = torch.stack([place % 2 * 2 - 1, place // 2 * 2 - 1], dim=1) * (place < 4)[:, None]
        sides, centre = torch.full_like(corner, s.crop_fraction, dtype=torch.float), corner * (1 - s.crop_fraction)
    else:
        return maps
    return maps * sides[:, :, None] + F.pad(centre[:, :, None], (2, 0))


def _random_windows(n: int, smallest: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Sides and centres ``[n, 2]`` of windows in the image, with uniform area and log-uniform aspect."""
    area = uniform(n, smallest, 1, generator)
    # With an aspect beyond 1 / area the window would be wider or higher than the image.
    edge = area.log().neg().clamp(0, math.log(_ASPECT))
    aspect = (uniform(n, -1, 1, generator) * edge).exp()
    sides = torch.stack([area * aspect, area / aspect], dim=1).sqrt().clamp(max=1)
    centre = torch.stack([uniform(n, -1, 1, generator) for _ in range(2)], dim=1)
    return sides, (1 - sides) * centre


def resample(x: Tensor, maps: Tensor, fill: str, mode: str = "bilinear") -> Tensor:
    """Apply affine maps to images.

    Args:
        x: float32 ``[N, 1, S, S]`` in 0..1.
        maps: float32 ``[N, 2, 3]``.
        fill: Padding mode for positions outside of the image, one of ``FILLS``.
        mode: ``"bilinear"``, the mean of four pixels, makes moved faces softer than the faces at inference.
            ``"bicubic"`` (Keys, 1981; 16 pixels) preserves most of the detail.

    Returns:
        float32 ``[N, 1, S, S]`` in 0..1.
    """
    grid = _positions(maps, x.shape[-1]).permute(0, 2, 3, 1)
    moved = F.grid_sample(x, grid, mode=mode, padding_mode=fill, align_corners=False)
    return moved.clamp_(0, 1) if mode == "bicubic" else moved  # a cubic overshoots at edges


def oval(maps: Tensor, size: int) -> Tensor:
    """Return masks of the face oval after affine maps.

    Args:
        maps: float32 ``[N, 2, 3]``.
        size: Side of the masks in pixels.

    Returns:
        float32 ``[N, 1, size, size]``: 1 where a pixel comes from inside the oval, else 0.
    """
    centre, axes = maps.new_tensor(OVAL_CENTRE) * 2 - 1, maps.new_tensor(OVAL_AXES) * 2
    to_unit_circle = (maps - F.pad(centre[:, None], (2, 0))) / axes[:, None]
    return (_positions(to_unit_circle, size).square().sum(1, keepdim=True) <= 1).float()


def _positions(maps: Tensor, size: int) -> Tensor:
    """Mapped x and y of each pixel's centre as planes, float32 ``[N, 2, size, size]``."""
    # Two planes and one product are several times as fast as the interleaved grid of affine_grid, with equal values.
    at = torch.linspace(-1, 1, size, device=maps.device) * (size - 1) / size
    pixels = torch.stack([at.repeat(size), at.repeat_interleave(size), at.new_ones(size * size)])
    return (maps.reshape(-1, 3) @ pixels).view(-1, 2, size, size)
