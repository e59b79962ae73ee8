"""Listing -> FaceSet: one's own faces, read, labelled, and with something to validate on."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import DataError, RecipeError
from mien.lab.data.duplicates import clusters, divide
from mien.lab.data.faceset import FaceSet, Split, list_sha256, nearest, quote, split_index
from mien.lab.data.fer2013 import file_sha256, iterate_rows
from mien.lab.data.images import SPLIT_NAMES, SUFFIXES, Entry, Listing, read_pictures, read_split_name

_CLUTTER = ("thumbs.db", "desktop.ini")  # left behind by Windows; names with a leading dot are skipped as well


_LAYOUT = "mien reads <label>/*.jpg, or train/<label>/*.jpg with val/ and test/ beside it"


def list_folder(folder: Path) -> Listing:
    """List the pictures below ``folder`` by split, label and name; opens none.

    Folders below a label's name the person: ``happy/ann/1.jpg`` and ``sad/ann/2.jpg`` are one group. Files beside the
    folders of labels are not looked at. Raises ``DataError`` for a folder that is laid out otherwise.
    """
    tops = [entry for entry in _visible(folder) if entry.is_dir()]
    if not tops:
        raise DataError(f"{folder}: holds no folder of a label; {_LAYOUT}")
    if any(top.name.lower() in SPLIT_NAMES for top in tops):
        splits = [(read_split_name(top.name, where=str(top)), top) for top in tops]
    else:
        splits = [(Split.TRAINING, folder)]
    splits.sort(key=lambda split: (list(Split).index(split[0]), split[1].name))
    entries = [entry for split, top in splits for entry in _labels(folder, top, split)]
    return Listing(folder, entries)


def _labels(root: Path, top: Path, split: Split) -> Iterator[Entry]:
    labels = [entry for entry in _visible(top) if entry.is_dir()]
    if not labels:
        raise DataError(f"{top}: holds no folder of a label; {_LAYOUT}")
    for label in labels:
        found = list(_pictures(label))
        if not found:
            raise DataError(f"{label}: holds no picture; remove the folder, or unpack the archive again")
        for path, group in found:
            yield Entry(path, path.relative_to(root).as_posix(), label.name, split, group, str(path))


def _pictures(label: Path) -> Iterator[tuple[Path, str]]:
    """Every picture of a label and the group it belongs to."""
    for entry in _visible(label):
        if not entry.is_dir():
            yield _checked(entry), ""
            continue
        for file in _visible(entry):
            if file.is_dir():
                raise DataError(f"{file}: lies too deep; below a label there are pictures, or one folder a person")
            yield _checked(file), entry.name


def _checked(file: Path) -> Path:
    if file.suffix.lower() not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"{file}: is no picture that mien reads here ({kinds}); convert it, or move it away")
    return file


def _visible(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER]


# What people call the columns; the first found counts.
_NAMES = {
    "path": (
        "path",
        "image",
        "file",
        "filename",
        "file_name",
        "image_path",
        "filepath",
        "img",
        "picture",
        "subdirectory_filepath",
    ),
    "label": ("label", "emotion", "class", "expression", "category"),
    "split": ("split", "usage", "subset", "partition"),
    "group": ("group", "person", "subject", "identity", "participant"),
}


def header(path: Path) -> tuple[list[str], str]:
    """The names of a table's columns (stripped, in lower case) and what parts them: comma, semicolon or tab."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        line = stream.readline(65_536)
    delimiter = max(",;\t", key=line.count)
    return [name.strip().strip('"').lower() for name in line.split(delimiter)], delimiter


def list_table(path: Path) -> Listing:
    """List the faces of a table in the order of its rows; opens no picture.

    Paths are relative to the table's folder. Without a split every row is Training. Raises ``DataError`` naming row and
    cause for missing columns, empty cells, unknown splits and pictures that are not there.
    """
    rows = iterate_rows(path, header(path)[1])
    names = next(rows)[1]
    place = {column: _find(names, column, path) for column in _NAMES}
    entries = [_entry(path, fields, place, where) for where, fields in rows]
    return Listing(path, entries, ((path.name, file_sha256(path)),))


