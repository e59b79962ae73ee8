"""Faces laid on each other: each moved by an affine map that brings its key points to the framing's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from mien._face import Detection
from mien._framing import FER2013, Framing

# RGB uint8 [H, W, 3] -> the faces in it, largest first.
Locate = Callable[[NDArray[np.uint8]], Sequence[Detection]]

FACE_SIDE, BORDER = 192, 104  # pixels: a crop is enlarged, and laid on a border as wide, for the detector to find it
_LEAST_WIDTH = 0.4  # of the crop's side: what is narrower is not the face that fills it
# Largest factor by which one direction may be stretched or shrunk: beyond it the points are wrong, or in full profile.
_MOST_STRETCH = 2.0


@dataclass(frozen=True, eq=False)
class Alignment:
    """For N crops: ``affine`` float64 ``[N, 2, 3]``, from places in the framing to places in the crop.

    Places are ``(x, y, 1)`` in fractions of a side. ``found`` bool ``[N]`` says which are known; the others hold NaN.
    """

    affine: NDArray[np.float64]
    found: NDArray[np.bool_]


def as_they_lie(count: int) -> Alignment:
    """Crops that are taken to lie in the framing already."""
    return Alignment(np.tile(np.eye(2, 3), (count, 1, 1)), np.ones(count, np.bool_))


def align(
    crops: NDArray[np.uint8],
    locate: Locate,
    *,
    framing: Framing = FER2013,
    report: Callable[[int], None] = lambda _: None,
) -> Alignment:
    """Find eyes, nose and mouth of each of ``crops`` uint8 ``[N, S, S]`` and fit the affine map, by least squares.

    A crop without a face of its own size, or whose points would stretch it more than twofold, is not found.
    """
    affine = np.full((len(crops), 2, 3), np.nan)
    wanted = np.array([framing.right_eye, framing.left_eye, framing.nose, framing.mouth])
    for index, crop in enumerate(crops):
        points = _points(crop, locate)
        if points is not None:
            affine[index] = _fit(wanted, points)
        report(index + 1)
    found = np.array([_usable(each) for each in affine], np.bool_)
    affine[~found] = np.nan
    return Alignment(affine, found)


def warp(maps: NDArray[np.floating] | NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """Square ``maps`` ``[N, S, S]`` as they lie in the framing (bilinear), float32; outside of a crop they are 0."""
    if not len(maps):  # torch makes no empty grid
        return np.zeros(maps.shape, np.float32)
    # torch counts places from -1 to 1: p = 2 q - 1.
    theta = affine.copy()
    theta[:, :, 2] = 2 * affine[:, :, 2] + affine[:, :, 0] + affine[:, :, 1] - 1
    source = torch.from_numpy(np.ascontiguousarray(maps, np.float32)).unsqueeze(1)
    grid = F.affine_grid(torch.from_numpy(theta).float(), list(source.shape), align_corners=False)
    return np.asarray(F.grid_sample(source, grid, align_corners=False).squeeze(1).numpy())


def _points(crop: NDArray[np.uint8], locate: Locate) -> NDArray[np.float64] | None:
    """Right eye, left eye, nose and mouth as fractions of the crop's side, ``[4, 2]``."""
    canvas = np.full((FACE_SIDE + 2 * BORDER,) * 2, round(float(crop.mean())), np.uint8)
    enlarged = Image.fromarray(crop).resize((FACE_SIDE, FACE_SIDE), Image.Resampling.BICUBIC)
    canvas[BORDER : BORDER + FACE_SIDE, BORDER : BORDER + FACE_SIDE] = np.asarray(enlarged)
    faces = locate(np.repeat(canvas[..., None], 3, axis=2))
    if not faces or faces[0].points is None or faces[0].box.width < _LEAST_WIDTH * FACE_SIDE:
        return None
    return (np.array(faces[0].points[:4], np.float64) - BORDER) / FACE_SIDE


def _fit(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    known = np.column_stack([source, np.ones(len(source))])
    return np.asarray(np.linalg.lstsq(known, target, rcond=None)[0].T)


def _usable(affine: NDArray[np.float64]) -> bool:
    if not np.isfinite(affine).all() or np.linalg.det(affine[:, :2]) <= 0:
        return False
    stretch = np.linalg.svd(affine[:, :2], compute_uv=False)
    return bool(stretch.max() <= _MOST_STRETCH and stretch.min() >= 1 / _MOST_STRETCH)
