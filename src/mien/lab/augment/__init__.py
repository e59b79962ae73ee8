"""Augmentation of whole batches on the device: functions of the images, the strengths of a recipe and a generator.

Steps: geometry (one grid sample), light, blur and noise, JPEG, random erasing. ``mix`` then applies mixup
(Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019), and ``shrink`` makes faces small.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mien.lab.augment.config import FILLS, JITTER, RESAMPLES, AugmentConfig, check_augment, check_values
from mien.lab.augment.geometry import draw_affine, oval, resample
from mien.lab.augment.photometric import compress, degrade, erase, relight, uniform

__all__ = [
    "FILLS",
    "JITTER",
    "RESAMPLES",
    "AugmentConfig",
    "augment",
    "augment_with_oval",
    "check_augment",
    "check_values",
    "damage",
    "mix",
    "shrink",
]

_SIDES = 4  # sides to which faces are shrunk: few, so that each is one operation on the batch


def augment(images: Tensor, strengths: AugmentConfig, generator: Generator) -> Tensor:
    """Augment a batch of faces.

    Args:
        images: uint8 ``[N, S, S]``.
        strengths: Strength of each step.
        generator: Source of all random numbers, on the device of the images.

    Returns:
        float32 ``[N, 1, S, S]`` in 0..1.

    Example:
        >>> import torch
        >>> faces = torch.zeros(2, 48, 48, dtype=torch.uint8)
        >>> augment(faces, AugmentConfig(rotate=10), torch.Generator().manual_seed(0)).shape
        torch.Size([2, 1, 48, 48])
    """
    return augment_with_oval(images, strengths, generator, size=0)[0]


def augment_with_oval(
    images: Tensor, strengths: AugmentConfig, generator: Generator, *, size: int, damaged: bool = True
) -> tuple[Tensor, Tensor]:
    """Augment a batch of faces and return the region of the face in each result.

    Args:
        images: uint8 ``[N, S, S]``.
        strengths: Strength of each step.
        generator: Source of all random numbers. The draws do not depend on ``size``.
        size: Side of the masks in pixels; 0 for none.
        damaged: Whether ``damage`` is applied at the end.

    Returns:
        The faces float32 ``[N, 1, S, S]`` in 0..1, as ``augment`` returns them, and the masks float32
        ``[N, 1, size, size]``: 1 inside the face oval, else 0. For size 0 the masks are ``[N, 0]``.
    """
    x = images.unsqueeze(1).float().div_(255)  # a new tensor, so the next steps may work in place
    maps = draw_affine(len(x), strengths, generator)
    if strengths.has_geometry:
        x = resample(x, maps, strengths.padding_mode, strengths.interpolation)
    x = relight(x, strengths, generator)
    x = damage(x, strengths, generator) if damaged else x.clamp_(0, 1)
    return x, oval(maps, size) if size else x.new_zeros(len(x), 0)


def damage(x: Tensor, strengths: AugmentConfig, generator: Generator) -> Tensor:
    """Apply the steps that remove information: blur, noise, JPEG and random erasing.

    Args:
        x: float32 ``[N, 1, S, S]``; may be changed in place, and have values outside of 0..1.
        strengths: Strength of each step.
        generator: Source of all random numbers.

    Returns:
        float32 ``[N, 1, S, S]`` in 0..1.
    """
    x = degrade(x, strengths, generator)
    x = compress(x.clamp_(0, 1), strengths, generator)
    return erase(x, strengths, generator)


def mix(x: Tensor, target: Tensor, s: AugmentConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """Mix each face and its target with those of another face of the batch.

    Args:
        x: float32 ``[N, 1, S, S]``.
        target: float32 ``[N, C]``.
        s: ``mixup`` is the alpha of mixup, which blends all pixels; ``cutmix`` that of CutMix, which replaces a
            rectangle. With both above 0 each face gets one of them with equal probability.
        generator: Source of the random numbers.

    Returns:
        New images and targets, mixed in the same shares; both unchanged where both alphas are 0.

    Example:
        >>> x, target = torch.rand(4, 1, 8, 8), torch.eye(4)
        >>> mixed, soft = mix(x, target, AugmentConfig(mixup=0.4), torch.Generator().manual_seed(0))
        >>> mixed.shape, soft.shape
        (torch.Size([4, 1, 8, 8]), torch.Size([4, 4]))
    """
    if s.mixup <= 0 and s.cutmix <= 0:
        return x, target
    if s.cutmix <= 0:
        own = _mixup_share(len(x), s.mixup, generator)
    else:
        own = _outside_of_box(len(x), x.shape[-1], s.cutmix, generator)
        if s.mixup > 0:
            heads = uniform(len(x), 0, 1, generator) < 0.5
            own = torch.where(heads[:, None, None, None], own, _mixup_share(len(x), s.mixup, generator))
    other = torch.randperm(len(x), device=x.device, generator=generator)
    share = own.mean(dim=(1, 2, 3))[:, None]
    mixed = (x * own).add_(x[other].mul_(1 - own))
    return mixed, target * share + target[other] * (1 - share)


def shrink(x: Tensor, target: Tensor, s: AugmentConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """Shrink a share of the faces (area average) and enlarge them again (bilinear); small faces get softer targets.

    Args:
        x: float32 ``[N, 1, S, S]``; may be changed in place.
        target: float32 ``[N, C]``.
        s: ``shrink``, ``shrink_to`` and ``shrink_softness`` are used.
        generator: Source of the random numbers.

    Returns:
        Images and targets; both unchanged where ``shrink`` is 0.
    """
    size = x.shape[-1]
    if s.shrink <= 0 or s.shrink_to >= size:
        return x, target
    chosen = uniform(len(x), 0, 1, generator) < s.shrink
    steps = torch.randint(0, _SIDES, (len(x),), device=generator.device, generator=generator)
    loss = torch.zeros(len(x), 1, device=x.device)
    for step in range(_SIDES):
        side = round(s.shrink_to + (size - s.shrink_to) * step / _SIDES)
        small = F.interpolate(F.adaptive_avg_pool2d(x, side), size=size, mode="bilinear", align_corners=False)
        is_this = chosen & (steps == step)
        x = torch.where(is_this[:, None, None, None], small, x)
        loss = torch.where(is_this[:, None], s.shrink_softness * (1 - side / size), loss)
    return x, target * (1 - loss) + loss / target.shape[1]


def _mixup_share(n: int, alpha: float, generator: Generator) -> Tensor:
    """Share of each sample in its mixture, ``[n, 1, 1, 1]``."""
    gammas = _gammas(n, alpha, generator)
    # The sample itself has the larger share. The small constant prevents 0 / 0 for small alphas.
    return ((gammas.amax(0) + 1e-8) / (gammas.sum(0) + 1e-8))[:, None, None, None]


def _outside_of_box(n: int, side: int, alpha: float, generator: Generator) -> Tensor:
    """Masks ``[n, 1, side, side]``: 0 in a square with a Beta-distributed area and a uniform centre, else 1."""
    gammas = _gammas(n, alpha, generator) + 1e-8
    half = (gammas[0] / gammas.sum(0)).sqrt() * side / 2
    at = torch.arange(side, device=generator.device)
    inside = []
    for _ in range(2):
        centre = uniform(n, 0, side, generator)
        low, high = (centre - half).round(), (centre + half).round()
        inside.append(((at >= low[:, None]) & (at < high[:, None])).float())
    return 1 - (inside[0][:, :, None] * inside[1][:, None, :])[:, None]


def _gammas(n: int, alpha: float, generator: Generator) -> Tensor:
    """float32 ``[2, n]``; the first divided by the sum of both has a Beta(alpha, alpha) distribution."""
    return torch._standard_gamma(torch.full((2, n), float(alpha), device=generator.device), generator=generator)
