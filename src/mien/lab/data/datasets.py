"""What ``--data PATH`` means: FER-2013 in any form, a labelled folder or table of one's own; and what is mixed in.

find -> load_fer2013 | read_own -> with the recipe's further sets mixed in -> FaceSet
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mien._emotions import CLASS_SETS, SEVEN, Emotion, class_set
from mien._errors import DataError, RecipeError
from mien._suggest import suggest
from mien.lab.data import find_fer2013, leaked_into_tests, load_fer2013, with_classes
from mien.lab.data.custom import KNOWN, SUFFIXES, header, hold_out, read_own, resize
from mien.lab.data.faceset import (
    FERPLUS_COLUMNS,
    SIZE,
    FaceSet,
    Split,
    concatenate,
    list_sha256,
    quote,
    split_index,
)
from mien.lab.data.fer2013 import OFFICIAL_COUNTS
from mien.lab.files import find_input
from mien.lab.recipe import ExtraData, Recipe


def mix_sets(main: FaceSet, others: Sequence[tuple[FaceSet, float]]) -> FaceSet:
    """Mix other sets into the Training split of a set, each with a weight.

    All sets have the same emotions. Faces of the others are resized to the main set's side; their rows are numbered
    after the main set's; groups of different sets are different. The sha256 covers all sets, in their order.

    Args:
        main: The set whose splits are kept.
        others: Further sets, and how often each of their faces comes in an epoch.

    Returns:
        The faces of all sets.
    """
    sets = [main, *(other for other, _ in others)]
    has_votes = any(each.votes is not None for each in sets)
    has_groups = any(each.groups is not None for each in sets)
    mixed = []
    rows = groups = 0
    for each, weight in zip(sets, (1.0, *(weight for _, weight in others)), strict=True):
        further = each is not main
        filled = replace(
            each,
            images=resized(each.images, main.images.shape[-1]),
            votes=_votes(each) if has_votes else None,
            usage=torch.full_like(each.usage, split_index(Split.TRAINING)) if further else each.usage,
            rows=each.rows + rows,
            pixels_from_jpeg=_jpeg(each) if has_votes else None,
            groups=_grouped(each) + groups if has_groups else None,
            weights=torch.full((len(each),), weight),
            mixed_in=torch.full((len(each),), further),
        )
        rows = int(filled.rows.max()) + 1
        groups = int(filled.groups.max()) + 1 if filled.groups is not None else 0
        mixed.append(filled)
    return replace(
        concatenate(*mixed),
        sha256=list_sha256([(f"{number:04} {each.source}", each.sha256) for number, each in enumerate(sets)]),
        evaluation_sha256=main.sha256,
        source=" + ".join(each.source for each in sets),
        note="; ".join(filter(None, [_note(each, number) for number, each in enumerate(sets)])) or None,
    )


def resized(images: torch.Tensor, side: int) -> torch.Tensor:
    """Resize faces as images are resized when they are read.

    Args:
        images: uint8 ``[N, S, S]``.
        side: New side in pixels.

    Returns:
        uint8 ``[N, side, side]``; the same tensor where it has that side.
    """
    if images.shape[-1] == side:
        return images
    result = images.new_empty(len(images), side, side)
    for row, image in enumerate(images.numpy()):
        result[row] = torch.from_numpy(resize(Image.fromarray(image), side))
    return result


def _votes(faces: FaceSet) -> torch.Tensor:
    """Its votes, or none for any emotion: such a face keeps its label alone."""
    return faces.votes if faces.votes is not None else torch.zeros(len(faces), len(FERPLUS_COLUMNS), dtype=torch.uint8)


def _jpeg(faces: FaceSet) -> torch.Tensor:
    known = faces.pixels_from_jpeg
    return known if known is not None else torch.zeros(len(faces), dtype=torch.bool)


def _grouped(faces: FaceSet) -> torch.Tensor:
    return faces.groups if faces.groups is not None else torch.arange(len(faces))


def _note(faces: FaceSet, number: int) -> str:
    mixed = f"{len(faces):,} faces of {faces.source} mixed into Training" if number else ""
    return "; ".join(filter(None, (mixed, faces.note)))


ALL = "all"


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
    known = {str(split).lower(): split for split in Split} | {ALL: ALL}
    key = word.strip().lower()
    if key not in known:
        names = (*Split, ALL)
        raise DataError(
            f"there is no such split as {quote(word)}; name {', '.join(Split)} or {ALL}{suggest(key, names)}"
        )
    return known[key]


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
    said: dict[str, str] = {}
    for word in words:
        label, sign, target = word.rpartition("=")
        if not sign or not label.strip():
            raise DataError(f"label map {quote(word)}: say LABEL=EMOTION, as in smile=happy; other= leaves a label out")
        key = target.strip().lower()
        if key and key not in KNOWN:
            raise DataError(
                f"label map {word}: {quote(target)} is no emotion; there are {', '.join(Emotion)}, "
                f"and nothing for faces to leave out{suggest(key, KNOWN)}"
            )
        said[label.strip().lower()] = key
    return said


_TABLES = (".csv", ".tsv", ".txt")


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
    side = max(SIZE, recipe.data.size)
    faces = _read(start, recipe.data.labels, recipe, side=side, votes=recipe.data.votes)
    own = not is_fer2013(start)
    if own:
        faces = hold_out(faces)
    if recipe.data.extra:
        faces = mix_sets(_in_classes(faces, recipe), [_further(source, faces, recipe) for source in recipe.data.extra])
    if own or recipe.data.extra:
        _require_classes(faces, recipe)
        faces = _with_votes(faces, recipe)
    return faces


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
    return load_fer2013(path, votes=find_input(votes) if votes else None)


def is_fer2013(path: Path) -> bool:
    """Return whether ``load_fer2013`` reads a path: a table of pixels, a folder that holds one, or FER-2013 as images.

    Args:
        path: An existing file or folder.

    Returns:
        False for a custom data set.
    """
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


def _further(source: ExtraData, main: FaceSet, recipe: Recipe) -> tuple[FaceSet, float]:
    if not source.path:
        raise RecipeError(f"recipe {recipe.name}: data.extra: a set has no path")
    if not (math.isfinite(source.weight) and source.weight > 0):
        raise RecipeError(f"recipe {recipe.name}: data.extra: weight is above 0, not {source.weight}; or leave it out")
    faces = _read(find_dataset(find_input(source.path)), source.labels, recipe, side=main.images.shape[-1])
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
    mixing = "mix in a set that has them with data.extra"
    if len(there) > 1:
        fitting.append(f"'{','.join(emotion for emotion in Emotion if emotion in there)}'")
    return f"set data.classes={' or '.join(fitting)}, or {mixing}" if fitting else mixing


def _with_votes(faces: FaceSet, recipe: Recipe) -> FaceSet:
    """With empty votes where the recipe asks for votes and the set has none: its labels alone are learned."""
    if faces.votes is not None or recipe.target.vote_weight <= 0:
        return faces
    note = (
        f"no FER+ votes: target.vote_weight={recipe.target.vote_weight:g} has no effect, the labels alone are learned"
    )
    votes = torch.zeros(len(faces), len(FERPLUS_COLUMNS), dtype=torch.uint8)
    return replace(faces, votes=votes, note="; ".join(filter(None, (faces.note, note))))


class DatasetCache:
    """``cache(recipe)`` is ``load_set(path, recipe)``; the set that was read last is kept."""

    def __init__(self, path: Path | None) -> None:
        """``path`` as ``load_set`` takes it."""
        self._path = path
        self._key: Any = None
        self._faces: FaceSet | None = None

    def __call__(self, recipe: Recipe) -> FaceSet:
        """The faces at the path as ``recipe`` needs them. Raises what ``load_set`` raises."""
        data = recipe.data
        read = (data.classes, data.size, data.labels, data.votes, data.extra, data.exclude_leaked)
        key = (*read, recipe.target.vote_weight > 0)
        if self._faces is None or key != self._key:
            self._key, self._faces = key, load_set(self._path, recipe)
        return self._faces


def load_test_set(
    path: Path | None, emotions: tuple[Emotion, ...], *, size: int = SIZE, labels: Mapping[str, str] | None = None
) -> FaceSet:
    """Load the faces that a model is evaluated on: all splits, unchanged, without a held-out share.

    Args:
        path: FER-2013 in any of its forms, or a labelled folder or table; ``None`` reads ``$MIEN_DATA``.
        emotions: The model's classes. A custom set is read in the eight classes of FER+ where they have contempt, else
            in the seven.
        size: The model's input side in pixels; a custom set is read at ``max(48, size)`` pixels.
        labels: Label map of a custom set: label -> emotion, or "" to leave its faces out.

    Returns:
        The faces of all splits, on the CPU.

    Raises:
        DataError: A file or row is not valid.

    Example:
        >>> from mien._emotions import SEVEN
        >>> faces = load_test_set(Path("my_faces"), SEVEN, labels={"smile": "happy"})  # doctest: +SKIP
    """
    start = find_dataset(path)
    if start.is_file() and start.suffix.lower() in SUFFIXES:
        raise DataError(f"{start}: is one picture; a data set is a folder or a table of labelled faces")
    if is_fer2013(start):
        if labels:
            raise DataError(f"{start}: is FER-2013, whose labels are known; leave the label map out")
        return load_fer2013(start)
    known = CLASS_SETS["eight"] if Emotion.CONTEMPT in emotions else SEVEN
    try:
        return read_own(start, label_map=labels or {}, emotions=known, side=max(SIZE, size))
    except OSError as error:
        raise DataError(f"{error.filename or start}: cannot be read ({error.strerror or error})") from error
