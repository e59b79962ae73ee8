"""Public sets that code the emotion in file names or lists of their own -> a table that mien reads.

    python tools/list_faces.py kdef KDEF_and_AKDEF --out kdef_faces
    mien evaluate mien-0 --data kdef_faces/faces.csv

OUT/faces.csv has the columns path, label, split and group. With ``--crop`` (always for expw, whose pictures are scenes)
mien's detector looks for the face in each picture, and OUT/crops holds it framed as FER-2013 frames faces; pictures
without a face are left out and named in OUT/not_found.txt. Nothing is changed in the set's own folder.
docs/own-data.md tells how every set is laid out.
"""

import argparse
import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._errors import DataError, MienError
from mien.decode import decode
from mien.detect import open_detector
from mien.extract import extract
from mien.lab.checkpoint import save_text

CROP = 96  # pixels a side of a cut face: twice what FER-2013 has, so that larger nets lose nothing
_MARGIN = 0.5  # of a box's sides, looked at around it: a box that ends at the chin shows a detector too little

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


class Face(NamedTuple):
    """One labelled picture; ``group`` is the person, ``box`` where the set says that the face is."""

    path: Path
    label: str
    split: str = ""
    group: str = ""
    box: Box | None = None


_RAFDB = dict(enumerate(("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"), start=1))
_AFFECTNET = dict(enumerate(("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")))
_CKPLUS = dict(enumerate(("neutral", "angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")))
_EXPW = dict(enumerate(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")))
_LETTERS = {"AN": "angry", "DI": "disgust", "FE": "fear", "HA": "happy", "NE": "neutral", "SA": "sad", "SU": "surprise"}
_JAFFE = re.compile(r"([A-Z]{2})\.(AN|DI|FE|HA|NE|SA|SU)\d\.\d+\.tiff?", re.IGNORECASE)
_KDEF = re.compile(r"[AB]([FM]\d\d)(AF|AN|DI|HA|NE|SA|SU)S\.jpe?g", re.IGNORECASE)


def rafdb(folder: Path) -> Iterator[Face]:
    """``EmoLabel/list_patition_label.txt`` (sic), one ``train_00001.jpg 5`` a line, and ``Image/aligned/``."""
    aligned = _find(folder, "aligned", directory=True)
    for where, (name, code) in _lines(_find(folder, "list_patition_label.txt"), 2):
        picture = aligned / f"{Path(name).stem}_aligned{Path(name).suffix}"
        split = "train" if name.startswith("train") else "test"
        yield Face(picture, _name(_RAFDB, code, where), split)


def affectnet(folder: Path) -> Iterator[Face]:
    """``train_set/`` and ``val_set/`` with ``images/N.jpg`` and ``annotations/N_exp.npy``."""
    for top, split in (("train_set", "train"), ("val_set", "val")):
        for note in sorted((folder / top / "annotations").glob("*_exp.npy")):
            picture = folder / top / "images" / f"{note.name.removesuffix('_exp.npy')}.jpg"
            yield Face(picture, _name(_AFFECTNET, str(np.load(note).item()), str(note)), split)


def ckplus(folder: Path) -> Iterator[Face]:
    """The last frame of every sequence that has an ``_emotion.txt``; the first of the same ones is neutral."""
    images = _find(folder, "cohn-kanade-images", directory=True)
    for note in sorted(folder.rglob("S*_emotion.txt")):
        person, sequence = note.name.split("_")[:2]
        frames = sorted((images / person / sequence).glob("*.png"))
        if not frames:
            raise DataError(f"{images / person / sequence}: holds no frame of {note.name}")
        yield Face(frames[-1], _name(_CKPLUS, note.read_text("ascii"), str(note)), group=person)
        if len(frames) > 1:
            yield Face(frames[0], "neutral", group=person)


def jaffe(folder: Path) -> Iterator[Face]:
    """``KA.AN1.39.tiff``: person, emotion and number of the take, number of the picture."""
    for path in sorted(folder.rglob("*")):
        if match := _JAFFE.fullmatch(path.name):
            yield Face(path, _LETTERS[match[2].upper()], group=match[1].upper())


def kdef(folder: Path) -> Iterator[Face]:
    """``AF01ANS.JPG``: session, sex and person, emotion, angle; only the frontal ones (S). AF is afraid."""
    for path in sorted(folder.rglob("*")):
        if match := _KDEF.fullmatch(path.name):
            code = match[2].upper()
            yield Face(path, "fear" if code == "AF" else _LETTERS[code], group=match[1].upper())


def expw(folder: Path) -> Iterator[Face]:
    """``label.lst``: picture, number of the face, box (top, left, right, bottom), confidence, label; ``origin/``."""
    origin = _find(folder, "origin", directory=True)
    for where, cells in _lines(_find(folder, "label.lst"), 8):
        top, left, right, bottom = (int(cell) for cell in cells[2:6])
        yield Face(origin / cells[0], _name(_EXPW, cells[7], where), box=(left, top, right, bottom))


SETS: dict[str, Callable[[Path], Iterator[Face]]] = {
    "rafdb": rafdb,
    "affectnet": affectnet,
    "ckplus": ckplus,
    "jaffe": jaffe,
    "kdef": kdef,
    "expw": expw,
}


def list_faces(kind: str, folder: Path, out: Path, *, crop: bool = False) -> Counter[str]:
    """Write the table (and the crops) of the set at ``folder``; answer how many faces of each label it has.

    ``not found`` counts the pictures in which no face was found. Raises ``DataError`` for another layout.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    faces = list(SETS[kind](folder))
    if not faces:
        raise DataError(f"{folder}: holds nothing that is laid out as {kind}; see docs/own-data.md")
    for face in faces:
        if not face.path.is_file():
            raise DataError(f"{face.path}: is listed in the set, but is not there; unpack the archive again")
    kept = _cut(faces, out) if crop or kind == "expw" else faces
    rows = [[str(_relative(face.path, out)), face.label, face.split, face.group] for face in kept]
    _write_table(out / "faces.csv", rows, splits=any(face.split for face in kept), groups=any(f.group for f in kept))
    counts = Counter(face.label for face in kept)
    counts["not found"] = len(faces) - len(kept)
    return counts


def _cut(faces: Sequence[Face], out: Path) -> list[Face]:
    """The faces that the detector finds, cut to OUT/crops."""
    detector, kept, lost = open_detector("blazeface"), [], []
    (out / "crops").mkdir(parents=True, exist_ok=True)
    for number, face in enumerate(faces):
        pixels = decode(face.path).pixels
        part = _around(pixels, face.box)
        found = detector(part)
        if not found:
            lost.append(f"{face.path.name} {face.label}\n")
            continue
        largest = max(found, key=lambda each: each.box.width)
        crop = extract(part, [largest], size=CROP)[0][0]
        path = out / "crops" / f"{number:06d}.png"
        Image.fromarray(crop).save(path)
        kept.append(face._replace(path=path))
    save_text(out / "not_found.txt", "".join(lost))
    return kept


def _around(pixels: NDArray[np.uint8], box: Box | None) -> NDArray[np.uint8]:
    """The picture, or the surroundings of a box in it."""
    if box is None:
        return pixels
    left, top, right, bottom = box
    across, down = round(_MARGIN * (right - left)), round(_MARGIN * (bottom - top))
    part = pixels[max(top - down, 0) : bottom + down, max(left - across, 0) : right + across]
    return part if part.size else pixels


def _write_table(path: Path, rows: Sequence[Sequence[str]], *, splits: bool, groups: bool) -> None:
    chosen = [0, 1, *([2] if splits else []), *([3] if groups else [])]
    lines = [[("path", "label", "split", "group")[i] for i in chosen], *([row[i] for i in chosen] for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines)


def _relative(path: Path, out: Path) -> Path:
    """As the table names it: below its own folder where it lies there, else from the root."""
    whole, base = path.resolve(), out.resolve()
    return whole.relative_to(base) if whole.is_relative_to(base) else whole


def _find(folder: Path, name: str, *, directory: bool = False) -> Path:
    """What is called ``name`` in ``folder``, however deep."""
    for path in sorted(folder.rglob(name)):
        if path.is_dir() == directory:
            return path
    raise DataError(f"{folder}: holds no {name}; see docs/own-data.md for the layout")


def _lines(path: Path, cells: int) -> Iterator[tuple[str, list[str]]]:
    """The cells of every line that holds something, and what errors call the line."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        words = line.split()
        if words and len(words) != cells:
            raise DataError(f"{path}, line {number}: holds {len(words)} words, not {cells}")
        if words:
            yield f"{path}, line {number}", words


def _name(names: dict[int, str], code: str, where: str) -> str:
    try:
        return names[int(float(code))]
    except (ValueError, KeyError) as error:
        raise DataError(f"{where}: {code.strip()[:20]!r} is no label of this set") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=SETS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--crop", action="store_true", help="look for the faces and cut them")
    wish = parser.parse_args()
    try:
        counts = list_faces(wish.kind, wish.folder, wish.out, crop=wish.crop)
    except MienError as error:
        raise SystemExit(f"{error}") from error
    print(", ".join(f"{label} {count:,}" for label, count in counts.items()))
    print(wish.out / "faces.csv")


if __name__ == "__main__":
    main()
