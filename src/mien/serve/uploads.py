"""The pictures of a request: read under the limits while they arrive, parsed in memory, written nowhere."""

import asyncio
import time
from collections.abc import Callable, Sequence
from difflib import get_close_matches

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.types import Receive

from mien.serve.engine import Limits, Metrics, Sent
from mien.serve.problems import Problem


class Query:
    """The query of one request: each ``take`` names a parameter that the path knows; ``end`` refuses all others."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        """``pairs`` are name and value. Raises ``Problem`` 422 for a name given twice."""
        self._values: dict[str, str] = {}
        self._known: list[str] = []
        for name, value in pairs:
            if name in self._values:
                raise Problem(422, f"{name[:40]!r} stands twice in the query; give it once")
            self._values[name] = value

    def flag(self, name: str) -> bool:
        """``true`` or ``false``, which it is without the parameter."""
        return self.word(name, ("false", "true")) == "true"

    def word(self, name: str, words: Sequence[str]) -> str:
        """One of ``words``; the first without the parameter."""
        value = self._take(name)
        if value is None:
            return words[0]
        if value not in words:
            near = get_close_matches(value[:40], words, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise Problem(422, f"{name} is {', '.join(words)}, not {value[:40]!r}{hint}")
        return value

    def number(self, name: str, usual: int, *, least: int, most: int) -> int:
        """A whole number from ``least`` to ``most``; ``usual`` without the parameter."""
        value = self._take(name)
        if value is None:
            return usual
        if not (value.isascii() and value.isdecimal() and len(value) < 10 and least <= int(value) <= most):
            raise Problem(422, f"{name} is a whole number from {least} to {most}, not {value[:40]!r}")
        return int(value)

    def end(self) -> None:
        """Raises ``Problem`` 422 for a parameter that nobody took."""
        for name in self._values:
            if name not in self._known:
                known = ", ".join(self._known) or "none"
                raise Problem(422, f"{name[:40]!r} is unknown; this path takes: {known}")

    def _take(self, name: str) -> str | None:
        self._known.append(name)
        return self._values.get(name)


FIELD = "file"


_RAW = "picture"  # what messages call a picture that came as the body, or without a file name


_LONGEST_NAME = 200  # characters of a file name that are kept


_HEADERS = 4096  # bytes of a part's headers


_SPARE = 16  # form fields of other names at most, before the body is refused


_DRAIN = 2.0  # seconds for which the rest of a refused body is still taken in, so that its sender reads the answer


class Held:
    """Counts the bytes of all bodies in memory. Used by the event loop alone."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        """``most`` bytes are held at the same time."""
        self._most = most
        self._metrics = metrics
        self._now = 0

    def take(self, count: int) -> None:
        """Count ``count`` more bytes; raises the ``Problem`` 503 when they are too many."""
        if self._now + count > self._most:
            detail = f"the bodies of other requests fill the {self._most:,} bytes kept for them; try again in 1 s"
            raise Problem(503, detail, headers={"Retry-After": "1"})
        self._now += count
        self._metrics.held.set(self._now)

    def give(self, count: int) -> None:
        """``count`` bytes are no longer held."""
        self._now -= count
        self._metrics.held.set(self._now)


class Body:
    """The body of one request, a context: its bytes count as held until the block ends.

    ``ended`` tells whether it was received to its end.
    """

    def __init__(self, headers: Headers, receive: Receive, *, limits: Limits, held: Held) -> None:
        """Nothing is read yet."""
        self._headers = headers
        self._receive = receive
        self._limits = limits
        self._held = held
        self._count = 0
        self.ended = False

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.give(self._count)
        self._count = 0

    async def pictures(self) -> list[Sent]:
        """The pictures in the body: the files of a form's field ``file``, or the body itself.

        Raises ``Problem``: 400 a broken body, 408 too slow, 413 too large, 415 another type, 422 a form without
        pictures, with too many or with other fields, 503 no room; ``ConnectionError`` when the sender has gone.
        """
        kind, options = parse_options_header(self._headers.get("content-type") or "application/octet-stream")
        self._check_head()
        if kind == b"multipart/form-data":
            form = _Form(options.get(b"boundary", b""), self._limits)
            await self._read(form.feed)
            return form.finish()
        if not kind.startswith(b"image/") and kind != b"application/octet-stream":
            detail = (
                f"a body of type {kind.decode('latin-1')[:80]!r} is no picture; send image/jpeg (or another image), "
            )
            raise Problem(415, detail + f"application/octet-stream, or multipart/form-data with the field {FIELD!r}")
        parts: list[bytes] = []
        await self._read(parts.append)
        if not self._count:
            raise Problem(400, "the body is empty; send a picture's bytes")
        return [Sent(_RAW, b"".join(parts))]

    async def drain(self) -> None:
        """Receive and forget what is left, for a short while: who sends blindly gets to read the answer, too."""
        if not self._count and "expect" in self._headers:
            return  # the sender asks first (100-continue): it has sent nothing yet, and now will not
        end = time.monotonic() + _DRAIN
        try:
            while not self.ended and time.monotonic() < end:
                await asyncio.wait_for(self._chunk(), _DRAIN)
        except (TimeoutError, ConnectionError):
            pass

    def _check_head(self) -> None:
        if self._headers.get("content-encoding", "identity") != "identity":
            raise Problem(415, "a compressed body is not read; send the picture as it is, without Content-Encoding")
        length = self._headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.max_bytes:
            raise self._too_large()

    async def _read(self, feed: Callable[[bytes], object]) -> None:
        try:
            async with asyncio.timeout(self._limits.timeout):
                while not self.ended:
                    chunk = await self._chunk()
                    if self._count + len(chunk) > self._limits.max_bytes:
                        raise self._too_large()
                    self._held.take(len(chunk))
                    self._count += len(chunk)
                    feed(chunk)
        except TimeoutError as error:
            seconds = self._limits.timeout
            raise Problem(408, f"the body did not arrive within {seconds:g} s; send it faster or smaller") from error

    async def _chunk(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the sender has gone")
        self.ended = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    def _too_large(self) -> Problem:
        return Problem(413, f"the body exceeds the limit of {self._limits.max_bytes:,} bytes; send less at once")


async def gone(receive: Receive) -> None:
    """Returns when the sender has closed the connection; for a body that was received whole."""
    while (await receive())["type"] != "http.disconnect":
        pass


class _Form:
    """Gathers the files of a multipart form as its bytes arrive."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        if not boundary:
            raise Problem(400, "the multipart body names no boundary; let your HTTP library set the Content-Type")
        self._limits = limits
        self._files: list[Sent] = []
        self._others: list[str] = []
        self._ended = False
        self._start()
        calls = {
            "on_part_begin": self._start,
            "on_header_field": self._add_to_header,
            "on_header_value": self._add_to_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, calls)  # type: ignore[arg-type]
        except FormParserError as error:
            raise Problem(400, f"the multipart body is broken ({error})") from error

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise Problem(400, f"the multipart body is broken ({error})") from error

    def finish(self) -> list[Sent]:
        if not self._ended:
            raise Problem(400, "the multipart body ends before its last boundary; send it whole")
        if self._others:
            fields = ", ".join(repr(name[:40]) for name in self._others[:3])
            raise Problem(422, f"the form has the field {fields}; pictures go into {FIELD!r}, wishes into the query")
        if not self._files:
            raise Problem(422, f"the form holds no picture; put each into a field named {FIELD!r}")
        return self._files

    def _start(self) -> None:
        self._data: list[bytes] = []
        self._field, self._value, self._size = b"", b"", 0
        self._disposition = b""

    def _add_to_header(self, data: bytes, start: int, end: int) -> None:
        self._field += self._bounded(data[start:end])

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._bounded(data[start:end])

    def _bounded(self, piece: bytes) -> bytes:
        self._size += len(piece)
        if self._size > _HEADERS:
            raise Problem(400, f"the headers of a part exceed {_HEADERS} bytes; shorten the file name")
        return piece

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field, self._value = b"", b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            self._others.append(field)
        else:
            self._files.append(Sent(_shown(options.get(b"filename", b"")), b"".join(self._data)))
        if len(self._files) > self._limits.max_images or len(self._others) > _SPARE:
            raise Problem(422, f"more than {self._limits.max_images} pictures in one request; send several requests")

    def _end(self) -> None:
        self._ended = True


def _shown(filename: bytes) -> str:
    """A file name as messages show it: one line, no folders, not long."""
    name = filename.decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:_LONGEST_NAME] or _RAW
