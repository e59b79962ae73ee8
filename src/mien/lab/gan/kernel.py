"""The kernel distance between two sets of faces (KID: Binkowski et al., ICLR 2018), with its standard error."""

from typing import NamedTuple

import torch
from torch import Tensor

# Faces of a set that are compared, at most: the cost grows with the square.
MOST = 1000
# Half-samples that the standard error is taken from.
HALVES = 200


class Distance(NamedTuple):
    """``value`` is unbiased, so it may be a little below 0 for sets of one distribution."""

    value: float
    standard_error: float


def kernel_distance(x: Tensor, y: Tensor, *, seed: int = 0, halves: int = HALVES) -> Distance:
    """The squared maximum mean discrepancy of ``x`` ``[N, D]`` and ``y`` ``[M, D]`` under ``(x.y / D + 1) ** 3``.

    The unbiased estimate of Gretton et al. (JMLR 2012), of at most ``MOST`` rows each. The standard error is the
    spread of the same estimate over random halves of both sets about the estimate of the whole (the delete-half
    jackknife, Shao and Wu 1989), which is a little too large where the sets are of one distribution; with ``halves``
    0 it is 0. Raises ``ValueError`` for a set of less than four rows.
    """
    if min(len(x), len(y)) < 4:
        raise ValueError(f"a kernel distance needs four faces of each set, not {len(x)} and {len(y)}")
    generator = torch.Generator().manual_seed(seed)
    x, y = (_some(rows.double(), MOST, generator) for rows in (x, y))
    xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    value = _discrepancy(xx, yy, xy)
    squares = 0.0
    for _ in range(halves):
        i, j = (torch.randperm(len(rows), generator=generator)[: len(rows) // 2] for rows in (x, y))
        squares += (_discrepancy(xx[i][:, i], yy[j][:, j], xy[i][:, j]) - value) ** 2
    return Distance(value, (squares / max(1, halves)) ** 0.5)


def _some(rows: Tensor, most: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:most]]


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _discrepancy(xx: Tensor, yy: Tensor, xy: Tensor) -> float:
    """Means over the kernel's blocks; a face is never compared with itself."""
    within = sum((k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in (xx, yy))
    return float(within - 2 * xy.mean())
