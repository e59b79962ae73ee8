"""Reading FER-2013 in each of its four forms, with the votes of FER+, and other tables of pixels."""

import math
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import SEVEN
from mien._errors import DataError, MissingExtraError, checked
from mien._suggest import suggest
from mien.lab.data.faceset import (
    EMOTION_NAMES,
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
from mien.lab.data.tables import (
    cell_at,
    check_rows,
    find_column,
    iterate_pixels,
    iterate_rows,
    label_text,
    parse_split,
    pixel_column,
)

_LABELS = {str(label): label for label in range(len(SEVEN))}
_LABELS |= {name: SEVEN.index(emotion) for name, emotion in EMOTION_NAMES.items() if emotion in SEVEN}
_VOTES = {str(count): count for count in range(11)}  # ten people labelled each face for FER+
_SPLITS = {str(split): index for index, split in enumerate(Split)}
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")  # first bytes of zip, gzip, 7z and rar files
_BATCH = 256  # rows of a Parquet file that are in memory at a time
_CELL_BYTES = 16_384  # mean size of a stored image, at most: a FER-2013 face in colour, not compressed, has 7 kB
_LEAST_BYTES = 2 * SIZE * SIZE  # of a row of pixels: a digit and a space for each
OFFICIAL_NAME = "FER-2013"
# Faces per emotion in the table of 2013, in the order of SEVEN.
OFFICIAL_COUNTS: dict[Split, tuple[int, ...]] = {
    Split.TRAINING: (3995, 436, 4097, 7215, 4830, 3171, 4965),  # 28,709
    Split.PUBLIC_TEST: (467, 56, 496, 895, 653, 415, 607),  # 3,589
    Split.PRIVATE_TEST: (491, 55, 528, 879, 594, 416, 626),  # 3,589
}


@checked
def load_fer2013(
    path: str | os.PathLike[str],
    *,
    votes: str | os.PathLike[str] | None = None,
    official: bool = True,
    skip_unreadable: bool = False,
) -> FaceSet:
    """Load FER-2013 with all seven classes, in the order of the official index, as uint8 tensors on the CPU.

    Args:
        path: A Parquet file, the original CSV, the later Kaggle CSV, the Kaggle folder of ``train/`` and ``test/``, or
            a folder that holds one of them. The content decides which form it is.
        votes: FER+'s fer2013new.csv, joined by row to a table without votes.
        official: Whether every split and class must have the official number of faces; ``False`` accepts a subset.
        skip_unreadable: Whether images of a folder that cannot be read are left out, which ``note`` counts.

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
    faces = _read(found, skip_unreadable=skip_unreadable)
    if votes is not None:
        if faces.votes is not None:
            raise DataError(f"{found}: holds FER+ votes already; leave out votes=")
        faces = join_votes(faces, Path(votes))
    if official:
        check_official(faces)
    return faces


def _read(path: Path, *, skip_unreadable: bool) -> FaceSet:
    try:
        if path.is_dir():
            return read_folders(path, skip_unreadable=skip_unreadable)
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
    """Read a table of FER-2013: ``emotion,pixels,Usage``, in the variants that ``iterate_pixels`` reads.

    Args:
        path: The CSV file. Without a Usage column (Kaggle's train.csv) every row is a Training row.

    Returns:
        The faces in the seven classes.

    Raises:
        DataError: A column is missing or a row is not valid; the message names row and cause.
    """
    labels, usage, levels = [], [], bytearray()
    note = None
    for row in iterate_pixels(path):
        labels.append(_read_label(row.label, where=row.where))
        usage.append(split_index(row.split))
        if len(row.pixels) != SIZE * SIZE:
            side = math.isqrt(len(row.pixels))
            raise DataError(f"{row.where}: the face is {side}x{side}; FER-2013 faces are {SIZE}x{SIZE}")
        levels += row.pixels
        note = None if row.usage else "no Usage column: every row is used for Training"
    return assemble(
        np.frombuffer(levels, np.uint8).reshape(-1, SIZE, SIZE),
        np.array(labels, np.int64),
        usage=np.array(usage, np.int64),
        sha256=file_sha256(path),
        source=str(path),
        note=note,
    )


@lru_cache(8)
def _has_official_counts(path: Path, _modified: int) -> bool:
    rows = iterate_rows(path)
    names = next(rows)[1]
    label, split = (find_column(names, column, path) for column in ("label", "split"))
    counts = Counter((label_text(cell_at(cells, label)), cell_at(cells, split)) for _, cells in rows)
    found = {part: [0] * len(SEVEN) for part in Split}
    for (name, usage), count in counts.items():
        found[parse_split(usage, where=str(path))][_read_label(name, where=str(path))] += count
    return found == {part: list(official) for part, official in OFFICIAL_COUNTS.items()}


def is_official_table(path: Path) -> bool:
    """Return whether a table has pixels and the official number of faces in every split and class.

    Args:
        path: The file. Its pixels are not read.

    Returns:
        False also where the table is damaged.
    """
    status = path.stat()
    if status.st_size < _LEAST_BYTES * sum(map(sum, OFFICIAL_COUNTS.values())):
        return False
    try:
        return pixel_column(path) is not None and _has_official_counts(path, status.st_mtime_ns)
    except DataError:
        return False


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
    if difference := official_difference(faces):
        cure = "get the full set, or pass official=False to use a subset knowingly"
        raise DataError(f"{faces.source}: {difference}; {cure}")


def official_difference(faces: FaceSet) -> str:
    """Compare a set with the official FER-2013.

    Args:
        faces: A set with all its splits.

    Returns:
        The first split or class with another number of faces, and both numbers; empty for the official set.
    """
    if faces.emotions != SEVEN:
        return f"it has the classes {', '.join(faces.emotions)}"
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
                return f"{what} holds {count:,} faces, the official set {wanted:,}"
    return ""


def has_private_test(faces: FaceSet) -> bool:
    """Return whether PrivateTest of a set is that of FER-2013.

    Args:
        faces: A set with all its splits, before FER+ votes replace its labels.

    Returns:
        Whether it has as many faces of every emotion as the official split, in whatever classes it was read.
    """
    labels = faces.labels[faces.usage == split_index(Split.PRIVATE_TEST)]
    counts = torch.bincount(labels, minlength=len(faces.emotions)).tolist()
    found = {emotion: count for emotion, count in zip(faces.emotions, counts, strict=True) if count}
    return found == dict(zip(SEVEN, OFFICIAL_COUNTS[Split.PRIVATE_TEST], strict=True))


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
        count, row = table.metadata.num_rows, 0
        check_rows(count, path)
        columns = _empty_columns(table.schema_arrow.names, count, source=str(path))
        _check_sizes(table.metadata, columns, path)
        for part in table.iter_batches(_BATCH, columns=list(columns), use_threads=False):
            if row + part.num_rows > count:
                break
            for name, column in columns.items():
                for at, value in enumerate(part.column(name).to_pylist(), start=row):
                    column[at] = _read_cell(name, value, where=f"{path}, row {at}")
            row += part.num_rows
        if row != count:
            raise OSError(f"its footer says {count:,} rows, which its columns do not have")
    except (pyarrow.ArrowException, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
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


def _check_sizes(footer: Any, columns: Collection[str], path: Path) -> None:
    """Check the sizes that the footer claims, before memory is needed for them."""
    for group in map(footer.row_group, range(footer.num_row_groups)):
        chunks = [group.column(at) for at in range(group.num_columns)]
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns)
        if size > _CELL_BYTES * (group.num_rows + 64):
            raise DataError(
                f"{path}: {group.num_rows:,} rows have {size / 1e6:,.0f} MB, more than faces of {SIZE} x {SIZE} pixels "
                "need; the column image holds a PNG or JPEG file of such a face"
            )


def _empty_columns(names: Sequence[str], count: int, *, source: str) -> dict[str, NDArray[Any]]:
    """An array for each column that is read."""
    _require_columns(names, ("image", "label", "usage"), source=source)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{source}: two columns are called {quote(twice)}; give each its own name")
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
    text = str(value).strip().lower()
    if text not in _LABELS:
        raise DataError(f"{where}: label {quote(value)} is not a whole number from 0 (angry) to 6 (neutral), or a name")
    return _LABELS[text]


def _read_vote(value: int | str, *, where: str, column: str) -> int:
    """A number of votes. The sum of a row is free: row 10435 of the published votes has nine, not ten."""
    text = str(value).strip()
    if text not in _VOTES:
        raise DataError(f'{where}: column "{column}" holds {quote(value)}; FER+ votes are whole numbers from 0 to 10')
    return _VOTES[text]
