"""Files and object stores alike: names and addresses -> open files, through pyarrow or fsspec."""

import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import cache
from pathlib import Path, PurePath
from shutil import copyfileobj
from tempfile import TemporaryDirectory
from typing import Any

from mien._errors import MienError, MissingExtraError, SourceError, first_line

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
QUERY = re.compile(r"\?([\w.]+=[^&?]*(?:&[\w.]+=[^&?]*)*)$")  # of an address; names of objects may have a question mark
_GOOGLE_SECONDS = 30  # after which a store of Google that does not answer is an error; its default is 15 minutes


def is_address(name: str) -> bool:
    """Return whether a name is an address such as ``s3://bucket/photo.jpg``, and not a path.

    Args:
        name: The name.
    """
    return _ADDRESS.match(name) is not None


def open_object(name: str, options: str = "") -> Any:
    """Open a file or an object for binary reading.

    Args:
        name: Its path or address.
        options: The query of an address that has none, such as ``region=eu-west-1``.

    Returns:
        A binary stream that can be searched.

    Raises:
        OSError: It cannot be opened.
        MienError: The scheme of the address is unknown.
    """
    if not is_address(name):
        return Path(name).open("rb")
    scheme, path, query = split_address(name)
    return _open_store(scheme, path, query or options).open_input_file(path)


def store_reason(error: Exception) -> str:
    """Return why an object cannot be used, in few words.

    Args:
        error: The error of pyarrow or fsspec.
    """
    if isinstance(error, FileNotFoundError):
        return "there is no such object"
    if isinstance(error, UnicodeDecodeError):
        return "a name in it is not UTF-8"
    if isinstance(error, PermissionError) or "ACCESS_DENIED" in str(error):
        return "access is denied"
    return first_line(error).partition(" Detail:")[0].rstrip(".")


@contextmanager
def local_copy(name: str, options: str) -> Iterator[str]:
    """Copy an object to a temporary file, for readers of videos.

    Args:
        name: Its address; of a path nothing is copied.
        options: As for ``open_object``.

    Yields:
        The path of the copy.

    Raises:
        SourceError: It cannot be fetched.
    """
    if not is_address(name):
        yield name
        return
    with TemporaryDirectory(prefix="mien-") as folder:
        copy = Path(folder, f"video{PurePath(name).suffix}")
        try:
            with open_object(name, options) as file, copy.open("wb") as stream:
                copyfileobj(file, stream, 2**20)
        except (OSError, ValueError) as error:
            raise SourceError(f"{name}: cannot be fetched ({store_reason(error)}); check name and rights") from error
        yield str(copy)


def list_objects(address: str, suffixes: AbstractSet[str]) -> Iterator[tuple[str, int]]:
    """List the objects that an address means, sorted by name: one, those of a folder, or those of a glob.

    Hidden objects and annotated copies (``*.mien.*``) are left out.

    Args:
        address: The address. ``*`` stays in a folder, ``**/`` stands for any folders.
        suffixes: Suffixes of the objects that are taken from a folder.

    Yields:
        The address of each object and its size in bytes.

    Raises:
        MienError: It cannot be listed: no such object, no rights, no answer.
    """
    scheme, path, query = split_address(address)
    try:
        store = _open_store(scheme, path, query)
        is_glob = re.search(r"[*[]", path) is not None and not _find(store, path)
        folder = re.sub(r"/?[^/]*[*[].*", "", path) if is_glob else path.rstrip("/")
        pattern, found = _glob(path), _find(store, folder)
    except (OSError, ValueError, re.error) as error:
        raise MienError(f"{address}: cannot be listed ({store_reason(error)}); check name and rights") from error
    if not found:
        raise MienError(f"{address}: there is no such object or folder; check its name")
    is_empty = True
    for each in found:
        below = PurePath(each.path.removeprefix(folder))
        wanted = pattern.fullmatch(each.path) if is_glob else not below.parts or below.suffix.lower() in suffixes
        if wanted and not below.stem.endswith(".mien") and not any(part.startswith(".") for part in below.parts):
            is_empty = False
            yield f"{scheme}://{each.path}", each.size
    if is_empty:
        raise MienError(f"{address}: nothing {'matches it' if is_glob else 'in it can be read'}; check its name")


def _find(store: Any, folder: str) -> list[Any]:
    from pyarrow import fs

    info = store.get_file_info(folder)
    if info.is_file:
        return [info]
    if info.type == fs.FileType.NotFound:
        return []
    below = store.get_file_info(fs.FileSelector(folder, recursive=True))
    return sorted((each for each in below if each.is_file), key=lambda each: str(each.path))


@cache
def _glob(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*|\[[^]]+\])", pattern)
    known = {"**/": "(?:.*/)?", "*": "[^/]*"}
    parts = [known.get(part) or (_class(part) if part[:1] == "[" else re.escape(part)) for part in parts]
    return re.compile("".join(parts), re.DOTALL)


def _class(part: str) -> str:
    """The regular expression of the characters in square brackets of a glob, ``!`` for those that are not meant."""
    inside = re.sub(r"([\\\[^&|~])", r"\\\1", part[1:-1].removeprefix("!"))
    return f"[{'^' if part[1] == '!' else ''}{inside}]"


def split_address(address: str) -> tuple[str, str, str]:
    """Split an address. Paths are as the store has them, so nothing is decoded.

    Args:
        address: The address.

    Returns:
        Its scheme, path (with the bucket) and query.

    Raises:
        MienError: It has a password, or is of a web server.
    """
    scheme, _, path = address.partition("://")
    query = found[1] if (found := QUERY.search(path)) else ""
    path = path.removesuffix(f"?{query}")
    if scheme.lower() in ("http", "https", "ftp"):
        raise MienError(f"{address}: is no object store; copy the images to a folder or a bucket")
    if re.match(r"[^/]*:[^/]*@", path):
        raise MienError(f"an address of {scheme}:// has a password in it; set it in the environment of the store")
    return scheme.lower(), path, query


def _open_store(scheme: str, path: str, query: str) -> Any:
    return _open_bucket(scheme, "/" if scheme == "file" else path.partition("/")[0], query)


@cache
def _open_bucket(scheme: str, bucket: str, query: str) -> Any:
    """The file system of a bucket: that of pyarrow, else that of fsspec."""
    try:
        from pyarrow import ArrowInvalid, fs
    except ImportError as error:
        raise MissingExtraError("pyarrow", "ray") from error
    if scheme in ("gs", "gcs") and "retry_limit_seconds" not in query:
        query = f"{query}&retry_limit_seconds={_GOOGLE_SECONDS}".lstrip("&")
    try:
        return fs.FileSystem.from_uri(f"{scheme}://{bucket}" + (f"?{query}" if query else ""))[0]
    except ArrowInvalid as error:
        if "nrecognized filesystem" not in str(error):
            raise
    except ImportError as error:  # of a store that pyarrow leaves to fsspec
        raise _no_store(scheme, error) from error
    try:
        import fsspec

        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme)))
    except (ImportError, ValueError) as error:
        raise _no_store(scheme, error) from error


def _no_store(scheme: str, error: Exception) -> MienError:
    return MienError(f"{scheme}:// is no object store that can be read here ({first_line(error)})")
