"""Parquet -> FaceSet: one row a face, the PNG inside the table, FER+ votes beside it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._errors import DataError, MissingExtraError
from mien.lab.data.columns import check_label, check_vote, read_split, require_columns
from mien.lab.data.faces import FERPLUS_COLUMNS, SIZE, FaceSet, assemble
from mien.lab.data.read_image import read_image

_REQUIRED = ("image", "label", "usage")


def read_parquet(path: Path) -> FaceSet:
    """Read ``image`` (PNG or JPEG bytes), ``label``, ``usage``; where present the votes and ``pixels_from_jpeg``."""
    content = path.read_bytes()
    table = _open_table(content, source=str(path))
    names = table.column_names
    require_columns(names, _REQUIRED, source=str(path))
    columns = {name: _values(table, name, source=str(path)) for name in (*_REQUIRED, *_optional(names, str(path)))}
    where = [f"{path}, row {row}" for row in range(table.num_rows)]
    return assemble(
        _images(columns["image"], where),
        np.array([check_label(v, where=w) for v, w in zip(columns["label"], where, strict=True)], np.int64),
        usage=np.array([read_split(v, where=w) for v, w in zip(columns["usage"], where, strict=True)], np.int64),
        votes=_votes(columns, where) if "neutral" in columns else None,
        pixels_from_jpeg=np.array(columns["pixels_from_jpeg"], np.bool_) if "pixels_from_jpeg" in columns else None,
        sha256=hashlib.sha256(content).hexdigest(),
        source=str(path),
    )


def _open_table(content: bytes, *, source: str) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "lab") from error
    try:
        return pyarrow.parquet.read_table(pyarrow.BufferReader(content), use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{source}: not a complete Parquet file ({reason}); get the file again") from error


def _optional(names: Sequence[str], source: str) -> tuple[str, ...]:
    """The votes, all ten or none, and the JPEG flag, as far as the table has them."""
    has_votes = any(name in names for name in FERPLUS_COLUMNS)
    if has_votes:
        require_columns(names, FERPLUS_COLUMNS, source=source)
    flag = ("pixels_from_jpeg",) if "pixels_from_jpeg" in names else ()
    return (*(FERPLUS_COLUMNS if has_votes else ()), *flag)


def _values(table: Any, name: str, *, source: str) -> list[Any]:
    """One column as Python values, refused when a cell is empty or holds another type than its column should."""
    values: list[Any] = table[name].to_pylist()
    kind = {"image": bytes, "usage": str, "pixels_from_jpeg": bool}.get(name, int)
    for row, value in enumerate(values):
        if type(value) is not kind:
            found = "nothing" if value is None else type(value).__name__
            raise DataError(f'{source}, row {row}: column "{name}" holds {found}; {kind.__name__} is expected')
    return values


def _images(contents: Sequence[bytes], where: Sequence[str]) -> NDArray[np.uint8]:
    images = np.empty((len(contents), SIZE, SIZE), np.uint8)
    for image, content, place in zip(images, contents, where, strict=True):
        image[:] = read_image(content, where=place)
    return images


def _votes(columns: dict[str, list[Any]], where: Sequence[str]) -> NDArray[np.uint8]:
    votes = np.empty((len(where), len(FERPLUS_COLUMNS)), np.uint8)
    for column, name in enumerate(FERPLUS_COLUMNS):
        votes[:, column] = [check_vote(v, where=w, column=name) for v, w in zip(columns[name], where, strict=True)]
    return votes
