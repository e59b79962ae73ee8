"""Thousands of requests: every response is right, and the memory does not grow."""

import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien import Reader
from serve_clients import Served, Tally, load
from serve_load import make_images


@pytest.mark.release
@pytest.mark.timeout(3600)
def test_twenty_thousand_requests_of_32_clients(capsys: pytest.CaptureFixture[str]) -> None:
    images = make_images()
    reader, tally = Reader(), Tally()
    expected = [reader.read(image).to_dict() for image in images]
    with Served(2) as server:
        load(server.port, images, expected, 32, 500, Tally(), server)  # buffers and caches fill
        load(server.port, images, expected, 32, 20_000, tally, server)
    memory = tally.memory()
    with capsys.disabled():
        print(f"\n{tally.to_dict()} {memory}")
    assert (tally.statuses, tally.wrong) == ({200: 20_000}, 0)
    assert memory["medians"][-1] <= memory["medians"][0] + 10
    assert memory["highest"] <= memory["medians"][0] + 100
