"""What the tests of the losses share."""

import torch
from torch.nn import functional

from mien.lab import nets
from mien.lab.recipe import Loss
from mien.lab.train.objective import Objective

ONES = torch.ones(7)
TINY = {"stem": 8, "widths": (8, 16), "depths": (1, 1), "strides": (2, 2)}


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return functional.one_hot(labels, 7).float()


def objective(choice: Loss, name: str = "mien", **options: object) -> Objective:
    torch.manual_seed(0)
    return Objective(nets.build(name, channels=1, classes=7, **options), choice, ONES)


# No width below 16: oneDNN 3.12, which torch 2.13 brings, crashes on some AVX-512 processors in the backward pass of a
# 1x1 convolution of stride 2 over fewer channels (4, 8 and 12 were tried) in channels_last.
SHORT = [
    "net.options.stem=16",
    "net.options.widths=[16,16,16]",
    "optimise.batch=35",
    "optimise.epochs=6",
    "optimise.name=adamw",
    "optimise.rate=0.01",
    "augment.erase=0",
]
