"""Reading FER-2013 in each of its four forms, with the votes of FER+."""

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
from mien._suggest import suggest
from mien.lab.data.faceset import (
    FERPLUS_COLUMNS,
    SIZE,
    FaceSet,
    Split,
    assemble,
    file_sha256,
    list_sha256,
    quote,
    split_index,
)
from mien.lab.data.folders import find_fer2013, read_folders, read_image

_LEVELS = {str(level): level for level in range(256)}
_LABELS = {str(label): label for label in range(len(SEVEN))}
_VOTES = {str(count): count for count in range(11)}  # ten people labelled each face for FER+
_SPLITS = {str(split): index for index, split in enumerate(Split)}
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")  # first bytes of zip, gzip, 7z and rar files
# Faces per emotion in the table of 2013, in the order of SEVEN.
OFFICIAL_COUNTS: dict[Split, tuple[int, ...]] = {
    Split.TRAINING: (3995, 436, 4097, 7215, 4830, 3171, 4965),  # 28,709
    Split.PUBLIC_TEST: (467, 56, 496, 895, 653, 415, 607),  # 3,589
    Split.PRIVATE_TEST: (491, 55, 528, 879, 594, 416, 626),  # 3,589
}


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
        raise DataError(f"{found}: FER+ votes are joined by row, which images in folders do not have; use a CSV")
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
            raise DataError(f"{path}: is an archive; unpack it and give the path of the unpacked files")
        if head == b"PAR1" or path.suffix.lower() == ".parquet":
            return read_parquet(path)
        return read_csv(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


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
    _require_columns(names, ("emotion", "pixels"), source=str(path))
    emotion, pixels = names.index("emotion"), names.index("pixels")
    split = names.index("usage") if "usage" in names else None
    labels, usage, levels = [], [], bytearray()
    for where, row in rows:
        labels.append(_read_label(row[emotion], where=where))
        usage.append(split_index(Split.TRAINING) if split is None else _read_usage(row[split], where=where))
        words = row[pixels].split()
        if len(words) != SIZE * SIZE:
            raise DataError(f"{where}: {len(words):,} pixel values instead of {SIZE * SIZE:,} ({SIZE}x{SIZE})")
        try:
            levels += bytes(map(_LEVELS.__getitem__, words))
        except KeyError as error:
            level = quote(error.args[0])
            raise DataError(f"{where}: pixel value {level} is not a whole number from 0 to 255") from None
    return assemble(
        np.frombuffer(levels, np.uint8).reshape(-1, SIZE, SIZE),
        np.array(labels, np.int64),
        usage=np.array(usage, np.int64),
        sha256=file_sha256(path),
        source=str(path),
        note="no Usage column: every row is used for Training" if split is None else None,
    )


def iterate_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Iterate over a table with comma, semicolon or tab between its fields, whichever the header has most of.

    Args:
        path: The file, UTF-8.

    Yields:
        Place (for error messages) and fields: first of the header, with names stripped and in lower case, then of every
        row that is not empty. All have the same number of fields.

    Raises:
        DataError: A row has another number of fields, or the file is not CSV.
    """
    row = -1
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        delimiter = max(",;\t", key=stream.readline(65_536).count)
        stream.seek(0)
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


def join_votes(faces: FaceSet, path: Path) -> FaceSet:
    """Join the votes of FER+ to faces, row by row.

    The numbers in the column "Image name" are not row numbers and are ignored.

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
    columns = (*FERPLUS_COLUMNS[:-1], "nf")  # the published file calls the last column NF
    rows = iterate_rows(path)
    names = next(rows)[1]
    _require_columns(names, ("usage", *columns), source=str(path))
    usage, votes = [], []
    for where, row in rows:
        usage.append(_read_usage(row[names.index("usage")], where=where))
        votes.append([_read_vote(row[names.index(name)], where=where, column=name) for name in columns])
    if len(usage) != len(faces):
        raise DataError(
            f"{path}: has {len(usage):,} rows, but {faces.source} has {len(faces):,}; votes are joined by row, "
            "so both must be the full tables"
        )
    different = torch.tensor(usage).ne(faces.usage).nonzero().flatten().tolist()
    if different:
        row, splits = different[0], tuple(Split)
        raise DataError(
            f"{path}, row {row}: Usage is {splits[usage[row]]}, but {splits[faces.usage[row]]} in {faces.source}; "
            "the files are not in the same order"
        )
    digest = list_sha256([(Path(faces.source).name, faces.sha256), (path.name, file_sha256(path))])
    return replace(faces, votes=torch.tensor(votes, dtype=torch.uint8), sha256=digest)


def check_official(faces: FaceSet) -> None:
    """Check that a set has the official number of faces in every split and class.

    A copy whose test faces do not name their split has all of them in PublicTest; it passes with the sum of both.

    Args:
        faces: The full set, in the seven classes.

    Raises:
        DataError: A count differs; the message names the first split or class.
    """
    if faces.emotions != SEVEN:
        raise DataError(f"{faces.source}: official counts exist for the seven classes only; check before with_classes")
    labels = {split: faces.labels[faces.usage == split_index(split)] for split in Split}
    found = {split: torch.bincount(of_split, minlength=len(SEVEN)).tolist() for split, of_split in labels.items()}
    training, public, private = OFFICIAL_COUNTS.values()
    expected = OFFICIAL_COUNTS
    if [sum(found[split]) for split in (Split.PUBLIC_TEST, Split.PRIVATE_TEST)] == [sum(public + private), 0]:
        both = tuple(a + b for a, b in zip(public, private, strict=True))
        expected = {Split.TRAINING: training, Split.PUBLIC_TEST: both}
    for split, official in expected.items():
        counts = [(str(split), sum(found[split]), sum(official))]
        counts += zip([f'{split}, "{emotion}"' for emotion in SEVEN], found[split], official, strict=True)
        for what, count, wanted in counts:
            if count != wanted:
                raise DataError(
                    f"{faces.source}: {what} holds {count:,} faces, the official set {wanted:,}; "
                    "get the full set, or pass official=False to use a subset knowingly"
                )


def read_parquet(path: Path) -> FaceSet:
    """Read the columns ``image`` (PNG or JPEG bytes), ``label`` and ``usage``, with votes and ``pixels_from_jpeg``.

    Args:
        path: The Parquet file. The ten FER+ columns and ``pixels_from_jpeg`` are optional.

    Returns:
        The faces in the seven classes.

    Raises:
        DataError: The file is damaged, a column is missing or a cell is not valid; the message names row and cause.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "lab") from error
    try:
        # Without this buffer size pyarrow would load the whole column of images.
        table = pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=65_536)
        columns = _empty_columns(table.schema_arrow.names, table.metadata.num_rows, source=str(path))
        row = 0
        for part in table.iter_batches(2048, use_threads=False):
            for name, column in columns.items():
                for at, value in enumerate(part.column(name).to_pylist(), start=row):
                    column[at] = _read_cell(name, value, where=f"{path}, row {at}")
            row += part.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not a complete Parquet file ({reason}); get the file again") from error
    return assemble(
        columns["image"],
        columns["label"],
        usage=columns["usage"],
        votes=np.stack([columns[name] for name in FERPLUS_COLUMNS], axis=1) if "neutral" in columns else None,
        pixels_from_jpeg=columns.get("pixels_from_jpeg"),
        sha256=file_sha256(path),
        source=str(path),
    )


def _empty_columns(names: Sequence[str], count: int, *, source: str) -> dict[str, NDArray[Any]]:
    """An array for each column that is read."""
    _require_columns(names, ("image", "label", "usage"), source=source)
    columns: dict[str, NDArray[Any]] = {"image": np.empty((count, SIZE, SIZE), np.uint8)}
    columns |= {name: np.empty(count, np.int64) for name in ("label", "usage")}
    if any(name in names for name in FERPLUS_COLUMNS):
        _require_columns(names, FERPLUS_COLUMNS, source=source)
        columns |= {name: np.empty(count, np.uint8) for name in FERPLUS_COLUMNS}
    if "pixels_from_jpeg" in names:
        columns["pixels_from_jpeg"] = np.empty(count, np.bool_)
    return columns


def _read_cell(name: str, value: Any, *, where: str) -> Any:
    kind: Any = {"image": bytes, "usage": str, "pixels_from_jpeg": bool}.get(name, int)
    if type(value) is not kind:
        found = "nothing" if value is None else type(value).__name__
        raise DataError(f'{where}: column "{name}" holds {found}; {kind.__name__} is expected')
    match name:
        case "image":
            return read_image(value, where=where)
        case "label":
            return _read_label(value, where=where)
        case "usage":
            return _read_usage(value, where=where)
        case "pixels_from_jpeg":
            return value
    return _read_vote(value, where=where, column=name)


def _require_columns(found: Sequence[str], wanted: Sequence[str], *, source: str) -> None:
    for name in wanted:
        if name not in found:
            hint = suggest(name, found)
            names = ", ".join(quote(column) for column in found[:16])
            raise DataError(f'{source}: column "{name}" is missing; found {names}; expected {", ".join(wanted)}{hint}')


def _read_usage(value: str, *, where: str) -> int:
    text = value.strip()
    if text not in _SPLITS:
        known = ", ".join(_SPLITS)
        raise DataError(f"{where}: unknown Usage {quote(value)}; it must be one of {known}{suggest(text, _SPLITS)}")
    return _SPLITS[text]


def _read_label(value: int | str, *, where: str) -> int:
    text = str(value).strip()
    if text not in _LABELS:
        raise DataError(f"{where}: label {quote(value)} is not a whole number from 0 (angry) to 6 (neutral)")
    return _LABELS[text]


def _read_vote(value: int | str, *, where: str, column: str) -> int:
    """A number of votes. The sum of a row is free: row 10435 of the published votes has nine, not ten."""
    text = str(value).strip()
    if text not in _VOTES:
        raise DataError(f'{where}: column "{column}" holds {quote(value)}; FER+ votes are whole numbers from 0 to 10')
    return _VOTES[text]
