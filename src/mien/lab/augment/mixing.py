"""Every face of a batch mixed with one other: mixup (all pixels, Zhang et al., ICLR 2018), CutMix (a rectangle)."""

import torch
from torch import Generator, Tensor

from mien.lab.augment.config import AugmentConfig
from mien.lab.augment.photometric import uniform


def mix(x: Tensor, target: Tensor, s: AugmentConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """``x`` ``[N, 1, S, S]`` and ``target`` ``[N, C]`` mixed alike; both unchanged where neither alpha is above 0.

    With both alphas above 0 each face gets mixup or CutMix with equal chance, so that both are in every batch.
    """
    if s.mixup <= 0 and s.cutmix <= 0:
        return x, target
    own = _own_share(x, s, generator)
    other = torch.randperm(len(x), device=x.device, generator=generator)
    share = own.mean(dim=(1, 2, 3))[:, None]
    mixed = (x * own).add_(x[other].mul_(1 - own))
    return mixed, target * share + target[other] * (1 - share)


def mixup(x: Tensor, target: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Every sample of ``x`` and its ``target`` ``[N, C]`` mixed with one other of the batch; unchanged for alpha 0."""
    return mix(x, target, AugmentConfig(mixup=alpha), generator)


def cutmix(x: Tensor, target: Tensor, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """A rectangle of every sample taken from one other (Yun et al., ICCV 2019), its ``target`` by the areas."""
    return mix(x, target, AugmentConfig(cutmix=alpha), generator)


def _own_share(x: Tensor, s: AugmentConfig, generator: Generator) -> Tensor:
    """How much of each pixel stays the sample's own: ``[N, 1, 1, 1]`` or ``[N, 1, S, S]``."""
    if s.cutmix <= 0:
        return _mixup_share(len(x), s.mixup, generator)
    kept = _outside_of_box(len(x), x.shape[-1], s.cutmix, generator)
    if s.mixup <= 0:
        return kept
    heads = uniform(len(x), 0, 1, generator) < 0.5
    return torch.where(heads[:, None, None, None], kept, _mixup_share(len(x), s.mixup, generator))


def _mixup_share(n: int, alpha: float, generator: Generator) -> Tensor:
    gammas = _gammas(n, alpha, generator)
    # The larger share stays with the sample itself; the tiny floor guards 0 / 0 for small alphas.
    return ((gammas.amax(0) + 1e-8) / (gammas.sum(0) + 1e-8))[:, None, None, None]


def _outside_of_box(n: int, side: int, alpha: float, generator: Generator) -> Tensor:
    """1 outside and 0 inside of a square whose area is Beta distributed, centred anywhere, cut off at the edges."""
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
    """float32 ``[2, n]``; the first over the sum of both is Beta(alpha, alpha) distributed."""
    return torch._standard_gamma(torch.full((2, n), alpha, device=generator.device), generator=generator)
