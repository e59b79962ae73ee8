"""path -> FaceSet, whichever of its four forms FER-2013 has there."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import SEVEN
from mien._errors import DataError, MissingExtraError
from mien.lab.data.faceset import (
    FERPLUS_COLUMNS,
    SIZE,
    FaceSet,
    Split,
    assemble,
    check_label,
    check_vote,
    file_sha256,
    list_sha256,
    quote,
    read_usage,
    require_columns,
    split_index,
)
from mien.lab.data.folders import find_fer2013, read_folders, read_image

_LEVELS = {str(level): level for level in range(256)}


def read_csv(path: Path) -> FaceSet:
    """Read a table ``emotion,pixels,Usage``, its columns in any order.

    Args:
        path: The CSV file. Without a Usage column (Kaggle's train.csv) every row is a Training row.

    Returns:
        The faces in the seven classes.

    Raises:
        DataError: A column is missing or a row is not valid; the message names row and cause.
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
        usage.append(split_index(Split.TRAINING) if split is None else read_usage(row[split], where=where))
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


def _read_pixels(text: str, *, where: str) -> bytes:
    words = text.split()
    if len(words) != SIZE * SIZE:
        raise DataError(f"{where}: {len(words):,} pixel values instead of {SIZE * SIZE:,} ({SIZE}x{SIZE})")
    try:
        return bytes(map(_LEVELS.__getitem__, words))
    except KeyError as error:
        raise DataError(f"{where}: pixel value {quote(error.args[0])} is not a whole number from 0 to 255") from None


# The published file calls the last column NF.
_COLUMNS = (*FERPLUS_COLUMNS[:-1], "nf")


def join_votes(faces: FaceSet, path: Path) -> FaceSet:
    """Join the votes of FER+ to faces, row by row.

    The numbers in the column "Image name" do not count rows and are not read.

    Args:
        faces: The full table, in its order.
        path: fer2013new.csv.

    Returns:
        The faces with votes; their ``sha256`` covers both files.

    Raises:
        DataError: Columns, number of rows or the Usage of a row disagree.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; get fer2013new.csv from github.com/microsoft/FERPlus")
    rows = iterate_rows(path)
    names = next(rows)[1]
    require_columns(names, ("usage", *_COLUMNS), source=str(path))
    usage, votes = [], []
    for where, row in rows:
        usage.append(read_usage(row[names.index("usage")], where=where))
        votes.append([check_vote(row[names.index(name)], where=where, column=name) for name in _COLUMNS])
    _require_same_rows(faces, usage, path)
    return replace(faces, votes=torch.tensor(votes, dtype=torch.uint8), sha256=_joint_sha256(faces, path))


def _require_same_rows(faces: FaceSet, usage: list[int], path: Path) -> None:
    if len(usage) != len(faces):
        raise DataError(
            f"{path}: has {len(usage):,} rows, but {faces.source} has {len(faces):,}; votes are joined by row, "
            "so both must be the full tables"
        )
    for row, (vote, face) in enumerate(zip(usage, faces.usage.tolist(), strict=True)):
        if vote != face:
            splits = tuple(Split)
            raise DataError(
                f"{path}, row {row}: Usage is {splits[vote]}, but {splits[face]} in {faces.source}; "
                "the files are not in the same order"
            )


def _joint_sha256(faces: FaceSet, path: Path) -> str:
    """As for a folder: the hash of the list of both files' hashes and names."""
    return list_sha256([(Path(faces.source).name, faces.sha256), (path.name, file_sha256(path))])


# Faces by emotion, in the order of SEVEN, as the 2013 table holds them.
OFFICIAL_COUNTS: dict[Split, tuple[int, ...]] = {
    Split.TRAINING: (3995, 436, 4097, 7215, 4830, 3171, 4965),  # 28,709
    Split.PUBLIC_TEST: (467, 56, 496, 895, 653, 415, 607),  # 3,589
    Split.PRIVATE_TEST: (491, 55, 528, 879, 594, 416, 626),  # 3,589
}


def check_official(faces: FaceSet) -> None:
    """Raise ``DataError`` naming the first split or class whose count is not the official one.

    A copy whose test faces do not say which of the two test splits they belong to has them all in PublicTest; it passes
    when that split holds exactly the two together.
    """
    if faces.emotions != SEVEN:
        raise DataError(f"{faces.source}: official counts exist for the seven classes only; check before with_classes")
    for split, expected in _expected(faces).items():
        labels = faces.labels[faces.usage == split_index(split)]
        _compare(str(split), len(labels), sum(expected), faces.source)
        counts = torch.bincount(labels, minlength=len(SEVEN)).tolist()
        for emotion, count, official in zip(SEVEN, counts, expected, strict=True):
            _compare(f'{split}, "{emotion}"', count, official, faces.source)


def _expected(faces: FaceSet) -> dict[Split, tuple[int, ...]]:
    public, private = OFFICIAL_COUNTS[Split.PUBLIC_TEST], OFFICIAL_COUNTS[Split.PRIVATE_TEST]
    together = tuple(a + b for a, b in zip(public, private, strict=True))
    found = [int((faces.usage == split_index(split)).sum()) for split in Split]
    if found[1:] != [sum(together), 0]:
        return OFFICIAL_COUNTS
    return {Split.TRAINING: OFFICIAL_COUNTS[Split.TRAINING], Split.PUBLIC_TEST: together}


def _compare(what: str, count: int, official: int, source: str) -> None:
    if count != official:
        raise DataError(
            f"{source}: {what} holds {count:,} faces, the official set {official:,}; "
            "get the full set, or pass official=False to use a subset knowingly"
        )


_REQUIRED = ("image", "label", "usage")


_KINDS = {"image": bytes, "usage": str, "pixels_from_jpeg": bool}  # all others are whole numbers


_ROWS = 2048  # read at once


_BUFFER = 65536  # bytes; else the whole column of images would be read ahead


Columns = dict[str, NDArray[Any]]


def read_parquet(path: Path) -> FaceSet:
    """Read ``image`` (PNG or JPEG bytes), ``label``, ``usage``; where present the votes and ``pixels_from_jpeg``."""
    names, count, parts = _open_table(path)
    require_columns(names, _REQUIRED, source=str(path))
    columns = _room((*_REQUIRED, *_optional(names, str(path))), count)
    row = 0
    for part in parts:
        row = _read_part(part, columns, row, source=str(path))
    return assemble(
        columns["image"],
        columns["label"],
        usage=columns["usage"],
        votes=np.stack([columns[name] for name in FERPLUS_COLUMNS], axis=1) if "neutral" in columns else None,
        pixels_from_jpeg=columns.get("pixels_from_jpeg"),
        sha256=file_sha256(path),
        source=str(path),
    )


def _open_table(path: Path) -> tuple[list[str], int, Iterator[Any]]:
    """The names of the columns, the number of rows, and the rows in parts."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "lab") from error

    def refuse(error: Exception) -> DataError:
        reason = " ".join(str(error).split())
        return DataError(f"{path}: not a complete Parquet file ({reason}); get the file again")

    def parts() -> Iterator[Any]:
        try:
            yield from table.iter_batches(_ROWS, use_threads=False)
        except (pyarrow.ArrowException, OSError) as error:
            raise refuse(error) from error

    try:
        table = pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER)
    except (pyarrow.ArrowException, OSError) as error:
        raise refuse(error) from error
    return table.schema_arrow.names, table.metadata.num_rows, parts()


def _optional(names: Sequence[str], source: str) -> tuple[str, ...]:
    """The votes, all ten or none, and the JPEG flag, as far as the table has them."""
    has_votes = any(name in names for name in FERPLUS_COLUMNS)
    if has_votes:
        require_columns(names, FERPLUS_COLUMNS, source=source)
    flag = ("pixels_from_jpeg",) if "pixels_from_jpeg" in names else ()
    return (*(FERPLUS_COLUMNS if has_votes else ()), *flag)


def _room(names: Sequence[str], count: int) -> Columns:
    """Empty arrays for the columns of ``count`` rows."""
    kinds: dict[str, Any] = {"label": np.int64, "usage": np.int64, "pixels_from_jpeg": np.bool_}
    columns: Columns = {name: np.empty(count, kinds.get(name, np.uint8)) for name in names if name != "image"}
    return columns | {"image": np.empty((count, SIZE, SIZE), np.uint8)}


def _read_part(part: Any, columns: Columns, row: int, *, source: str) -> int:
    """Fill ``columns`` from ``row`` on with what ``part`` holds; returns the row after it."""
    where = [f"{source}, row {row + place}" for place in range(part.num_rows)]
    for name, column in columns.items():
        values = _values(part, name, where)
        for place, (value, at) in enumerate(zip(values, where, strict=True), start=row):
            column[place] = _cell(name, value, at)
    return row + int(part.num_rows)


def _cell(name: str, value: Any, where: str) -> Any:
    match name:
        case "image":
            return read_image(value, where=where)
        case "label":
            return check_label(value, where=where)
        case "usage":
            return read_usage(value, where=where)
        case "pixels_from_jpeg":
            return value
    return check_vote(value, where=where, column=name)


def _values(part: Any, name: str, where: Sequence[str]) -> list[Any]:
    """One column as Python values, refused when a cell is empty or holds another type than its column should."""
    values: list[Any] = part.column(name).to_pylist()
    kind = _KINDS.get(name, int)
    for value, at in zip(values, where, strict=True):
        if type(value) is not kind:
            found = "nothing" if value is None else type(value).__name__
            raise DataError(f'{at}: column "{name}" holds {found}; {kind.__name__} is expected')
    return values


# First bytes of archives that FER-2013 is downloaded as.
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")


def load_fer2013(
    path: str | os.PathLike[str], *, votes: str | os.PathLike[str] | None = None, official: bool = True
) -> FaceSet:
    """Load FER-2013 with all seven classes, in the order of the official index, as uint8 tensors on the CPU.

    Args:
        path: A Parquet file, the original CSV, the later Kaggle CSV, the Kaggle folder of ``train/`` and ``test/``, or
            a folder that holds one of them. The content decides which form it is.
        votes: FER+'s fer2013new.csv, joined by row to a table without votes.
        official: Whether every split and class must have the official number of faces; ``False`` accepts a subset.

    Returns:
        The faces of all splits.

    Raises:
        DataError: A file or row is not valid; the message names file, row and cause.

    Example:
        >>> faces = load_fer2013("fer2013.csv", votes="fer2013new.csv")  # doctest: +SKIP
    """
    found = find_fer2013(path)
    if votes is not None and found.is_dir():
        raise DataError(f"{found}: FER+ votes are joined by row, which pictures in folders do not have; use a CSV")
    faces = _read(found)
    if votes is not None:
        if faces.votes is not None:
            raise DataError(f"{found}: holds FER+ votes already; leave out votes=")
        faces = join_votes(faces, Path(votes))
    if official:
        check_official(faces)
    return faces


def _read(path: Path) -> FaceSet:
    try:
        if path.is_dir():
            return read_folders(path)
        with path.open("rb") as stream:
            head = stream.read(4)
        if head.startswith(_ARCHIVES):
            raise DataError(f"{path}: is an archive; unpack it and give the path of what it held")
        if head == b"PAR1" or path.suffix.lower() == ".parquet":
            return read_parquet(path)
        return read_csv(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
