"""Loading any data set (FER-2013 in each form, or a labelled folder or table), with further sets mixed in.

find_dataset -> load_fer2013 | read_custom -> FaceSet
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mien._emotions import CLASS_SETS, Emotion, class_set
from mien._errors import DataError, RecipeError, checked
from mien._suggest import suggest
from mien.lab.data.custom import IMAGE_SUFFIXES, hold_out, read_custom, resize
from mien.lab.data.duplicates import leaked_into_tests
from mien.lab.data.faceset import (
    EMOTION_NAMES,
    FERPLUS_COLUMNS,
    SIZE,
    FaceSet,
    Split,
    concatenate,
    list_sha256,
    quote,
    split_index,
    with_classes,
)
from mien.lab.data.fer2013 import (
    OFFICIAL_COUNTS,
    has_private_test,
    is_official_table,
    load_fer2013,
    official_difference,
)
from mien.lab.data.folders import find_fer2013
from mien.lab.files import find_input
from mien.lab.recipe import ExtraData, Recipe

ALL = "all"


@checked
def load_set(path: Path | None, recipe: Recipe) -> FaceSet:
    """Load the faces that a recipe learns from and is validated on: all splits, with ``data.extra`` mixed into
    Training.

    A custom data set is stored at ``max(48, data.size)`` pixels, in the eight classes of FER+ for
    ``data.classes = "eight"``, else in the seven. Where it has no validation split, 15 % of Training become PublicTest;
    ``note`` of the result says so.

    Args:
        path: FER-2013 in any of its forms, or a labelled folder or table; ``None`` reads ``$MIEN_DATA``.
        recipe: Its section ``[data]`` names classes, size, label map, votes and further sets.

    Returns:
        The faces of all splits, on the CPU.

    Raises:
        DataError: A file or row is not valid, or a class of the recipe has no Training face.
        RecipeError: Keys of ``[data]`` do not fit the set.

    Example:
        >>> from mien.lab.recipe import load
        >>> faces = load_set(Path("fer2013.parquet"), load("mien-0"))  # doctest: +SKIP
    """
    start = find_dataset(path)
    faces = _read(start, recipe, labels=recipe.data.labels, votes=recipe.data.votes, side=max(SIZE, recipe.data.size))
    is_custom = bool(official_difference(faces))
    if is_custom:
        faces = hold_out(faces)
    if recipe.data.extra:
        if recipe.data.exclude_leaked and _needs_votes_as_labels(faces, recipe):
            # Now, because a copy among the rows without a majority could not be found later.
            faces = faces.select(~leaked_into_tests(faces))
        others = [(_read_extra(extra, faces, recipe), extra.weight) for extra in recipe.data.extra]
        faces = replace(faces, private_test=has_private_test(faces))  # before other labels
        faces = mix_sets(with_classes(faces, "eight") if _needs_votes_as_labels(faces, recipe) else faces, others)
    if not is_custom and not recipe.data.extra:
        return faces
    voted = faces.votes is not None and _needs_votes_as_labels(faces, recipe)
    _require_classes(with_classes(faces, "eight") if voted else faces, recipe)
    if faces.votes is not None or recipe.target.vote_weight <= 0:
        return faces
    note = f"no FER+ votes: target.vote_weight={recipe.target.vote_weight:g} has no effect, only the labels are learned"
    return replace(faces, votes=_no_votes(faces), note="; ".join(filter(None, (faces.note, note))))


def _read(path: Path, recipe: Recipe, *, labels: Mapping[str, str], votes: str = "", side: int) -> FaceSet:
    if is_fer2013(path):
        if labels:
            raise RecipeError(f"{path}: is FER-2013, whose labels are known; leave data.labels out of the recipe")
        skipped = recipe.data.skip_unreadable
        return _load_any_fer2013(path, find_input(votes) if votes else None, skip_unreadable=skipped)
    if votes:
        raise RecipeError(f"{path}: is not FER-2013, but data.votes={votes} holds votes for it; leave data.votes out")
    return read_custom(
        path,
        label_map=labels,
        emotions=class_set(recipe.data.classes),
        side=side,
        skip_unreadable=recipe.data.skip_unreadable,
    )


def _load_any_fer2013(path: Path, votes: Path | None = None, *, skip_unreadable: bool) -> FaceSet:
    """FER-2013 in one of its forms; what another number of faces means is said in ``note``."""
    faces = load_fer2013(path, votes=votes, official=False, skip_unreadable=skip_unreadable)
    difference = official_difference(faces)
    notes = (difference and f"not the official FER-2013: {difference}", faces.note)
    return replace(faces, note="; ".join(filter(None, notes)) or None)


def _needs_votes_as_labels(faces: FaceSet, recipe: Recipe) -> bool:
    return recipe.data.classes == "eight" and faces.emotions != CLASS_SETS["eight"]


def _read_extra(extra: ExtraData, main: FaceSet, recipe: Recipe) -> FaceSet:
    if not extra.path:
        raise RecipeError(f"recipe {recipe.name}: data.extra: a set has no path")
    if not (math.isfinite(extra.weight) and extra.weight > 0):
        raise RecipeError(f"recipe {recipe.name}: data.extra: weight is above 0, not {extra.weight}; or leave it out")
    path = find_dataset(find_input(extra.path))
    faces = _read(path, recipe, labels=extra.labels, side=main.images.shape[-1])
    return with_classes(faces, "eight") if _needs_votes_as_labels(faces, recipe) else faces


def _require_classes(faces: FaceSet, recipe: Recipe) -> None:
    """Every class of the recipe has a Training face."""
    training = faces.labels[faces.usage == split_index(Split.TRAINING)]
    found = {faces.emotions[label] for label in set(training.tolist())}
    missing = [emotion for emotion in class_set(recipe.data.classes) if emotion not in found]
    if not missing:
        return
    fitting = [name for name, emotions in CLASS_SETS.items() if found.issuperset(emotions)]
    if len(found) > 1:
        fitting.append(f"'{','.join(emotion for emotion in Emotion if emotion in found)}'")
    cure = "mix in a set that has them with data.extra"
    if fitting:
        cure = f"set data.classes={' or '.join(fitting)}, or {cure}"
    raise DataError(
        f"{faces.source}: no Training face is {' or '.join(missing)}, "
        f"as data.classes={recipe.data.classes} needs; {cure}"
    )


def _no_votes(faces: FaceSet) -> torch.Tensor:
    """Votes for no emotion: the target of such a face is its label."""
    return torch.zeros(len(faces), len(FERPLUS_COLUMNS), dtype=torch.uint8)


def mix_sets(main: FaceSet, others: Sequence[tuple[FaceSet, float]]) -> FaceSet:
    """Mix other sets into the Training split of a set, each with a weight.

    All sets have the same emotions. Faces of the others are resized to the main set's side; their rows are numbered
    after the main set's; groups of different sets are different. The sha256 covers all sets, in their order.

    Args:
        main: The set whose splits are used.
        others: Further sets, and how often each of their faces is in an epoch.

    Returns:
        The faces of all sets.
    """
    sets = [(main, 1.0), *others]
    side = main.images.shape[-1]
    has_votes = any(faces.votes is not None for faces, _ in sets)
    has_groups = any(faces.groups is not None for faces, _ in sets)
    mixed, notes = [], []
    rows = groups = 0
    for faces, weight in sets:
        n, is_extra, images, usage = len(faces), faces is not main, faces.images, faces.usage
        if images.shape[-1] != side:
            images = torch.from_numpy(np.stack([resize(Image.fromarray(image), side) for image in images.numpy()]))
        if is_extra:
            notes.append(f"{n:,} faces of {Path(faces.source).name} mixed into Training")
            usage = torch.full_like(usage, split_index(Split.TRAINING))
        votes = _no_votes(faces) if faces.votes is None else faces.votes
        from_jpeg = torch.zeros(n, dtype=torch.bool) if faces.pixels_from_jpeg is None else faces.pixels_from_jpeg
        group = (torch.arange(n) if faces.groups is None else faces.groups) + groups
        mixed.append(
            replace(
                faces,
                images=images,
                votes=votes if has_votes else None,
                usage=usage,
                rows=faces.rows + rows,
                pixels_from_jpeg=from_jpeg if has_votes else None,
                groups=group if has_groups else None,
                weights=torch.full((n,), weight),
                mixed_in=torch.full((n,), is_extra),
            )
        )
        notes += filter(None, [faces.note])
        rows, groups = int(faces.rows.max()) + rows + 1, int(group.max()) + 1
    return replace(
        concatenate(*mixed),
        sha256=list_sha256((f"{number:04} {faces.source}", faces.sha256) for number, (faces, _) in enumerate(sets)),
        evaluation_sha256=main.sha256,
        source=" + ".join(faces.source for faces, _ in sets),
        note="; ".join(notes) or None,
    )


class DatasetCache:
    """Loads data sets as ``load_set`` does and holds the last one in memory.

    Args:
        path: As for ``load_set``.

    Example:
        >>> from mien.lab.recipe import load
        >>> load_data = DatasetCache(Path("fer2013.parquet"))
        >>> faces = load_data(load("mien-0"))  # doctest: +SKIP
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._key: tuple[object, ...] = ()
        self._faces: FaceSet | None = None

    def __call__(self, recipe: Recipe) -> FaceSet:
        """Return the faces for a recipe.

        Args:
            recipe: The recipe.

        Returns:
            The same set as before where the recipe needs the same data.

        Raises:
            DataError: As ``load_set``.
            RecipeError: As ``load_set``.
        """
        data = recipe.data
        read = (data.classes, data.size, data.labels, data.votes, data.extra, data.exclude_leaked, data.skip_unreadable)
        key = (*read, recipe.target.vote_weight > 0)
        if self._faces is None or key != self._key:
            self._key, self._faces = key, load_set(self._path, recipe)
        return self._faces


