"""Augmentation settings and inputs for the tests of augmentation."""

import math

import torch

from mien.lab.augment import Augment

NOTHING = Augment(flip=0)
# The augmentation of document 001.
DOCUMENT_001 = Augment(rotate=35, shear=math.tan(0.4), zoom=0.4, shift=0.25, light=0.5, flip=0.5, fill="zeros")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def floats(images: torch.Tensor) -> torch.Tensor:
    return images.unsqueeze(1).float() / 255
