"""Custom data sets: a folder or table of labelled images -> FaceSet, with faces held out for validation."""

import hashlib
import io
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import DataError, RecipeError
from mien._suggest import suggest
from mien.decode import silence_libtiff
from mien.lab.data.duplicates import clusters, divide
from mien.lab.data.faceset import EMOTION_NAMES, SIZE, FaceSet, Split, file_sha256, list_sha256, quote, split_index
from mien.lab.data.fer2013 import OFFICIAL_COUNTS
from mien.lab.data.folders import UNREADABLE_CURE, SeenFolders, reason_unreadable, report_unreadable, visible_entries
from mien.lab.data.tables import (
    cell_at,
    find_column,
    is_split,
    iterate_pixels,
    iterate_rows,
    parse_split,
    pixel_column,
)

# Numbers as labels of pixels: those of FER-2013, and 7 as in tables that add contempt to it.
_NUMBERED = {str(number): emotion for number, emotion in enumerate((*SEVEN, Emotion.CONTEMPT))}
_LAYOUT = "mien reads <label>/*.jpg, or train/<label>/*.jpg with val/ and test/ beside it"
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")
_HELD_OUT = 0.15  # share of Training that becomes PublicTest in a set without a validation split
_HOLD_OUT_SEED = 0  # one seed for all runs, so that all of them are validated on the same faces
_THREADS = 8  # Pillow releases the GIL while it decodes and resizes


