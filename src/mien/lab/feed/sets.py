"""What ``--data PATH`` means: FER-2013 in any form, a labelled folder or table of one's own; and what is mixed in.

find -> load_fer2013 | read_own -> with the recipe's further sets mixed in -> FaceSet
"""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from mien._emotions import CLASS_SETS, SEVEN, Emotion, class_set
from mien._errors import DataError, RecipeError
from mien.lab.data import FaceSet, Split, find_fer2013, leaked_into_tests, load_fer2013, with_classes
from mien.lab.data.faces import FERPLUS_COLUMNS, SIZE, split_index
from mien.lab.data.list_table import header
from mien.lab.data.mix import mix
from mien.lab.data.official import OFFICIAL_COUNTS
from mien.lab.data.read_own import hold_out, read_own
from mien.lab.recipe import Recipe, Source

_TABLES = (".csv", ".tsv", ".txt")


def load_set(path: Path | None, recipe: Recipe) -> FaceSet:
    """The faces at ``path`` (``None``: at $MIEN_DATA), all splits, with the sets of ``data.also`` mixed into Training.

    One's own faces are stored at ``max(48, data.size)`` pixels, in the eight classes of FER+ for ``data.classes =
    "eight"``, else in the seven. Where they have no validation split, 15 % of Training become PublicTest; the note says
    this and whatever else a reader of results must know. Raises ``DataError`` naming file or row for what is not as it
    should be, and for a class of the recipe without a face to learn from; ``RecipeError`` for keys of ``[data]`` that
    do not fit the set.
    """
    start = start_of(path)
    side = max(SIZE, recipe.data.size)
    faces = _read(start, recipe.data.labels, recipe, side=side, votes=recipe.data.votes)
    own = not is_fer2013(start)
    if own:
        faces = hold_out(faces)
    if recipe.data.also:
        faces = mix(_in_classes(faces, recipe), [_further(source, faces, recipe) for source in recipe.data.also])
    if own or recipe.data.also:
        _require_classes(faces, recipe)
        faces = _with_votes(faces, recipe)
    return faces


def start_of(path: Path | None) -> Path:
    """Where ``path`` (``None``: $MIEN_DATA, or the places where FER-2013 lies) leads. Raises ``DataError``."""
    given = path or os.environ.get("MIEN_DATA")
    start = Path(given).expanduser() if given else find_fer2013(None)
    return start if start.exists() else find_fer2013(start)


def _read(path: Path, labels: Mapping[str, str], recipe: Recipe, *, side: int, votes: str = "") -> FaceSet:
    if not is_fer2013(path):
        if votes:
            raise RecipeError(f"{path}: is not FER-2013, whose votes data.votes={votes} holds; leave data.votes out")
        eight = Emotion.CONTEMPT in class_set(recipe.data.classes)
        try:
            return read_own(path, label_map=labels, emotions=CLASS_SETS["eight"] if eight else SEVEN, side=side)
        except OSError as error:
            raise DataError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error
    if labels:
        raise RecipeError(f"{path}: is FER-2013, whose labels are known; leave data.labels out of the recipe")
    return load_fer2013(path, votes=Path(votes).expanduser() if votes else None)


def is_fer2013(path: Path) -> bool:
    """Whether ``load_fer2013`` reads ``path``: a table of pixels, a folder that holds one, or FER-2013 as pictures."""
    if path.is_file():
        return path.suffix.lower() not in _TABLES or "pixels" in header(path)[0]
    try:
        found = find_fer2013(path)
    except DataError:
        return False
    return found.is_file() or _holds_fer2013_pictures(found)


def _holds_fer2013_pictures(folder: Path) -> bool:
    """By the names that FER-2013's pictures have, or, where a copy has renamed them, by their number in every class."""
    trains = [entry for entry in folder.iterdir() if entry.name.lower() in ("train", "training") and entry.is_dir()]
    labels = [entry for train in trains for entry in train.iterdir() if entry.is_dir()]
    names = [[file.name for file in label.iterdir() if not file.name.startswith(".")] for label in labels]
    named = any(name.startswith("Training_") for found in names for name in found)
    return named or sorted(map(len, names)) == sorted(OFFICIAL_COUNTS[Split.TRAINING])


def _in_classes(faces: FaceSet, recipe: Recipe) -> FaceSet:
    """``faces`` as they can stand beside others: in the eight classes where the recipe asks for them."""
    if recipe.data.classes != "eight" or faces.emotions == CLASS_SETS["eight"]:
        return faces
    if recipe.data.exclude_leaked:  # now, as the copies among the rows without a majority are not seen any more then
        faces = faces.select(~leaked_into_tests(faces))
    return with_classes(faces, "eight")


def _further(source: Source, main: FaceSet, recipe: Recipe) -> tuple[FaceSet, float]:
    if not source.path:
        raise RecipeError(f"recipe {recipe.name}: data.also: a set has no path")
    if not (math.isfinite(source.weight) and source.weight > 0):
        raise RecipeError(f"recipe {recipe.name}: data.also: weight is above 0, not {source.weight}; or leave it out")
    faces = _read(start_of(Path(source.path)), source.labels, recipe, side=main.images.shape[-1])
    eight = recipe.data.classes == "eight" and faces.emotions != CLASS_SETS["eight"]
    return (with_classes(faces, "eight") if eight else faces), source.weight


def _require_classes(faces: FaceSet, recipe: Recipe) -> None:
    """Every class of the recipe has a face to learn from."""
    training = faces.labels[faces.usage == split_index(Split.TRAINING)]
    there = {faces.emotions[label] for label in set(training.tolist())}
    missing = [emotion for emotion in class_set(recipe.data.classes) if emotion not in there]
    if missing:
        raise DataError(
            f"{faces.source}: no Training face is {' or '.join(missing)}, "
            f"as data.classes={recipe.data.classes} needs; {_cure(there)}"
        )


def _cure(there: set[Emotion]) -> str:
    fitting = [name for name, emotions in CLASS_SETS.items() if there.issuperset(emotions)]
    mixing = "mix in a set that has them with data.also"
    if len(there) > 1:
        fitting.append(f"'{','.join(emotion for emotion in Emotion if emotion in there)}'")
    return f"set data.classes={' or '.join(fitting)}, or {mixing}" if fitting else mixing


def _with_votes(faces: FaceSet, recipe: Recipe) -> FaceSet:
    """With empty votes where the recipe asks for votes and the set has none: its labels alone are learned."""
    if faces.votes is not None or recipe.target.votes <= 0:
        return faces
    note = f"no FER+ votes: target.votes={recipe.target.votes:g} has no effect, the labels alone are learned"
    votes = torch.zeros(len(faces), len(FERPLUS_COLUMNS), dtype=torch.uint8)
    return replace(faces, votes=votes, note="; ".join(filter(None, (faces.note, note))))
