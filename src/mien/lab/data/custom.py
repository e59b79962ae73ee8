"""Listing -> FaceSet: one's own faces, read, labelled, and with something to validate on."""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mien._emotions import Emotion
from mien._errors import DataError, RecipeError
from mien._suggest import suggest
from mien.lab.data.duplicates import clusters, divide
from mien.lab.data.faceset import FaceSet, Split, file_sha256, list_sha256, quote, split_index
from mien.lab.data.fer2013 import iterate_rows
from mien.lab.data.folders import visible_entries

_LAYOUT = "mien reads <label>/*.jpg, or train/<label>/*.jpg with val/ and test/ beside it"


# How people name the parts of a set. What one calls validation is PublicTest here: it selects.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), Split.TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev", "publictest"), Split.PUBLIC_TEST),
    **dict.fromkeys(("test", "testing", "privatetest"), Split.PRIVATE_TEST),
}


# What Pillow reads everywhere that people keep faces in.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")


@dataclass(frozen=True, slots=True)
class Entry:
    """One face that is yet to be read. ``name`` is what the hash calls it, ``where`` what errors call it."""

    path: Path
    name: str
    label: str
    split: Split
    group: str  # the person or scene it belongs to; empty: nobody says
    where: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The faces of ``source`` in their order. ``digests``: name and sha256 of the files that were read to list them."""

    source: Path
    entries: Sequence[Entry]
    digests: tuple[tuple[str, str], ...] = ()


def list_folder(folder: Path) -> Listing:
    """List the pictures below ``folder`` by split, label and name; opens none.

    Folders below a label's name the person: ``happy/ann/1.jpg`` and ``sad/ann/2.jpg`` are one group. Files beside the
    folders of labels are not looked at. Raises ``DataError`` for a folder that is laid out otherwise.
    """
    tops = [entry for entry in visible_entries(folder) if entry.is_dir()]
    if not tops:
        raise DataError(f"{folder}: holds no folder of a label; {_LAYOUT}")
    if any(top.name.lower() in SPLIT_NAMES for top in tops):
        splits = [(_read_split(top.name, where=str(top)), top) for top in tops]
    else:
        splits = [(Split.TRAINING, folder)]
    splits.sort(key=lambda split: (list(Split).index(split[0]), split[1].name))
    entries = [entry for split, top in splits for entry in _labels(folder, top, split)]
    return Listing(folder, entries)


def _labels(root: Path, top: Path, split: Split) -> Iterator[Entry]:
    labels = [entry for entry in visible_entries(top) if entry.is_dir()]
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
    for entry in visible_entries(label):
        if not entry.is_dir():
            yield _checked(entry), ""
            continue
        for file in visible_entries(entry):
            if file.is_dir():
                raise DataError(f"{file}: lies too deep; below a label there are pictures, or one folder a person")
            yield _checked(file), entry.name


def _checked(file: Path) -> Path:
    if file.suffix.lower() not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"{file}: is no picture that mien reads here ({kinds}); convert it, or move it away")
    return file


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
    hint = next(filter(None, (suggest(name, _NAMES[column]) for name in names)), "")
    raise DataError(
        f'{path}: column "{column}" is missing; found {", ".join(names[:16])}; '
        f"it may be called {', '.join(_NAMES[column])}{hint}"
    )


def _entry(table: Path, fields: Sequence[str], place: dict[str, int | None], where: str) -> Entry:
    cells = {column: "" if at is None else fields[at].strip() for column, at in place.items()}
    for column in ("path", "label"):
        if not cells[column]:
            raise DataError(f"{where}: the {column} is empty; fill it in, or remove the row")
    file = table.parent / Path(cells["path"]).expanduser()
    if not file.is_file():
        raise DataError(f"{where}: there is no file {file}; paths are relative to the folder of the table")
    split = Split.TRAINING if place["split"] is None else _read_split(cells["split"], where=where)
    return Entry(file, cells["path"], cells["label"], split, cells["group"], f"{where}, {file}")


def _read_split(name: str, *, where: str) -> Split:
    """The split that ``name`` means. Raises ``DataError`` for an unknown one."""
    key = name.strip().lower()
    if key not in SPLIT_NAMES:
        known = ", ".join(SPLIT_NAMES)
        raise DataError(f"{where}: {quote(name)} is no split; splits are called {known}{suggest(key, SPLIT_NAMES)}")
    return SPLIT_NAMES[key]


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


KNOWN = {**{str(emotion): emotion for emotion in Emotion}, **_SYNONYMS}


def read_labels(names: Iterable[str], label_map: Mapping[str, str], *, where: str) -> dict[str, Emotion | None]:
    """The emotion of every name of a label; ``None`` for those that the map drops. Upper and lower case are the same.

    Raises ``DataError`` for a name that is neither known nor in the map, ``RecipeError`` for a map to something that is
    no emotion and for a name in the map that the set does not have.
    """
    found = {name: name.strip().lower() for name in names}
    said = {name.strip().lower(): _emotion(name, value) for name, value in label_map.items()}
    for name in said:
        if name not in found.values():
            raise RecipeError(
                f"{where}: the label map names {quote(name)}, which is no label here; "
                f"the labels are {', '.join(sorted(found))}{suggest(name, found)}"
            )
    for name, key in found.items():
        if key not in said and key not in KNOWN:
            raise DataError(
                f'{where}: {quote(name)} is no emotion that mien knows; map the label to an emotion, or to "" to leave '
                f"its faces out (in a recipe: {_override(name, 'happy')}){suggest(key, KNOWN)}"
            )
    return {name: said[key] if key in said else KNOWN[key] for name, key in found.items()}


def _emotion(name: str, value: str) -> Emotion | None:
    key = value.strip().lower()
    if key and key not in KNOWN:
        raise RecipeError(
            f"label map: {name} = {quote(value)} is no emotion; there are {', '.join(Emotion)}, "
            f'and "" for faces to leave out{suggest(key, KNOWN)}'
        )
    return KNOWN.get(key)


def _override(name: str, value: str) -> str:
    """How a command line says that ``name`` is ``value``."""
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return f"data.labels.{name}={value}" if bare else f'\'data.labels={{"{name}"="{value}"}}\''


HELD_OUT = 0.15  # share of Training that validates where nothing else is there to do it


# What is held out belongs to the set, not to a run: one seed for all, so that runs are compared on the same faces.
_HOLD_OUT_SEED = 0


def read_own(path: Path, *, label_map: Mapping[str, str], emotions: tuple[Emotion, ...], side: int) -> FaceSet:
    """The faces of a labelled folder or table, ``side`` pixels a side, labels indexing ``emotions``.

    Faces of other emotions and those that the map drops are left out before anything is opened; the note says how many.
    Raises ``DataError`` naming file or row for whatever is not as it should be.
    """
    listing = list_folder(path) if path.is_dir() else list_table(path)
    meaning = read_labels(sorted({entry.label for entry in listing.entries}), label_map, where=str(path))
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


_THREADS = 8  # at most; Pillow decodes and resizes without holding Python's lock


def read_pictures(entries: Sequence[Entry], side: int) -> tuple[NDArray[np.uint8], list[str]]:
    """The faces uint8 ``[N, side, side]`` and the sha256 of each file. Raises ``DataError`` for a broken one."""
    images = np.empty((len(entries), side, side), np.uint8)

    def read(index: int) -> str:
        entry = entries[index]
        try:
            content = entry.path.read_bytes()
        except OSError as error:
            raise DataError(f"{entry.where}: cannot be read ({error.strerror or error})") from error
        images[index] = read_picture(content, side, where=entry.where)
        return hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(min(_THREADS, _cores())) as pool:
        return images, list(pool.map(read, range(len(entries))))


def read_picture(content: bytes, side: int, *, where: str) -> NDArray[np.uint8]:
    """One picture as uint8 ``[side, side]``: upright by EXIF, grey, its middle square, resized (bicubic, antialiased).

    Transparent pixels are laid over white, grey of more than 8 bits is scaled to 8; of several frames the first counts.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.draft("L", (2 * side, 2 * side))  # lets JPEG decode at a fraction of its size
            grey = _grey(ImageOps.exif_transpose(picture))
    except Exception as error:  # Pillow's readers answer damaged bytes with whatever they stumble over
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{where}: not a readable picture ({reason}); get the file again, or remove it") from error
    return resize(grey, side)


def resize(grey: Image.Image, side: int) -> NDArray[np.uint8]:
    """The middle square of a grey picture at ``side`` pixels."""
    short = min(grey.size)
    left, top = (grey.width - short) // 2, (grey.height - short) // 2
    if grey.size == (side, side):
        return np.asarray(grey)
    box = (left, top, left + short, top + short)
    return np.asarray(grey.resize((side, side), Image.Resampling.BICUBIC, box=box))


def _grey(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith(("I", "F")):
        return Image.fromarray(_to_eight_bits(np.asarray(picture), picture.mode))
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return picture.convert("L")


def _to_eight_bits(values: NDArray[np.generic], mode: str) -> NDArray[np.uint8]:
    """Integers span 0..65535 unless they all fit in 0..255; floats 0..1, else 0..255."""
    levels = np.nan_to_num(values.astype(np.float32)).clip(min=0)
    highest = float(levels.max(initial=0))
    tops = (1.0, 255.0, 65535.0) if mode == "F" else (65535.0,) if ";16" in mode else (255.0, 65535.0)
    top = next((top for top in tops if highest <= top), highest)
    return np.rint(levels * (255 / top)).astype(np.uint8)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
