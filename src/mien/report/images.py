"""Readings as annotated copies of their images."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from mien._face import Reading
from mien._output import Draft, output_errors
from mien.overlay import annotate

_JPEG_SUFFIXES = (".jpg", ".jpeg")
_JPEG_QUALITY = 92  # of 100: lines stay sharp, and files are about as large as a camera's


class AnnotatedImages:
    """Writes ``<name>.mien.<jpg|png>`` for every image that was read, with boxes, labels and maps over its faces.

    JPEG stays JPEG, every other format becomes PNG. The ``.mien`` in the name protects originals of the same name;
    images of one run that share a name are numbered.

    Args:
        folder: Where the copies go. It is created if it does not exist.

    Raises:
        OutputError: ``folder`` cannot be created or written.

    Example:
        >>> from mien import AnnotatedImages, Reader
        >>> with AnnotatedImages("annotated") as images:  # doctest: +SKIP
        ...     for reading in Reader().read_many(["photo.jpg"], keep_pixels=True):
        ...         images.add(reading)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._names = ImageNames()

    def __enter__(self) -> Self:
        with output_errors(str(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, reading: Reading) -> None:
        """Write the annotated copy of one image.

        Args:
            reading: A reading with its pixels (``keep_pixels=True``). One without pixels is left out.

        Raises:
            OutputError: The file cannot be written.
        """
        if reading.pixels is None:
            return
        image = Image.fromarray(annotate(reading.pixels, reading, maps=True))
        suffix = Path(reading.source).suffix.lower()
        suffix = suffix if suffix in _JPEG_SUFFIXES else ".png"
        save_image(image, self._folder / self._names.unused(reading.source, f".mien{suffix}"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class ImageNames:
    """File names for images that are written for readings, each used once."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def unused(self, source: str, ending: str) -> str:
        """Return a name that was not returned before.

        Args:
            source: Name of the image that was read.
            ending: End of the new name, such as ``.mien.png``.

        Returns:
            The stem of ``source``, a number where the name was used before, and ``ending``.
        """
        stem = Path(source).stem.strip("<>") or "image"
        name, number = f"{stem}{ending}", 1
        while name.lower() in self._used:  # some file systems do not distinguish A.jpg from a.jpg
            number += 1
            name = f"{stem}-{number}{ending}"
        self._used.add(name.lower())
        return name


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image atomically as PNG or JPEG.

    Args:
        image: The image.
        path: The file; its suffix decides the format.

    Raises:
        OutputError: The file cannot be written.
    """
    draft = Draft(path)
    try:
        with output_errors(draft.name):
            if path.suffix == ".png":
                image.save(draft.file, "PNG", compress_level=3)
            else:
                image.save(draft.file, "JPEG", quality=_JPEG_QUALITY)
    except BaseException:
        draft.drop()
        raise
    draft.keep()
