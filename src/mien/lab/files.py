"""Atomic writing of the lab's files: an interrupted write leaves the old file or the new one, never a part."""

import io
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mien._errors import DataError, OutputError
from mien._output import MARK, require_replaceable

_CHECKOUT = Path(__file__).parents[3]  # contains results/, unless the package is installed


def find_input(name: str) -> Path:
    """Return the path of a run or file that a recipe names.

    Recorded results are part of the repository: ``results/...`` is looked up there first, so that the recipes of the
    package find them from any working directory.

    Args:
        name: An absolute path, ``~/...``, ``results/...``, or a path relative to the working directory.

    Returns:
        The path; it need not exist.
    """
    path = Path(name).expanduser()
    recorded = _CHECKOUT / path
    return recorded if path.parts[:1] == ("results",) and recorded.exists() else path


def save_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically.

    Lone surrogates, as in file names that are not UTF-8, are written as escapes.

    Args:
        path: The file; its folder is created if it does not exist.
        text: Its content.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full.
    """
    _replace(path, lambda temporary: temporary.write_text(text, "utf-8", "backslashreplace"))


def save_bytes(path: Path, content: bytes) -> None:
    """Write a binary file, atomically.

    Args:
        path: The file; its folder is created if it does not exist.
        content: Its content.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full.
    """
    _replace(path, lambda temporary: temporary.write_bytes(content))


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays as a compressed ``.npz`` file, atomically.

    Args:
        path: The file; its folder is created if it does not exist.
        arrays: Name -> array.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full.
    """
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.comment = MARK.encode()
    save_bytes(path, stream.getvalue())


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values with ``torch.save``, atomically.

    Args:
        path: The file; its folder is created if it does not exist.
        state: What to write.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full.
    """
    _replace(path, lambda temporary: torch.save(dict(state), temporary))


def load_state(path: Path) -> dict[str, Any]:
    """Read a file that ``save_state`` wrote.

    Args:
        path: The file.

    Returns:
        Its content, tensors on the CPU.

    Raises:
        DataError: If the file is missing or damaged.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; train the run first") from error
    except Exception as error:  # torch raises several classes for a damaged file
        raise DataError(f"{path}: damaged ({type(error).__name__}); remove it and train again") from error


def require_writable(*folders: Path | None, names: Sequence[str] = ()) -> None:
    """Check that files can be written to folders, before long work begins. The folders are not changed.

    Args:
        *folders: The folders; they need not exist, and ``None`` is left out.
        names: The files that will be written to the first folder.

    Raises:
        OutputError: If no file can be written to one of them, or a file of these names may not be replaced.
    """
    for name in names:
        require_replaceable((folders[0] or Path()) / name)
    for folder in filter(None, folders):
        probe, created = folder / f".probe-{os.getpid()}", list[Path]()
        try:
            created = [each for each in (folder, *folder.parents) if not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
        except OSError as error:
            cause = error.strerror or error
            raise OutputError(f"{folder}: cannot be written ({cause}); name another folder") from error
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
                for each in created:
                    each.rmdir()


def remove_partial_files(folder: Path) -> None:
    """Remove the temporary files that interrupted writes left in a folder.

    Args:
        folder: The folder.
    """
    for partial in folder.glob(".*.part-*"):
        partial.unlink(missing_ok=True)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        require_replaceable(path, new=temporary)
        temporary.replace(path)
    except (OSError, RuntimeError, OutputError) as error:  # torch reports a full disk as a RuntimeError
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OutputError):
            raise
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        message = f"{path}: cannot be written ({cause}); free space or name another folder, then run it again"
        raise OutputError(message) from error
