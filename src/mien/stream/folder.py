"""A folder of pictures as the frames of a film, in the order in which people count: 2 before 10."""

import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mien._errors import ImageError, SourceError
from mien.decode import FORMATS, decode
from mien.stream.frames import Frames, Timed


class Folder(Frames):
    """The pictures in one folder (not below it). Those that cannot be read are skipped; the time goes on."""

    def __init__(self, path: Path, *, rate: float) -> None:
        """``rate`` is frames a second. Raises ``SourceError`` where there is no picture."""
        self._files = _pictures(path)
        if not self._files:
            raise SourceError(f"{path}: no pictures in this folder; name a folder of frames, or a film")
        super().__init__(str(path), count=len(self._files), rate=rate)
        self._rate = rate

    def _read(self) -> Iterator[Timed]:
        why = ""
        for index, path in enumerate(self._files):
            try:
                picture = decode(path)
            except ImageError as error:
                self.skipped += 1
                why = why or str(error)
                continue
            yield index / self._rate, picture.pixels
        if self.skipped == len(self._files):
            raise SourceError(f"{self.name}: none of its {self.skipped} pictures can be read; the first: {why}")


def _pictures(folder: Path) -> list[Path]:
    Image.init()  # names the suffixes of all formats
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes]
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise SourceError(f"{folder}: this folder cannot be opened ({reason}); change its access rights") from error
    # Annotated copies, as of `mien predict --save`, are no frames.
    kept = [path for path in found if not path.name.startswith(".") and not path.stem.endswith(".mien")]
    return sorted(kept, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Numbers in a name count as numbers, everything else by its letters."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts if part]
