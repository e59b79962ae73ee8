"""Fixtures that the tests of the server share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mien import Reader
from support.encoded_images import encode

if TYPE_CHECKING:  # support.http_server requires the extra mien[serve]
    from support.http_server import Gate, RunningServer


@pytest.fixture(scope="session")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="session")
def server(reader: Reader) -> "Iterator[RunningServer]":
    """A server with default limits."""
    from mien.serve import create_app
    from support.http_server import serving

    with serving(create_app(reader, threads=2)) as running:
        yield running


@pytest.fixture
def gate() -> "Iterator[Gate]":
    """A closed gate; it opens after the test, so that the server can stop."""
    from support.http_server import Gate

    gate = Gate()
    yield gate
    gate.open.set()


@pytest.fixture(scope="session")
def small() -> bytes:
    """An image of 48 x 48 pixels."""
    return encode(np.random.default_rng(0).integers(0, 255, (48, 48), np.uint8))


@pytest.fixture(scope="session")
def portrait(astronaut: np.ndarray) -> bytes:
    return encode(astronaut[::2, ::2])
