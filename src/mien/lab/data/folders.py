"""Picture folders -> FaceSet: ``train/<emotion>/*.jpg`` and ``test/<emotion>/*.jpg`` as on Kaggle."""

import hashlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._emotions import SEVEN
from mien._errors import DataError
from mien._suggest import suggest
from mien.lab.data.faceset import SIZE, FaceSet, Split, assemble, list_sha256, split_index

# Split folders of the picture form, as the public copies name them (lower case).
TRAIN_FOLDERS = ("train", "training")


_FILES = ("fer2013.parquet", "fer2013.csv", "icml_face_data.csv")


_HOW_TO_GET = (
    "FER-2013 may not be shipped with mien: download it from Kaggle "
    "(challenges-in-representation-learning-facial-expression-recognition-challenge, or msambare/fer2013), "
    "then give its path or set MIEN_DATA to its folder"
)


def find_fer2013(path: str | os.PathLike[str] | None = None) -> Path:
    """Find the file or image folder that ``load_fer2013`` reads.

    A folder qualifies where it, or ``fer2013/`` in it, holds fer2013.parquet, fer2013.csv, icml_face_data.csv or
    ``train/``; the first of these is taken.

    Args:
        path: File or folder; ``None`` reads ``$MIEN_DATA``.

    Returns:
        An existing file, or the folder that holds ``train/``.

    Raises:
        DataError: Nothing is found; the message says how to get the data.
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


# The splits that the pictures of a folder may be from. Where there are two, the name of a file decides, else the first.
_TESTS = (Split.PUBLIC_TEST, Split.PRIVATE_TEST)


_VALIDATION_FOLDERS = ("validation", "valid", "val")


_FOLDERS: dict[str, tuple[Split, ...]] = {
    **dict.fromkeys(TRAIN_FOLDERS, (Split.TRAINING,)),
    **dict.fromkeys(_VALIDATION_FOLDERS, _TESTS),
    "test": _TESTS,
    "publictest": (Split.PUBLIC_TEST,),
    "privatetest": (Split.PRIVATE_TEST,),
}


# Other spellings in public copies of the set.
_ALIASES = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}


_LABELS = {str(emotion): label for label, emotion in enumerate(SEVEN)}


_EMOTION_NAMES = (*_LABELS, *_ALIASES)


_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_(\d{1,18})", re.ASCII)


_CLUTTER = ("thumbs.db", "desktop.ini")  # left behind by Windows; names with a leading dot are skipped as well


class _Picture(NamedTuple):
    """One file; sorting by the fields gives the order of the set."""

    split: int
    number: int  # of a name like PublicTest_123.jpg, else 0
    label: int
    name: str  # path below the folder, with forward slashes
    named: bool  # whether file or folder say which split it is from


def read_folders(folder: Path) -> FaceSet:
    """Read PNG and JPEG files below ``train/`` and ``test/`` (and ``validation/``), one folder per emotion.

    A file name decides the split (``PublicTest_123.jpg``). Other files below ``test/`` become PublicTest, and ``note``
    says
    so; where there is a ``validation/``, that is PublicTest and ``test/`` is PrivateTest. The order is split, number
    in the name, emotion, name. These numbers are not rows of fer2013.csv.

    Args:
        folder: The folder that holds ``train/``.

    Returns:
        The faces in the seven classes.

    Raises:
        DataError: A folder is unknown or empty, a file is not a readable image of 48 x 48 pixels, or its name
            contradicts its folder.

    Example:
        >>> faces = read_folders(Path("fer2013"))  # doctest: +SKIP
    """
    pictures = sorted(_list_pictures(folder))
    images = np.empty((len(pictures), SIZE, SIZE), np.uint8)
    digests = []
    for image, picture in zip(images, pictures, strict=True):
        content = (folder / picture.name).read_bytes()
        image[:] = read_image(content, where=str(folder / picture.name))
        digests.append((picture.name, hashlib.sha256(content).hexdigest()))
    return assemble(
        images,
        np.array([picture.label for picture in pictures], np.int64),
        usage=np.array([picture.split for picture in pictures], np.int64),
        pixels_from_jpeg=np.array([not picture.name.lower().endswith(".png") for picture in pictures], np.bool_),
        sha256=list_sha256(digests),
        source=str(folder),
        note=_note(sum(not picture.named for picture in pictures)),
    )


def _note(unnamed: int) -> str | None:
    if not unnamed:
        return None
    return f"{unnamed:,} test pictures do not name their split: all are taken for PublicTest, none for PrivateTest"


def _list_pictures(folder: Path) -> Iterator[_Picture]:
    splits = [entry for entry in visible_entries(folder) if entry.name.lower() in _FOLDERS and entry.is_dir()]
    has_validation = any(split.name.lower() in _VALIDATION_FOLDERS for split in splits)
    for split in splits:
        possible = _FOLDERS[split.name.lower()]
        if has_validation and split.name.lower() == "test":
            possible = possible[::-1]
        for file, label in _list_split(split):
            said, number = _read_name(file, possible)
            name = file.relative_to(folder).as_posix()
            named = said is not None or len(possible) == 1 or has_validation
            yield _Picture(split_index(said or possible[0]), number, label, name, named)


def _list_split(split: Path) -> Iterator[tuple[Path, int]]:
    """Every picture of a split's folder with its label."""
    emotions = visible_entries(split)
    if not emotions:
        raise DataError(f"{split}: is empty; a folder for each of {', '.join(SEVEN)} is expected")
    for emotion in emotions:
        label = _read_emotion(emotion)
        files = visible_entries(emotion)
        if not files:
            raise DataError(f"{emotion}: is empty; unpack the archive again, or remove the folder")
        for file in files:
            yield file, label


