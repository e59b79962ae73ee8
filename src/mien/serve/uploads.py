"""The images of a request body: received under the limits and parsed in memory, never written to disk."""

import asyncio
import base64
import binascii
import json
import re
import time
from codecs import BOM_UTF8
from collections.abc import Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.types import Receive

from mien.serve.engine import Limits, Metrics, Upload
from mien.serve.problems import Problem

FIELD = "file"  # the form field of images
_UNNAMED = "image"  # name of an image that is the whole body, or has no file name
_MAX_NAME = 200  # characters of a file name; the rest is cut off
_MAX_PART_HEADERS = 4096  # bytes
_JSON_COPIES = 3  # of its bytes: as they arrive, as text, and as the images in it
_MAX_PADDING = 100  # spaces after a boundary
_MAX_OTHER_FIELDS = 16  # other form fields, before the body is refused
_DRAIN_SECONDS = 2.0  # for which the rest of a refused body is received, so that the client reads the response


class HeldBytes:
    """Counts the bytes of all request bodies in memory. Only the event loop uses it."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        """Start at 0.

        Args:
            limit: Largest number of bytes.
            metrics: Shows the number of bytes.
        """
        self._limit = limit
        self._metrics = metrics
        self._count = 0

    def add(self, count: int) -> None:
        """Count more bytes; a negative ``count`` releases them.

        Args:
            count: Number of bytes.

        Raises:
            Problem: 503, the bodies of all requests would exceed the limit.
        """
        if count > 0 and self._count + count > self._limit:
            detail = f"the bodies of other requests fill the limit of {self._limit:,} bytes; try again in 1 s"
            raise Problem(503, detail, headers={"Retry-After": "1"})
        self._count += count
        self._metrics.held.set(self._count)


class Body:
    """The body of one request, a context manager: its bytes count as held until the block ends.

    Attributes:
        ended: Whether the body was received to its end.
    """

    def __init__(self, headers: Headers, receive: Receive, *, limits: Limits, held: HeldBytes) -> None:
        """Prepare to receive the body.

        Args:
            headers: Headers of the request.
            receive: ASGI channel of the request.
            limits: Limits of bytes, images and seconds.
            held: Counts the bytes of all requests.
        """
        self._headers = headers
        self._receive = receive
        self._limits = limits
        self._held = held
        self._count = 0
        self._most = limits.max_bytes
        self.ended = False

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.add(-self._count)
        self._count = 0

    async def images(self) -> list[Upload]:
        """Receive the images: the files in the form field ``file``, or the whole body.

        Returns:
            The images in their order.

        Raises:
            Problem: 400 broken body, 408 too slow, 413 too large, 415 wrong type, 422 form without images, with too
                many or with other fields, 503 no memory left for bodies.
            ConnectionError: The client has left.
        """
        kind, options = parse_options_header(self._headers.get("content-type") or "application/octet-stream")
        if {each.strip().lower() for each in self._headers.getlist("content-encoding")} - {"identity", ""}:
            raise Problem(415, "a compressed body is not accepted; send the image without Content-Encoding")
        is_json = kind == b"application/json"
        if is_json:
            self._most = min(self._most, self._limits.held_bytes // _JSON_COPIES)
        length = self._headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._most:
            raise self._too_large()
        if kind == b"multipart/form-data":
            form = _Form(options.get(b"boundary", b""), self._limits)
            await self._receive_all(form.write)
            return form.finish()
        if not is_json and not kind.startswith(b"image/") and kind != b"application/octet-stream":
            name = kind.decode("latin-1")[:80]
            detail = f"a body of type {name!r} is not an image; send image/jpeg (or another image type), "
            detail += (
                "application/octet-stream, application/json with data URLs, or multipart/form-data with the field "
            )
            raise Problem(415, detail + repr(FIELD))
        parts: list[bytes] = []
        await self._receive_all(parts.append)
        if not self._count:
            raise Problem(400, "the body is empty; send the bytes of an image")
        if not is_json:
            return [Upload(_UNNAMED, b"".join(parts))]
        copies = (_JSON_COPIES - 1) * self._count
        self._held.add(copies)
        self._count += copies
        return _images_in_json(b"".join(parts), self._limits.max_images)

    async def drain(self) -> None:
        """Receive and discard the rest for a short time: most clients read a response only after they sent all."""
        if not self._count and "expect" in self._headers:
            return  # the client waits for "100 Continue" and sends nothing without it
        end = time.monotonic() + _DRAIN_SECONDS
        try:
            while not self.ended and time.monotonic() < end:
                await asyncio.wait_for(self._chunk(), _DRAIN_SECONDS)
        except (TimeoutError, ConnectionError):
            pass

    async def _receive_all(self, write: Callable[[bytes], object]) -> None:
        try:
            async with asyncio.timeout(self._limits.timeout):
                while not self.ended:
                    chunk = await self._chunk()
                    if self._count + len(chunk) > self._most:
                        raise self._too_large()
                    self._held.add(len(chunk))
                    self._count += len(chunk)
                    write(chunk)
        except TimeoutError as error:
            seconds = self._limits.timeout
            raise Problem(408, f"the body did not arrive within {seconds:g} s; send it faster or smaller") from error

    async def _chunk(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client has left")
        self.ended = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    def _too_large(self) -> Problem:
        cure = "send less at once" if self._most == self._limits.max_bytes else "send the images without JSON"
        return Problem(413, f"the body exceeds the limit of {self._most:,} bytes; {cure}")


def _images_in_json(body: bytes, max_images: int) -> list[Upload]:
    """The images of ``{"image": "data:image/png;base64,..."}`` or ``{"images": [...]}``; base64 alone is accepted."""
    expected = 'send {"image": "data:image/jpeg;base64,..."} or {"images": [...]}'
    # Counted before the body is parsed: many small values take far more memory than their text.
    if body.count(b",") + body.count(b"[") + body.count(b"{") > 4 * max_images + 4:
        raise Problem(422, f"the JSON has too many values for {max_images} images; {expected}")
    # A single one beyond Latin-1 would make the text take up to four bytes for each character.
    if not body.removeprefix(BOM_UTF8).isascii() or body.count(rb"\u") > body.count(rb"\u00"):
        raise Problem(400, f"the body is no JSON in ASCII, as base64 is; {expected}")
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is no JSON; {expected}") from error
    images = parsed.get("images", [parsed.get("image")]) if isinstance(parsed, dict) and len(parsed) == 1 else None
    if not isinstance(images, list) or not images or not all(isinstance(image, str) for image in images):
        raise Problem(422, f"the JSON has no images in base64; {expected}")
    if len(images) > max_images:
        raise Problem(422, f"more than {max_images} images in one request; send several requests")
    try:
        decoded = [base64.b64decode(image.rpartition("base64,")[2], validate=True) for image in images]
    except (ValueError, binascii.Error) as error:
        raise Problem(422, f"an image is not base64; {expected}") from error
    names = [_UNNAMED] if len(decoded) == 1 else [f"{_UNNAMED} {number}" for number in range(1, len(decoded) + 1)]
    return [Upload(name, data) for name, data in zip(names, decoded, strict=True)]


class _Form:
    """Collects the files of a multipart form while its bytes arrive."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        if not boundary:
            raise Problem(400, "the multipart body names no boundary; let your HTTP library set the Content-Type")
        self._limits = limits
        self._files: list[Upload] = []
        self._others: list[str] = []
        self._ended = False
        # RFC 2046 allows no other line that begins with the boundary. The parser would read each byte by byte.
        self._wrong = re.compile(
            rb"\r\n--%b(?!--|[ \t]{0,%d}\r\n|-?\Z|[ \t]{0,%d}\r?\Z)" % (re.escape(boundary), _MAX_PADDING, _MAX_PADDING)
        )
        self._tail = b""  # what came last, as far as a boundary with spaces may reach
        self._tail_bytes = len(boundary) + _MAX_PADDING + 8
        self._begin_part()
        calls = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, calls)  # type: ignore[arg-type]
        except FormParserError as error:
            raise _broken(error) from error

    def write(self, chunk: bytes) -> None:
        joined = self._tail + chunk
        if not self._ended and self._wrong.search(joined):
            raise Problem(400, "an image has a line that begins with the multipart boundary; choose a longer boundary")
        self._tail = joined[-self._tail_bytes :]
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _broken(error) from error

    def finish(self) -> list[Upload]:
        if not self._ended:
            raise Problem(400, "the multipart body ends before its last boundary; send it whole")
        if self._others:
            fields = ", ".join(repr(name[:40]) for name in self._others[:3])
            raise Problem(422, f"the form has the field {fields}; images belong into {FIELD!r}, options into the query")
        if not self._files:
            raise Problem(422, f"the form has no image; put each into a field named {FIELD!r}")
        return self._files

    def _begin_part(self) -> None:
        self._data: list[bytes] = []
        self._header, self._value, self._header_bytes = b"", b"", 0
        self._disposition = b""

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += self._bounded(data[start:end])

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._bounded(data[start:end])

    def _bounded(self, piece: bytes) -> bytes:
        self._header_bytes += len(piece)
        if self._header_bytes > _MAX_PART_HEADERS:
            raise Problem(400, f"the headers of a part exceed {_MAX_PART_HEADERS} bytes; shorten the file name")
        return piece

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field == FIELD:
            name = options.get(b"filename", b"").decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
            line = "".join(c for c in name if c.isprintable())[:_MAX_NAME]  # messages and readings show it
            self._files.append(Upload(line or _UNNAMED, b"".join(self._data)))
        else:
            self._others.append(field)
        if len(self._files) > self._limits.max_images or len(self._others) > _MAX_OTHER_FIELDS:
            raise Problem(422, f"more than {self._limits.max_images} images in one request; send several requests")

    def _end(self) -> None:
        self._ended = True


def _broken(error: FormParserError) -> Problem:
    return Problem(400, f"the multipart body is broken ({error})")
