"""A client of `WS /v1/stream` for the tests."""

import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from support.http_server import SECONDS, Running


def stream(server: Running, query: str = "", **headers: str) -> ClientConnection:
    """A connection to the server's stream; underscores in names of headers stand for hyphens."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return connect(f"ws://127.0.0.1:{server.port}/v1/stream{query}", additional_headers=sent, proxy=None)


def said(socket: ClientConnection) -> Any:
    """The next message, which is JSON."""
    return json.loads(socket.recv(SECONDS))


def closed(socket: ClientConnection) -> tuple[int, str]:
    """Code and reason of the close that comes next."""
    with pytest.raises(ConnectionClosed) as caught:
        socket.recv(SECONDS)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason
