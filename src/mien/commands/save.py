"""Annotated copies of pictures in a folder, as a sink of readings."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from mien._face import Reading
from mien.overlay import annotate
from mien.report.output import Draft, output_errors

_JPEG_SUFFIXES = (".jpg", ".jpeg")
_JPEG_QUALITY = 92  # of 100: lines stay sharp, the file about as large as a camera's


class Annotated:
    """Writes ``<name>.mien.<jpg|png>`` for every picture that was read: boxes, labels and maps over the faces.

    JPEG stays JPEG, every other format becomes PNG. The ``.mien`` keeps originals safe that have the same name;
    pictures of one run that share a name are numbered. Readings must hold their pixels. Raises ``OutputError`` when the
    folder cannot be made or written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """``folder`` is made when it is not there."""
        self._folder = Path(folder)
        self._taken: set[str] = set()

    def __enter__(self) -> Self:
        with output_errors(str(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def add(self, reading: Reading) -> None:
        """Write the annotated copy of one picture; a reading without pixels (an error) has none."""
        if reading.pixels is None:
            return
        path = self._folder / self._free_name(reading.source)
        image = Image.fromarray(annotate(reading.pixels, reading, maps=True))
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def _free_name(self, source: str) -> str:
        path = Path(source)
        stem = path.stem.strip("<>") or "picture"
        suffix = path.suffix.lower() if path.suffix.lower() in _JPEG_SUFFIXES else ".png"
        name, number = f"{stem}.mien{suffix}", 1
        while name.lower() in self._taken:  # some file systems do not tell A.jpg from a.jpg
            number += 1
            name = f"{stem}-{number}.mien{suffix}"
        self._taken.add(name.lower())
        return name