def _find(names: Sequence[str], column: str, path: Path) -> int | None:
    for name in _NAMES[column]:
        if name in names:
            return names.index(name)
    if column in ("split", "group"):
        return None
    hint = next((nearest(name, _NAMES[column]) for name in names if nearest(name, _NAMES[column])), "")
    raise DataError(
        f'{path}: column "{column}" is missing{hint}; found {", ".join(names[:16])}; '
        f"it may be called {', '.join(_NAMES[column])}"
    )


def _entry(table: Path, fields: Sequence[str], place: dict[str, int | None], where: str) -> Entry:
    cells = {column: "" if at is None else fields[at].strip() for column, at in place.items()}
    for column in ("path", "label"):
        if not cells[column]:
            raise DataError(f"{where}: the {column} is empty; fill it in, or remove the row")
    file = table.parent / Path(cells["path"]).expanduser()
    if not file.is_file():
        raise DataError(f"{where}: there is no file {file}; paths are relative to the folder of the table")
    split = Split.TRAINING if place["split"] is None else read_split_name(cells["split"], where=where)
    return Entry(file, cells["path"], cells["label"], split, cells["group"], f"{where}, {file}")


# Other words for the same eight, as public sets spell them. Nothing here is a guess: "smile" is no emotion.
_SYNONYMS = {
    "anger": Emotion.ANGRY,
    "disgusted": Emotion.DISGUST,
    "fearful": Emotion.FEAR,
    "afraid": Emotion.FEAR,
    "happiness": Emotion.HAPPY,
    "joy": Emotion.HAPPY,
    "sadness": Emotion.SAD,
    "surprised": Emotion.SURPRISE,
    "neutrality": Emotion.NEUTRAL,
    "contemptuous": Emotion.CONTEMPT,
}


RECIPE_KEY = "data.labels"


KNOWN = {**{str(emotion): emotion for emotion in Emotion}, **_SYNONYMS}


def read_labels(
    names: Iterable[str], label_map: Mapping[str, str], *, where: str, option: str = RECIPE_KEY
) -> dict[str, Emotion | None]:
    """The emotion of every name of a label; ``None`` for those that the map drops. Upper and lower case are the same.

    Raises ``DataError`` for a name that is neither known nor in the map, ``RecipeError`` for a map to something that is
    no emotion and for a name in the map that the set does not have. ``option`` is where the user has said the map: the
    key of a recipe, or ``--map``.
    """
    found = {name: name.strip().lower() for name in names}
    said = {name.strip().lower(): _emotion(name, value, option) for name, value in label_map.items()}
    for name in said:
        if name not in found.values():
            raise RecipeError(
                f"{where}: {option} names {quote(name)}, which is no label here{nearest(name, found.values())}; "
                f"the labels are {', '.join(sorted(found))}"
            )
    for name, key in found.items():
        if key not in said and key not in KNOWN:
            said_so, left_out = (_override(name, value, option) for value in ("happy", ""))
            raise DataError(
                f"{where}: {quote(name)} is no emotion that mien knows{nearest(key, KNOWN)}; "
                f"say which it is with {said_so}, or leave its faces out with {left_out}"
            )
    return {name: said[key] if key in said else KNOWN[key] for name, key in found.items()}


def _emotion(name: str, value: str, option: str) -> Emotion | None:
    key = value.strip().lower()
    if key and key not in KNOWN:
        raise RecipeError(
            f"{option}: {name} = {quote(value)} is no emotion{nearest(key, KNOWN)}; "
            f'there are {", ".join(Emotion)}, and "" for faces to leave out'
        )
    return KNOWN.get(key)


def _override(name: str, value: str, option: str) -> str:
    """How a command line says that ``name`` is ``value``."""
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    if option != RECIPE_KEY:
        return f"{option} {name}={value}" if bare else f"{option} '{name}={value}'"
    return f"data.labels.{name}={value}" if bare else f'\'data.labels={{"{name}"="{value}"}}\''


HELD_OUT = 0.15  # share of Training that validates where nothing else is there to do it


# What is held out belongs to the set, not to a run: one seed for all, so that runs are compared on the same faces.
_HOLD_OUT_SEED = 0


