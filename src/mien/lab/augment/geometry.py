"""Where pixels come from: flip, rotation, zoom, shear, shift and crop as one affine map, so that they move once.

A map is ``[2, 3]`` and takes a place of the shown face to its place in the original, both counted from -1 to 1 over the
side, ``(x, y)`` from the centre.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mien.lab.augment.config import AugmentConfig
from mien.lab.augment.photometric import factor, uniform

# Aspect ratios of a random crop reach from 3/4 to 4/3 (Szegedy et al., CVPR 2015).
_ASPECT = 4 / 3
# Centre and half axes, as shares of the side, of the face in FER-2013's framing: centred between the eyes and above the
# mouth of `mien._framing.FER2013`, 2.2 eye distances wide as adult faces are, from the hairline to the chin. It follows
# the outline of the mean Training face.
OVAL_CENTRE, OVAL_AXES = (0.494, 0.500), (0.385, 0.480)


def draw_moves(n: int, s: AugmentConfig, generator: Generator) -> Tensor:
    """float32 ``[n, 2, 3]``: a map for every image of a batch."""
    moves = _affine(n, s, generator)
    if s.min_crop_area > 0:
        return _within(moves, *_random_windows(n, s.min_crop_area, generator))
    if s.n_crops > 0:
        return _within(moves, *_fixed_windows(n, s.crop_fraction, generator))
    return moves


def resample(x: Tensor, moves: Tensor, fill: str, mode: str = "bilinear") -> Tensor:
    """``x`` ``[N, 1, S, S]`` in 0..1 with every pixel fetched, by ``mode``, from where ``moves`` ``[N, 2, 3]`` say.

    Between pixels "bilinear" takes a mean of four, so moved faces are softer than those that a net is asked about;
    "bicubic" (Keys, 1981; of 16 pixels) keeps most of that detail.
    """
    grid = _places(moves, x.shape[-1]).permute(0, 2, 3, 1)
    moved = F.grid_sample(x, grid, mode=mode, padding_mode=fill, align_corners=False)
    return moved.clamp_(0, 1) if mode == "bicubic" else moved  # beside edges a cubic leaves the range


def oval(moves: Tensor, size: int) -> Tensor:
    """float32 ``[N, 1, size, size]``: 1 where the shown pixel comes from within the face oval, else 0."""
    centre, axes = moves.new_tensor(OVAL_CENTRE) * 2 - 1, moves.new_tensor(OVAL_AXES) * 2
    offset = F.pad(centre[:, None], (2, 0))
    places = _places((moves - offset) / axes[:, None], size)  # the oval is the unit circle now
    return (places.square().sum(1, keepdim=True) <= 1).float()


def _affine(n: int, s: AugmentConfig, generator: Generator) -> Tensor:
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
    moves = torch.stack([top, bottom], dim=1)
    if s.zoom > 0:
        for axis in range(2):
            moves[:, :, axis] *= uniform(n, 1 - s.zoom, 1 + s.zoom, generator)[:, None]
    return moves


def _places(moves: Tensor, size: int) -> Tensor:
    """float32 ``[N, 2, size, size]``: the x and the y that each pixel's centre is mapped to, as planes."""
    # Two planes and one product are several times as fast as the interleaved grid of affine_grid, with equal values.
    at = torch.linspace(-1, 1, size, device=moves.device) * (size - 1) / size
    pixels = torch.stack([at.repeat(size), at.repeat_interleave(size), at.new_ones(size * size)])
    return (moves.reshape(-1, 3) @ pixels).view(-1, 2, size, size)


def _within(moves: Tensor, width: Tensor, height: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``moves`` applied to windows of the originals: ``width`` and ``height`` as shares of the side, centre -1..1."""
    sides, centre = torch.stack([width, height], dim=1), torch.stack([x, y], dim=1)
    return moves * sides[:, :, None] + F.pad(centre[:, :, None], (2, 0))


def _random_windows(n: int, smallest: float, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Windows of uniform area and log-uniform aspect, anywhere within the image."""
    area = uniform(n, smallest, 1, generator)
    # Beyond an aspect of 1 / area the window would be wider or higher than the image.
    edge = area.log().neg().clamp(0, math.log(_ASPECT))
    aspect = (uniform(n, -1, 1, generator) * edge).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x, y = ((1 - side) * uniform(n, -1, 1, generator) for side in (width, height))
    return width, height, x, y


def _fixed_windows(n: int, side: float, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four corners and the centre (Krizhevsky et al., NeurIPS 2012), equally often."""
    place = torch.randint(0, 5, (n,), device=generator.device, generator=generator)
    free = (1 - side) * (place < 4)
    share = torch.full((n,), side, device=generator.device)
    return share, share, (place % 2 * 2 - 1) * free, (place // 2 * 2 - 1) * free
