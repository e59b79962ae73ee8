"""Objectives and targets for the tests of losses."""

import torch
from torch.nn import functional

from mien.lab import nets
from mien.lab.recipe import LossConfig
from mien.lab.train.losses import Objective

ONES = torch.ones(7)
TINY = {"stem": 8, "widths": (8, 16), "depths": (1, 1), "strides": (2, 2)}


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return functional.one_hot(labels, 7).float()


def objective(choice: LossConfig, name: str = "mien", **options: object) -> Objective:
    torch.manual_seed(0)
    return Objective(nets.build(name, channels=1, classes=7, **options), choice, ONES)
