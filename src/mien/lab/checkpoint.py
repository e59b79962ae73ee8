"""Files of a run, written so that a kill at any moment leaves the old file or the new one, never half of either."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from mien._errors import DataError, OutputError


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` with torch to ``path``, atomically. Raises ``OutputError`` on a full disk or missing rights."""
    _replace(path, lambda temporary: torch.save(dict(state), temporary))


def save_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, atomically. Raises ``OutputError`` on a full disk or missing rights."""
    _replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def save_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, atomically. Raises ``OutputError`` on a full disk or missing rights."""
    _replace(path, lambda temporary: temporary.write_bytes(content))


def require_writable(folder: Path) -> None:
    """Raises ``OutputError`` where nothing could be written to ``folder`` later; leaves everything as it was."""
    probe, made = folder / f".probe-{os.getpid()}", list[Path]()
    try:
        made = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}); name another --out") from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
            for each in made:
                each.rmdir()


def load(path: Path) -> dict[str, Any]:
    """Read what ``save`` wrote, on the CPU. Raises ``DataError`` for a missing or damaged file."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; train the run first") from error
    except Exception as error:  # torch raises half a dozen classes for a damaged file
        raise DataError(f"{path}: damaged ({type(error).__name__}); remove it and train again") from error
    return state


def remove_parts(folder: Path) -> None:
    """Remove what a kill in the middle of writing left in ``folder``."""
    for part in folder.glob(".*.part-*"):
        part.unlink(missing_ok=True)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _output_error(path, error) from error


def _output_error(path: Path, error: Exception) -> OutputError:
    cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    return OutputError(
        f"{path}: cannot be written ({cause}); free space or name another --out, then run the same command again"
    )
