"""Downloads happen on request, are checked, and fail with one line that names the cure."""

import hashlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mien._download import RemoteFile, cache_folder, fetch
from mien._errors import DownloadError, OutputError
from mien.detect import open_detector

CONTENT = b"a small model" * 100
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT at /good, another page at /wrong, and half of the announced bytes at /half."""

    def do_GET(self) -> None:
        body = b"<html>sign in</html>" if self.path == "/wrong" else CONTENT
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/half" else body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def remote(url: str) -> RemoteFile:
    return RemoteFile(name="model.onnx", url=url, sha256=SHA256, size=len(CONTENT))


def test_a_good_file_is_stored_once(server: str, cache: Path) -> None:
    path = fetch(remote(f"{server}/good"))
    assert path == cache / "model.onnx"
    assert path.read_bytes() == CONTENT
    assert fetch(remote("http://127.0.0.1:9/never-requested")) == path
    assert list(cache.iterdir()) == [path]


@pytest.mark.parametrize("page", ["wrong", "half", "missing"])
def test_a_bad_response_is_not_stored(server: str, cache: Path, page: str) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(remote(f"{server}/{page}"))
    assert one_line_with(caught.value, f"{server}/{page}", str(cache / "model.onnx"))
    assert not cache.exists() or not any(cache.iterdir())


def test_offline_names_url_and_place(cache: Path, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/model.onnx"
    with pytest.raises(DownloadError) as caught:
        fetch(remote(url))
    assert one_line_with(caught.value, url, str(cache / "model.onnx"), "by hand")


def test_a_silent_server_times_out(cache: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/model.onnx"
        with pytest.raises(DownloadError, match="timed out"):
            fetch(remote(url), timeout_s=0.2)
    assert not cache.exists()


def test_a_damaged_file_in_the_cache_is_refused(cache: Path) -> None:
    cache.mkdir()
    (cache / "model.onnx").write_bytes(CONTENT[:-1])
    with pytest.raises(DownloadError, match="damaged; delete it"):
        fetch(remote("http://127.0.0.1:9/never-requested"))


def test_a_cache_that_cannot_be_written_is_named(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="set MIEN_CACHE"):
        fetch(remote(f"{server}/good"))


def test_yunet_offline_is_a_download_error(cache: Path, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(DownloadError) as caught:
        open_detector("yunet")
    assert one_line_with(caught.value, "https://", str(cache / "face_detection_yunet_2023mar.onnx"))


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="the folder of Linux")
def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MIEN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mien"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path(os.path.expanduser("~")) / ".cache" / "mien"  # noqa: PTH111
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert not cache_folder().exists()


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="folders of Linux")
def test_no_home_folder_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without HOME and entry in passwd
    monkeypatch.delenv("MIEN_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "mien"
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(DownloadError, match="set MIEN_CACHE to a folder"):
        cache_folder()


@pytest.fixture
def free_port() -> int:
    """A port without a server."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def one_line_with(error: Exception, *parts: str) -> bool:
    text = str(error)
    return "\n" not in text and all(part in text for part in parts)
