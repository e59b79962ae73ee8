"""Differentiable augmentation (Zhao et al., NeurIPS 2020): real and made faces are shown to the discriminator changed.

A discriminator that never sees a face twice in the same form cannot learn the few faces of a rare class by heart; and
since the generator's gradient runs through the change, it is not taught to make changed faces.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

# In sides of the face: the largest shift, as in the paper, and the side of the square that is cut out. The paper cuts
# out a half; a discriminator that has minutes to learn tells too little under that.
SHIFT, CUT = 1 / 8, 1 / 4


def perturb(x: Tensor, generator: Generator) -> Tensor:
    """``x`` ``[N, 1, S, S]`` in -1..1, each in another light, shifted and with a square cut out; differentiable."""
    return _cut(_shift(_relight(x, generator), generator), generator)


def mirror(x: Tensor, generator: Generator) -> Tensor:
    """Half of ``x`` ``[N, 1, S, S]`` mirrored, left to right."""
    turned = torch.rand(len(x), device=x.device, generator=generator) < 0.5
    return torch.where(turned[:, None, None, None], x.flip(3), x)


def _relight(x: Tensor, generator: Generator) -> Tensor:
    light, contrast = torch.rand(2, len(x), 1, 1, 1, device=x.device, generator=generator)
    x = x + light - 0.5
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    lit: Tensor = (x - mean) * (contrast + 0.5) + mean
    return lit


def _shift(x: Tensor, generator: Generator) -> Tensor:
    """Whole pixels, mid-grey moving in."""
    side = x.shape[-1]
    reach = round(SHIFT * side)
    steps = torch.randint(0, 2 * reach + 1, (2, len(x), 1), device=x.device, generator=generator)
    rows, columns = steps + torch.arange(side, device=x.device)
    padded = F.pad(x, (reach,) * 4)
    each = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[each, 0, rows[:, :, None], columns[:, None, :]].unsqueeze(1)


def _cut(x: Tensor, generator: Generator) -> Tensor:
    """A square, its centre anywhere in the face, becomes mid-grey."""
    side = x.shape[-1]
    centres = torch.randint(0, side, (2, len(x), 1), device=x.device, generator=generator)
    inside = (torch.arange(side, device=x.device) - centres).abs() < CUT * side / 2
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return x * ~hole[:, None]
