"""Where results are written: whole or not at all, and every refusal of the system as one line."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from mien._errors import OutputError


@contextmanager
def output_errors(name: str) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into an ``OutputError`` about ``name``.

    A closed pipe stays a ``BrokenPipeError``: the reader has seen enough, which is no failure.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _explain(name, error) from error


def _explain(name: str, error: OSError) -> OutputError:
    reason = (error.strerror or str(error).partition("\n")[0] or type(error).__name__).lower()
    if isinstance(error, FileNotFoundError):
        return OutputError(f"{name}: cannot be written, its folder does not exist; create it or name another place")
    if isinstance(error, IsADirectoryError):
        return OutputError(f"{name}: is a folder; name a file in it")
    return OutputError(
        f"{name}: cannot be written ({reason}); free space, get the right to write, or name another place"
    )


class Draft:
    """The temporary file beside ``path`` that takes its place on ``keep`` and leaves no trace on ``drop``.

    What stands at ``path`` stays whole until then. A device or a pipe cannot be replaced and is written directly.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """``path`` is the place the user named; ``OutputError`` when nothing can be written beside it."""
        self.name = os.fspath(path)
        # Through symbolic links: the link stays and the file it names is replaced.
        self._target = Path(os.path.realpath(path))
        with output_errors(self.name):
            if self._target.is_dir():
                raise IsADirectoryError(self.name)
            replaceable = self._target.is_file() or not self._target.exists()
            self.path = self._target.with_name(f".mien-{secrets.token_hex(6)}.part") if replaceable else self._target
            # Not tempfile: its files are private to the user, whereas a result has the rights the umask gives.
            self.file: BinaryIO = self.path.open("x+b" if replaceable else "wb")

    def keep(self) -> None:
        """Close the file and move it to its place."""
        try:
            with output_errors(self.name):
                self.file.close()
                if self.path != self._target:
                    self.path.replace(self._target)
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Close the file and remove it; never raises, because a better error is already on its way."""
        with suppress(OSError):
            self.file.close()
        if self.path != self._target:
            with suppress(OSError):
                self.path.unlink()


@contextmanager
def open_output(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """A UTF-8 text stream whose file appears at ``path``, whole, when the block ends without an exception.

    Raises ``OutputError`` for a missing folder, missing rights or a full disk.
    """
    import io

    draft = Draft(path)

    class Text(io.TextIOWrapper):
        name = draft.name  # which messages say, not that of the draft

    stream = Text(draft.file, encoding="utf-8", newline="")
    try:
        yield stream
        with output_errors(draft.name):
            stream.flush()
    except BaseException:
        with suppress(OSError):
            stream.close()
        draft.drop()
        raise
    draft.keep()
