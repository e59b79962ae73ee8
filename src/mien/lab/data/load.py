"""path -> FaceSet, whichever of its four forms FER-2013 has there."""

import os
from pathlib import Path

from mien._errors import DataError
from mien.lab.data.faces import FaceSet
from mien.lab.data.find import find_fer2013
from mien.lab.data.official import check_official
from mien.lab.data.read_parquet import read_parquet


def load_fer2013(
    path: str | os.PathLike[str], *, votes: str | os.PathLike[str] | None = None, official: bool = True
) -> FaceSet:
    """Load FER-2013 with all seven classes in the order of the official index."""
    found = find_fer2013(path)
    faces = _read(found)
    if official:
        check_official(faces)
    return faces


def _read(path: Path) -> FaceSet:
    with path.open("rb") as stream:
        head = stream.read(8)
    if head[:4] == b"PAR1":
        return read_parquet(path)
    raise DataError(f"{path}: not a Parquet file")
