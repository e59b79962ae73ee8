"""Finding FER-2013, and reading it from image folders: ``train/<emotion>/*.jpg`` and ``test/<emotion>/*.jpg``."""

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mien._emotions import SEVEN
from mien._errors import DataError, checked
from mien._output import seen_before
from mien._suggest import suggest
from mien.lab.data.faceset import EMOTION_NAMES, SIZE, FaceSet, Split, assemble, list_sha256, split_index

_FILES = ("fer2013.parquet", "fer2013.csv", "icml_face_data.csv")
_HOW_TO_GET = (
    "FER-2013 may not be shipped with mien: download it from Kaggle "
    "(challenges-in-representation-learning-facial-expression-recognition-challenge, or msambare/fer2013), "
    "then give its path or set MIEN_DATA to its folder"
)
# Folders of splits in public copies (lower case), and the splits of their images. Of two splits, the name of a file
# decides, else the first counts.
_TRAIN_FOLDERS = ("train", "training")
_VALIDATION_FOLDERS = ("validation", "valid", "val")
_TESTS = (Split.PUBLIC_TEST, Split.PRIVATE_TEST)
_FOLDERS: dict[str, tuple[Split, ...]] = {
    **dict.fromkeys(_TRAIN_FOLDERS, (Split.TRAINING,)),
    **dict.fromkeys((*_VALIDATION_FOLDERS, "test"), _TESTS),
    "publictest": (Split.PUBLIC_TEST,),
    "privatetest": (Split.PRIVATE_TEST,),
}
_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_(\d{1,18})", re.ASCII)
_EMOTIONS = {name: emotion for name, emotion in EMOTION_NAMES.items() if emotion in SEVEN}
UNREADABLE_CURE = "; get it again, remove it, or choose to skip unreadable images"
_CLUTTER = ("thumbs.db", "desktop.ini")  # files of Windows; names with a leading dot are skipped as well
# Grey stored in colour converts to L without loss; 16-bit and CMYK do not, and no copy of FER-2013 uses them.
_LISTED = 5  # unreadable images that a message names
_MODES = ("L", "LA", "P", "RGB", "RGBA", "1")


