"""Batched augmentation on the device: pure functions of the batch, the strengths and a generator.

strengths (what a recipe says) -> move (flip, rotate, crop, ...; one grid sample) -> light -> spoil (blur, noise,
JPEG, erasing) -> mix (mixup, CutMix). The whole set stays on the device as uint8: no workers, no files in the loop.
"""

from torch import Generator, Tensor

from mien.lab.augment.config import FILLS, RESAMPLES, AugmentConfig, check_augment
from mien.lab.augment.geometry import draw_moves, oval, resample
from mien.lab.augment.jpeg import compress
from mien.lab.augment.mixing import cutmix, mix, mixup
from mien.lab.augment.photometric import degrade, erase, relight

__all__ = [
    "FILLS",
    "RESAMPLES",
    "AugmentConfig",
    "augment",
    "augment_with_oval",
    "check_augment",
    "cutmix",
    "mix",
    "mixup",
]


def augment(images: Tensor, strengths: AugmentConfig, generator: Generator) -> Tensor:
    """``images`` uint8 ``[N, S, S]`` -> augmented float32 ``[N, 1, S, S]`` in 0..1."""
    return augment_with_oval(images, strengths, generator, size=0)[0]


def augment_with_oval(
    images: Tensor, strengths: AugmentConfig, generator: Generator, *, size: int
) -> tuple[Tensor, Tensor]:
    """The same faces as ``augment``, and where their ovals have gone to: float32 ``[N, 1, size, size]``, 1 inside.

    For size 0 the second is ``[N, 0]``. The draws do not depend on the size.
    """
    x = images.unsqueeze(1).float().div_(255)  # new, so all that follows may work in place
    moves = draw_moves(len(x), strengths, generator)
    if strengths.moves:
        x = resample(x, moves, strengths.padding_mode, strengths.interpolation)
    x = relight(x, strengths, generator)
    x = degrade(x, strengths, generator)
    x = compress(x.clamp_(0, 1), strengths, generator)
    x = erase(x, strengths, generator)
    return x, oval(moves, size) if size else x.new_zeros(len(x), 0)
