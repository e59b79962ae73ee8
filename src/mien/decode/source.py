"""Source -> bytes: a path, bytes or a stream, read no further than the limit."""

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mien._errors import ImageError, NotAnImageError, TooLargeError
from mien.decode.wrong import first_line


def name_of(source: object) -> str:
    """What messages and readings call ``source``: its path or the name of its stream, else what kind of thing it is."""
    if isinstance(source, str | os.PathLike):
        return os.fsdecode(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return "<bytes>"
    if isinstance(source, np.ndarray | Image.Image):
        return "<array>" if isinstance(source, np.ndarray) else "<image>"
    label = getattr(source, "name", None)
    return label if isinstance(label, str) else "<stream>"


def read_bytes(source: object, max_bytes: int) -> tuple[str, bytes]:
    """What ``source`` is called, and its bytes. Raises ``TooLargeError`` above ``max_bytes``, and ``ImageError``."""
    name = name_of(source)
    if isinstance(source, bytes | bytearray | memoryview):
        _check_bytes(memoryview(source).nbytes, name, max_bytes)
        data = bytes(source)
    elif isinstance(source, str | os.PathLike):
        data = _read_file(name, max_bytes)
    elif hasattr(source, "read"):
        data = _read_stream(source, name, max_bytes)
    else:
        kind = type(source).__name__
        raise ImageError(
            f"a {kind} is no picture; give a path, bytes, a binary stream, a numpy array or a Pillow image"
        )
    if not data:
        raise NotAnImageError(
            f"{name}: there are no bytes to read; the file is empty or the stream already read to its end"
        )
    return name, data


def _read_file(name: str, max_bytes: int) -> bytes:
    try:
        status = Path(name).stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{name}: this is a folder; give the picture files in it")
        _check_bytes(status.st_size, name, max_bytes)
        with Path(name).open("rb") as stream:
            return _read_stream(stream, name, max_bytes)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file; check the path") from error
    except PermissionError as error:
        raise ImageError(f"{name}: no permission to read it; change its access rights or run as its owner") from error
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise ImageError(f"{name!r}: cannot be opened ({first_line(error)}); check the path") from error


def _read_stream(stream: Any, name: str, max_bytes: int) -> bytes:
    """At most one byte more than the limit, in as many reads as a pipe or socket needs."""
    parts: list[bytes] = []
    missing = max_bytes + 1
    while missing > 0:
        try:
            part = stream.read(missing)
        except (OSError, ValueError) as error:  # ValueError: the stream is closed, or text that is not UTF-8
            raise ImageError(f"{name}: reading failed ({first_line(error)}); give an open binary stream") from error
        if isinstance(part, str):
            raise ImageError(f"{name}: the stream gives text; open it in binary mode ('rb')")
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    _check_bytes(sum(map(len, parts)), name, max_bytes)
    return b"".join(parts)


def _check_bytes(size: int, name: str, max_bytes: int) -> None:
    if size > max_bytes:
        raise TooLargeError(
            f"{name}: the file exceeds the limit of {max_bytes:,} bytes; make it smaller or raise max_bytes"
        )
