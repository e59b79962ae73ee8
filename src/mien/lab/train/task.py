"""What a training works on: faces, targets and teachers, chosen by the recipe, put on the device, and checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning.fabric import Fabric
from torch import Tensor

from mien._errors import DataError, RecipeError
from mien.lab.data import FaceSet
from mien.lab.feed.rows import training_rows, validation_rows
from mien.lab.feed.sampling import epoch_length, row_weights
from mien.lab.feed.target import targets
from mien.lab.recipe import Recipe
from mien.lab.train.course import choices, stages
from mien.lab.train.teachers import Teachers

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Task:
    """What stays the same over all epochs; everything on one device."""

    recipe: Recipe
    fabric: Fabric
    training: FaceSet
    target: Tensor
    row_weights: Tensor
    teachers: Teachers
    validation: FaceSet
    report: Report | None  # of the first process alone

    def steps(self, batch: int) -> int:
        """Steps an epoch; the last incomplete batch is left out."""
        return epoch_length(self.row_weights) // batch


def prepare(recipe: Recipe, faces: FaceSet, fabric: Fabric, report: Report | None) -> Task:
    """The task of ``recipe`` on ``faces``. Raises ``RecipeError`` and ``DataError`` for what cannot go well."""
    training = training_rows(faces, recipe).to(fabric.device)
    teachers = Teachers(recipe.target, fabric, training.emotions)
    task = Task(
        recipe=recipe,
        fabric=fabric,
        training=training,
        target=teachers.fold(targets(training, recipe.target), training),
        row_weights=row_weights(training, recipe),
        teachers=teachers,
        validation=validation_rows(faces, recipe).to(fabric.device),
        report=report,
    )
    _check(task)
    return task


def _check(task: Task) -> None:
    """What would otherwise show in the middle of a training."""
    course, world = choices(stages(task.recipe)), task.fabric.world_size
    for choice in course:
        if choice.batch % (world * choice.accumulate):
            parts = f"{world * choice.accumulate}: devices x accumulate"
            raise RecipeError(f"optimise.batch ({choice.batch}) must be a multiple of {parts}")
        if task.steps(choice.batch) == 0:
            length = epoch_length(task.row_weights)
            raise DataError(f"an epoch of {length} faces makes no batch of {choice.batch}; lower optimise.batch")
    if not len(task.validation) and (task.recipe.keep == "best" or any(c.schedule == "plateau" for c in course)):
        raise DataError("there are no faces to validate on: set keep = 'last', and a schedule other than 'plateau'")
