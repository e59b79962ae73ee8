"""Tables of labelled faces: rows of any CSV file, the names of its columns and splits, and tables of pixels."""

import csv
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TextIO

from mien._errors import DataError
from mien._suggest import suggest
from mien.lab.data.faceset import SIZE, Split, quote

MOST_ROWS = 2_000_000  # of a table: more than any public set has, and 5 GB of faces
_LONGEST_LINE = 2**20  # characters; a face of 48 x 48 pixels has at most 10,000
_LEVELS = {str(level): level for level in range(256)}
_LEAST_PIXELS = 64  # of a face: shorter lists of numbers are something else
# Names of splits in data sets. A validation split becomes PublicTest.
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), Split.TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev", "publictest"), Split.PUBLIC_TEST),
    **dict.fromkeys(("test", "testing", "privatetest"), Split.PRIVATE_TEST),
}
# Names of columns in tables; the first that exists is used.
_PATHS = ("path", "image", "file", "filename", "file_name", "image_path", "filepath")
_COLUMNS = {
    "pixels": ("pixels", "pixel", "pixel_values", "pixel values"),
    "path": (*_PATHS, "img", "picture", "subdirectory_filepath"),
    "label": ("label", "emotion", "class", "expression", "category", "labels", "emotions", "target"),
    "split": ("split", "usage", "subset", "partition"),
    "group": ("group", "person", "subject", "identity", "participant"),
}