@checked
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

    Example:
        >>> find_fer2013("fer2013")  # doctest: +SKIP
        PosixPath('fer2013/fer2013.parquet')
    """
    given = path if path is not None else os.environ.get("MIEN_DATA")
    if not given:
        raise DataError(f"no path of FER-2013 was given and MIEN_DATA is not set; {_HOW_TO_GET}")
    start = Path(given).expanduser()
    if start.is_file():
        return start
    if not start.is_dir():
        raise DataError(f"{start}: there is no such file or folder; {_HOW_TO_GET}")
    for folder in filter(Path.is_dir, (start, start / "fer2013")):
        for name in _FILES:
            if (folder / name).is_file():
                return folder / name
        if any(entry.name.lower() in _TRAIN_FOLDERS and entry.is_dir() for entry in folder.iterdir()):
            return folder
    raise DataError(f"{start}: holds none of {', '.join(_FILES)}, train/; {_HOW_TO_GET}")


class _File(NamedTuple):
    """One image file; sorting by the fields gives the order of the set."""

    split: int
    number: int  # from a name like PublicTest_123.jpg, else 0
    label: int
    name: str  # path below the folder, with forward slashes
    split_known: bool  # from the name of file or folder


def read_folders(folder: Path, *, skip_unreadable: bool = False) -> FaceSet:
    """Read PNG and JPEG files below ``train/`` and ``test/`` (and ``validation/``), one folder per emotion.

    A file name decides the split (``PublicTest_123.jpg``). Other files below ``test/`` become PublicTest, and ``note``
    says so. Where there is a ``validation/``, that is PublicTest and ``test/`` is PrivateTest. The order is split,
    number in the name, emotion, name. These numbers are not rows of fer2013.csv.

    Args:
        folder: The folder that holds ``train/``.
        skip_unreadable: Whether images that cannot be read are left out, which ``note`` counts.

    Returns:
        The faces in the seven classes.

    Raises:
        DataError: A folder is unknown or empty, a file is not a readable image of 48 x 48 pixels, or its name
            contradicts its folder.

    Example:
        >>> faces = read_folders(Path("fer2013"))  # doctest: +SKIP
    """
    seen = SeenFolders()
    listed, files, images, digests, problems = sorted(_list_files(folder, seen)), [], [], [], []
    for file in listed:
        content = (folder / file.name).read_bytes()
        try:
            images.append(read_image(content, where=str(folder / file.name)))
        except DataError as error:
            problems.append(str(error))
            continue
        files.append(file)
        digests.append((file.name, hashlib.sha256(content).hexdigest()))
    note = report_unreadable(problems, len(listed), folder, is_skipped=skip_unreadable)
    if unknown := sum(not file.split_known for file in files):
        unnamed = f"{unknown:,} test images do not name their split: all are used as PublicTest, none as PrivateTest"
        note = "; ".join(filter(None, (note, unnamed)))
    if seen.left_out:
        note = "; ".join(filter(None, (note, f"{seen.left_out:,} folders that were read already are left out")))
    return assemble(
        np.stack(images) if images else np.empty((0, SIZE, SIZE), np.uint8),
        np.array([file.label for file in files], np.int64),
        usage=np.array([file.split for file in files], np.int64),
        pixels_from_jpeg=np.array([not file.name.lower().endswith(".png") for file in files], np.bool_),
        sha256=list_sha256(digests),
        source=str(folder),
        note=note or None,
    )


def report_unreadable(problems: Sequence[str], count: int, source: Path, *, is_skipped: bool) -> str:
    """Refuse unreadable images, or describe those that are left out.

    Args:
        problems: What is wrong with each of them, as ``read_image`` says it.
        count: Number of all images.
        source: The data set.
        is_skipped: Whether the unreadable ones are left out.

    Returns:
        Their number, with the first few; empty where there are none.

    Raises:
        DataError: There are unreadable images, which are not skipped.
    """
    if not problems:
        return ""
    listed = "; ".join(problem.removesuffix(UNREADABLE_CURE) for problem in problems[:_LISTED])
    more = f"; and {len(problems) - _LISTED:,} more" if len(problems) > _LISTED else ""
    verb = "is" if len(problems) == 1 else "are"
    if is_skipped and len(problems) < count:
        relative = f"{listed}{more}".replace(str(source), source.name)  # the note is part of results
        return f"{len(problems):,} of {count:,} images {verb} unreadable and left out: {relative}"
    raise DataError(f"{len(problems):,} of {count:,} images {verb} unreadable: {listed}{more}{UNREADABLE_CURE}")


class SeenFolders:
    """The folders of a data set: links to folders are followed, each folder is read once.

    Attributes:
        left_out: Number of folders that were not read again.
    """

    def __init__(self) -> None:
        self._identities: set[tuple[int, int] | None] = set()
        self.left_out = 0

    def first(self, entries: Sequence[Path]) -> list[Path]:
        """Return the files, and the folders that were not read before.

        Args:
            entries: Entries of a folder.

        Returns:
            Those to read, in their order.
        """
        kept = [each for each in entries if not each.is_dir() or not seen_before(each, self._identities)]
        self.left_out += len(entries) - len(kept)
        return kept


def _list_files(folder: Path, seen: SeenFolders) -> Iterator[_File]:
    """The files, in any order."""
    tops = [entry for entry in visible_entries(folder) if entry.name.lower() in _FOLDERS and entry.is_dir()]
    tops = seen.first(tops)
    has_validation = any(top.name.lower() in _VALIDATION_FOLDERS for top in tops)
    for top in tops:
        possible = _FOLDERS[top.name.lower()]
        if has_validation and top.name.lower() == "test":
            possible = possible[::-1]
        emotions = visible_entries(top)
        if not emotions:
            raise DataError(f"{top}: is empty; a folder for each of {', '.join(SEVEN)} is expected")
        for emotion in seen.first(emotions):
            label = _read_label(emotion)
            files = visible_entries(emotion)
            if not files:
                raise DataError(f"{emotion}: is empty; unpack the archive again, or remove the folder")
            for file in files:
                split, number = _read_name(file, possible)
                split_known = split is not None or len(possible) == 1 or has_validation
                name = file.relative_to(folder).as_posix()
                yield _File(split_index(split or possible[0]), number, label, name, split_known)


def _read_label(folder: Path) -> int:
    name = folder.name.lower()
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file where only folders of emotions belong; remove it or move it into one")
    if name not in _EMOTIONS:
        raise DataError(
            f'{folder}: "{folder.name}" is no emotion of FER-2013; '
            f"the folders are {', '.join(SEVEN)}{suggest(name, _EMOTIONS)}"
        )
    return SEVEN.index(_EMOTIONS[name])


def _read_name(file: Path, possible: tuple[Split, ...]) -> tuple[Split | None, int]:
    """The split and the number in the name of a file; ``None`` and 0 where it has none."""
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise DataError(f"{file}: is not a .png, .jpg or .jpeg file; remove it")
    match = _NAME.fullmatch(file.stem)
    if match is None:
        return None, 0
    split = Split(match[1])
    if split not in possible:
        raise DataError(f"{file}: its name says {split}, its folder {' or '.join(sorted(possible))}; move or rename it")
    return split, int(match[2])


def visible_entries(folder: Path) -> list[Path]:
    """List a folder by name, without hidden files and files of file managers.

    Args:
        folder: The folder.

    Returns:
        Its files and folders.
    """
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER]


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
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            if image.size != (SIZE, SIZE):
                width, height = image.size
                raise DataError(f"{where}: the image is {width}x{height}; FER-2013 faces are {SIZE}x{SIZE}")
            if image.mode not in _MODES:
                raise DataError(f"{where}: the image has mode {image.mode}; 8-bit grey (L) is expected")
            return np.asarray(image if image.mode == "L" else image.convert("L"))
    # Pillow raises SyntaxError for a damaged PNG chunk and ValueError for some damaged headers.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = reason_unreadable(error)
        raise DataError(f"{where}: not a readable PNG or JPEG ({reason}){UNREADABLE_CURE}") from error


def reason_unreadable(error: Exception) -> str:
    """Return why Pillow cannot read an image.

    Args:
        error: The error of Pillow.

    Returns:
        At most 120 characters, without the name of a stream.
    """
    if isinstance(error, UnidentifiedImageError):
        return "empty, or in no known format"
    return " ".join(str(error).split())[:120] or type(error).__name__
