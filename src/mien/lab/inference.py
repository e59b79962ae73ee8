"""The one normalisation of every net here, in training and inside every exported graph."""

import torch
from torch import Tensor
from torch.nn import functional as F

# How many views each word stands for.
VIEWS = {"one": 1, "flip": 2, "six": 6, "ten": 10}


VIEWS_SAID = {
    "one": "the face as it is",
    "flip": "each face and its mirror image, averaged",
    "six": "each face as it is, an eleventh larger and a thirteenth smaller, with their mirrors, averaged",
    "ten": "five crops and their mirrors, averaged",
}


# Share of a face's side that a crop keeps (44 of 48 pixels), and by which a border widens it on each side (2 pixels).
_CROP, _BORDER = 11 / 12, 1 / 24


def views_of(x: Tensor, views: int) -> list[Tensor]:
    """The ``views`` of images ``[N, 1, S, S]``: each of their own size, to be resized by whoever looks at them.

    1: the face. 2: and its mirror image. 6: the face, its middle and the face within a border that repeats its edge,
    which is seen larger and smaller after resizing, and their mirror images. 10: the crops of the four corners and of
    the middle, and their mirror images (Krizhevsky et al., NeurIPS 2012).
    """
    if views == 1:
        return [x]
    if views == 2:
        return [x, x.flip(3)]
    crops = [x, _middle(x), _bordered(x)] if views == 6 else [*_corners(x), _middle(x)]
    return [view for one in crops for view in (one, one.flip(3))]


def _middle(x: Tensor) -> Tensor:
    crop = round(_CROP * x.shape[-1])
    first = (x.shape[-1] - crop) // 2
    return x[:, :, first : first + crop, first : first + crop]


def _corners(x: Tensor) -> list[Tensor]:
    crop = round(_CROP * x.shape[-1])
    ends = (slice(None, crop), slice(x.shape[-1] - crop, None))
    return [x[:, :, rows, columns] for rows in ends for columns in ends]


def _bordered(x: Tensor) -> Tensor:
    side, border = x.shape[-1], round(_BORDER * x.shape[-1])
    where = torch.arange(-border, side + border, device=x.device).clamp(0, side - 1)
    return x[:, :, where][:, :, :, where]


# Mean and standard deviation of the pixels of FER-2013 Training, in 0..1 (measured: 0.5077, 0.2550).
MEAN, STD = 0.508, 0.255


def normalise(images: Tensor, size: int) -> Tensor:
    """float ``[N, 1, S, S]`` in 0..1 -> ``[N, 1, size, size]`` of mean 0 and variance 1 over the training set."""
    if images.shape[-1] != size:
        images = F.interpolate(images, size=size, mode="bicubic", align_corners=False)
    return ((images - MEAN) / STD).contiguous(memory_format=torch.channels_last)
