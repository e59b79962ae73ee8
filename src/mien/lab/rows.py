"""Which faces a recipe learns from and which it is validated on while it learns."""

import torch

from mien._errors import DataError
from mien.lab.data import FaceSet, Split, leaked_into_tests, with_classes
from mien.lab.recipe import Recipe


def training_rows(faces: FaceSet, recipe: Recipe) -> FaceSet:
    """The Training rows that the recipe learns from, in its classes. Raises ``DataError`` when they make no batch."""
    chosen = faces.usage == list(Split).index(Split.TRAINING)
    if recipe.data.exclude_leaked:  # judged on the full set: a copy may hide behind a label outside of the class set
        chosen &= ~leaked_into_tests(faces)
    training = with_classes(faces.select(chosen), recipe.data.classes)
    if recipe.data.share < 1:
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(recipe.seed))
        training = training.select(order[: round(recipe.data.share * len(training))])
    if len(training) < recipe.optimise.batch:
        cure = "lower optimise.batch or check the Usage column"
        raise DataError(
            f"{faces.source}: {len(training)} Training rows make no batch of {recipe.optimise.batch}; {cure}"
        )
    return training


def validation_rows(faces: FaceSet, recipe: Recipe) -> FaceSet:
    """The rows that select: PublicTest, in the recipe's classes."""
    return with_classes(faces.split(Split.PUBLIC_TEST), recipe.data.classes)