def visible_entries(folder: Path) -> list[Path]:
    """Return the entries of a folder in order, without hidden files and those that file managers leave.

    Args:
        folder: The folder.
    """
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER]


# Grey stored in colour converts to L without loss; 16-bit and CMYK do not, and no copy of FER-2013 uses them.
_MODES = ("L", "LA", "P", "RGB", "RGBA", "1")


def read_image(content: bytes, *, where: str) -> NDArray[np.uint8]:
    """Decode one face of FER-2013.

    Args:
        content: Bytes of a PNG or JPEG file.
        where: Place of the image, for error messages.

    Returns:
        uint8 ``[48, 48]``.

    Raises:
        DataError: The bytes are damaged, or the image has another size or mode.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
            if picture.size != (SIZE, SIZE):
                width, height = picture.size
                raise DataError(f"{where}: the image is {width}x{height}; FER-2013 faces are {SIZE}x{SIZE}")
            if picture.mode not in _MODES:
                raise DataError(f"{where}: the image has mode {picture.mode}; 8-bit grey (L) is expected")
            return np.asarray(picture if picture.mode == "L" else picture.convert("L"))
    # Pillow answers a damaged PNG chunk with SyntaxError and some damaged headers with ValueError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{where}: not a readable PNG or JPEG ({reason}); get the file again") from error


def _read_emotion(folder: Path) -> int:
    name = folder.name.lower()
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file where only folders of emotions belong; remove it or sort it into one")
    if name not in _EMOTION_NAMES:
        raise DataError(
            f'{folder}: "{folder.name}" is no emotion of FER-2013; '
            f"the folders are {', '.join(SEVEN)}{suggest(name, _EMOTION_NAMES)}"
        )
    return _LABELS[_ALIASES.get(name, name)]


def _read_name(file: Path, possible: tuple[Split, ...]) -> tuple[Split | None, int]:
    """The split that a file names, if it names one, and its number."""
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise DataError(f"{file}: is not a .png, .jpg or .jpeg file; remove it")
    match = _NAME.fullmatch(file.stem)
    if match is None:
        return None, 0
    said = Split(match[1])
    if said not in possible:
        raise DataError(f"{file}: its name says {said}, its folder {' or '.join(sorted(possible))}; move or rename it")
    return said, int(match[2])
