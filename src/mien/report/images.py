"""Readings as annotated copies of their images."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path, PurePath
from typing import Self

from PIL import Image

from mien._errors import require_kind
from mien._face import Pixels, Reading
from mien._output import MARK, Draft, is_input, output_errors, png_mark
from mien.detect.tiles import Pyramid
from mien.overlay import draw_faces

_JPEG_QUALITY = 92  # of 100: lines stay sharp, and a file is about as large as that of a camera
_MAX_NAME_BYTES = 255  # of a file name, in usual file systems


class AnnotatedImages:
    """Writes ``<name>.mien.<jpg|png>`` for every image that was read, with boxes, labels and maps over its faces.

    A JPEG image stays JPEG, every other format becomes PNG. The ``.mien`` in the name protects originals of the same
    name. Copies of images with the same name are numbered, also those of earlier runs.

    Args:
        folder: The folder of the copies. It is created if it does not exist.
        roots: Folders that were read: copies of images below one of them lie in the same subfolders.

    Raises:
        OutputError: ``folder`` cannot be created or written.

    Example:
        >>> from mien import AnnotatedImages, Reader
        >>> with AnnotatedImages("annotated") as images:  # doctest: +SKIP
        ...     for reading in Reader().read_many(["photo.jpg"], keep_pixels=True):
        ...         images.add(reading)
    """

    def __init__(self, folder: str | os.PathLike[str], *, roots: Iterable[str | os.PathLike[str]] = ()) -> None:
        self._folder = ImageFolder(folder, roots)

    def __enter__(self) -> Self:
        self._folder.create()
        return self

    def add(self, reading: Reading) -> None:
        """Write the annotated copy of one image.

        Args:
            reading: A reading with its pixels (``keep_pixels=True``). One without pixels is skipped.

        Raises:
            OutputError: The file cannot be written.
        """
        require_kind("reading", reading, Reading, "what Reader.read returns")
        if reading.pixels is None:
            return
        image = draw_faces(reading.pixels, reading, maps=True)
        suffix = Path(reading.source).suffix.lower()
        self._folder.save(image, reading.source, f".mien{suffix}" if suffix in (".jpg", ".jpeg") else ".mien.png")

    def __exit__(self, *_: object) -> None:
        """Do nothing: each image is complete when it is added."""


class ImageFolder:
    """A folder for the images that are written for readings.

    Only the image of the same source is ever replaced: a file carries a hash of the path of its source. A name that is
    taken, or that is a link, gets a number.

    Args:
        path: The folder.
        roots: Folders whose structure is kept: the image of ``ROOT/a/b.jpg`` is written to the subfolder ``a``.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str], roots: Iterable[str | os.PathLike[str]] = ()) -> None:
        require_kind("folder", path, (str, os.PathLike), "a path")
        require_kind("roots", roots, (list, tuple), "a list of paths")
        for root in roots:
            require_kind("roots", root, (str, os.PathLike), "a list of paths")
        self.path = Path(path)
        self._roots = sorted(map(PurePath, roots), key=lambda root: -len(root.parts))
        self._marks: dict[Path, str] = {}

    def create(self) -> None:
        """Create the folder if it does not exist.

        Raises:
            OutputError: It cannot be created.
        """
        with output_errors(str(self.path)):
            self.path.mkdir(parents=True, exist_ok=True)

    def save(self, image: Image.Image, source: str, ending: str) -> None:
        """Write an image as PNG or JPEG. The file appears complete or not at all.

        Its name is the stem of ``source``, a number where the name is taken, and ``ending``.

        Args:
            image: The image.
            source: Name of the image that was read.
            ending: End of the new name, such as ``.mien.png``. Its suffix decides the format.

        Raises:
            OutputError: The file cannot be written.
        """
        mark, path = _mark_of(source), None
        while path is None:
            with suppress(FileExistsError):  # another process has taken the name meanwhile
                path = self._save(image, source, ending, mark)
        self._marks[path] = mark

    def _save(self, image: Image.Image, source: str, ending: str, mark: str) -> Path:
        with output_errors(str(self.path)):
            folder = self._folder_of(source)
            names = _numbered(Path(source).stem.strip("<>") or "image", ending)
            path = next(folder / name for name in names if self._may_write(folder / name, mark))
            is_free = not os.path.lexists(path)
        with Draft(path) as draft:
            with output_errors(draft.name):
                if path.suffix == ".png":
                    image.save(draft.file, "PNG", compress_level=3, pnginfo=png_mark(mark))
                else:
                    image.save(draft.file, "JPEG", quality=_JPEG_QUALITY, comment=mark)
            if is_free:
                path.touch(exist_ok=False)
        return path

    def _folder_of(self, source: str) -> Path:
        """The folder of the image of a source, which exists then. Links are not followed."""
        folder, inside = self.path, PurePath(source)
        root = next((root for root in self._roots if inside.is_relative_to(root)), inside.parent)
        for part in inside.relative_to(root).parent.parts:
            if part == "..":  # it would leave the folder
                continue
            names = (folder / name for name in _numbered(part, ""))
            folder = next((path for path in names if _is_real_folder(path)), folder)
            folder.mkdir(exist_ok=True)
        return folder

    def _may_write(self, path: Path, mark: str) -> bool:
        """Whether a path is free, or has the image of the same source and is no input."""
        if not os.path.lexists(path):
            return True
        if path.is_symlink() or not path.is_file() or is_input(path) or mark == MARK:
            return False
        if path not in self._marks:
            with path.open("rb") as stream:
                found = re.search(rf"{MARK}, source [0-9a-f]{{16}}".encode(), stream.read(4096))
            self._marks[path] = found[0].decode() if found else ""
        return self._marks[path] == mark


def _mark_of(source: str) -> str:
    """The mark of the image of a source; without a hash where the source is no file."""
    if not os.path.isfile(source):  # noqa: PTH113 (False for names that are no paths)
        return MARK
    return f"{MARK}, source {hashlib.sha256(os.fsencode(os.path.realpath(source))).hexdigest()[:16]}"


def _numbered(stem: str, ending: str) -> Iterator[str]:
    """``stem`` and ``ending``, then with the numbers 2, 3 ... between them, shortened to what file systems take."""
    for number in count(1):
        tail = f"-{number}{ending}" if number > 1 else ending
        while len(os.fsencode(stem + tail)) > _MAX_NAME_BYTES:
            stem = stem[:-1]
        yield stem + tail


def _is_real_folder(path: Path) -> bool:
    """Whether a path is a folder itself, not a link to one, or free."""
    return not os.path.lexists(path) or (path.is_dir() and not path.is_symlink())


def thumbnail(pixels: Pixels, max_wh: tuple[int, int]) -> Image.Image:
    """Scale an image down.

    Args:
        pixels: The image, RGB uint8 ``[H, W, 3]``.
        max_wh: Largest width and height in pixels. A smaller image is not enlarged.

    Returns:
        The thumbnail.
    """
    image = Pyramid(pixels).at(min(1, 2 * max(max_wh) / max(pixels.shape)))  # without a copy of a large image
    image.thumbnail(max_wh, Image.Resampling.LANCZOS)
    return image.convert("RGB")


def short_name(source: str) -> str:
    """Return the file name of a source without its folder.

    Args:
        source: The source of a reading, a path of any system or a name such as ``<bytes>``.

    Returns:
        The last part of the path.
    """
    return PurePath(source.replace("\\", "/")).name or source
