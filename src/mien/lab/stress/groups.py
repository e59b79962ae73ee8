"""A table that says of faces which groups they belong to: one row a face, one column a division (sex, age, skin)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mien._errors import DataError
from mien.lab.data import FaceSet
from mien.lab.data.columns import nearest, quote
from mien.lab.data.list_folder import list_folder
from mien.lab.data.list_table import header, list_table
from mien.lab.data.read_csv import iterate_rows
from mien.lab.feed.sets import is_fer2013

KEYS = ("row", "file")
MOST_GROUPS = 20  # of one column; more of them are names or measurements


@dataclass(frozen=True)
class Groups:
    """``columns``: by division, the group of every row of the data set that has one. ``strange``: unknown rows."""

    source: str
    columns: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    strange: int = 0


def read_groups(path: Path, faces: FaceSet) -> Groups:
    """Read the table at ``path``, parted by comma, semicolon or tab.

    Its column ``row`` holds the row of the data set (``FaceSet.rows``, from 0), or ``file`` the path of a picture of an
    own folder or table as it stands there; every other column is a division, an empty cell no group. Raises
    ``DataError`` naming row and cause.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; --groups names a table with the column row or file, and one a division")
    _require_utf8(path)
    rows = iterate_rows(path, header(path)[1])
    names = next(rows)[1]
    key = _key(path, names)
    known = {int(row) for row in faces.rows}
    files = _files(path, faces) if key == "file" else {}
    columns: dict[str, dict[int, str]] = {name: {} for name in names if name != key}
    seen: set[int] = set()
    strange = 0
    for where, cells in rows:
        row = _row(where, cells[names.index(key)].strip(), files if key == "file" else None)
        if row in seen:
            raise DataError(f"{where}: the face {quote(cells[names.index(key)])} is named twice; leave one row of it")
        seen.add(row)
        strange += row not in known
        for name, cell in zip(names, cells, strict=True):
            if name != key and cell.strip():
                columns[name][row] = cell.strip()
    return _checked(Groups(str(path), columns, strange), seen & known, faces)


def _require_utf8(path: Path) -> None:
    """Other text would be read with marks for what is unknown, and make one group of two."""
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}); save the table as UTF-8") from error


def _key(path: Path, names: list[str]) -> str:
    found = [name for name in KEYS if name in names]
    if not found:
        hint = next((near for name in names if (near := nearest(name, KEYS))), "")
        raise DataError(f"{path}: has neither a column row nor file{hint}; found {', '.join(names[:16]) or 'nothing'}")
    if len(names) != len(set(names)):
        raise DataError(f"{path}: a column is named twice; name every division otherwise")
    if len(names) == 1:
        raise DataError(f"{path}: has the column {found[0]} alone; add one a division, with the group of every face")
    return found[0]


def _row(where: str, text: str, files: Mapping[str, int] | None) -> int:
    if files is None:
        if not text.isdecimal():
            raise DataError(f"{where}: row {quote(text)} is no whole number from 0; rows count those of the data set")
        return int(text)
    if text not in files:
        raise DataError(f"{where}: the data set has no file {quote(text)}{nearest(text, files)}")
    return files[text]


def _files(path: Path, faces: FaceSet) -> dict[str, int]:
    source = Path(faces.source)
    if is_fer2013(source):
        raise DataError(f"{path}: FER-2013 is counted by row, not by file; name the column row")
    listing = list_folder(source) if source.is_dir() else list_table(source)
    return {entry.name: row for row, entry in enumerate(listing.entries)}


def _checked(groups: Groups, found: set[int], faces: FaceSet) -> Groups:
    if not found:
        raise DataError(f"{groups.source}: none of its rows is a row of {faces.source}; rows are counted from 0")
    for name, column in groups.columns.items():
        kinds = len(set(column.values()))
        if kinds > MOST_GROUPS:
            raise DataError(
                f"{groups.source}: column {quote(name)} has {kinds} groups; put measurements into at most "
                f"{MOST_GROUPS} classes, and leave names out"
            )
    return groups
