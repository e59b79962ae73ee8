"""The lab's files: written atomically and durably, in sets, into folders that one process has for itself.

An interrupted write, a full disk or a power cut leaves the old file or the new one, never a part of one. A file that is
read again has a checksum (``mien._checksum``).
"""

import io
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mien._checksum import BLANK, KEY, fill_checksum, is_damaged, with_comment
from mien._errors import DataError
from mien._output import Draft, flush, lock_output, output_errors, require_replaceable

CHECKPOINT, PREVIOUS = "checkpoint.pt", "checkpoint-previous.pt"
# Values of ``final.pt``, the file of a finished run.
FINAL_KINDS: Mapping[str, type] = {"recipe": dict, "net": dict, "history": list, "provenance": dict}
MOST_TEXT = 2**20  # bytes of a text file that is read whole
CHECKOUT = Path(__file__).parents[3]  # contains results/, unless the package is installed
_LOCK = ".mien-lock"
_START, _END = ".mien-", ".part"  # of the names of what is not complete, as those of ``Draft``
_log = logging.getLogger(__name__)


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
    recorded = CHECKOUT / path
    return recorded if path.parts[:1] == ("results",) and recorded.exists() else path


def load_text(path: Path, *, most: int = MOST_TEXT) -> str:
    """Read a text file that a person may have written, such as a recipe.

    Args:
        path: The file, UTF-8.
        most: Its largest size in bytes.

    Returns:
        Its content.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is larger, or not UTF-8.
    """
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most // 2**20} MB")
    return content.decode("utf-8")


def file_name(text: str) -> str:
    """Return a text as the name of a file, without its ending: other characters than letters and digits are dashes.

    Args:
        text: For example the name of a model.

    Returns:
        The name; ``model`` where nothing of it is left.
    """
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.") or "model"


def save_bytes(path: Path, content: bytes) -> None:
    """Write a binary file, atomically. A blank checksum in it is filled in.

    Args:
        path: The file; its folder is created if it does not exist.
        content: Its content.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full.
    """
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    content = fill_checksum(content)
    if path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content:
        return  # also where mien may not replace the file
    with Draft(path, sync=True) as draft, output_errors(path):
        draft.file.write(content)


def save_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically.

    Lone surrogates, as in file names that are not UTF-8, are written as escapes.

    Args:
        path: The file; its folder is created if it does not exist.
        text: Its content.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full.
    """
    save_bytes(path, text.encode("utf-8", "backslashreplace"))


def save_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values as JSON with a checksum, atomically. Innermost lists and objects are on one line each.

    NaN and infinity, which JSON does not have, are null.

    Args:
        path: The file; its folder is created if it does not exist.
        values: Its content.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full.
    """
    # Names of other types become text.
    plain = json.loads(json.dumps({**values, KEY: BLANK}), parse_constant=lambda _: None)
    save_text(path, "{\n" + ",\n".join(f" {json.dumps(name)}: {_lines(plain[name], 1)}" for name in plain) + "\n}\n")


def _lines(value: Any, depth: int) -> str:
    """JSON of plain values inside of ``depth`` others."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not any(isinstance(part, dict | list) for part in parts):
        return json.dumps(value)
    names = [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(value)
    start, end = "{}" if isinstance(value, dict) else "[]"
    lines = [f"{' ' * (depth + 1)}{name}{_lines(part, depth + 1)}" for name, part in zip(names, parts, strict=True)]
    return f"{start}\n" + ",\n".join(lines) + f"\n{' ' * depth}{end}"


def save_arrays(path: Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write arrays as a compressed ``.npz`` file with a checksum, atomically.

    Args:
        path: The file; its folder is created if it does not exist.
        arrays: Name -> array.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full.
    """
    stream = io.BytesIO()
    # np.load reads this as it reads the files of np.savez_compressed, which are 5 % larger.
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_LZMA
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    save_bytes(path, with_comment(stream.getbuffer()))


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values with ``torch.save`` and a checksum, atomically.

    Args:
        path: The file; its folder is created if it does not exist.
        state: What to write.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full.
    """
    stream = io.BytesIO()
    torch.save(dict(state), stream)
    save_bytes(path, with_comment(stream.getbuffer()))


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write ``checkpoint.pt``; the checkpoint before it is kept as its predecessor.

    Args:
        folder: The folder; it is created if it does not exist.
        state: What to write.

    Raises:
        OutputError: If the file cannot be written, for example because the disk is full.
    """
    path, newest = folder / CHECKPOINT, folder / f"{_START}{CHECKPOINT}{_END}"
    save_state(newest, state)
    with output_errors(path):
        if path.exists():
            path.replace(folder / PREVIOUS)
        newest.replace(path)
        flush(folder)


