"""What `mien serve` reports about itself, and the pages it serves."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.bundled import DEFAULT_MODEL
from mien.serve import create_app
from support.http_server import Running, serving


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def server(reader: Reader) -> Iterator[Running]:
    with serving(create_app(reader, threads=2)) as running:
        yield running


def test_the_server_tells_of_itself(server: Running) -> None:
    assert server.ask("/healthz").json() == {"status": "ok"}
    assert server.ask("/readyz").json() == {"status": "ready"}
    said = server.ask("/v1/models").json()
    assert said["models"][0]["name"] == DEFAULT_MODEL
    assert said["models"][0]["emotions"][3] == "happy"
    assert said["detector"] == "blazeface"
    assert said["limits"]["queue"] == 128


def test_unknown_paths_and_methods_are_problems(server: Running) -> None:
    assert server.ask("/nope").json()["title"] == "Not Found"
    wrong = server.ask("/v1/predict")
    assert (wrong.status, wrong.json()["detail"]) == (405, "this path takes another method")
    assert wrong.headers["allow"] == "POST"


def test_no_page_of_the_server_loads_anything_from_elsewhere(server: Running) -> None:
    for path in ("/docs", "/"):
        page = server.ask(path)
        assert page.status == 200
        text = page.body.decode()
        assert not re.search(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", text)
        assert "default-src" in text or "default-src" in page.headers["content-security-policy"]
    docs = server.ask("/docs").body.decode()
    for path in server.ask("/openapi.json").json()["paths"]:
        assert path in docs


def test_a_page_is_served_with_its_types(reader: Reader, tmp_path: Path) -> None:
    for name in ("index.html", "a.mjs", "a.wasm", "a.onnx", "a.css"):
        (tmp_path / name).write_text("<!doctype html>")
    with serving(create_app(reader, page=tmp_path)) as server:
        kinds = {
            "/": "text/html",
            "/a.mjs": "text/javascript",
            "/a.wasm": "application/wasm",
            "/a.onnx": "application/octet-stream",
            "/a.css": "text/css",
        }
        for path, kind in kinds.items():
            answer = server.ask(path)
            assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, kind)
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert server.ask("/%2e%2e/secret").status == 404
        assert server.ask("/a.css", b"x").status == 405
        assert server.ask("/v1/predict").headers["allow"] == "POST"
        assert server.ask("/healthz").json() == {"status": "ok"}
