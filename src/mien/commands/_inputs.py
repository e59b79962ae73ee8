"""Arguments of the command line -> images: files, folders, globs and standard input."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from mien._errors import MienError
from mien._face import Reading
from mien._output import protect_inputs

if TYPE_CHECKING:
    from mien.decode import Source


@dataclass
class Inputs:
    """The images that arguments name.

    Attributes:
        sources: The images, in the order to read them.
        failed: Readings with an error, for folders that cannot be read.
        skipped: Number of files in folders that are no images.
        roots: The folders, and the folders in which globs were expanded.
    """

    sources: "list[Source]" = field(default_factory=list)
    failed: list[Reading] = field(default_factory=list)
    skipped: int = 0
    roots: list[str] = field(default_factory=list)


def expand_inputs(paths: Sequence[str]) -> Inputs:
    """Find the images that arguments name.

    A folder gives the image files below it, sorted, without hidden files and annotated copies (``*.mien.*``).
    A glob is expanded unless a file has exactly its name. A file is not opened: reading it reports what is wrong.

    Args:
        paths: Files, folders, globs, or ``-`` for the bytes on standard input.

    Returns:
        The images, which no output of the command may replace from now on.

    Raises:
        MienError: Standard input is a terminal.
    """
    inputs = Inputs()
    for path in paths:
        names = [path]
        if path != "-" and glob.has_magic(path) and not Path(path).exists():
            names = sorted(glob.glob(path, recursive=True)) or [path]  # noqa: PTH207 (Path takes no absolute pattern)
            inputs.roots.append(str(Path(*takewhile(lambda part: not glob.has_magic(part), Path(path).parts))))
        for name in names:
            if name == "-":
                if sys.stdin.isatty():
                    raise MienError("standard input is a terminal; send an image to it: mien predict - < photo.jpg")
                inputs.sources.append(sys.stdin.buffer)
            elif Path(name).is_dir():
                inputs.roots.append(name)
                _add_folder(name, inputs)
            else:
                inputs.sources.append(name)
    protect_inputs(inputs.sources)
    return inputs


def _add_folder(folder: str, inputs: Inputs) -> None:
    from PIL import Image

    from mien.decode import FORMATS

    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    suffixes |= {".heic", ".heif"}  # read by pillow-heif; without it an error names what to install
    before = len(inputs.sources)
    for name in _walk(folder, inputs):
        if Path(name).suffix.lower() in suffixes:
            inputs.sources.append(name)
        else:
            inputs.skipped += 1
    if len(inputs.sources) == before:
        _add_error(inputs, folder, "no images in this folder; name files or a folder of images")


def _walk(folder: str, inputs: Inputs) -> Iterator[str]:
    def on_error(error: OSError) -> None:
        reason = (error.strerror or "unknown reason").lower()
        _add_error(inputs, error.filename, f"this folder cannot be opened ({reason}); change its access rights")

    for root, folders, files in os.walk(folder, onerror=on_error):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            # Annotated copies, which `--save` writes, would count every face twice.
            if not name.startswith(".") and not Path(name).stem.endswith(".mien"):
                yield os.path.join(root, name)  # noqa: PTH118 (Path would drop the "./" that the user typed)


def _add_error(inputs: Inputs, folder: str, message: str) -> None:
    inputs.failed.append(Reading(faces=(), source=folder, size_wh=(0, 0), error=f"{folder}: {message}"))
