"""Output files: a file appears complete or not at all, and no command replaces an input or a file of another program.

mien recognises its own files by their content: a mark in the metadata of formats that have a place for it, else keys or
columns that only its files have.
"""

import filecmp
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, Self, TextIO

from mien._errors import OutputError, first_line, require_kind

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngInfo

MARK = "Written by mien"
# Each mark with what is around it in the formats that have it: a text that only names one is not mien's.
_OWN = re.compile(
    rb'<meta name="generator" content="mien">|mien-sha256:[0-9a-f]{64}:mien-sha256'
    rb"|[\0\x0f]Written by mien|\xff\xfe\0[\x11*]Written by mien"  # after a zero or its length: PNG, MP4, Parquet, JPEG
    rb"|<!-- Written by mien -->|\A[#%] Written by mien\r?\n|/Creator \(Written by mien\)|<dc:title>Written by mien</"
    rb"|\n\rmien_contract\x12|X(?:\x0b\0{3}data_sha256|\r\0{3}average_steps)"  # keys of ONNX and of pickled tensors
    rb"|^# [^\n]*data\.exclude=THIS_FILE"
    rb"|\A(?:source,face,x1,|frame,seconds,track_id,|start,end,track_id,|source,seconds,frames,|model,corruption,severity,)"
    rb"|\A[^\n]*model,recipe,seed,split,classes,faces,"
    rb'|\A\{"epoch": \d[^\n]*, "images_per_second": '
    rb"|\A\[\]\n\Z"  # a table without rows
    rb'|\A(?:\[\n)?\{"(?:(?:frame|start)": \d|source": "[^\n]*?", "size_wh": \[)',
    re.MULTILINE,
)
_JSON, _KEYS = re.compile(rb"\A\{\s*\""), re.compile(rb'"(?:vote_weight|data_sha256)":')
PARTIAL = (KeyboardInterrupt, BrokenPipeError)  # after which files have the results until then
_EDGE = 2**20  # bytes at the start and at the end of a file in which the mark is looked for


@dataclass
class _Protection:
    """What no output may replace. ``identities`` are those of the inputs, and are read when the first is needed."""

    inputs: list[str | os.PathLike[str]]
    force: bool
    cure: str
    identities: set[tuple[int, int]] = field(default_factory=set)

    def reads(self, path: str | os.PathLike[str]) -> bool:
        """Whether a file or folder is an input, under any name or link."""
        self.identities.update(filter(None, map(identity, self.inputs)))
        self.inputs.clear()
        return identity(path) in self.identities


_protection: _Protection | None = None


@contextmanager
def protect_files(inputs: Iterable[str | os.PathLike[str]], *, force: bool = False, cure: str = "") -> Iterator[None]:
    """While a block runs, no output replaces an input, or an existing file that mien did not write.

    Args:
        inputs: Files and folders that the block reads.
        force: Whether files that mien did not write may be replaced. Inputs never are.
        cure: End of the message about such a file, such as how to set ``force``.

    Yields:
        ``None``; the block runs.
    """
    global _protection
    before, _protection = _protection, _Protection(list(inputs), force, cure)
    try:
        yield
    finally:
        _protection = before


def protect_inputs(paths: Iterable[object]) -> None:
    """Add files to the inputs of the block of ``protect_files``. Outside of one, nothing is protected.

    Args:
        paths: The files. Anything but a path, such as a stream, is ignored.
    """
    if _protection is not None:
        _protection.inputs += [path for path in paths if isinstance(path, str | os.PathLike)]


def is_input(path: str | os.PathLike[str]) -> bool:
    """Return whether a file or folder is an input of the block of ``protect_files``, under any name or link.

    Args:
        path: The file or folder.

    Returns:
        False also outside of such a block.
    """
    return _protection is not None and _protection.reads(path)


def require_replaceable(path: str | os.PathLike[str], *, new: Path | None = None) -> None:
    """Check that a file or folder may be written in the block of ``protect_files``.

    Args:
        path: The file or folder; it need not exist.
        new: A file with the content that would replace it: equal content may always be replaced.

    Raises:
        OutputError: It is an input, or a file that mien did not write.
    """
    if _protection is None or not os.path.exists(path):  # noqa: PTH110 (paths are strings here)
        return
    name = os.fspath(path)
    if is_input(path):
        raise OutputError(f"{name}: is read by this command and would be lost; name another place to write to")
    if _protection.force or is_own(path) or (new is not None and filecmp.cmp(path, new, shallow=False)):
        return
    raise OutputError(f"{name}: exists and was not written by mien; name another file{_protection.cure}")