@dataclass(frozen=True, slots=True)
class Entry:
    """One labelled image that is not read yet.

    Attributes:
        path: The file.
        name: Its name in the hash of the set.
        label: The label as written.
        split: Its split.
        group: Its person or scene; empty where there is none.
        where: Its place, for error messages.
        pixels: The grey levels of a square image, of a table of pixels; empty where they are in the file.
    """

    path: Path
    name: str
    label: str
    split: Split
    group: str
    where: str
    pixels: bytes = b""


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of a data set in their order.

    Attributes:
        entries: The images.
        digests: Name and sha256 of the files that were read to list them.
        names: The emotion of each label that needs no map.
        note: What was assumed; empty where nothing was.
        linked: Number of folders that are left out because they were read under another name.
    """

    entries: Sequence[Entry]
    digests: tuple[tuple[str, str], ...] = ()
    names: Mapping[str, Emotion] = field(default_factory=lambda: EMOTION_NAMES)
    note: str = ""
    linked: int = 0


def list_images(path: Path) -> Listing:
    """List the images of a custom data set without opening them.

    A folder holds a folder per label, or folders of splits above those; the order is split, label, name. Folders below
    a label are groups: ``happy/ann/1.jpg`` and ``sad/ann/2.jpg`` are one group. Files beside the folders of labels are
    ignored. A table has columns for path or pixels and for label, and optionally for split and group; paths are
    relative to its folder, and without a split every row is Training.

    Args:
        path: The folder or table.

    Returns:
        The images.

    Raises:
        DataError: The layout is different, a column or file is missing, or a cell is not valid.

    Example:
        >>> len(list_images(Path("my_faces")).entries)  # doctest: +SKIP
        140
    """
    try:
        if path.is_dir():
            return _list_folder(path)
        return _list_table(path) if pixel_column(path) is None else _list_pixels(path)
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error


def _list_folder(folder: Path) -> Listing:
    splits, seen = [(Split.TRAINING, folder)], SeenFolders()
    seen.first([folder])
    tops = seen.first(_subfolders(folder))
    if any(is_split(top.name) for top in tops):
        splits = [(parse_split(top.name, where=str(top)), top) for top in tops]
    splits.sort(key=lambda split: (split_index(split[0]), split[1].name))
    entries = []
    for split, top in splits:
        for label in tops if top == folder else seen.first(_subfolders(top)):
            found = list(_list_label(label, seen))
            if not found:
                raise DataError(f"{label}: holds no image; remove the folder, or unpack the archive again")
            for file, group in found:
                entries.append(Entry(file, file.relative_to(folder).as_posix(), label.name, split, group, str(file)))
    return Listing(entries, linked=seen.left_out)


def _subfolders(folder: Path) -> list[Path]:
    found = [entry for entry in visible_entries(folder) if entry.is_dir()]
    if not found:
        raise DataError(f"{folder}: holds no folder of a label; {_LAYOUT}")
    return found


def _list_label(label: Path, seen: SeenFolders) -> Iterator[tuple[Path, str]]:
    """The images of a label, each with its group."""
    for entry in seen.first(visible_entries(label)):
        files, group = (visible_entries(entry), entry.name) if entry.is_dir() else ([entry], "")
        for file in files:
            if file.is_dir():
                raise DataError(f"{file}: is nested too deep; below a label there are images, or one folder per person")
            if file.suffix.lower() not in IMAGE_SUFFIXES or not file.is_file():
                kinds = ", ".join(IMAGE_SUFFIXES)
                raise DataError(f"{file}: is no image that mien reads here ({kinds}); convert it, or move it away")
            yield file, group


def _list_table(path: Path) -> Listing:
    rows = iterate_rows(path)
    names = next(rows)[1]
    place = {column: find_column(names, column, path) for column in ("path", "label", "split", "group")}
    entries = []
    for where, fields in rows:
        cells = {column: cell_at(fields, at) for column, at in place.items()}
        for column in ("path", "label"):
            if not cells[column]:
                raise DataError(f"{where}: the {column} is empty; fill it in, or remove the row")
        file = path.parent / Path(cells["path"]).expanduser()
        split = Split.TRAINING if place["split"] is None else parse_split(cells["split"], where=where)
        entries.append(Entry(file, cells["path"], cells["label"], split, cells["group"], f"{where}, {file}"))
    return Listing(entries, ((path.name, file_sha256(path)),))


def _list_pixels(path: Path) -> Listing:
    entries, words = [], dict[str, Split]()
    for number, row in enumerate(iterate_pixels(path)):
        entries.append(Entry(path, str(number), row.label, row.split, row.group, row.where, row.pixels))
        words[row.usage] = row.split
    counts = Counter(entry.split for entry in entries)
    parts = [f"{split} {counts[split]:,} (official: {sum(OFFICIAL_COUNTS[split]):,})" for split in Split]
    notes = [f"not the official FER-2013: {', '.join(parts)}"]
    if "" in words:
        notes.append("no Usage column: every row is used for Training")
    notes += [f"Usage {quote(word)} is {split}" for word, split in words.items() if word not in ("", split)]
    return Listing(entries, ((path.name, file_sha256(path)),), {**EMOTION_NAMES, **_NUMBERED}, "; ".join(notes))


def read_labels(
    names: Iterable[str], label_map: Mapping[str, str], *, where: str, known: Mapping[str, Emotion] = EMOTION_NAMES
) -> dict[str, Emotion | None]:
    """Find the emotion of each label. Upper and lower case are equal.

    Args:
        names: Labels of a data set.
        label_map: Label -> emotion, or "" to leave its faces out.
        where: The data set, for error messages.
        known: The emotion of each label that needs no map, in lower case.

    Returns:
        Label -> emotion; ``None`` where its faces are left out.

    Raises:
        DataError: A label is unknown and not in the map.
        RecipeError: The map names an unknown emotion, or a label that the set does not have.
    """
    keys = {name: name.strip().lower() for name in names}
    mapped: dict[str, Emotion | None] = {}
    for name, value in label_map.items():
        key, emotion = name.strip().lower(), value.strip().lower()
        if emotion and emotion not in EMOTION_NAMES:
            raise RecipeError(
                f"label map: {name} = {quote(value)} is no emotion; there are {', '.join(Emotion)}, "
                f'and "" for faces to leave out{suggest(emotion, EMOTION_NAMES)}'
            )
        mapped[key] = EMOTION_NAMES.get(emotion)
        if key not in keys.values():
            raise RecipeError(
                f"{where}: the label map names {quote(key)}, which is no label here; "
                f"the labels are {', '.join(sorted(keys))}{suggest(key, keys)}"
            )
    for name, key in keys.items():
        if key not in mapped and key not in known:
            is_bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
            override = f"data.labels.{name}=happy" if is_bare else f'\'data.labels={{"{name}"="happy"}}\''
            raise DataError(
                f'{where}: {quote(name)} is no emotion that mien knows; map the label to an emotion, or to "" to leave '
                f"its faces out (in a recipe: {override}){suggest(key, EMOTION_NAMES)}"
            )
    return {name: mapped[key] if key in mapped else known[key] for name, key in keys.items()}


def read_custom(
    path: Path,
    *,
    label_map: Mapping[str, str],
    emotions: Iterable[Emotion],
    side: int,
    skip_unreadable: bool = False,
) -> FaceSet:
    """Read the faces of a labelled folder or table.

    Faces of other emotions, and those that the map leaves out, are not opened; ``note`` counts them.

    Args:
        path: The folder or table, as ``list_images`` reads it.
        label_map: Label -> emotion, or "" to leave its faces out.
        emotions: Classes in use. The set has the eight classes of FER+ where they include contempt, else the seven.
        side: Side of the faces in pixels.
        skip_unreadable: Whether images that cannot be read are left out, which ``note`` counts.

    Returns:
        The faces of all splits.

    Raises:
        DataError: A file, row or label is not valid; the message names it.
        RecipeError: The label map does not fit the set.

    Example:
        >>> faces = read_custom(Path("my_faces"), label_map={}, emotions=SEVEN, side=48)  # doctest: +SKIP
    """
    classes = CLASS_SETS["eight"] if Emotion.CONTEMPT in emotions else SEVEN
    listing = list_images(path)
    labels = sorted({entry.label for entry in listing.entries})
    meaning = read_labels(labels, label_map, where=str(path), known=listing.names)
    rows = [row for row, entry in enumerate(listing.entries) if meaning[entry.label] in classes]
    entries = [listing.entries[row] for row in rows]
    if not entries:
        raise DataError(f"{path}: none of its {len(listing.entries):,} faces is of {', '.join(classes)}")
    left_out = Counter(entry.label for entry in listing.entries if meaning[entry.label] not in classes)
    excluded = ", ".join(
        [f"{count:,} of {label}" for label, count in sorted(left_out.items())]
        + ([f"{listing.linked:,} folders that were read already"] if listing.linked else [])
    )
    given = {label.strip().lower() for label in label_map}
    numbers = ", ".join(f"{label} is {meaning[label]}" for label in labels if label in _NUMBERED and label not in given)
    own_side = math.isqrt(len(entries[0].pixels))
    images, read = _read_images(entries, max(SIZE, min(side, own_side)) if own_side else side)
    problems = [str(each) for each in read if isinstance(each, DataError)]
    unreadable = report_unreadable(problems, len(entries), path, is_skipped=skip_unreadable)
    if problems:
        kept = [at for at, each in enumerate(read) if not isinstance(each, DataError)]
        images, rows, entries = images[kept], [rows[at] for at in kept], [entries[at] for at in kept]
    digests = [each for each in read if isinstance(each, str)]
    files = [*listing.digests, *((entry.name, digest) for entry, digest in zip(entries, digests, strict=True))]
    assumed, excluded = numbers and f"labels as in FER-2013: {numbers}", excluded and f"left out: {excluded}"
    notes = (listing.note, assumed, excluded, unreadable)
    emotion_of = [meaning[entry.label] for entry in entries]
    group_of = [entry.group or f"\0{row}" for row, entry in enumerate(entries)]  # a face without one is a group itself
    number = {name: index for index, name in enumerate(dict.fromkeys(group_of))}
    return FaceSet(
        images=torch.from_numpy(images),
        labels=torch.tensor([classes.index(emotion) for emotion in emotion_of if emotion is not None]),
        votes=None,
        usage=torch.tensor([split_index(entry.split) for entry in entries]),
        rows=torch.tensor(rows),
        pixels_from_jpeg=None,
        emotions=classes,
        sha256=listing.digests[0][1] if own_side else list_sha256(files),
        source=str(path),
        note="; ".join(filter(None, notes)) or None,
        groups=torch.tensor([number[group] for group in group_of]) if any(entry.group for entry in entries) else None,
    )


def hold_out(faces: FaceSet) -> FaceSet:
    """Hold out 15 % of Training as PublicTest where a set has no PublicTest; ``note`` says so.

    The faces are chosen by class; groups and exact copies are not separated. The choice depends on the set alone.

    Args:
        faces: All splits of a custom set.

    Returns:
        The same faces, with PublicTest.

    Raises:
        DataError: There is no Training face, a group is in several splits, or all faces are in one group.
    """
    training = np.flatnonzero(faces.usage.numpy() == split_index(Split.TRAINING))
    if faces.groups is not None:
        pairs = torch.unique(torch.stack([faces.groups, faces.usage]), dim=1)
        names, counts = torch.unique(pairs[0], return_counts=True)
        if bool((counts > 1).any()):
            row = int((faces.groups == names[counts > 1][0]).nonzero()[0])
            raise DataError(
                f"{faces.source}: the group of row {int(faces.rows[row])} is in several splits "
                f"({int((counts > 1).sum())} groups are); move each into one, or leave the groups out"
            )
    if not len(training):
        raise DataError(f"{faces.source}: holds no Training row or train/ folder; a training needs faces to learn from")
    if bool((faces.usage == split_index(Split.PUBLIC_TEST)).any()):
        return faces
    candidates = faces.select(torch.from_numpy(training))
    together = clusters(candidates)
    shares = (1 - _HELD_OUT, _HELD_OUT)
    is_held_out = divide(candidates.labels.numpy(), together, shares=shares, seed=_HOLD_OUT_SEED) == 1
    if is_held_out.all() or not is_held_out.any():
        raise DataError(
            f"{faces.source}: {len(training)} Training faces in {len(np.unique(together))} groups leave none to "
            "validate on; add faces, give a val/ folder or a split column, or leave the groups out"
        )
    usage = faces.usage.clone()
    usage[torch.from_numpy(training[is_held_out])] = split_index(Split.PUBLIC_TEST)
    grouped = "" if faces.groups is None else ", no group in both"
    count = f"{int(is_held_out.sum()):,} of {len(training):,} Training faces"
    note = f"no validation split: {count} ({_HELD_OUT:.0%} of each class{grouped}) validate as PublicTest"
    return replace(faces, usage=usage, note="; ".join(filter(None, (faces.note, note))))


def _read_images(entries: Sequence[Entry], side: int) -> tuple[NDArray[np.uint8], list[str | DataError]]:
    """The faces uint8 ``[N, side, side]``, and the sha256 of each file or why it cannot be read."""
    images = np.empty((len(entries), side, side), np.uint8)

    def read(index: int) -> str | DataError:
        entry = entries[index]
        if entry.pixels:
            own_side = math.isqrt(len(entry.pixels))
            face = np.frombuffer(entry.pixels, np.uint8).reshape(own_side, own_side)
            images[index] = resize(Image.fromarray(face), side)
            return ""
        try:
            content = entry.path.read_bytes()
            images[index] = decode_face(content, side, where=entry.where)
        except (OSError, ValueError) as error:  # ValueError: the name has a null byte
            return DataError(f"{entry.where}: cannot be read ({getattr(error, 'strerror', None) or error})")
        except DataError as error:
            return error
        return hashlib.sha256(content).hexdigest()

    with ThreadPoolExecutor(_THREADS) as pool:
        return images, list(pool.map(read, range(len(entries))))


def decode_face(content: bytes, side: int, *, where: str) -> NDArray[np.uint8]:
    """Decode an image of a face: upright by EXIF, grey, its middle square, resized (bicubic, antialiased).

    Transparent pixels become white. Grey of more than 8 bits is scaled to 8. Of several frames the first is used.

    Args:
        content: Bytes of an image file.
        side: Side of the result in pixels.
        where: Place of the image, for error messages.

    Returns:
        uint8 ``[side, side]``.

    Raises:
        DataError: The bytes are not a readable image.
    """
    try:
        if content.startswith(b"\x89PNG"):
            _check_png(content)
        silence_libtiff()
        with Image.open(io.BytesIO(content)) as image:
            image.draft("L", (2 * side, 2 * side))  # JPEG is decoded at a fraction of its size
            grey = _to_grey(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow raises errors of many types for damaged bytes
        reason = reason_unreadable(error)
        raise DataError(f"{where}: not a readable image ({reason}){UNREADABLE_CURE}") from error
    return resize(grey, side)


def _check_png(content: bytes) -> None:
    """Raise ``ValueError`` for pixels with a wrong checksum, which Pillow does not verify."""
    at = 8
    while at + 8 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4])
        is_wrong = zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4])
        if is_wrong and content[at + 4 : at + 8] == b"IDAT":
            raise ValueError("the checksum of its pixels is wrong")
        at = end + 4


def resize(grey: Image.Image, side: int) -> NDArray[np.uint8]:
    """Resize the middle square of a grey image.

    Args:
        grey: Image of mode L.
        side: Side of the result in pixels.

    Returns:
        uint8 ``[side, side]``.
    """
    if grey.size == (side, side):
        return np.asarray(grey)
    short = min(grey.size)
    left, top = (grey.width - short) // 2, (grey.height - short) // 2
    box = (left, top, left + short, top + short)
    return np.asarray(grey.resize((side, side), Image.Resampling.BICUBIC, box=box))


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # The range is that of the mode: integers 0..255 or 0..65535, floats 0..1, 0..255 or 0..65535.
        levels = np.nan_to_num(np.asarray(image).astype(np.float32)).clip(min=0)
        highest = float(levels.max(initial=0))
        tops = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,) if ";16" in image.mode else (255.0, 65535.0)
        top = next((top for top in tops if highest <= top), highest)
        return Image.fromarray(np.rint(levels * (255 / top)).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("L")
