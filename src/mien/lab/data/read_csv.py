"""CSV -> FaceSet: the original table and the later Kaggle one, pixels as text."""

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mien._errors import DataError
from mien.lab.data.columns import check_label, quote, read_split, require_columns
from mien.lab.data.faces import SIZE, FaceSet, Split, assemble, split_index

_LEVELS = {str(level): level for level in range(256)}


def read_csv(path: Path) -> FaceSet:
    """Read ``emotion,pixels,Usage`` in any order; spaces around names and values are ignored.

    Without a Usage column (Kaggle's train.csv) every row is a Training row. Raises ``DataError`` naming row and cause.
    """
    rows = iterate_rows(path)
    names = next(rows)[1]
    if names == ["pixels"]:
        raise DataError(f"{path}: has no labels (the challenge's test.csv); use icml_face_data.csv, which holds them")
    require_columns(names, ("emotion", "pixels"), source=str(path))
    emotion, pixels = names.index("emotion"), names.index("pixels")
    split = names.index("usage") if "usage" in names else None
    labels, usage, levels = [], [], bytearray()
    for where, row in rows:
        labels.append(check_label(row[emotion], where=where))
        usage.append(split_index(Split.TRAINING) if split is None else read_split(row[split], where=where))
        levels += _read_pixels(row[pixels], where=where)
    return assemble(
        np.frombuffer(levels, np.uint8).reshape(-1, SIZE, SIZE),
        np.array(labels, np.int64),
        usage=np.array(usage, np.int64),
        sha256=file_sha256(path),
        source=str(path),
        note="no Usage column: every row is taken for Training" if split is None else None,
    )


def iterate_rows(path: Path, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """Place and fields of the header (names stripped, in lower case) and then of every row; all have equally many."""
    row = -1
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        try:
            names = [name.strip().lower() for name in next(reader, [])]
            yield f"{path}, header", names
            for fields in filter(None, reader):
                row += 1
                where = f"{path}, row {row} (line {reader.line_num})"
                if len(fields) != len(names):
                    raise DataError(f"{where}: {len(fields)} fields instead of {len(names)}; is the file complete?")
                yield where, fields
        except csv.Error as error:
            raise DataError(f"{path}, row {row + 1} (line {reader.line_num}): not CSV ({error})") from error


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_pixels(text: str, *, where: str) -> bytes:
    words = text.split()
    if len(words) != SIZE * SIZE:
        raise DataError(f"{where}: {len(words):,} pixel values instead of {SIZE * SIZE:,} ({SIZE}x{SIZE})")
    try:
        return bytes(map(_LEVELS.__getitem__, words))
    except KeyError as error:
        raise DataError(f"{where}: pixel value {quote(error.args[0])} is not a whole number from 0 to 255") from None
