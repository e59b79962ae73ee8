"""Where the user keeps FER-2013: a path by argument, else the environment variable MIEN_DATA, else a clear error."""

import os
from pathlib import Path

from mien._errors import DataError

# Split folders of the picture form, as the public copies name them (lower case).
TRAIN_FOLDERS = ("train", "training")
_FILES = ("fer2013.parquet", "fer2013.csv", "icml_face_data.csv")
_HOW_TO_GET = (
    "FER-2013 may not be shipped with mien: download it from Kaggle "
    "(challenges-in-representation-learning-facial-expression-recognition-challenge, or msambare/fer2013), "
    "then give its path or set MIEN_DATA to its folder"
)


def find_fer2013(path: str | os.PathLike[str] | None = None) -> Path:
    """The file or picture folder that ``load_fer2013`` can read: ``path``, or else ``$MIEN_DATA``.

    A folder is fine when it, or ``fer2013/`` in it, holds fer2013.parquet, fer2013.csv, icml_face_data.csv or
    ``train/``, tried in this order. Raises ``DataError`` that says how to get the data.
    """
    given = path if path is not None else os.environ.get("MIEN_DATA")
    if not given:
        raise DataError(f"no path of FER-2013 was given and MIEN_DATA is not set; {_HOW_TO_GET}")
    start = Path(given).expanduser()
    if start.is_file():
        return start
    if not start.is_dir():
        raise DataError(f"{start}: there is no such file or folder; {_HOW_TO_GET}")
    for folder in (start, start / "fer2013"):
        for name in _FILES:
            if (folder / name).is_file():
                return folder / name
        if is_picture_folder(folder):
            return folder
    raise DataError(f"{start}: holds none of {', '.join(_FILES)}, train/; {_HOW_TO_GET}")


def is_picture_folder(folder: Path) -> bool:
    """Whether ``folder`` is laid out as ``train/<emotion>/*.jpg``."""
    return folder.is_dir() and any(entry.name.lower() in TRAIN_FOLDERS and entry.is_dir() for entry in folder.iterdir())
