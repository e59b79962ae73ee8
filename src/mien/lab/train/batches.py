"""The batches of an epoch: drawn, augmented, mixed, taught and normalised on the device that trains."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from mien.lab.augment import augment_with_oval, mix
from mien.lab.data import FaceSet
from mien.lab.data.sampling import draw_epoch
from mien.lab.inference import normalise
from mien.lab.recipe import Recipe, minority_augment
from mien.lab.train.distillation import Teachers


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
    *,
    size: int = 0,
) -> Iterator[View]:
    """The full batches of one epoch at ``size`` pixels (0: the recipe's); the rest that fills none is left out.

    Every device draws all of a batch and keeps its own part of it, so that the number of devices changes nothing.
    """
    size = size or recipe.data.size
    rows = draw_epoch(weights, generator)
    rows = rows[: len(rows) // batch * batch].view(-1, batch)
    rare = _is_minority(faces, recipe)[rows]
    # Counted once an epoch: to count in every batch would make the device wait for this process.
    counts = rare.sum(dim=1).tolist()
    for chosen, apart, count in zip(rows, rare, counts, strict=True):
        x, oval = _show(faces.images[chosen], apart, count, recipe, generator, size=size)
        x, mixed = mix(x, target[chosen], recipe.augment, generator)
        part = share(teachers.fabric.global_rank, teachers.fabric.world_size, batch)
        x, mixed = x[part], mixed[part]
        yield View(normalise(x, size), teachers.add_live(x, mixed), oval[part])


def share(rank: int, world: int, batch: int) -> slice:
    """The part of a batch that device ``rank`` of ``world`` computes."""
    return slice(rank * batch // world, (rank + 1) * batch // world)


def _is_minority(faces: FaceSet, recipe: Recipe) -> Tensor:
    """bool ``[N]``: the faces that are augmented otherwise than the rest."""
    if minority_augment(recipe) == recipe.augment:
        return torch.zeros_like(faces.labels, dtype=torch.bool)
    indices = [i for i, emotion in enumerate(faces.emotions) if emotion in recipe.minority.classes]
    return torch.isin(faces.labels, faces.labels.new_tensor(indices))


def _show(
    images: Tensor, apart: Tensor, count: int, recipe: Recipe, generator: Generator, *, size: int
) -> tuple[Tensor, Tensor]:
    """Augmented ``images`` and their ovals; the ``count`` faces of ``apart`` go through the minority's strengths."""
    size = size if recipe.loss.face_region > 0 else 0
    if count == 0:
        return augment_with_oval(images, recipe.augment, generator, size=size)
    order = apart.byte().argsort(descending=True, stable=True)  # the minority first
    groups = ((order[:count], minority_augment(recipe)), (order[count:], recipe.augment))
    shown = [augment_with_oval(images[own], s, generator, size=size) for own, s in groups if len(own) > 0]
    x, oval = (torch.cat(column)[order.argsort()] for column in zip(*shown, strict=True))
    return x, oval
