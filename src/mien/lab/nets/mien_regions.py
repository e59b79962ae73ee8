"""The mien family with a closer look at the brows and eyes and at the mouth (document 002: region-level modelling).

Beside the trunk, which sees the whole face, two branches with weights of their own see a strip each, cut where the
framing of FER-2013 puts eyes and mouth. They keep twice the trunk's resolution and are pooled to its grid. Their
channels join the trunk's at the strip's own place, zero everywhere else, so the head stays pooled and linear and a
class activation map shows what each region said, where it said it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien._framing import FER2013, Framing
from mien.lab.nets import mien
from mien.lab.nets._layers import Net, PooledHead

# Sides of a region as fractions of the face's: left, top, right, bottom.
Region = tuple[float, float, float, float]


def regions_of(framing: Framing) -> tuple[Region, Region]:
    """The strip of brows and eyes, and that of the mouth and chin, with room for faces that lie a little otherwise.

    Above the eyes lie the brows, which rise in surprise and fear; below the mouth the jaw, which drops in surprise.
    """
    eyes = (framing.right_eye[1] + framing.left_eye[1]) / 2
    x, mouth = framing.mouth
    brow_strip = (framing.right_eye[0] - 0.2, eyes - 0.22, framing.left_eye[0] + 0.2, eyes + 0.1)
    return brow_strip, (x - 0.3, mouth - 0.08, x + 0.3, mouth + 0.17)


class RegionFeatures(nn.Module):
    """``trunk(x)`` and, for each region, ``branch(strip of x)`` placed on the trunk's grid, side by side."""

    def __init__(self, trunk: nn.Module, branches: Sequence[nn.Module], regions: Sequence[Region]) -> None:
        super().__init__()
        self.trunk = trunk
        self.branches = nn.ModuleList(branches)
        self.regions = tuple(regions)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, K + sum of the branches' channels, h, w]`` of faces ``[N, channels, S, S]``."""
        whole = self.trunk(x)
        placed = [self._look(b, r, x, whole.shape[-1]) for b, r in zip(self.branches, self.regions, strict=True)]
        return torch.cat([whole, *placed], dim=1)

    def _look(self, branch: nn.Module, region: Region, x: Tensor, grid: int) -> Tensor:
        """What ``branch`` sees in ``region``, on a grid of ``grid`` x ``grid`` places.

        Scaled so that its mean over the whole grid is its mean over the region.
        """
        left, top, right, bottom = cells(region, grid)
        pixels = x.shape[-1] / grid
        rows, columns = (slice(round(a * pixels), round(b * pixels)) for a, b in ((top, bottom), (left, right)))
        seen = branch(x[:, :, rows, columns])
        size = (bottom - top, right - left)
        if seen.shape[-2:] != size:
            seen = F.adaptive_avg_pool2d(seen, size)
        scale = grid * grid / (size[0] * size[1])
        return F.pad(seen * scale, (left, grid - right, top, grid - bottom))


def cells(region: Region, grid: int) -> tuple[int, int, int, int]:
    """The places of a ``grid`` x ``grid`` map that ``region`` touches: left, top, and the ends right and bottom."""
    left, top, right, bottom = (max(0.0, min(1.0, edge)) * grid for edge in region)
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def build(
    channels: int,
    classes: int,
    *,
    stem: int = 32,
    stem_stride: int = 1,
    widths: Sequence[int] = (48, 96, 192),
    depths: Sequence[int] = (2, 2, 2),
    strides: Sequence[int] = (2, 2, 2),
    region_stem: int = 16,
    region_widths: Sequence[int] = (32, 64),
    region_depths: Sequence[int] = (1, 1),
    region_strides: Sequence[int] = (2, 2),
    dropout: float = 0.2,
    drop_path: float = 0.0,
) -> Net:
    """Build the net ``mien`` as trunk and one branch for each of the two regions.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        stem: Channels of the trunk's stem.
        stem_stride: Its stride.
        widths: Channels of each stage of the trunk.
        depths: Blocks of each stage of the trunk.
        strides: Stride of each stage of the trunk.
        region_stem: Channels of a branch's stem.
        region_widths: Channels of each stage of a branch.
        region_depths: Blocks of each stage of a branch.
        region_strides: Stride of each stage of a branch.
        dropout: Dropout rate before the classifier, from 0 to 1.
        drop_path: Stochastic depth rate of the trunk's last block.

    Returns:
        The net.
    """
    whole = mien.build(
        channels,
        classes,
        stem=stem,
        stem_stride=stem_stride,
        widths=widths,
        depths=depths,
        strides=strides,
        drop_path=drop_path,
    )
    regions = regions_of(FER2013)
    branches = [
        mien.build(
            channels, classes, stem=region_stem, widths=region_widths, depths=region_depths, strides=region_strides
        )
        for _ in regions
    ]
    features = RegionFeatures(whole.features, [branch.features for branch in branches], regions)
    width = widths[-1] + len(regions) * region_widths[-1]
    return Net(features, PooledHead(width, classes, dropout=dropout))