def is_own(path: str | os.PathLike[str]) -> bool:
    """Return whether replacing a file loses nothing of another program: mien wrote it, or it has no content.

    Args:
        path: The file.

    Returns:
        True also for folders, devices and pipes.
    """
    if not os.path.isfile(path):  # noqa: PTH113
        return True
    try:
        with open(path, "rb") as stream:  # noqa: PTH123
            start = stream.read(_EDGE)
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _EDGE))
            marks = (_OWN, _KEYS) if _JSON.match(start) else (_OWN,)
            return not start or any(mark.search(part) for part in (start, stream.read(_EDGE)) for mark in marks)
    except OSError:
        return False


def png_mark(text: str = MARK) -> "PngInfo":
    """Return the metadata of a PNG file that mien writes.

    Args:
        text: The mark, and what may follow it.

    Returns:
        Metadata for Pillow's ``save``.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", text)
    return info


def seen_before(folder: str | os.PathLike[str], seen: set[tuple[int, int] | None]) -> bool:
    """Return whether a folder was read before, under any name or link, so that links never make a loop.

    Args:
        folder: The folder.
        seen: The identities of the folders so far; that of this one is added.

    Returns:
        True if it was.
    """
    before = len(seen)
    seen.add(identity(folder))
    return len(seen) == before


def identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return what a file or folder has in common under all names and links; ``None`` where there is none.

    Args:
        path: The file or folder.
    """
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def is_device(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a device or a pipe, into which an output is written directly.

    Args:
        path: The path; it need not exist.
    """
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)  # noqa: PTH110, PTH112, PTH113


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk, so that a power cut does not damage it.

    Args:
        path: The file; or the folder, as a name is part of its folder.

    Raises:
        OSError: The file cannot be flushed. Some systems cannot flush folders, which is no error.
    """
    try:
        handle = os.open(path, os.O_RDWR if os.name == "nt" and path.is_file() else os.O_RDONLY)  # as Windows requires
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError:
        if not path.is_dir():
            raise


@contextmanager
def output_errors(name: str | Path, *, within: Path | None = None) -> Iterator[None]:
    """Turn an ``OSError`` of a block into an ``OutputError``.

    A ``BrokenPipeError`` is not changed: a program that stops reading the output is not a failure.

    Args:
        name: The name of the output in messages.
        within: A folder: errors of files outside of it are not changed; ``None``: all are of the output.

    Yields:
        ``None``; the block runs.

    Raises:
        OutputError: The block raised an ``OSError``.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except ValueError as error:
        if "null byte" not in str(error):
            raise
        raise OutputError(f"{str(name)!r}: no file has a null byte in its name; name another place") from error
    except OSError as error:
        if within and error.filename and not Path(os.fsdecode(error.filename)).is_relative_to(within):
            raise
        if isinstance(error, FileNotFoundError):
            message = f"{name}: cannot be written, its folder does not exist; create it or name another place"
            raise OutputError(message) from error
        if isinstance(error, IsADirectoryError):
            raise OutputError(f"{name}: is a folder; name a file in it") from error
        reason = (error.strerror or first_line(error)).lower()
        cure = "free space, get the right to write, or name another place"
        raise OutputError(f"{name}: cannot be written ({reason}); {cure}") from error


class Draft:
    """A temporary file beside a path. ``keep`` moves it to the path, ``drop`` removes it.

    Until then an old file at the path does not change. A device or a pipe cannot be replaced; it is written directly.
    As a context manager it keeps the file at the end of the block, and drops it after an exception.

    Args:
        path: The path of the result.
        start: Text that is written first.
        sync: Whether ``keep`` waits until file and name are on the disk, so that a power cut loses neither.

    Attributes:
        name: ``path`` as a string, for messages.
        path: The temporary file.
        file: The temporary file, opened for binary writing.

    Raises:
        OutputError: No file can be written beside ``path``.
    """

    def __init__(self, path: str | os.PathLike[str], start: str = "", *, sync: bool = False) -> None:
        require_kind("path", path, (str, os.PathLike), "a path")
        self.name, self._sync = os.fspath(path), sync
        with output_errors(self.name):
            # A symbolic link stays one: the file to which it leads is replaced. One to a pipe leads nowhere.
            replaceable = not is_device(path)
            self._target = Path(os.path.realpath(path) if replaceable else path)
            if self._target.is_dir():
                raise IsADirectoryError(self.name)
            require_replaceable(self.name)
            self.path = self._target.with_name(f".mien-{secrets.token_hex(6)}.part") if replaceable else self._target
            # Not tempfile: its files are private to the user, but a result has the permissions of the umask.
            self.file: BinaryIO = self.path.open("x+b" if replaceable else "wb")
            if replaceable:
                with suppress(OSError):  # of an old file, if there is one: what is private stays so
                    shutil.copymode(self._target, self.path)
        try:
            self.write(start)
        except BaseException:
            self.drop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.keep()
        else:
            self.drop()

    def write(self, text: str) -> None:
        """Write a text in UTF-8. Characters that UTF-8 lacks (bytes of a file name) are escaped.

        Args:
            text: The text.

        Raises:
            OutputError: The file cannot be written.
        """
        with output_errors(self.name):
            self.file.write(text.encode("utf-8", "backslashreplace"))

    def keep(self) -> None:
        """Close the file and move it to its path."""
        try:
            with output_errors(self.name):
                if self._sync:
                    self.file.flush()
                    os.fsync(self.file.fileno())
                self.file.close()
                if self.path != self._target:
                    self.path.replace(self._target)
                if self._sync:
                    flush(self._target.parent)
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Close the file and remove it. It does nothing after ``keep``, and never raises an error."""
        with suppress(OSError):
            self.file.close()
        if self.path != self._target:
            with suppress(OSError):
                self.path.unlink()


@contextmanager
def open_output(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open a text file in UTF-8. It appears at its path when the block ends without an exception.

    Args:
        path: The file.

    Yields:
        The stream.

    Raises:
        OutputError: The file cannot be written: missing folder, missing rights or full disk.
    """
    with Draft(path) as draft:

        class Text(io.TextIOWrapper):
            name = draft.name  # messages name the result, not the temporary file

        stream = Text(draft.file, encoding="utf-8", newline="")
        try:
            yield stream
            with output_errors(draft.name):
                stream.flush()
        except BaseException:
            with suppress(OSError):
                stream.close()
            raise


class Output(Protocol):
    """A context manager that takes results."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Any: ...

    @property
    def add(self) -> Any:
        """A function of one result."""


class OutputGroup:
    """Several outputs of one run, as a context manager. If one cannot be written, the others are completed.

    Its error is raised at the end of the block, or as soon as no output is left.

    Args:
        outputs: The outputs. If one cannot be opened, none is.

    Raises:
        OutputError: An output could not be written.
    """

    def __init__(self, outputs: Iterable[Output]) -> None:
        self._outputs = list(outputs)
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for output in self._outputs:
                stack.enter_context(output)
            stack.pop_all()  # from now on, each is closed by itself
        return self

    def add(self, *result: Any) -> None:
        """Pass a result to every output.

        Args:
            *result: The arguments of their ``add``.

        Raises:
            OutputError: No output is left.
            BrokenPipeError: The reader of a stream has stopped reading: this ends the run, not an output.
        """
        for output in list(self._outputs):
            try:
                output.add(*result)
            except OutputError as error:
                self._error = self._error or error
                self._outputs.remove(output)
                output.__exit__(type(error), error, error.__traceback__)
                if not self._outputs:
                    raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for output in self._outputs:
            try:
                output.__exit__(kind, error, trace)
            except (OutputError, OSError) as failure:
                self._error = self._error or failure
        if self._error is not None and (kind is None or issubclass(kind, KeyboardInterrupt)):
            raise self._error


def lock_output(handle: int, path: Path, *, wait: bool = False) -> bool:
    """Refuse an output into which another process writes. The system frees the lock when that process ends in any way.

    Args:
        handle: An open file or folder, which is the same for all processes. A file may hold the number of the process.
        path: The output, for the message.
        wait: Whether to wait for the other process instead.

    Returns:
        Whether the system has locks.

    Raises:
        OutputError: Another process has the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        number = ""
        with suppress(OSError):  # a folder has no content
            number = os.read(handle, 20).decode("ascii", "replace").strip()
        holder = f"process {number}" if number.isdecimal() else "another run"
        raise OutputError(f"{path}: {holder} writes here; wait for it, or name another output") from error
    except OSError:
        return False  # a file system without locks
    return True