@checked
def load_test_set(
    path: Path | None,
    emotions: tuple[Emotion, ...],
    *,
    size: int = SIZE,
    labels: Mapping[str, str] | None = None,
    skip_unreadable: bool = False,
) -> FaceSet:
    """Load the faces that a model is evaluated on: all splits, unchanged, without a held-out share.

    Args:
        path: FER-2013 in any of its forms, or a labelled folder or table; ``None`` reads ``$MIEN_DATA``.
        emotions: The model's classes. A custom set is read in the eight classes of FER+ where they have contempt, else
            in the seven.
        size: The model's input side in pixels; a custom set is read at ``max(48, size)`` pixels.
        labels: Label map of a custom set: label -> emotion, or "" to leave its faces out.
        skip_unreadable: Whether images of a folder or list that cannot be read are left out, which ``note`` counts.

    Returns:
        The faces of all splits, on the CPU.

    Raises:
        DataError: A file or row is not valid.

    Example:
        >>> from mien._emotions import SEVEN
        >>> faces = load_test_set(Path("my_faces"), SEVEN, labels={"smile": "happy"})  # doctest: +SKIP
    """
    start = find_dataset(path)
    if start.is_file() and start.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{start}: is one image; a data set is a folder or a table of labelled faces")
    if not is_fer2013(start):
        side = max(SIZE, size)
        return read_custom(start, label_map=labels or {}, emotions=emotions, side=side, skip_unreadable=skip_unreadable)
    if labels:
        raise DataError(f"{start}: is FER-2013, whose labels are known; leave the label map out")
    return _load_any_fer2013(start, skip_unreadable=skip_unreadable)


