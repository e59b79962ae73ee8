"""Augmentation of whole batches on the device: functions of the images, the strengths of a recipe and a generator.

Steps: geometry (one grid sample), light, blur and noise, JPEG, random erasing. ``mix`` then applies mixup and CutMix,
and ``shrink`` makes faces small.
"""

from torch import Generator, Tensor

from mien.lab.augment.config import FILLS, JITTER, RESAMPLES, AugmentConfig, check_augment
from mien.lab.augment.geometry import draw_affine, oval, resample
from mien.lab.augment.jpeg import compress
from mien.lab.augment.mixing import mix, shrink
from mien.lab.augment.photometric import degrade, erase, relight

__all__ = [
    "FILLS",
    "JITTER",
    "RESAMPLES",
    "AugmentConfig",
    "augment",
    "augment_with_oval",
    "check_augment",
    "damage",
    "mix",
    "shrink",
]


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
