"""Which faces a recipe learns from and which it is validated on while it learns.

What is done, in this order, to a set of all splits, further sets mixed in (``sets.load_set``):

1. Training rows alone; without those whose pixels stand in a test split (``data.exclude_leaked``)
2. without the rows that ``data.exclude`` lists
3. without the faces outside of ``data.classes``
4. with ``data.folds``: without fold ``data.fold``, which validates, and without what belongs to it: copies, groups
5. a random ``data.fraction`` of them, then at most ``data.max_per_class`` a class, both drawn by the seed
6. with ``data.expand``: made faces beside them

How often each of these faces then comes in an epoch is told in ``sampling``. Nothing here changes PublicTest or
PrivateTest; ``data.expand_first`` alone does, on purpose: all splits are expanded together, a random fifth of that
validates, and of the rest step 5 is left. Its figures are called "leaky" wherever they stand.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mien._errors import DataError, RecipeError
from mien.lab.data import FaceSet, Split, leaked_into_tests, with_classes
from mien.lab.data.duplicates import clusters, divide
from mien.lab.data.faceset import concatenate, split_index
from mien.lab.data.sampling import epoch_length, row_weights
from mien.lab.files import find_input
from mien.lab.recipe import Recipe

ROTATE = 15.0  # degrees, up to


SHIFT = 0.1  # share of the side, up to, in both directions


PATCH = (5, 10)  # pixels a side of an erased square, of faces of 48 pixels


_NATIVE = 48  # pixels a side that PATCH is given for


_CHUNK = 1024  # faces that are moved at a time


def expand(faces: FaceSet, share: float, *, seed: int) -> FaceSet:
    """``faces`` and behind them ``share`` x count made ones of every class, rounded down.

    Each is a different face of its class (once all have been taken, of all again) after one of: rotation, shift,
    mirroring, a black square. It keeps row, label, votes, usage and group of the face that it was made of.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.cat([_draw(faces.labels == label, share, generator) for label in range(len(faces.emotions))])
    made = faces.select(chosen)
    parts = [transform(part, generator) for part in torch.split(made.images, _CHUNK)]
    made.images.copy_(torch.cat(parts) if parts else made.images)
    return concatenate(faces, made)


def fifth(faces: FaceSet, *, seed: int) -> Tensor:
    """bool ``[N]``: a fifth of the faces, drawn by class; what rounding leaves goes to the largest remainders."""
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
    """uint8 ``[N, S, S]``, each rotated, shifted, mirrored or with a black square: one of the four, equally often."""
    kind = torch.randint(4, (len(images),), generator=generator)
    angle = _uniform(len(images), generator) * math.radians(ROTATE) * (kind == 0)
    shift = torch.stack([_uniform(len(images), generator) for _ in range(2)], dim=1) * SHIFT * (kind == 1)[:, None]
    moved = kind < 2
    result = images.clone()
    result[moved] = _move(images[moved], angle[moved], shift[moved])
    result[kind == 2] = images[kind == 2].flip(-1)
    return torch.where(_squares(images, generator) & (kind == 3)[:, None, None], 0, result)


