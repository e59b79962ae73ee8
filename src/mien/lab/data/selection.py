"""Selection of the faces that a recipe learns from and is validated on.

Steps, in this order, from a set of all splits with further sets mixed in (``datasets.load_set``):

1. Training rows, without those whose pixels are in a test split (``data.exclude_leaked``); with ``data.fold_public``
   also the rows of PublicTest
2. without the rows listed in ``data.exclude``
3. without faces outside of ``data.classes``
4. with ``data.folds``: without fold ``data.fold``, which is the validation set, and without copies and groups of it
5. a random ``data.fraction`` of them, then at most ``data.max_per_class`` per class, both drawn by the seed
6. with ``data.expand``: transformed copies in addition

``weighting`` decides how often each face is in an epoch. PublicTest and PrivateTest do not change, with one exception:
``data.expand_first`` reproduces a leak. It expands all splits together, validates on a random fifth, and applies step 5
to the rest. Metrics of such a recipe are always called "leaky".
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mien._errors import DataError, RecipeError
from mien.lab.data.duplicates import clusters, divide, leaked_into_tests
from mien.lab.data.faceset import SIZE, FaceSet, Split, concatenate, split_index, with_classes
from mien.lab.data.weighting import epoch_length, row_weights
from mien.lab.files import find_input, load_text
from mien.lab.recipe import Recipe

_ROTATE = 15.0  # degrees, up to
_SHIFT = 0.1  # share of the side, up to, in both directions
_ERASED = (5, 10)  # smallest and largest side of an erased square in pixels, for faces of 48 pixels
_CHUNK = 1024  # faces that are transformed at a time
_MOST_EXCLUDE = 2**26  # bytes; a row of the exclude.txt of an audit has up to 200
# One seed for all runs, so that the folds of different runs are the same partition of the set.
_FOLD_SEED = 0


def training_rows(faces: FaceSet, recipe: Recipe) -> FaceSet:
    """Select the faces that a recipe learns from.

    Args:
        faces: All splits.
        recipe: The recipe.

    Returns:
        The faces, in the recipe's classes.

    Raises:
        DataError: The faces are fewer than a batch, or the folds or the exclude file do not fit the set.

    Example:
        >>> from mien.lab.data import load_fer2013
        >>> from mien.lab.recipe import load
        >>> len(training_rows(load_fer2013("fer2013.parquet"), load("mien-0")))  # doctest: +SKIP
        28006
    """
    if _is_leaky(recipe):
        training = _limit(_leaky_part(faces, recipe, validation=False), recipe)
    else:
        training = _limit(_fold(faces, recipe, validation=False), recipe)
        if recipe.data.expand > 0:
            training = expand(training, recipe.data.expand, seed=recipe.seed)
    if epoch_length(row_weights(training, recipe)) < recipe.train.batch_size:
        raise DataError(
            f"{faces.source}: {len(training)} Training rows make no batch of {recipe.train.batch_size}; "
            "lower train.batch_size or check the Usage column"
        )
    return training


def validation_rows(faces: FaceSet, recipe: Recipe) -> FaceSet:
    """Select the faces that a recipe is validated on: PublicTest, a fold of Training, or the leaky fifth.

    Args:
        faces: All splits.
        recipe: The recipe.

    Returns:
        The faces, in the recipe's classes.

    Raises:
        DataError: The folds or the exclude file do not fit the set.
    """
    if _is_leaky(recipe):
        return _leaky_part(faces, recipe, validation=True)
    if recipe.data.folds:
        return _fold(faces, recipe, validation=True)
    return with_classes(faces.split(Split.PUBLIC_TEST), recipe.data.classes)


def validation_name(recipe: Recipe) -> str:
    """Return the name of the validation faces in the log of a training.

    Args:
        recipe: The recipe.

    Returns:
        ``"public"``, ``"fold"`` or ``"leaky"``.
    """
    return "leaky" if _is_leaky(recipe) else "fold" if recipe.data.folds else "public"


def _fold(faces: FaceSet, recipe: Recipe, *, validation: bool) -> FaceSet:
    """Steps 1 to 4: the faces of the recipe's fold, or those unrelated to it. Mixed-in faces are never in a fold."""
    learned = [Split.TRAINING, *([Split.PUBLIC_TEST] if recipe.data.folds and recipe.data.fold_public else [])]
    chosen = torch.isin(faces.usage, torch.tensor([split_index(split) for split in learned]))
    if recipe.data.exclude_leaked:  # from the full set, since a copy may have another label
        chosen &= ~leaked_into_tests(faces, learned=learned)
    if recipe.data.exclude:
        chosen &= ~torch.isin(faces.rows, read_exclude(find_input(recipe.data.exclude), faces))
    training = with_classes(faces.select(chosen), recipe.data.classes)
    k = recipe.data.folds
    if not k:
        return training
    own = torch.ones(len(training), dtype=torch.bool) if training.mixed_in is None else ~training.mixed_in
    together, candidates = torch.tensor(clusters(training)), training.select(own)
    count = len(set(together[own].tolist()))
    if count < k:
        raise DataError(f"{faces.source}: {count} groups of Training faces make no {k} data.folds; lower it")
    part = divide(candidates.labels.numpy(), together[own].numpy(), shares=[1 / k] * k, seed=_FOLD_SEED)
    in_fold = torch.from_numpy(part == recipe.data.fold)
    return candidates.select(in_fold) if validation else training.select(~torch.isin(together, together[own][in_fold]))


