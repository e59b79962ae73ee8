"""Access to `mien serve`: tokens, host names, other origins; no image content is logged."""

import logging
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien.serve import create_app
from mien.serve.auth import Access
from support.encoded_images import encode
from support.http_server import Running, read_all, serving

TOKEN = "s3cret-token"


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(detector="none")


@pytest.fixture(scope="module")
def server(reader: Reader) -> Iterator[Running]:
    access = Access(hosts=frozenset({"faces.example"}), origins=frozenset({"https://app.example"}))
    with serving(create_app(reader, access=access)) as running:
        yield running


@pytest.fixture(scope="module")
def small() -> bytes:
    return encode(np.zeros((48, 48), np.uint8))


@pytest.fixture(scope="module")
def locked(reader: Reader) -> Iterator[Running]:
    with serving(create_app(reader, access=Access(TOKEN))) as running:
        yield running


@pytest.mark.parametrize(
    "shown", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer " + "x" * 5000]
)
def test_without_the_token_nothing_is_read(locked: Running, small: bytes, shown: str | None) -> None:
    headers = {} if shown is None else {"Authorization": shown}
    for path in ("/v1/predict", "/v1/explain"):
        answer = locked.ask(path, small, **headers)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "Authorization: Bearer TOKEN" in answer.json()["detail"]
    assert locked.ask("/v1/models", **headers).status == 401
    assert locked.ask("/metrics", **headers).status == 401


def test_the_token_opens_and_health_needs_none(locked: Running, small: bytes) -> None:
    for shown in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
        assert locked.ask("/v1/predict", small, Authorization=shown).status == 200
        assert locked.ask("/metrics", Authorization=shown).status == 200
    assert locked.ask(f"/v1/models?token={TOKEN}").status == 401
    for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json"):
        assert locked.ask(path).status == 200
    api = locked.ask("/openapi.json").json()
    assert api["paths"]["/v1/predict"]["post"]["security"] == [{"token": []}]
    assert "security" not in api["paths"]["/healthz"]["get"]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.0.0.1:99",
        "[::1]:80",
        "192.168.7.7",
        "faces.example:80",
        "a.localhost",
        "localhost.",
    ],
)
def test_names_that_are_its_own(server: Running, small: bytes, host: str) -> None:
    assert server.ask("/v1/predict", small, Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "xfaces.example",
        "",
        "[::1",
        "@",
        "1",
    ],
)
def test_foreign_names_are_refused_on_every_path(server: Running, small: bytes, host: str) -> None:
    """DNS rebinding: a page elsewhere lets its own name lead here."""
    for path, body in (("/v1/predict", small), ("/v1/models", None), ("/", None), ("/healthz", None), ("/docs", None)):
        answer = server.ask(path, body, Host=host)
        assert (answer.status, "allowed hosts" in answer.json()["detail"]) == (403, True)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://faces.example:1", "http://[", "x"]
)
def test_pages_elsewhere_are_refused(server: Running, small: bytes, origin: str) -> None:
    answer = server.ask("/v1/predict", small, Host="localhost:8000", Origin=origin)
    assert (answer.status, "allowed origins" in answer.json()["detail"]) == (403, True)
    assert "access-control-allow-origin" not in answer.headers


def test_its_own_page_and_named_pages_may_ask(server: Running, small: bytes) -> None:
    assert server.ask("/v1/predict", small, Host="localhost:8000", Origin="http://localhost:8000").status == 200
    named = server.ask("/v1/predict", small, Origin="https://app.example")
    assert (named.status, named.headers["access-control-allow-origin"]) == (200, "https://app.example")
    wish = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
    preflight = server.ask("/v1/predict", method="OPTIONS", Origin="https://app.example", **wish)
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (200, "https://app.example")
    foreign = server.ask("/v1/predict", method="OPTIONS", Origin="https://evil.example", **wish)
    assert "access-control-allow-origin" not in foreign.headers


def test_answers_are_neither_kept_nor_guessed_at(server: Running, small: bytes) -> None:
    answer = server.ask("/v1/predict", small)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_the_log_tells_neither_names_nor_queries(
    reader: Reader, small: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), serving(create_app(reader, log_requests=True)) as server:
        server.form("/v1/predict?maps=true", ("anna-secret.png", small))
        server.form("/v1/predict?wish=secret", ("anna-secret.png", b"no secret picture"))
        server.ask("/secret/path%0aPOST", Cookie="secret")
    own = [record.getMessage() for record in caplog.records if record.name == "mien.serve"]
    assert [line.rsplit(" ", 2)[0] for line in own] == [
        "POST /v1/predict 200",
        "POST /v1/predict 422",
        "GET other 404",
    ]
    assert "secret" not in caplog.text


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: evil.example\r\n"])
def test_a_request_has_one_host(server: Running, hosts: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/readyz", "/"])
def test_heads_alone_may_be_asked_for(server: Running, path: str) -> None:
    answer = server.ask(path, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
