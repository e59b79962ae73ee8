"""Light: gamma, contrast, brightness as a factor, brightness added; a grey picture's colour jitter."""

from torch import Generator, Tensor

from mien.lab.augment.draw import factor, uniform
from mien.lab.augment.strengths import Augment


def relight(x: Tensor, s: Augment, generator: Generator) -> Tensor:
    """``x`` ``[N, 1, S, S]`` in 0..1, changed in place; the result may leave 0..1."""
    n = len(x)
    if s.gamma > 0:
        x.clamp_(1e-4, 1).pow_(_each(factor(n, s.gamma, generator)))
    if s.contrast > 0:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x.sub_(mean).mul_(_each(factor(n, s.contrast, generator))).add_(mean)
    if s.light > 0:
        x.mul_(_each(uniform(n, 1 - s.light, 1 + s.light, generator)))
    if s.brightness > 0:
        x.add_(_each(uniform(n, -s.brightness, s.brightness, generator)))
    return x


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]