def read_exclude(path: Path, faces: FaceSet) -> Tensor:
    """Read a list of rows to leave out: one number per line; ``#`` begins a comment.

    Args:
        path: The text file.
        faces: The set that the rows belong to.

    Returns:
        int64: the rows.

    Raises:
        DataError: The file cannot be read, a line is not a number, or the set has no such row.
    """
    try:
        lines = load_text(path, most=_MOST_EXCLUDE).splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: data.exclude cannot be read ({getattr(error, 'strerror', None) or error})") from error
    known, rows = set(faces.rows.tolist()), []
    for number, line in enumerate(lines, start=1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        if not (word.isascii() and word.isdigit() and len(word) < 10):
            raise DataError(f"{path}, line {number}: {word[:40]!r} is no row; give one whole number per line")
        if int(word) not in known:
            last = max(known)
            raise DataError(f"{path}, line {number}: {faces.source} has no row {word}; its rows are 0 to {last}")
        rows.append(int(word))
    return torch.tensor(rows, dtype=torch.long)


def _limit(training: FaceSet, recipe: Recipe) -> FaceSet:
    """Step 5: ``data.fraction`` and ``data.max_per_class``."""
    share, limit = recipe.data.fraction, recipe.data.max_per_class
    if share < 1:
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(recipe.seed))
        training = training.select(order[: round(share * len(training))])
    if limit:
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(recipe.seed))
        labels = training.labels[order]
        first = [order[(labels == label).nonzero().flatten()[:limit]] for label in range(len(training.emotions))]
        training = training.select(torch.cat(first).sort().values)
    return training


def _is_leaky(recipe: Recipe) -> bool:
    if recipe.data.expand_first and (recipe.data.expand <= 0 or recipe.data.folds or recipe.data.exclude):
        raise RecipeError(
            f"recipe {recipe.name}: data.expand_first shows a leak of data.expand, which must be above 0; "
            "it cannot be combined with data.folds or data.exclude"
        )
    return recipe.data.expand_first


def _leaky_part(faces: FaceSet, recipe: Recipe, *, validation: bool) -> FaceSet:
    """The split of document 003: all faces are expanded, test splits included, and a fifth is the validation set."""
    whole = expand(with_classes(faces, recipe.data.classes), recipe.data.expand, seed=recipe.seed)
    held_out = fifth(whole, seed=recipe.seed)
    return whole.select(held_out if validation else ~held_out)


def expand(faces: FaceSet, share: float, *, seed: int) -> FaceSet:
    """Append transformed copies of faces (document 003).

    Each copy is of another face of its class; if ``share`` is above 1, all faces are used again. It has the row, label,
    votes, usage and group of its original.

    Args:
        faces: N faces.
        share: Copies per face of each class; their number is rounded down.
        seed: Seed of choice and transformation.

    Returns:
        The faces and their copies after them.
    """
    generator, chosen = torch.Generator().manual_seed(seed), []
    for label in range(len(faces.emotions)):
        rows = (faces.labels == label).nonzero().flatten()
        count = math.floor(share * len(rows) + 1e-9)
        rounds = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(-(-count // max(len(rows), 1)))]
        chosen.append(torch.cat([rows[:0], *rounds])[:count])
    copies = faces.select(torch.cat(chosen))
    for part in torch.split(copies.images, _CHUNK):
        part.copy_(transform(part, generator))
    return concatenate(faces, copies)


def fifth(faces: FaceSet, *, seed: int) -> Tensor:
    """Draw a fifth of the faces, stratified by class; the classes with the largest remainders are rounded up.

    Args:
        faces: N faces.
        seed: Seed of the choice.

    Returns:
        bool ``[N]``.
    """
    counts = np.bincount(faces.labels.numpy(), minlength=len(faces.emotions))
    quota = counts // 5
    left = math.ceil(len(faces) / 5) - int(quota.sum())
    quota[np.argsort(-(counts % 5), kind="stable")[:left]] += 1
    generator, chosen = torch.Generator().manual_seed(seed), torch.zeros(len(faces), dtype=torch.bool)
    for label, count in enumerate(quota.tolist()):
        rows = (faces.labels == label).nonzero().flatten()
        chosen[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return chosen


def transform(images: Tensor, generator: Generator) -> Tensor:
    """Rotate, shift or mirror each image, or erase a square of it: one of the four, equally often.

    Args:
        images: uint8 ``[N, S, S]``.
        generator: Source of the random numbers.

    Returns:
        New images, uint8 ``[N, S, S]``. Pixels from outside of the image repeat its edge.
    """
    n, size = len(images), images.shape[-1]
    kind = torch.randint(4, (n,), generator=generator)
    angle = _signed(n, generator) * math.radians(_ROTATE) * (kind == 0)
    dx, dy = (_signed(n, generator) * _SHIFT * (kind == 1) for _ in range(2))
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([cos, -sin, 2 * dx, sin, cos, 2 * dy], dim=1).view(-1, 2, 3)
    moved, result = kind < 2, images.clone()
    x = images[moved].unsqueeze(1).float()
    grid = F.affine_grid(theta[moved], list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    result[moved] = x.round().clamp(0, 255).to(torch.uint8).squeeze(1)
    result[kind == 2] = images[kind == 2].flip(-1)
    side = torch.randint(_ERASED[0], _ERASED[1] + 1, (n,), generator=generator) * size // SIZE
    corners = [(torch.rand(n, generator=generator) * (size - side + 1)).floor() for _ in range(2)]
    at = torch.arange(size)
    rows, columns = ((at >= corner[:, None]) & (at < (corner + side)[:, None]) for corner in corners)
    square = rows[:, :, None] & columns[:, None, :]
    return torch.where(square & (kind == 3)[:, None, None], 0, result)


def _signed(count: int, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator) * 2 - 1
