"""Access to `mien serve`: tokens, host names, other origins; no image content is logged."""

import logging
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from mien._errors import MienError
from mien.serve import create_app
from mien.serve.auth import Access
from support.http_server import RunningServer, read_all, serving

TOKEN = "s3cret-token"


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(detector="none")


@pytest.fixture(scope="module")
def server(reader: Reader) -> Iterator[RunningServer]:
    access = Access(hosts=["Faces.example", "::", "fe80::1%eth0"], origins=["https://App.example"])
    with serving(create_app(reader, access=access)) as running:
        yield running


@pytest.fixture(scope="module")
def locked(reader: Reader) -> Iterator[RunningServer]:
    with serving(create_app(reader, access=Access(TOKEN))) as running:
        yield running


@pytest.mark.parametrize(
    "authorization", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer " + "x" * 5000]
)
def test_requests_without_the_token_are_refused(locked: RunningServer, small: bytes, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for path in ("/v1/predict", "/v1/explain"):
        response = locked.request(path, small, **headers)
        assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")
        assert "Authorization: Bearer TOKEN" in response.json()["detail"]
    assert locked.request("/v1/models", **headers).status == 401
    assert locked.request("/metrics", **headers).status == 401


def test_the_token_gives_access_and_health_needs_none(locked: RunningServer, small: bytes) -> None:
    for authorization in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
        assert locked.request("/v1/predict", small, Authorization=authorization).status == 200
        assert locked.request("/metrics", Authorization=authorization).status == 200
    assert locked.request(f"/v1/models?token={TOKEN}").status == 401
    for path in ("/healthz", "/readyz", "/", "/docs", "/openapi.json"):
        assert locked.request(path).status == 200
    api = locked.request("/openapi.json").json()
    assert api["paths"]["/v1/predict"]["post"]["security"] == [{"token": []}]
    assert "security" not in api["paths"]["/healthz"]["get"]


@pytest.mark.parametrize(
    "rules",
    [
        *({"hosts": [host]} for host in ("faces.example:80", "https://faces.example", "faces.example/", "*.example")),
        *({"origins": [f"https://app.example{end}"]} for end in ("/", ":443", "?x", "#x")),
        *({"origins": [origin]} for origin in ("app.example", "https://", "https://*", "http://app.example:80", "*")),
    ],
)
def test_rules_that_never_match_are_refused(rules: dict[str, list[str]]) -> None:
    with pytest.raises(MienError, match=r"an origin is a scheme and|a host is a whole name without"):
        Access(**rules)  # type: ignore[arg-type]


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
def test_own_host_names_are_accepted(server: RunningServer, small: bytes, host: str) -> None:
    assert server.request("/v1/predict", small, Host=host).status == 200


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
def test_foreign_host_names_are_refused_on_every_path(server: RunningServer, small: bytes, host: str) -> None:
    """DNS rebinding: the name of a foreign page leads to this server."""
    for path, body in (("/v1/predict", small), ("/v1/models", None), ("/", None), ("/healthz", None), ("/docs", None)):
        response = server.request(path, body, Host=host)
        assert (response.status, "allowed hosts" in response.json()["detail"]) == (403, True)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://faces.example:1", "http://[", "x"]
)
def test_pages_of_other_origins_are_refused(server: RunningServer, small: bytes, origin: str) -> None:
    response = server.request("/v1/predict", small, Host="localhost:8000", Origin=origin)
    assert (response.status, "allowed origins" in response.json()["detail"]) == (403, True)
    assert "access-control-allow-origin" not in response.headers


def test_the_own_page_and_allowed_origins_are_accepted(server: RunningServer, small: bytes) -> None:
    assert server.request("/v1/predict", small, Host="localhost:8000", Origin="http://localhost:8000").status == 200
    named = server.request("/v1/predict", small, Origin="https://app.example")
    assert (named.status, named.headers["access-control-allow-origin"]) == (200, "https://app.example")
    cors = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
    preflight = server.request("/v1/predict", method="OPTIONS", Origin="https://app.example", **cors)
    assert (preflight.status, preflight.headers["access-control-allow-origin"]) == (200, "https://app.example")
    foreign = server.request("/v1/predict", method="OPTIONS", Origin="https://evil.example", **cors)
    assert "access-control-allow-origin" not in foreign.headers


def test_responses_forbid_caching_and_type_sniffing(server: RunningServer, small: bytes) -> None:
    response = server.request("/v1/predict", small)
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cross-origin-resource-policy"] == "same-origin"


def test_the_log_contains_no_file_names_and_no_queries(
    reader: Reader, small: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), serving(create_app(reader, log_requests=True)) as server:
        server.form("/v1/predict?maps=true", ("anna-secret.png", small))
        server.form("/v1/predict?unknown=secret", ("anna-secret.png", b"no secret image"))
        server.request("/secret/path%0aPOST", Cookie="secret")
    own = [record.getMessage() for record in caplog.records if record.name == "mien.serve"]
    assert [line.rsplit(" ", 2)[0] for line in own] == [
        "POST /v1/predict 200",
        "POST /v1/predict 422",
        "GET other 404",
    ]
    assert "secret" not in caplog.text


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: evil.example\r\n"])
def test_a_request_needs_exactly_one_host_header(server: RunningServer, hosts: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost/v1/models", 200),
        ("http://LOCALHOST:80/v1/models", 200),
        ("http://evil.example/v1/models", 400),
        ("http://localhost@evil.example/v1/models", 400),
        ("http://localhost:99/v1/models", 400),
        ("http://[::1/v1/models", 400),
        ("evil.example:80", 400),
    ],
)
def test_a_target_must_not_name_another_server_than_the_host_header(
    server: RunningServer, target: str, status: int
) -> None:
    with server.connect() as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert read_all(connection).startswith(f"HTTP/1.1 {status} ".encode())


@pytest.mark.parametrize("path", ["/v1/models", "/healthz", "/readyz", "/"])
def test_head_requests_have_no_body(server: RunningServer, path: str) -> None:
    response = server.request(path, method="HEAD")
    assert (response.status, response.body) == (200, b"")
