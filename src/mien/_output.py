"""Output files: a file appears complete or not at all, and a refusal of the system becomes one line."""

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self, TextIO

from mien._errors import OutputError, first_line


@contextmanager
def output_errors(name: str) -> Iterator[None]:
    """Turn an ``OSError`` of a block into an ``OutputError``.

    A ``BrokenPipeError`` is not changed: a program that stops reading the output is not a failure.

    Args:
        name: The name of the output in messages.

    Yields:
        ``None``; the block runs.

    Raises:
        OutputError: The block raised an ``OSError``.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except FileNotFoundError as error:
        message = f"{name}: cannot be written, its folder does not exist; create it or name another place"
        raise OutputError(message) from error
    except IsADirectoryError as error:
        raise OutputError(f"{name}: is a folder; name a file in it") from error
    except OSError as error:
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

    Attributes:
        name: ``path`` as a string, for messages.
        path: The temporary file.
        file: The temporary file, opened for binary writing.

    Raises:
        OutputError: No file can be written beside ``path``.
    """

    def __init__(self, path: str | os.PathLike[str], start: str = "") -> None:
        self.name = os.fspath(path)
        # A symbolic link stays one: the file to which it leads is replaced.
        self._target = Path(os.path.realpath(path))
        with output_errors(self.name):
            if self._target.is_dir():
                raise IsADirectoryError(self.name)
            replaceable = self._target.is_file() or not self._target.exists()
            self.path = self._target.with_name(f".mien-{secrets.token_hex(6)}.part") if replaceable else self._target
            # Not tempfile: its files are private to the user, but a result has the permissions of the umask.
            self.file: BinaryIO = self.path.open("x+b" if replaceable else "wb")
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
                self.file.close()
                if self.path != self._target:
                    self.path.replace(self._target)
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