def as_in_training(faces: FaceSet, trained_on: Iterable[str | None]) -> FaceSet:
    """Hold out the faces that validated a training on a custom set, where models that it trained are evaluated.

    Args:
        faces: All splits of a set, from ``load_test_set``.
        trained_on: The SHA-256 of the faces of each model's training, as far as they are known.

    Returns:
        The set, with PublicTest as in the training; other sets unchanged.

    Raises:
        DataError: As of ``hold_out``.
    """
    return hold_out(faces) if faces.sha256 in trained_on and official_difference(faces) else faces


def find_dataset(path: Path | None) -> Path:
    """Return the path of a data set.

    Args:
        path: File or folder; ``None``: ``$MIEN_DATA``, or the places where FER-2013 is looked for.

    Returns:
        An existing path.

    Raises:
        DataError: Nothing is there.
    """
    given = path or os.environ.get("MIEN_DATA")
    start = Path(given).expanduser() if given else find_fer2013(None)
    if not start.exists():
        return find_fer2013(start)
    with suppress(DataError):
        found = find_fer2013(start)
        return found if found.is_file() else start
    return start


def is_fer2013(path: Path) -> bool:
    """Return whether ``load_fer2013`` reads a path: the full table of pixels, a Parquet file, or FER-2013 as images.

    Args:
        path: An existing file or folder.

    Returns:
        False for a custom data set, also for other tables of pixels.
    """
    if path.is_file():
        return path.suffix.lower() not in (".csv", ".tsv", ".txt") or is_official_table(path)
    try:
        found = find_fer2013(path)
    except DataError:
        return False
    if found.is_file():
        return is_fer2013(found)
    # By the names of FER-2013's images or, where a copy has renamed them, by their number in every class.
    trains = [entry for entry in found.iterdir() if entry.name.lower() in ("train", "training") and entry.is_dir()]
    labels = [entry for train in trains for entry in train.iterdir() if entry.is_dir()]
    names = [[file.name for file in label.iterdir() if not file.name.startswith(".")] for label in labels]
    named = any(name.startswith("Training_") for in_label in names for name in in_label)
    return named or sorted(map(len, names)) == sorted(OFFICIAL_COUNTS[Split.TRAINING])