def _draw(of_class: Tensor, share: float, generator: Generator) -> Tensor:
    rows = of_class.nonzero().flatten()
    count = math.floor(share * len(rows) + 1e-9)
    rounds = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(-(-count // max(len(rows), 1)))]
    return torch.cat([rows[:0], *rounds])[:count]


def _uniform(count: int, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator) * 2 - 1


def _move(images: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
    """Rotated about the middle, or shifted; what comes in from outside repeats the edge."""
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([cos, -sin, 2 * shift[:, 0], sin, cos, 2 * shift[:, 1]], dim=1).view(-1, 2, 3)
    x = images.unsqueeze(1).float()
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return x.round().clamp(0, 255).to(torch.uint8).squeeze(1)


def _squares(images: Tensor, generator: Generator) -> Tensor:
    """bool ``[N, S, S]``: for each face one square that lies inside of it."""
    count, size = len(images), images.shape[-1]
    side = torch.randint(PATCH[0], PATCH[1] + 1, (count,), generator=generator) * size // _NATIVE
    corners = [(torch.rand(count, generator=generator) * (size - side + 1)).floor() for _ in range(2)]
    at = torch.arange(size)
    down, across = ((at >= c[:, None]) & (at < (c + side)[:, None]) for c in corners)
    return down[:, :, None] & across[:, None, :]


# Folds belong to the set, not to a run: one seed for all, so that the folds of different runs are one partition.
_FOLD_SEED = 0


def training_rows(faces: FaceSet, recipe: Recipe) -> FaceSet:
    """The faces that the recipe learns from, in its classes.

    Raises ``DataError`` when they make no batch, and for folds or an exclude file that do not fit the set.
    """
    if _leaks(recipe):
        training = _trimmed(_leaky(faces, recipe, validation=False), recipe)
    else:
        training = _trimmed(_fold(faces, recipe, validation=False), recipe)
        if recipe.data.expand > 0:
            training = expand(training, recipe.data.expand, seed=recipe.seed)
    if epoch_length(row_weights(training, recipe)) < recipe.train.batch_size:
        cure = "lower train.batch_size or check the Usage column"
        raise DataError(
            f"{faces.source}: {len(training)} Training rows make no batch of {recipe.train.batch_size}; {cure}"
        )
    return training


def validation_rows(faces: FaceSet, recipe: Recipe) -> FaceSet:
    """The faces that select, in the recipe's classes: PublicTest, a fold of Training, or document 003's leaky fifth."""
    if _leaks(recipe):
        return _leaky(faces, recipe, validation=True)
    if recipe.data.folds:
        return _fold(faces, recipe, validation=True)
    return with_classes(faces.split(Split.PUBLIC_TEST), recipe.data.classes)


def validation_name(recipe: Recipe) -> str:
    """What the records of epochs call ``validation_rows``: "public", "fold" or "leaky"."""
    return "leaky" if _leaks(recipe) else "fold" if recipe.data.folds else "public"


def _fold(faces: FaceSet, recipe: Recipe, *, validation: bool) -> FaceSet:
    """The Training faces of the recipe's fold, or those that have nothing to do with it; all where there are no folds.

    Faces of further sets are never validated on.
    """
    training = with_classes(faces.select(_chosen(faces, recipe)), recipe.data.classes)
    if not recipe.data.folds:
        return training
    own = torch.ones(len(training), dtype=torch.bool) if training.mixed_in is None else ~training.mixed_in
    together, mine = torch.from_numpy(clusters(training)), training.select(own)
    k, count = recipe.data.folds, len(set(together[own].tolist()))
    if count < k:
        raise DataError(f"{faces.source}: {count} groups of Training faces make no {k} data.folds; lower it")
    part = divide(mine.labels.numpy(), together[own].numpy(), shares=[1 / k] * k, seed=_FOLD_SEED)
    in_fold = torch.from_numpy(part == recipe.data.fold)
    if validation:
        return mine.select(in_fold)
    return training.select(~torch.isin(together, together[own][in_fold]))


def _chosen(faces: FaceSet, recipe: Recipe) -> torch.Tensor:
    """Steps 1 and 2, bool ``[N]``: judged on the full set, as a copy may hide behind a label outside of the classes."""
    chosen = faces.usage == split_index(Split.TRAINING)
    if recipe.data.exclude_leaked:
        chosen &= ~leaked_into_tests(faces)
    if recipe.data.exclude:
        chosen &= ~torch.isin(faces.rows, read_exclude(find_input(recipe.data.exclude), faces))
    return chosen


def read_exclude(path: Path, faces: FaceSet) -> torch.Tensor:
    """int64: the rows that a text file lists, one number a line, what follows a ``#`` being a comment.

    Raises ``DataError`` naming the line for anything else, and for a row that ``faces`` does not have.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: data.exclude cannot be read ({getattr(error, 'strerror', None) or error})") from error
    known, rows = set(faces.rows.tolist()), []
    for number, line in enumerate(lines, start=1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        if not (word.isascii() and word.isdigit()):
            raise DataError(f"{path}, line {number}: {word[:40]!r} is no row; give one whole number a line")
        if int(word) not in known:
            last = max(known)
            raise DataError(f"{path}, line {number}: {faces.source} has no row {word}; its rows are 0 to {last}")
        rows.append(int(word))
    return torch.tensor(rows, dtype=torch.long)


def _trimmed(training: FaceSet, recipe: Recipe) -> FaceSet:
    """Step 5."""
    share, limit = recipe.data.fraction, recipe.data.max_per_class
    if share < 1:
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(recipe.seed))
        training = training.select(order[: round(share * len(training))])
    if limit:
        order = torch.randperm(len(training), generator=torch.Generator().manual_seed(recipe.seed))
        labels = training.labels[order]
        kept = [order[(labels == label).nonzero().flatten()[:limit]] for label in range(len(training.emotions))]
        training = training.select(torch.cat(kept).sort().values)
    return training


def _leaks(recipe: Recipe) -> bool:
    if recipe.data.expand_first and (recipe.data.expand <= 0 or recipe.data.folds or recipe.data.exclude):
        raise RecipeError(
            f"recipe {recipe.name}: data.expand_first shows a leak of data.expand, which must be above 0; "
            "it goes with neither data.folds nor data.exclude"
        )
    return recipe.data.expand_first


def _leaky(faces: FaceSet, recipe: Recipe, *, validation: bool) -> FaceSet:
    """Document 003's way: everything is expanded, test splits and all, and a fifth of the whole validates."""
    whole = expand(with_classes(faces, recipe.data.classes), recipe.data.expand, seed=recipe.seed)
    held = fifth(whole, seed=recipe.seed)
    return whole.select(held if validation else ~held)