def iterate_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Iterate over a table with comma, semicolon or tab between its fields, whichever the header has most of.

    Args:
        path: The file, UTF-8 or UTF-16.

    Yields:
        Place (for error messages) and fields: first of the header, with names stripped and in lower case, then of every
        row that is not empty. All have the same number of fields.

    Raises:
        DataError: A row has another number of fields, the file is not CSV, or it is too large.
    """
    row = -1
    with path.open(newline="", encoding=_encoding(path), errors="replace") as stream:
        delimiter = max(",;\t", key=stream.readline(65_536).count)
        stream.seek(0)
        reader = csv.reader(_lines(stream, path), delimiter=delimiter)
        try:
            names = [name.strip().lower() for name in next(reader, [])]
            yield f"{path}, header", names
            _check_length(path)
            for fields in filter(None, reader):
                row += 1
                where = f"{path}, row {row} (line {reader.line_num})"
                if len(fields) != len(names):
                    raise DataError(f"{where}: {len(fields)} fields instead of {len(names)}; is the file complete?")
                yield where, fields
        except csv.Error as error:
            raise DataError(f"{path}, row {row + 1} (line {reader.line_num}): not CSV ({error})") from error


def _encoding(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(4)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return "utf-8-sig" if b"\0" not in head else "utf-16-be" if head.startswith(b"\0") else "utf-16-le"


def _lines(stream: TextIO, path: Path) -> Iterator[str]:
    while line := stream.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise DataError(f"{path}: a line has more than {_LONGEST_LINE:,} characters; this is no table of faces")
        yield line


def _check_length(path: Path) -> None:
    with path.open("rb") as stream:
        lines = sum(part.count(b"\n") for part in iter(lambda: stream.read(2**20), b""))
    check_rows(lines - 1, path)


def check_rows(count: int, path: Path) -> None:
    """Refuse a table with more rows than memory is planned for.

    Args:
        count: Its rows.
        path: The table, for the error message.

    Raises:
        DataError: It has more than ``MOST_ROWS``.
    """
    if count > MOST_ROWS:
        raise DataError(f"{path}: has {count:,} rows; mien reads tables of up to {MOST_ROWS:,}, so split it")


def cell_at(cells: Sequence[str], place: int | None) -> str:
    """Return a cell of a row.

    Args:
        cells: The row.
        place: The index of the column; ``None`` where the table does not have it.

    Returns:
        The cell without spaces around it; empty for ``None``.
    """
    return "" if place is None else cells[place].strip()


def find_column(names: Sequence[str], column: str, path: Path, *, is_optional: bool | None = None) -> int | None:
    """Find a column of a table by any of its names.

    Args:
        names: The names of the columns, in lower case.
        column: ``"pixels"``, ``"path"``, ``"label"``, ``"split"`` or ``"group"``.
        path: The table, for error messages.
        is_optional: Whether the column may be missing; by default ``split`` and ``group`` may.

    Returns:
        Its index, or ``None``.

    Raises:
        DataError: The column is missing, or two columns have its name.
    """
    known = _COLUMNS[column]
    for name in known:
        if names.count(name) > 1:
            raise DataError(f'{path}: {names.count(name)} columns are called "{name}"; give each its own name')
        if name in names:
            return names.index(name)
    if column in ("split", "group") if is_optional is None else is_optional:
        return None
    hint = next(filter(None, (suggest(name, known) for name in names)), "")
    found = ", ".join(quote(name) for name in names[:16])
    raise DataError(f'{path}: column "{column}" is missing; found {found}; it may be called {", ".join(known)}{hint}')


def is_split(name: str) -> bool:
    """Return whether a word is the name of a split.

    Args:
        name: The word, in upper or lower case.

    Returns:
        Whether ``parse_split`` knows it.
    """
    return name.strip().lower() in _SPLIT_NAMES


def parse_split(name: str, *, where: str) -> Split:
    """Parse the name of a split in a table or folder.

    Args:
        name: A name in upper or lower case: that of FER-2013, or train, val, test and the like.
        where: Its place, for error messages.

    Returns:
        The split; a validation split is PublicTest.

    Raises:
        DataError: There is no such split.
    """
    key = name.strip().lower()
    if key not in _SPLIT_NAMES:
        known = ", ".join(_SPLIT_NAMES)
        raise DataError(f"{where}: {quote(name)} is no split; splits are called {known}{suggest(key, _SPLIT_NAMES)}")
    return _SPLIT_NAMES[key]


class PixelRow(NamedTuple):
    """A row of a table of pixels.

    Attributes:
        where: Its place, for error messages.
        label: The label as written; 3.0 is 3.
        split: Its split.
        usage: The word of the split as written; empty where the table has no such column.
        group: Its person; empty where there is none.
        pixels: The grey levels of a square image, row by row.
    """

    where: str
    label: str
    split: Split
    usage: str
    group: str
    pixels: bytes


def iterate_pixels(path: Path) -> Iterator[PixelRow]:
    """Iterate over a table of pixels: one column of labels, one of grey levels, and optionally split and group.

    Args:
        path: The file. All faces have the same size.

    Yields:
        The rows.

    Raises:
        DataError: A column is missing or a row is not valid; the message names row and cause.
    """
    pixels, rows = pixel_column(path), iterate_rows(path)
    names = next(rows)[1]
    if names == ["pixels"]:
        raise DataError(f"{path}: has no labels (the challenge's test.csv); use icml_face_data.csv, which holds them")
    label, split, group = (find_column(names, column, path) for column in ("label", "split", "group"))
    if pixels is None:
        pixels = find_column(names, "pixels", path)
    count = 0
    for where, cells in rows:
        levels = _read_levels(cell_at(cells, pixels), where=where)
        # The first face decides; where it is no square, it is a damaged one of 48 x 48.
        count = count or (len(levels) if math.isqrt(len(levels)) ** 2 == len(levels) >= _LEAST_PIXELS else SIZE * SIZE)
        if len(levels) != count:
            side = math.isqrt(count)
            raise DataError(f"{where}: {len(levels):,} pixel values instead of {count:,} ({side}x{side})")
        if not cell_at(cells, label):
            raise DataError(f"{where}: the label is empty; fill it in, or remove the row")
        usage = cell_at(cells, split)
        part = Split.TRAINING if split is None else parse_split(usage, where=where)
        yield PixelRow(where, label_text(cell_at(cells, label)), part, usage, cell_at(cells, group), levels)


def _read_levels(cell: str, *, where: str) -> bytes:
    with suppress(KeyError):
        return bytes(map(_LEVELS.__getitem__, cell.split()))
    levels = bytearray()
    for word in _words(cell):
        level, _, fraction = word.partition(".")
        if level not in _LEVELS or fraction.strip("0"):
            raise DataError(f"{where}: pixel value {quote(word)} is not a whole number from 0 to 255")
        levels.append(_LEVELS[level])
    return bytes(levels)


def _words(cell: str) -> list[str]:
    """The numbers of a list as other programs write it, such as ``[70, 80]``."""
    return cell.strip(" []").replace(",", " ").split()


def label_text(cell: str) -> str:
    """Return a label as FER-2013 writes it.

    Args:
        cell: The cell of a table. pandas writes 3 as 3.0 where another cell of the column is empty.

    Returns:
        The label without ``.0``.
    """
    return cell.removesuffix(".0")


def pixel_column(path: Path) -> int | None:
    """Find the column of pixels in a table: by its name, else by a list of numbers in the first row.

    Args:
        path: The file.

    Returns:
        The index of the column; ``None`` where the table has none.

    Raises:
        DataError: The table has no names of columns, or one of them twice.
    """
    rows = iterate_rows(path)
    header = next(rows)[1]
    if any(map(_is_face, header)):
        raise DataError(f"{path}: begins with a face; put a line with the names before it: emotion,pixels,Usage")
    named = find_column(header, "pixels", path, is_optional=True)
    if named is not None:
        return named
    place, cells = find_column(header, "path", path, is_optional=True), next(rows, ("", []))[1]
    return next((at for at, cell in enumerate(cells) if place in (None, at) and _is_face(cell)), None)


def _is_face(cell: str) -> bool:
    words = _words(cell)
    return len(words) >= _LEAST_PIXELS and all(word.partition(".")[0] in _LEVELS for word in words)
