"""What the user typed -> pictures: files, folders, globs and standard input."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mien._errors import MienError
from mien._face import Reading

if TYPE_CHECKING:
    from mien.decode import Source


@dataclass
class Gathered:
    """``sources`` in the order to read them, readings for folders that ``failed``, the number of files ``skipped``."""

    sources: "list[Source]" = field(default_factory=list)
    failed: list[Reading] = field(default_factory=list)
    skipped: int = 0


def gather(paths: Sequence[str]) -> Gathered:
    """Expand ``paths``: folders to the pictures below them, sorted; globs where no file has that very name; ``-`` to
    the bytes on standard input.

    A folder gives the files whose suffix is a picture's; hidden files and annotated copies (``*.mien.*``) are left out.
    A file that is named is taken as it is, also when it is not there: reading it will say so.
    """
    found = Gathered()
    for path in paths:
        for name in _expand(path):
            if name == "-":
                found.sources.append(_standard_input())
            elif Path(name).is_dir():
                _add_folder(name, found)
            else:
                found.sources.append(name)
    return found


def _expand(path: str) -> list[str]:
    if path == "-" or not glob.has_magic(path) or Path(path).exists():
        return [path]
    return sorted(glob.glob(path, recursive=True)) or [path]  # noqa: PTH207 (a Path takes no absolute pattern)


def _standard_input() -> "Source":
    if sys.stdin.isatty():
        raise MienError("standard input is a terminal; send a picture's bytes to it: mien predict - < photo.jpg")
    return sys.stdin.buffer


def _add_folder(folder: str, found: Gathered) -> None:
    suffixes = _suffixes()
    before = len(found.sources)
    for name in _walk(folder, found):
        if Path(name).suffix.lower() in suffixes:
            found.sources.append(name)
        else:
            found.skipped += 1
    if len(found.sources) == before:
        found.failed.append(_failed(folder, "no pictures in this folder; name files or a folder with some"))


def _walk(folder: str, found: Gathered) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        reason = (error.strerror or "unknown reason").lower()
        found.failed.append(
            _failed(error.filename, f"this folder cannot be opened ({reason}); change its access rights")
        )

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            # What `--save` wrote is no photograph: reading it again would count every face twice.
            if not name.startswith(".") and not Path(name).stem.endswith(".mien"):
                yield os.path.join(root, name)  # noqa: PTH118 (a Path would drop the "./" that the user typed)


def _failed(folder: str, why: str) -> Reading:
    return Reading(faces=(), source=folder, size_wh=(0, 0), error=f"{folder}: {why}")


def _suffixes() -> set[str]:
    from PIL import Image

    from mien.decode import FORMATS

    return {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
