"""Tables for public data sets with the emotion in file names or in lists of their own."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mien._errors import DataError
from mien._output import Draft, png_mark
from mien.decode import decode
from mien.detect import open_detector
from mien.extract import extract
from mien.lab.files import save_text

_CROP_SIZE = 96  # pixels a side of a cropped face: twice what FER-2013 has, so that larger nets lose nothing
_MARGIN = 0.5  # of the box's sides, added on each side: the detector needs more than a box that ends at the chin

_Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


class _Sample(NamedTuple):
    """One labelled image; ``group`` is the person, ``box`` the face as the set gives it."""

    path: Path
    label: str
    split: str = ""
    group: str = ""
    box: _Box | None = None


_RAFDB = dict(enumerate(("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"), start=1))
_AFFECTNET = dict(enumerate(("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")))
_CKPLUS = dict(enumerate(("neutral", "angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")))
_EXPW = dict(enumerate(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")))
_LETTERS = {name[:2].upper(): name for name in _EXPW.values()} | {"AF": "fear"}  # AF is afraid
# KA.AN1.39.tiff: person, emotion and its number, number of the image.
_JAFFE = re.compile(r"([A-Z]{2})\.(AN|DI|FE|HA|NE|SA|SU)\d\.\d+\.tiff?", re.IGNORECASE)
# AF01ANS.JPG: session, sex and person, emotion, angle; only frontal images (S) match.
_KDEF = re.compile(r"[AB]([FM]\d\d)(AF|AN|DI|HA|NE|SA|SU)S\.jpe?g", re.IGNORECASE)


def _read_rafdb(folder: Path) -> Iterator[_Sample]:
    """``EmoLabel/list_patition_label.txt`` (sic), one ``train_00001.jpg 5`` per line, and ``Image/aligned/``."""
    aligned = _find(folder, "aligned", directory=True)
    for where, (name, code) in _lines(_find(folder, "list_patition_label.txt"), 2):
        image = aligned / f"{Path(name).stem}_aligned{Path(name).suffix}"
        split = "train" if name.startswith("train") else "test"
        yield _Sample(image, _label(_RAFDB, code, where), split)


def _read_affectnet(folder: Path) -> Iterator[_Sample]:
    """``train_set/`` and ``val_set/`` with ``images/N.jpg`` and ``annotations/N_exp.npy``."""
    for top, split in (("train_set", "train"), ("val_set", "val")):
        for note in sorted((folder / top / "annotations").glob("*_exp.npy")):
            image = folder / top / "images" / f"{note.name.removesuffix('_exp.npy')}.jpg"
            yield _Sample(image, _label(_AFFECTNET, _saved(note), str(note)), split)


def _read_ckplus(folder: Path) -> Iterator[_Sample]:
    """The last frame of every sequence that has an ``_emotion.txt``; its first frame is neutral."""
    images = _find(folder, "cohn-kanade-images", directory=True)
    for note in sorted(folder.rglob("S*_emotion.txt")):
        person, sequence = note.name.split("_")[:2]
        frames = sorted((images / person / sequence).glob("*.png"))
        if not frames:
            raise DataError(f"{images / person / sequence}: has no frame for {note.name}")
        yield _Sample(frames[-1], _label(_CKPLUS, _text(note), str(note)), group=person)
        if len(frames) > 1:
            yield _Sample(frames[0], "neutral", group=person)


def _read_names(pattern: re.Pattern[str], folder: Path) -> Iterator[_Sample]:
    """Person and emotion from the names of the files that match ``pattern``, at any depth."""
    for path in sorted(folder.rglob("*")):
        if match := pattern.fullmatch(path.name):
            yield _Sample(path, _LETTERS[match[2].upper()], group=match[1].upper())


def _read_expw(folder: Path) -> Iterator[_Sample]:
    """``label.lst``: image, number of the face, box (top, left, right, bottom), confidence, label; ``origin/``."""
    origin = _find(folder, "origin", directory=True)
    for where, cells in _lines(_find(folder, "label.lst"), 8):
        try:
            top, left, right, bottom = (int(cell) for cell in cells[2:6])
        except ValueError as error:
            raise DataError(f"{where}: {' '.join(cells[2:6])[:40]!r} is no box; unpack the set again") from error
        yield _Sample(origin / cells[0], _label(_EXPW, cells[7], where), box=(left, top, right, bottom))


_READERS: dict[str, Callable[[Path], Iterator[_Sample]]] = {
    "rafdb": _read_rafdb,
    "affectnet": _read_affectnet,
    "ckplus": _read_ckplus,
    "jaffe": partial(_read_names, _JAFFE),
    "kdef": partial(_read_names, _KDEF),
    "expw": _read_expw,
}
PUBLIC_SETS = tuple(_READERS)


def prepare_public_set(name: str, folder: Path, out: Path, *, crop: bool = False) -> Counter[str]:
    """Write a table of the faces of a public data set, which mien reads like any other table.

    ``out/faces.csv`` has the columns path and label, and split and group where the set has them. With ``crop`` (always
    for expw, whose images are scenes) ``out/crops`` holds each face as the detector finds it, framed like the faces of
    FER-2013. Images in which no face is found are left out and listed in ``out/not_found.txt``. Nothing changes in
    ``folder``. docs/reference/public-sets.md describes the layout of every set.

    Args:
        name: One of ``PUBLIC_SETS``.
        folder: Folder of the unpacked set.
        out: Folder to write to; it is created where needed.
        crop: Whether to detect the faces and crop them to 96 x 96 pixels.

    Returns:
        How many faces each label has; ``not found`` counts the images in which no face was found.

    Raises:
        DataError: ``name`` is unknown, ``folder`` has another layout, or a listed image is missing.

    Example:
        >>> prepare_public_set("kdef", Path("KDEF"), Path("kdef_faces"), crop=True)  # doctest: +SKIP
        Counter({'fear': 140, 'angry': 140, ...})
    """
    if name not in _READERS:
        raise DataError(f"{name}: no such public set; known are {', '.join(PUBLIC_SETS)}")
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    samples = list(_READERS[name](folder))
    if not samples:
        raise DataError(f"{folder}: holds nothing with the layout of {name}; see docs/reference/public-sets.md")
    for sample in samples:
        if not sample.path.is_file():
            raise DataError(f"{sample.path}: is listed in the set, but missing; unpack the archive again")
    found = _crop_faces(samples, out) if crop or name == "expw" else samples
    _write_table(out, found)
    counts = Counter(sample.label for sample in found)
    counts["not found"] = len(samples) - len(found)
    return counts


def _crop_faces(samples: Sequence[_Sample], out: Path) -> list[_Sample]:
    """The samples with a detected face, each with the path of its crop in ``out/crops``."""
    detector, found, lost = open_detector("blazeface"), [], []
    (out / "crops").mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(samples):
        pixels = decode(sample.path).pixels
        if sample.box is not None:
            left, top, right, bottom = sample.box
            dx, dy = round(_MARGIN * (right - left)), round(_MARGIN * (bottom - top))
            part = pixels[max(top - dy, 0) : bottom + dy, max(left - dx, 0) : right + dx]
            pixels = part if part.size else pixels
        faces = detector(pixels)
        if not faces:
            lost.append(f"{sample.path.name} {sample.label}\n")
            continue
        largest = max(faces, key=lambda face: face.box.width)
        path = out / "crops" / f"{number:06d}.png"
        with Draft(path) as draft:
            Image.fromarray(extract(pixels, [largest], size=_CROP_SIZE)[0][0]).save(
                draft.file, "PNG", pnginfo=png_mark()
            )
        found.append(sample._replace(path=path))
    save_text(out / "not_found.txt", "".join(lost))
    return found


def _write_table(out: Path, samples: Sequence[_Sample]) -> None:
    """``faces.csv``, without the columns that are empty in every row; paths below ``out`` are relative to it."""
    base, rows = out.resolve(), []
    for sample in samples:
        path = sample.path.resolve()
        path = path.relative_to(base) if path.is_relative_to(base) else path
        rows.append((str(path), sample.label, sample.split, sample.group))
    used = [index for index in range(4) if index < 2 or any(row[index] for row in rows)]
    table, text = [("path", "label", "split", "group"), *rows], io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([row[index] for index in used] for row in table)
    save_text(out / "faces.csv", text.getvalue())


def _find(folder: Path, name: str, *, directory: bool = False) -> Path:
    """The first file (or folder) called ``name`` at any depth of ``folder``."""
    for path in sorted(folder.rglob(name)):
        if path.is_dir() == directory:
            return path
    raise DataError(f"{folder}: holds no {name}; see docs/reference/public-sets.md for the layout")


def _lines(path: Path, cells: int) -> Iterator[tuple[str, list[str]]]:
    """Place (for messages) and cells of every line that is not empty."""
    for number, line in enumerate(_text(path).splitlines(), start=1):
        words = line.split()
        if words and len(words) != cells:
            raise DataError(f"{path}, line {number}: holds {len(words)} words, not {cells}")
        if words:
            yield f"{path}, line {number}", words


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text; unpack the set again") from error


def _saved(path: Path) -> str:
    """The value in a file that ``np.save`` wrote."""
    try:
        return str(np.load(path).item())
    except OSError:
        raise
    except Exception as error:  # of NumPy or tokenize: there is no list of them
        raise DataError(f"{path}: holds no label ({type(error).__name__}); unpack the set again") from error


def _label(names: dict[int, str], code: str, where: str) -> str:
    try:
        return names[int(float(code))]
    except (ValueError, OverflowError, KeyError) as error:
        raise DataError(f"{where}: {code.strip()[:20]!r} is no label of this set") from error
