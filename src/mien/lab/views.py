"""The batches of an epoch: drawn, augmented, mixed, taught and normalised on the device that trains."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from mien.lab.augment import augment, mixup
from mien.lab.data import FaceSet
from mien.lab.normalise import normalise
from mien.lab.recipe import Recipe
from mien.lab.sampling import draw_epoch
from mien.lab.teachers import Teachers


class View(NamedTuple):
    """A batch as the objective takes it.

    ``x`` float ``[N, 1, S, S]``, normalised; ``target`` float ``[N, C]``; ``oval`` float ``[N, 1, S, S]``, 1 inside of
    the face oval after the face has been moved, or ``[N, 0]`` where the recipe has no use for it.
    """

    x: Tensor
    target: Tensor
    oval: Tensor


def batches(
    faces: FaceSet,
    target: Tensor,
    weights: Tensor,
    recipe: Recipe,
    batch: int,
    teachers: Teachers,
    generator: Generator,
) -> Iterator[View]:
    """The full batches of one epoch; the rest that fills none is left out.

    Every device draws all of a batch and keeps its own part of it, so that the number of devices changes nothing.
    """
    rows = draw_epoch(weights, generator)
    for chosen in torch.split(rows[: len(rows) // batch * batch], batch):
        x = augment(faces.images[chosen], recipe.augment, generator)
        x, mixed = mixup(x, target[chosen], recipe.augment.mixup, generator)
        part = share(teachers.fabric.global_rank, teachers.fabric.world_size, batch)
        x, mixed = x[part], mixed[part]
        yield View(normalise(x, recipe.data.size), teachers.teach(x, mixed), x.new_zeros(len(x), 0))


def share(rank: int, world: int, batch: int) -> slice:
    """The part of a batch that device ``rank`` of ``world`` computes."""
    return slice(rank * batch // world, (rank + 1) * batch // world)
