"""Health, models, unknown paths, and the pages that `mien serve` serves."""

import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.bundled import DEFAULT_MODEL
from mien.serve import create_app
from support.http_server import RunningServer, serving


def test_health_and_models_describe_the_server(server: RunningServer) -> None:
    assert server.request("/healthz").json() == {"status": "ok"}
    assert server.request("/readyz").json() == {"status": "ready"}
    received = server.request("/v1/models").json()
    assert received["models"][0]["name"] == DEFAULT_MODEL
    assert received["models"][0]["emotions"][3] == "happy"
    assert received["detector"] == "blazeface"
    assert received["limits"]["queue"] == 128


def test_unknown_paths_and_methods_are_problems(server: RunningServer) -> None:
    assert server.request("/nope").json()["title"] == "Not Found"
    wrong = server.request("/v1/predict")
    assert (wrong.status, wrong.json()["detail"]) == (405, "this path takes another method")
    assert wrong.headers["allow"] == "POST"
    for path in ("/nope", "/v1/predict/", "/v1/nope", "/docs/x"):
        for method in ("POST", "PUT", "DELETE"):
            refused = server.request(path, b"x", method=method)
            assert (refused.status, refused.json()["title"]) == (404, "Not Found"), (method, path)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["/%00", "/a%00b.mjs", "/" + "a" * 300, "/" + "a/" * 3000])
def test_paths_that_no_file_can_have_are_not_found(
    server: RunningServer, path: str, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert server.request(path, method=method).status == 404
    assert caplog.text == ""


@pytest.mark.parametrize("path", ["/", "/docs", "/site.json", "/openapi.json", "/base.css"])
def test_pages_have_headers_without_a_body(server: RunningServer, path: str) -> None:
    whole, head = server.request(path), server.request(path, method="HEAD")
    assert (whole.status, head.status, head.body) == (200, 200, b"")
    assert head.headers["content-length"] == str(len(whole.body))
    assert server.request(path, b"x").status == 405


def test_pages_load_nothing_from_other_sites(server: RunningServer) -> None:
    for path in ("/docs", "/"):
        page = server.request(path)
        assert page.status == 200
        text = page.body.decode()
        assert not re.search(r"""(?:src|href|action)\s*=\s*["']?(?:https?:)?//""", text)
        assert "default-src" in text or "default-src" in page.headers["content-security-policy"]
    docs = server.request("/docs").body.decode()
    for path in server.request("/openapi.json").json()["paths"]:
        assert path in docs


def test_files_of_the_page_have_their_content_types(reader: Reader, tmp_path: Path) -> None:
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
            response = server.request(path)
            assert (response.status, response.headers["content-type"].partition(";")[0]) == (200, kind)
            assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert server.request("/%2e%2e/secret").status == 404
        assert server.request("/a.css", b"x").status == 405
        assert server.request("/v1/predict").headers["allow"] == "POST"
        assert server.request("/healthz").json() == {"status": "ok"}
