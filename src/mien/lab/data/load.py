"""path -> FaceSet, whichever of its four forms FER-2013 has there."""

import os
from pathlib import Path

from mien._errors import DataError
from mien.lab.data.faces import FaceSet
from mien.lab.data.find import find_fer2013
from mien.lab.data.join_votes import join_votes
from mien.lab.data.official import check_official
from mien.lab.data.read_csv import read_csv
from mien.lab.data.read_folders import read_folders
from mien.lab.data.read_parquet import read_parquet

# First bytes of archives that FER-2013 is downloaded as.
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!")


def load_fer2013(
    path: str | os.PathLike[str], *, votes: str | os.PathLike[str] | None = None, official: bool = True
) -> FaceSet:
    """Load FER-2013 with all seven classes, in the order of the official index, as uint8 tensors on the CPU.

    ``path`` is a Parquet file, the original CSV, the later Kaggle CSV, the Kaggle folder of ``train/`` and ``test/``,
    or a folder that holds one of them; the content decides which. ``votes`` is FER+'s fer2013new.csv, joined by row to
    a table without votes. ``official`` demands the official number of faces of every split and class; pass ``False``
    for a subset. Nothing is written or cached.

    Raises ``DataError`` naming file, row and cause for anything that is not as it should be.
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
