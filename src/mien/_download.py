"""Downloads files into one cache folder, only on request, and checks them.

The folder is ``$MIEN_CACHE``; where that is not set, ``~/.cache/mien`` (``$XDG_CACHE_HOME/mien``) on Linux,
``~/Library/Caches/mien`` on macOS and ``%LOCALAPPDATA%\\mien\\Cache`` on Windows.
"""

import hashlib
import http.client
import os
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from mien._errors import DownloadError, OutputError

TIMEOUT_S = 20.0  # seconds without a byte


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on the network.

    Attributes:
        name: Its name in the cache.
        url: Its address.
        sha256: The SHA-256 of its content, hexadecimal.
        size: Its length in bytes.
    """

    name: str
    url: str
    sha256: str
    size: int


def cache_folder() -> Path:
    """Return the folder of downloaded files; it may not exist yet."""
    if named := os.environ.get("MIEN_CACHE"):
        return Path(named)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "mien" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "mien"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "mien"


def fetch(file: RemoteFile, *, timeout_s: float = TIMEOUT_S) -> Path:
    """Return the path of a file in the cache, after downloading it if it is not there.

    Args:
        file: The file.
        timeout_s: Seconds without data after which the download fails.

    Returns:
        The path.

    Raises:
        DownloadError: The file cannot be downloaded, or its SHA-256 is wrong, also in the cache.
        OutputError: The cache cannot be written.
    """
    path = cache_folder() / file.name
    if path.is_file():
        _check(path.read_bytes(), file, f"{path} is damaged; delete it and it is fetched again")
        return path
    data = _download(file, path, timeout_s)
    _check(data, file, f"{file.url} is not the file that mien knows; put a good copy at {path}")
    _store(data, path)
    return path


def _download(file: RemoteFile, path: Path, timeout_s: float) -> bytes:
    try:
        with urllib.request.urlopen(file.url, timeout=timeout_s) as answer:
            # One byte more than expected is enough to see that it is another file.
            return bytes(answer.read(file.size + 1))
    except (OSError, http.client.HTTPException) as error:  # URLError, HTTPError and timeouts are OSErrors
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = getattr(error, "reason", None) or error
        message = f"cannot fetch {file.url} ({reason}); get online, or put the file at {path} by hand"
        raise DownloadError(message) from error


def _check(data: bytes, file: RemoteFile, otherwise: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise DownloadError(f"{otherwise} (sha256 {found[:12]}…, expected {file.sha256[:12]}…)")


def _store(data: bytes, path: Path) -> None:
    """Write to a temporary file and rename it, so that two processes at once, or a crash, never leave half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}); set MIEN_CACHE to a folder that can"
        ) from error