def load_bytes(path: Path, cure: str = "remove it and make it again") -> bytes:
    """Read a file and verify its checksum, if it has one.

    Args:
        path: The file.
        cure: What to do with a damaged file, for the message.

    Returns:
        Its content.

    Raises:
        FileNotFoundError: If there is no such file.
        DataError: If it cannot be read or is damaged. Only a damaged one may be removed.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise DataError(f"{path}: cannot be read ({cause}); check its access rights and the disk") from error
    if is_damaged(content):
        raise DataError(f"{path}: damaged: its checksum is wrong; {cure}")
    return content


def load_json(path: Path, cure: str = "record the run again") -> Any:
    """Read a JSON file, with or without a checksum.

    Args:
        path: The file.
        cure: What to do with a damaged file, for the message.

    Returns:
        Its values, without the checksum.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not JSON.
        DataError: If it cannot be read, or its checksum is wrong.
    """
    values = json.loads(load_bytes(path, cure))
    return {key: value for key, value in values.items() if key != KEY} if isinstance(values, dict) else values


def load_arrays(path: Path, cure: str) -> dict[str, NDArray[Any]]:
    """Read all arrays of an ``.npz`` file.

    Args:
        path: The file.
        cure: What to do with a damaged file, for the message.

    Returns:
        Name -> array.

    Raises:
        FileNotFoundError: If there is no such file.
        DataError: If it is damaged, or no such file of arrays.
    """
    try:
        with np.load(io.BytesIO(load_bytes(path, cure)), allow_pickle=False) as file:
            return dict(file)
    except (FileNotFoundError, DataError):
        raise
    except Exception as error:  # of NumPy, zipfile, zlib, lzma or tokenize: there is no list of them
        raise DataError(f"{path}: damaged, or not a file of arrays ({type(error).__name__}); {cure}") from error


def load_state(path: Path, kinds: Mapping[str, type] | None = None) -> dict[str, Any]:
    """Read a file that ``save_state`` wrote.

    Args:
        path: The file.
        kinds: The values that it must have, as in ``check_kinds``.

    Returns:
        Its content, tensors on the CPU.

    Raises:
        DataError: If the file is missing or damaged, or lacks a value.
    """
    try:
        state = dict(torch.load(io.BytesIO(load_bytes(path, "train again")), map_location="cpu", weights_only=True))
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; train the run first") from error
    except Exception as error:  # torch raises several classes for a damaged file
        raise DataError(f"{path}: damaged ({type(error).__name__}); remove it and train again") from error
    check_kinds(state, kinds or {}, path)
    return state


def check_kinds(state: Mapping[str, Any], kinds: Mapping[str, type], path: Path) -> None:
    """Check that a state holds values of certain types.

    Args:
        state: The state.
        kinds: Key -> type of its value.
        path: Its file or folder, for the message.

    Raises:
        DataError: If a value is missing or of another type.
    """
    for key, kind in kinds.items():
        if not isinstance(state.get(key), kind) or isinstance(state[key], bool):
            raise DataError(f"{path}: damaged, or of an older version of mien (no {key}); remove it and train again")


def has_checkpoint(folder: Path) -> bool:
    """Return whether a folder holds a checkpoint.

    Args:
        folder: The folder; it need not exist.
    """
    return any((folder / name).exists() for name in (CHECKPOINT, PREVIOUS))


def load_checkpoint(folder: Path, check: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
    """Read the newest checkpoint of a folder, or its predecessor where the newest one is damaged.

    Args:
        folder: The folder; it need not exist.
        check: Raises ``DataError`` for a content that cannot be used.

    Returns:
        The content, or ``None`` without a checkpoint.

    Raises:
        DataError: If no checkpoint is usable.
    """
    names = [name for name in (CHECKPOINT, PREVIOUS) if (folder / name).exists()]
    for name in names:
        try:
            state = load_state(folder / name)
            check(state)
        except DataError as error:
            if name == names[-1]:
                raise
            _log.warning("%s; going on from the checkpoint before it, %s", str(error).partition(";")[0], PREVIOUS)
        else:
            return state
    return None


@contextmanager
def output_folder(folder: Path, names: Sequence[str] = ()) -> Iterator[None]:
    """Check that a folder can be written, and keep other processes of mien from writing to it until the block ends.

    The lock belongs to the process and ends with it, also after ``kill -9``. What an interrupted process left is
    removed. A folder that did not exist is removed again if nothing was written.

    Args:
        folder: The folder; it is created if it does not exist.
        names: The files that will be written to it.

    Yields:
        ``None``.

    Raises:
        OutputError: If another process writes to the folder, no file can be written to it, or a file of these names may
            not be replaced.
    """
    for name in names:
        require_replaceable(folder / name)
    missing, path = _missing(folder), folder / _LOCK
    try:
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
        try:
            for part in folder.glob(f"{_START}*{_END}"):
                shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
            yield
        finally:
            with suppress(OSError):
                path.unlink()
            os.close(lock)
    finally:
        _remove_empty(missing)


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Wait until no other process of mien changes a file, and keep them from it until the block ends.

    Args:
        path: The file; its folder is created if it does not exist.

    Yields:
        ``None``.

    Raises:
        OutputError: If the folder cannot be written.
    """
    name = path.with_name(f"{_LOCK}-{path.name}")
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(name, wait=True)
    try:
        yield
    finally:
        with suppress(OSError):
            name.unlink()
        os.close(lock)


