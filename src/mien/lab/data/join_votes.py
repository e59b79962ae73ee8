"""FER+ votes of ``fer2013new.csv`` -> a column of the FaceSet, joined by row."""

import hashlib
from dataclasses import replace
from pathlib import Path

import torch

from mien._errors import DataError
from mien.lab.data.columns import check_vote, read_split, require_columns
from mien.lab.data.faces import FERPLUS_COLUMNS, FaceSet, Split
from mien.lab.data.read_csv import file_sha256, iterate_rows

# The published file calls the last column NF.
_COLUMNS = (*FERPLUS_COLUMNS[:-1], "nf")


def join_votes(faces: FaceSet, path: Path) -> FaceSet:
    """``faces`` with the votes of the same rows; its ``sha256`` then covers both files.

    Row i of the votes belongs to row i of fer2013.csv. The numbers in the column "Image name" do not count rows and
    are not read. Raises ``DataError`` when columns, number of rows or the Usage of a row disagree.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; get fer2013new.csv from github.com/microsoft/FERPlus")
    rows = iterate_rows(path)
    names = next(rows)[1]
    require_columns(names, ("usage", *_COLUMNS), source=str(path))
    usage, votes = [], []
    for where, row in rows:
        usage.append(read_split(row[names.index("usage")], where=where))
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


def list_sha256(files: list[tuple[str, str]]) -> str:
    """One hash for several ``(name, sha256)``: that of their lines as ``sha256sum`` prints them, sorted by name."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
