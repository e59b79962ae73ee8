"""The batches of an epoch: drawn, augmented, mixed and normalised on the training device."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from mien.lab.augment import JITTER, augment_with_oval, damage, mix, shrink
from mien.lab.augment.geometry import draw_affine, resample
from mien.lab.data import FaceSet
from mien.lab.data.weighting import draw_epoch
from mien.lab.inference import normalise
from mien.lab.recipe import Recipe, minority_augment
from mien.lab.train.distillation import Teachers


class Batch(NamedTuple):
    """The inputs of an ``Objective``.

    Attributes:
        x: float ``[N, 1, S, S]``, normalised.
        target: float ``[N, C]``.
        face_region: float ``[N, 1, S, S]``, 1 inside the face oval after the augmentation; ``[N, 0]`` where the recipe
            does not use it.
        view: float ``[N, 1, S, S]``: the same faces, moved a little and normalised; ``[N, 0]`` where the recipe does
            not use it.
    """

    x: Tensor
    target: Tensor
    face_region: Tensor
    view: Tensor


def batches(
    faces: FaceSet,
    target: Tensor,
    *,
    row_weights: Tensor,
    recipe: Recipe,
    batch_size: int,
    teachers: Teachers,
    generator: Generator,
    size: int = 0,
) -> Iterator[Batch]:
    """Yield the full batches of one epoch; faces that do not fill a batch are left out.

    Every device draws and augments the whole batch and takes its own part, so the batches do not depend on the number
    of devices.

    Args:
        faces: N training faces on the device.
        target: float ``[N, C]``: their targets.
        row_weights: float ``[N]``: how often each face is drawn in an epoch.
        recipe: Has the augmentation and the mixing.
        batch_size: Faces in a batch, over all devices.
        teachers: The teachers of the recipe.
        generator: Draws the order and the augmentation; on the device.
        size: Side in pixels of the faces that the net takes; 0: that of the recipe.

    Yields:
        This device's part of each batch.
    """
    size = size or recipe.data.size
    rows = draw_epoch(row_weights, generator)
    rows = rows[: len(rows) // batch_size * batch_size].view(-1, batch_size)
    minority = torch.zeros_like(faces.labels, dtype=torch.bool)
    if minority_augment(recipe) != recipe.augment:
        indices = [i for i, emotion in enumerate(faces.emotions) if emotion in recipe.minority.classes]
        minority = torch.isin(faces.labels, faces.labels.new_tensor(indices))
    minority = minority[rows]
    # Counted once an epoch, because each count makes this process wait for the device.
    counts = minority.sum(dim=1).tolist()
    part = device_part(teachers.fabric.global_rank, teachers.fabric.world_size, batch_size)
    for chosen, is_minority, count in zip(rows, minority, counts, strict=True):
        x, region = _augment(faces.images[chosen], is_minority, count, recipe, generator, size=size)
        x, mixed = mix(x, target[chosen], recipe.augment, generator)
        if recipe.target.undamaged_teachers:
            mixed = teachers.add_live(x, mixed)
            x = damage(x, recipe.augment, generator)
        x, mixed = shrink(x, mixed, recipe.augment, generator)
        view = x.new_zeros(len(x), 0)
        if recipe.loss.consistency > 0:
            moved = resample(x, draw_affine(len(x), JITTER, generator), "border", "bicubic")
            view = normalise(moved, size)
        x, mixed = x[part], mixed[part]
        if not recipe.target.undamaged_teachers:
            mixed = teachers.add_live(x, mixed)
        yield Batch(normalise(x, size), mixed, region[part], view[part])


def device_part(rank: int, world_size: int, n: int) -> slice:
    """Return the part of some faces that one of several devices computes.

    Args:
        rank: Number of the device, from 0.
        world_size: Number of devices.
        n: Number of faces.

    Returns:
        A slice of the faces.
    """
    return slice(rank * n // world_size, (rank + 1) * n // world_size)


def _augment(
    images: Tensor, is_minority: Tensor, count: int, recipe: Recipe, generator: Generator, *, size: int
) -> tuple[Tensor, Tensor]:
    """Augment images, ``count`` of which are of the minority classes, and return them with their face regions."""
    size, damaged = size if recipe.loss.face_region > 0 else 0, not recipe.target.undamaged_teachers
    if count == 0:
        return augment_with_oval(images, recipe.augment, generator, size=size, damaged=damaged)
    order = is_minority.byte().argsort(descending=True, stable=True)  # the minority first
    groups = ((order[:count], minority_augment(recipe)), (order[count:], recipe.augment))
    parts = [
        augment_with_oval(images[own], config, generator, size=size, damaged=damaged)
        for own, config in groups
        if len(own) > 0
    ]
    x, region = (torch.cat(column)[order.argsort()] for column in zip(*parts, strict=True))
    return x, region
