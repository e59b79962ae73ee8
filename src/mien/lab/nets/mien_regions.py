"""The net ``mien`` with two branches for the brows and eyes and for the mouth (document 002: region-level modelling).

The trunk computes features of the whole face. Each branch computes features of a strip, cut where the framing of
FER-2013 places eyes or mouth, at twice the resolution of the trunk. They are pooled to the trunk's grid and placed at
the cells of the strip, with zeros elsewhere. The head stays pooled and linear, so class activation maps show the
contribution of each region at its own place.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien._framing import FER2013, Framing
from mien.lab.nets import mien
from mien.lab.nets._layers import Net, PooledHead

# Edges of a region as fractions of the face: left, top, right, bottom.
Region = tuple[float, float, float, float]


def regions_of(framing: Framing) -> tuple[Region, Region]:
    """Return the strip of brows and eyes and the strip of mouth and jaw, each with a margin.

    The brows rise in surprise and fear, and the jaw drops in surprise.

    Args:
        framing: Where eyes and mouth are in a face image.

    Returns:
        The two regions.
    """
    eyes = (framing.right_eye[1] + framing.left_eye[1]) / 2
    x, mouth = framing.mouth
    brow_strip = (framing.right_eye[0] - 0.2, eyes - 0.22, framing.left_eye[0] + 0.2, eyes + 0.1)
    return brow_strip, (x - 0.3, mouth - 0.08, x + 0.3, mouth + 0.17)


class RegionFeatures(nn.Module):
    """Features of the whole face and of regions, concatenated.

    Args:
        trunk: The features of the whole face.
        branches: The features of each region.
        regions: The region of each branch.
    """

    def __init__(self, trunk: nn.Module, branches: Sequence[nn.Module], regions: Sequence[Region]) -> None:
        super().__init__()
        self.trunk = trunk
        self.branches = nn.ModuleList(branches)
        self.regions = tuple(regions)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features of faces.

        Args:
            x: ``[N, channels, S, S]``.

        Returns:
            ``[N, K + channels of all branches, h, w]``.
        """
        parts = [self.trunk(x)]
        grid = parts[0].shape[-1]
        pixels = x.shape[-1] / grid
        for branch, region in zip(self.branches, self.regions, strict=True):
            left, top, right, bottom = cells(region, grid)
            rows, columns = (slice(round(a * pixels), round(b * pixels)) for a, b in ((top, bottom), (left, right)))
            part, size = branch(x[:, :, rows, columns]), (bottom - top, right - left)
            if part.shape[-2:] != size:
                part = F.adaptive_avg_pool2d(part, size)
            scale = grid * grid / (size[0] * size[1])  # makes the mean over the grid that over the region
            parts.append(F.pad(part * scale, (left, grid - right, top, grid - bottom)))
        return torch.cat(parts, dim=1)


def cells(region: Region, grid: int) -> tuple[int, int, int, int]:
    """Return the cells of a square map that a region touches.

    Args:
        region: Edges of the region as fractions of the face.
        grid: Side of the map in cells.

    Returns:
        The first column, the first row, the column after the last, and the row after the last.
    """
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
    """Build the net ``mien`` as the trunk, with one branch for each of the two regions.

    Args:
        channels: Channels of the images, 1 for grey.
        classes: Number of classes.
        stem: Channels of the trunk's stem.
        stem_stride: Stride of the trunk's stem.
        widths: Channels of each stage of the trunk.
        depths: Blocks of each stage of the trunk.
        strides: Stride of each stage of the trunk.
        region_stem: Channels of a branch's stem.
        region_widths: Channels of each stage of a branch.
        region_depths: Blocks of each stage of a branch.
        region_strides: Stride of each stage of a branch.
        dropout: Dropout rate before the classifier, from 0 to 1.
        drop_path: Stochastic depth rate of the trunk's last block, below 1.

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
