"""Server and clients of `serve_load.py`: `mien serve` as a measured process, clients that send and check."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SIZE_WH = (640, 480)
CLOSE = 2e-3  # of a probability: a batch of another size may round int8 sums differently
WAIT = 0.05  # seconds between a 503 and the next try; whole seconds, as in Retry-After, would leave the server idle
TICKS = os.sysconf("SC_CLK_TCK")


class Served:
    """`mien serve` as a process that listens on ``port``."""

    def __init__(self, threads: int, *words: str) -> None:
        """Extra ``words`` of the command line."""
        self._words = [sys.executable, "-m", "mien", "serve", "--port", "0", "--threads", str(threads), *words]

    def __enter__(self) -> "Served":
        self._process = subprocess.Popen(self._words, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if found is None:
            raise SystemExit(line + self._process.stderr.read())
        self.port = int(found[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        assert self._process.stderr is not None
        with self._process.stderr:
            if self._process.wait(60) != 0:
                raise SystemExit("the server did not stop cleanly")

    def cpu_seconds(self) -> float:
        """Processor time so far, user and system."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_mb(self) -> float:
        """The resident set."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024 / 1e6, 1)  # type: ignore[index]

    def batches(self) -> float:
        """Crops per batch so far."""
        import urllib.request

        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as response:
            text = response.read().decode()
        crops, batches = (float(re.search(rf"mien_batch_crops_{k} ([\d.e+]+)", text)[1]) for k in ("sum", "count"))  # type: ignore[index]
        return round(crops / batches, 2)


@dataclass
class Tally:
    """Responses and times that the clients counted."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Add the counts of another tally."""
        self.statuses += other.statuses
        self.wrong += other.wrong
        self.seconds += other.seconds
        self.memory_mb += other.memory_mb

    def to_dict(self) -> dict[str, Any]:
        """Counts, and times of accepted requests."""
        p50, p99 = np.percentile(self.seconds, (50, 99)) if self.seconds else (0, 0)
        return {
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "wrong": self.wrong,
            "p50_ms": round(1000 * float(p50), 1),
            "p99_ms": round(1000 * float(p99), 1),
            "longest_ms": round(1000 * max(self.seconds, default=0), 1),
        }

    def memory(self) -> dict[str, Any]:
        """Resident memory of the server during the run: the highest, and the medians of ten equal periods."""
        stretches = np.array_split(np.array(self.memory_mb), min(10, len(self.memory_mb)) or 1)
        medians = [round(float(np.median(part)), 1) for part in stretches if len(part)]
        return {"highest": max(self.memory_mb, default=0), "medians": medians}


def load(
    port: int,
    images: list[bytes],
    expected: list[dict[str, Any]],
    clients: int,
    count: int,
    tally: Tally,
    server: Served,
) -> None:
    """``count`` requests by ``clients`` at once; every response is checked."""
    left = iter(range(count))

    async def run() -> None:
        loop = asyncio.get_running_loop()
        opened = [
            await loop.create_connection(lambda: Client(images, expected, left, tally), "127.0.0.1", port)
            for _ in range(min(clients, count))
        ]
        watching = asyncio.create_task(watch_memory(server, tally))
        await asyncio.gather(*(client.done for _, client in opened))
        watching.cancel()

    try:
        import uvloop

        uvloop.run(run())
    except ImportError:
        asyncio.run(run())


async def watch_memory(server: Served, tally: Tally) -> None:
    """Record the server's memory twice a second."""
    while True:
        tally.memory_mb.append(server.memory_mb())
        await asyncio.sleep(0.5)


class Client(asyncio.Protocol):
    """One connection that sends a request, checks the response, and repeats."""

    def __init__(self, images: list[bytes], expected: list[dict[str, Any]], left: Any, tally: Tally) -> None:
        """``left`` yields the numbers of the requests still to be sent; all clients share it."""
        self._images, self._expected, self._left, self._tally = images, expected, left, tally
        self._known: dict[int, bytes] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Collect the response; check it when it is complete."""
        self._response += data
        head, separator, body = self._response.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]
        if len(body) == length:
            self._check(int(head[9:12]), body)

    def connection_lost(self, error: Exception | None) -> None:
        """The server must not close a connection that is still in use."""
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        number = next(self._left, None)
        if number is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._which = number % len(self._images)
        image = self._images[self._which]
        self._response = b""
        self._started = time.perf_counter()
        self._transport.write(
            b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(image), image)
        )

    def _check(self, status: int, body: bytes) -> None:
        self._tally.statuses[status] += 1
        if status == 200:
            self._tally.seconds.append(time.perf_counter() - self._started)
            # Before the timings the text is nearly always the same, so it is parsed only when it is new.
            reading = body.partition(b'"timings_ms"')[0]
            if self._known.get(self._which) != reading:
                self._tally.wrong += not is_right(json.loads(body)["readings"][0], self._expected[self._which])
                self._known[self._which] = reading
            self._send()
        else:
            asyncio.get_running_loop().call_later(WAIT, self._send)


def is_right(response: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether a response holds the boxes, emotions and probabilities that ``Reader.read`` returns."""
    if (
        len(response["faces"]) != len(expected["faces"])
        or response["size_wh"] != list(SIZE_WH)
        or response["error"] is not None
    ):
        return False
    return all(
        one["box"] == other["box"]
        and one["emotion"] == other["emotion"]
        and all(abs(one["probs"][name] - value) <= CLOSE for name, value in other["probs"].items())
        for one, other in zip(response["faces"], expected["faces"], strict=True)
    )
