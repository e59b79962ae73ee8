"""A table of pictures -> Listing: a CSV or TSV with the columns path and label, and perhaps split and group."""

from collections.abc import Sequence
from pathlib import Path

from mien._errors import DataError
from mien.lab.data.columns import nearest
from mien.lab.data.faces import Split
from mien.lab.data.listing import Entry, Listing, read_split_name
from mien.lab.data.read_csv import file_sha256, iterate_rows

# What people call the columns; the first found counts.
_NAMES = {
    "path": (
        "path",
        "image",
        "file",
        "filename",
        "file_name",
        "image_path",
        "filepath",
        "img",
        "picture",
        "subdirectory_filepath",
    ),
    "label": ("label", "emotion", "class", "expression", "category"),
    "split": ("split", "usage", "subset", "partition"),
    "group": ("group", "person", "subject", "identity", "participant"),
}


def header(path: Path) -> tuple[list[str], str]:
    """The names of a table's columns (stripped, in lower case) and what parts them: comma, semicolon or tab."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        line = stream.readline(65_536)
    delimiter = max(",;\t", key=line.count)
    return [name.strip().strip('"').lower() for name in line.split(delimiter)], delimiter


def list_table(path: Path) -> Listing:
    """List the faces of a table in the order of its rows; opens no picture.

    Paths are relative to the table's folder. Without a split every row is Training. Raises ``DataError`` naming row and
    cause for missing columns, empty cells, unknown splits and pictures that are not there.
    """
    rows = iterate_rows(path, header(path)[1])
    names = next(rows)[1]
    place = {column: _find(names, column, path) for column in _NAMES}
    entries = [_entry(path, fields, place, where) for where, fields in rows]
    return Listing(path, entries, ((path.name, file_sha256(path)),))


def _find(names: Sequence[str], column: str, path: Path) -> int | None:
    for name in _NAMES[column]:
        if name in names:
            return names.index(name)
    if column in ("split", "group"):
        return None
    hint = next((nearest(name, _NAMES[column]) for name in names if nearest(name, _NAMES[column])), "")
    raise DataError(
        f'{path}: column "{column}" is missing{hint}; found {", ".join(names[:16])}; '
        f"it may be called {', '.join(_NAMES[column])}"
    )


def _entry(table: Path, fields: Sequence[str], place: dict[str, int | None], where: str) -> Entry:
    cells = {column: "" if at is None else fields[at].strip() for column, at in place.items()}
    for column in ("path", "label"):
        if not cells[column]:
            raise DataError(f"{where}: the {column} is empty; fill it in, or remove the row")
    file = table.parent / Path(cells["path"]).expanduser()
    if not file.is_file():
        raise DataError(f"{where}: there is no file {file}; paths are relative to the folder of the table")
    split = Split.TRAINING if place["split"] is None else read_split_name(cells["split"], where=where)
    return Entry(file, cells["path"], cells["label"], split, cells["group"], f"{where}, {file}")
