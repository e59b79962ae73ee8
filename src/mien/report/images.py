"""Readings as annotated copies of their images."""

import base64
import io
import os
from pathlib import Path, PurePath
from typing import Self

from PIL import Image

from mien._face import Reading
from mien._output import Draft, output_errors
from mien.overlay import annotate

_JPEG_QUALITY = 92  # of 100: lines stay sharp, and a file is about as large as that of a camera


class AnnotatedImages:
    """Writes ``<name>.mien.<jpg|png>`` for every image that was read, with boxes, labels and maps over its faces.

    A JPEG image stays JPEG, every other format becomes PNG. The ``.mien`` in the name protects originals of the same
    name. Images of one run that have the same name are numbered.

    Args:
        folder: The folder of the copies. It is created if it does not exist.

    Raises:
        OutputError: ``folder`` cannot be created or written.

    Example:
        >>> from mien import AnnotatedImages, Reader
        >>> with AnnotatedImages("annotated") as images:  # doctest: +SKIP
        ...     for reading in Reader().read_many(["photo.jpg"], keep_pixels=True):
        ...         images.add(reading)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = ImageFolder(folder)

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
        if reading.pixels is None:
            return
        image = Image.fromarray(annotate(reading.pixels, reading, maps=True))
        suffix = Path(reading.source).suffix.lower()
        self._folder.save(image, reading.source, f".mien{suffix}" if suffix in (".jpg", ".jpeg") else ".mien.png")

    def __exit__(self, *_: object) -> None:
        """Do nothing: each image is complete when it is added."""


class ImageFolder:
    """A folder for the images that are written for readings. Each file has a name that was not used before.

    Args:
        path: The folder.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._used: set[str] = set()

    def create(self) -> None:
        """Create the folder if it does not exist.

        Raises:
            OutputError: It cannot be created.
        """
        with output_errors(str(self.path)):
            self.path.mkdir(parents=True, exist_ok=True)

    def save(self, image: Image.Image, source: str, ending: str) -> None:
        """Write an image as PNG or JPEG. The file appears complete or not at all.

        Its name is the stem of ``source``, a number where the name was used before, and ``ending``.

        Args:
            image: The image.
            source: Name of the image that was read.
            ending: End of the new name, such as ``.mien.png``. Its suffix decides the format.

        Raises:
            OutputError: The file cannot be written.
        """
        stem = Path(source).stem.strip("<>") or "image"
        name, number = f"{stem}{ending}", 1
        while name.lower() in self._used:  # some file systems do not distinguish A.jpg from a.jpg
            number += 1
            name = f"{stem}-{number}{ending}"
        self._used.add(name.lower())
        with Draft(self.path / name) as draft, output_errors(draft.name):
            if name.endswith(".png"):
                image.save(draft.file, "PNG", compress_level=3)
            else:
                image.save(draft.file, "JPEG", quality=_JPEG_QUALITY)


def data_uri(image: Image.Image, kind: str, **options: object) -> str:
    """Encode an image for an HTML page.

    Args:
        image: The image.
        kind: The format, ``"JPEG"`` or ``"PNG"``.
        **options: Options of Pillow's ``save``.

    Returns:
        A ``data:`` address.
    """
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def short_name(source: str) -> str:
    """Return the file name of a source without its folder.

    Args:
        source: The source of a reading, a path of any system or a name such as ``<bytes>``.

    Returns:
        The last part of the path.
    """
    return PurePath(source.replace("\\", "/")).name or source
