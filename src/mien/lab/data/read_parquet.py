"""Parquet -> FaceSet: one row a face, the PNG inside the table, FER+ votes beside it.

The table is read a few thousand rows at a time: what stays in memory is the faces, not their files.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._errors import DataError, MissingExtraError
from mien.lab.data.columns import check_label, check_vote, read_split, require_columns
from mien.lab.data.faces import FERPLUS_COLUMNS, SIZE, FaceSet, assemble
from mien.lab.data.read_image import read_image

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
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return assemble(
        columns["image"],
        columns["label"],
        usage=columns["usage"],
        votes=np.stack([columns[name] for name in FERPLUS_COLUMNS], axis=1) if "neutral" in columns else None,
        pixels_from_jpeg=columns.get("pixels_from_jpeg"),
        sha256=digest,
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
            return read_split(value, where=where)
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