def read_own(
    path: Path, *, label_map: Mapping[str, str], emotions: tuple[Emotion, ...], side: int, option: str = RECIPE_KEY
) -> FaceSet:
    """The faces of a labelled folder or table, ``side`` pixels a side, labels indexing ``emotions``.

    Faces of other emotions and those that the map drops are left out before anything is opened; the note says how many.
    Raises ``DataError`` naming file or row for whatever is not as it should be.
    """
    listing = list_folder(path) if path.is_dir() else list_table(path)
    meaning = read_labels(sorted({entry.label for entry in listing.entries}), label_map, where=str(path), option=option)
    kept = [entry for entry in listing.entries if meaning[entry.label] in emotions]
    if not kept:
        raise DataError(f"{path}: none of its {len(listing.entries):,} faces is of {', '.join(emotions)}")
    images, digests = read_pictures(kept, side)
    digest = list_sha256([*listing.digests, *zip([entry.name for entry in kept], digests, strict=True)])
    labels = [meaning[entry.label] for entry in kept]
    return FaceSet(
        images=torch.from_numpy(images),
        labels=torch.tensor([emotions.index(label) for label in labels if label is not None]),
        votes=None,
        usage=torch.tensor([split_index(entry.split) for entry in kept]),
        rows=torch.tensor([row for row, entry in enumerate(listing.entries) if meaning[entry.label] in emotions]),
        pixels_from_jpeg=None,
        emotions=emotions,
        sha256=digest,
        source=str(path),
        note=_left_out(listing.entries, meaning, emotions),
        groups=_groups(kept),
    )


def hold_out(faces: FaceSet) -> FaceSet:
    """``faces`` with a share of Training made PublicTest where there is none, by class and group; the note says so.

    Raises ``DataError`` when nothing is Training, when a group is in several splits, and when all faces are of one.
    """
    _require_parted_groups(faces)
    if not bool((faces.usage == split_index(Split.TRAINING)).any()):
        raise DataError(f"{faces.source}: holds no Training row or train/ folder; a training needs faces to learn from")
    if bool((faces.usage == split_index(Split.PUBLIC_TEST)).any()):
        return faces
    training = np.flatnonzero(faces.usage.numpy() == split_index(Split.TRAINING))
    part = _divided(faces.select(torch.from_numpy(training)))
    usage = faces.usage.clone()
    usage[torch.from_numpy(training[part == 1])] = split_index(Split.PUBLIC_TEST)
    grouped = "" if faces.groups is None else ", no group in both"
    count = f"{int((part == 1).sum()):,} of {len(part):,} Training faces"
    note = f"no validation split: {count} ({HELD_OUT:.0%} of each class{grouped}) validate as PublicTest"
    return replace(faces, usage=usage, note="; ".join(filter(None, (faces.note, note))))


def _divided(training: FaceSet) -> NDArray[np.int64]:
    together = clusters(training)
    part = divide(training.labels.numpy(), together, shares=(1 - HELD_OUT, HELD_OUT), seed=_HOLD_OUT_SEED)
    if len(np.unique(part)) < 2:
        raise DataError(
            f"{training.source}: {len(training)} Training faces in {len(np.unique(together))} groups leave none to "
            "validate on; add faces, give a val/ folder or a split column, or leave the groups out"
        )
    return part


def _require_parted_groups(faces: FaceSet) -> None:
    if faces.groups is None:
        return
    pairs = torch.unique(torch.stack([faces.groups, faces.usage]), dim=1)
    names, counts = torch.unique(pairs[0], return_counts=True)
    if bool((counts > 1).any()):
        row = int((faces.groups == names[counts > 1][0]).nonzero()[0])
        raise DataError(
            f"{faces.source}: the group of row {int(faces.rows[row])} is in several splits ({int((counts > 1).sum())} "
            "groups are); move each into one, or leave the groups out"
        )


def _groups(entries: Sequence[Entry]) -> torch.Tensor | None:
    """The number of each face's group; who names none is a group alone."""
    if not any(entry.group for entry in entries):
        return None
    numbers: dict[str, int] = {}
    return torch.tensor(
        [numbers.setdefault(entry.group or f"\0{row}", len(numbers)) for row, entry in enumerate(entries)]
    )


def _left_out(
    entries: Sequence[Entry], meaning: Mapping[str, Emotion | None], emotions: tuple[Emotion, ...]
) -> str | None:
    counts = Counter(entry.label for entry in entries if meaning[entry.label] not in emotions)
    if not counts:
        return None
    names = ", ".join(f"{count:,} of {label}" for label, count in sorted(counts.items()))
    return f"left out: {names}"