@contextmanager
def file_set(folder: Path, *, optional: str = "") -> Iterator[Path]:
    """Write files that belong together: at the end all of them replace older ones, or none does.

    Args:
        folder: The folder of the files; it is created if it does not exist.
        optional: Name of a file that not every set has: that of an older set is removed if this one has none.

    Yields:
        An empty folder in it. Its files, also those in subfolders, move to ``folder`` if the block raises nothing.

    Raises:
        OutputError: If a file cannot be written, for example because the disk is full.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with output_errors(folder, within=folder), TemporaryDirectory(prefix=_START, suffix=_END, dir=folder) as name:
        draft = Path(name)
        yield draft
        files = {path: folder / path.relative_to(draft) for path in sorted(draft.rglob("*")) if path.is_file()}
        for path, target in files.items():
            flush(path)
            require_replaceable(target, new=path)
            target.parent.mkdir(parents=True, exist_ok=True)
        for path, target in files.items():
            path.replace(target)
        if optional and folder / optional not in files.values():
            (folder / optional).unlink(missing_ok=True)
        for parent in {target.parent for target in files.values()}:
            flush(parent)


def require_writable(*folders: Path | None) -> None:
    """Check that files can be written to folders, before long work begins. The folders are not changed.

    Args:
        *folders: The folders; they need not exist, and ``None`` is left out.

    Raises:
        OutputError: If no file can be written to one of them.
    """
    for folder in filter(None, folders):
        missing = _missing(folder)
        try:
            with output_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                TemporaryDirectory(prefix=_START, suffix=_END, dir=folder).cleanup()
        finally:
            _remove_empty(missing)


def _missing(folder: Path) -> list[Path]:
    """The folder and its parents that do not exist."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _lock(path: Path, *, wait: bool = False) -> int:
    """Open and lock a file, which names the process that holds it; with ``wait``, after that process."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock_output(lock, path.parent, wait=wait)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    os.truncate(lock, 0)
                    os.write(lock, f"{os.getpid()}\n".encode())
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # another process has removed it in between
