"""Downloads files into a cache folder on request, and checks their SHA-256.

The folder is ``$MIEN_CACHE``. Where that is not set, it is ``$XDG_CACHE_HOME/mien`` or ``~/.cache/mien`` on Linux,
``~/Library/Caches/mien`` on macOS, and ``%LOCALAPPDATA%\\mien\\Cache`` on Windows.
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
    """Return the folder of downloaded files; it may not exist yet.

    Raises:
        DownloadError: The environment names none, and the user has no home folder.
    """
    if named := os.environ.get("MIEN_CACHE"):
        return Path(named)
    unix = sys.platform not in ("win32", "darwin")
    if unix and (named := os.environ.get("XDG_CACHE_HOME")):
        return Path(named) / "mien"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise DownloadError("no home folder for downloaded files is known; set MIEN_CACHE to a folder") from error
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "mien" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "mien"
    return home / ".cache" / "mien"


def fetch(file: RemoteFile, *, timeout_s: float = 20.0) -> Path:
    """Return the path of a file in the cache. Download it if it is not there.

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
        _check(path.read_bytes(), file, f"{path} is damaged; delete it to download it again")
        return path
    try:
        with urllib.request.urlopen(file.url, timeout=timeout_s) as response:
            # One byte more than expected shows that it is another file.
            data = bytes(response.read(file.size + 1))
    except (OSError, http.client.HTTPException) as error:  # URLError, HTTPError and timeouts are OSErrors
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        reason = getattr(error, "reason", None) or error
        message = f"cannot download {file.url} ({reason}); connect to the network, or put the file at {path} by hand"
        raise DownloadError(message) from error
    _check(data, file, f"{file.url} is not the expected file; put a good copy at {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file is renamed when it is complete, so that neither a crash nor a second process leaves half of it.
        with tempfile.TemporaryDirectory(prefix=".mien-", dir=path.parent) as folder:
            partial = Path(folder) / file.name
            partial.write_bytes(data)
            partial.replace(path)
    except OSError as error:
        cause = f"{path} cannot be written ({error.strerror})"
        raise OutputError(f"{cause}; set MIEN_CACHE to a folder that can be written") from error
    return path


def _check(data: bytes, file: RemoteFile, message: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise DownloadError(f"{message} (sha256 {found[:12]}…, expected {file.sha256[:12]}…)")