@checked
def read_split(word: str | None) -> Split | str | None:
    """Parse the name of a split.

    Args:
        word: A name in upper or lower case, ``"all"``, or ``None`` for the default.

    Returns:
        The split, ``ALL``, or ``None`` where no name is given.

    Raises:
        DataError: There is no such split.

    Example:
        >>> read_split("publictest")
        <Split.PUBLIC_TEST: 'PublicTest'>
    """
    if word is None:
        return None
    known: dict[str, Split | str] = {str(name).lower(): name for name in (*Split, ALL)}
    key = word.strip().lower()
    if key not in known:
        names = f"{', '.join(Split)} or {ALL}"
        raise DataError(f"there is no such split as {quote(word)}; name {names}{suggest(key, known.values())}")
    return known[key]


@checked
def read_part(word: str) -> Split | None:
    """Parse the name of a split that must be given.

    Args:
        word: A name in upper or lower case, or ``"all"``.

    Returns:
        The split; ``None`` for all of the set.

    Raises:
        DataError: There is no such split.
    """
    found = read_split(word)
    return found if isinstance(found, Split) else None


def chosen_split(wanted: Split | str | None, faces: FaceSet) -> Split | None:
    """Return the split of a set to evaluate.

    Args:
        wanted: What ``read_split`` returned. ``None`` means PublicTest, or all faces where all are Training.
        faces: The set.

    Returns:
        The split; ``None`` for all faces.
    """
    if wanted is None:
        return None if bool((faces.usage == 0).all()) else Split.PUBLIC_TEST
    return wanted if isinstance(wanted, Split) else None


@checked
def read_map(words: Iterable[str]) -> dict[str, str]:
    """Parse a label map from words.

    Args:
        words: ``LABEL=EMOTION`` each; ``LABEL=`` leaves the faces of a label out.

    Returns:
        Label -> emotion in lower case; "" leaves a label out.

    Raises:
        DataError: A word has another form, or names no emotion.

    Example:
        >>> read_map(["Smile=happy", "other="])
        {'smile': 'happy', 'other': ''}
    """
    label_map: dict[str, str] = {}
    for word in words:
        label, sign, target = word.rpartition("=")
        if not sign or not label.strip():
            raise DataError(f"label map {quote(word)}: say LABEL=EMOTION, as in smile=happy; other= leaves a label out")
        key = target.strip().lower()
        if key and key not in EMOTION_NAMES:
            raise DataError(
                f"label map {word}: {quote(target)} is no emotion; there are {', '.join(Emotion)}, "
                f"and nothing for faces to leave out{suggest(key, EMOTION_NAMES)}"
            )
        label_map[label.strip().lower()] = key
    return label_map
