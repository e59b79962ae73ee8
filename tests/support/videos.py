"""Write small videos, and serve a camera: an HTTP server that sends a frame whenever the test releases one."""

import http.server
import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
CLOCK = 90_000  # ticks a second


def times(count: int, rate: float = 25.0, *, start: float = 0.0) -> list[float]:
    """The times of ``count`` frames, in seconds."""
    return [start + i / rate for i in range(count)]


def write_video(
    path: Path,
    images: Sequence[Pixels],
    times: Sequence[float],
    *,
    codec: str = "libx264",
    gop: int = 12,
    b_frames: int = 0,
    clock: int = CLOCK,
    aspect: Fraction | None = None,
) -> Path:
    """Write a video of RGB uint8 ``[H, W, 3]`` frames at their times in seconds."""
    import av

    height, width = images[0].shape[:2]
    with av.open(str(path), "w") as container:
        h264 = codec == "libx264"
        options = {"g": str(gop), "bf": str(b_frames), "crf": "20"} if h264 else {"qmin": "2", "qmax": "2"}
        stream = container.add_stream(codec, min(30, clock), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p" if h264 else "yuvj420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, clock)
        if aspect:
            stream.sample_aspect_ratio = aspect
        for image, seconds in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(seconds * clock), Fraction(1, clock)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def break_packets(path: Path, which: Sequence[int]) -> None:
    """Overwrite these packets of the video with zeros."""
    import av

    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for index in which:
        position, size = packets[index]
        start = data.index(b"\xff\xd8\xff", position)  # after the header that the container puts before a packet
        data[start : start + size] = bytes(size)
    path.write_bytes(bytes(data))


def write_audio(path: Path) -> Path:
    """Write a file with one second of silence and no video."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", 8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def shades(count: int, *, size_wh: tuple[int, int] = (64, 48)) -> list[Pixels]:
    """Plain grey frames, each a little lighter than the one before, so that a frame can be identified."""
    width, height = size_wh
    return [np.full((height, width, 3), 10 + 5 * i, np.uint8) for i in range(count)]


def shade_of(pixels: Pixels) -> int:
    """The index of a frame of ``shades``."""
    return round((float(pixels.mean()) - 10) / 5)


def walk(image: Pixels, places: Sequence[tuple[int, int]], *, size_wh: tuple[int, int] = (480, 270)) -> list[Pixels]:
    """Frames with ``image`` at these places (top left corner) on a plain background; it may be outside."""
    height, width = image.shape[:2]
    frames = []
    for x, y in places:
        canvas = np.full((size_wh[1] + 2 * height, size_wh[0] + 2 * width, 3), 90, np.uint8)
        if x < size_wh[0] and y < size_wh[1]:
            canvas[height + y : 2 * height + y, width + x : 2 * width + x] = image
        frames.append(canvas[height : height + size_wh[1], width : width + size_wh[0]])
    return frames


def head_of(astronaut: Pixels, side: int = 150) -> Pixels:
    """The head of the example image; the face is about 0.42 sides wide."""
    return np.asarray(Image.fromarray(astronaut[0:240, 105:345]).resize((side, side), Image.Resampling.BICUBIC))


class Camera(http.server.ThreadingHTTPServer):
    """Sends JPEG frames to each client, one for each release of ``gate``; closes after the last."""

    daemon_threads = True

    def __init__(self, images: Sequence[Pixels], *, hangs: bool = False) -> None:
        """``hangs`` keeps the connection open after the last frame."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jpegs = [_jpeg(image) for image in images]
        self.gate, self.hangs, self.over = threading.Semaphore(0), hangs, threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/camera"

    def release(self, count: int = 1) -> None:
        self.gate.release(count)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Camera

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=mien")
        self.end_headers()
        for jpeg in self.server.jpegs:
            while not self.server.gate.acquire(timeout=0.1):
                if self.server.over.is_set():
                    return
            self.wfile.write(b"--mien\r\nContent-Type: image/jpeg\r\n")
            self.wfile.write(b"Content-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n")
            self.wfile.flush()
        if self.server.hangs:
            self.server.over.wait(60)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def camera(images: Sequence[Pixels], *, hangs: bool = False) -> Iterator[Camera]:
    """A camera that serves until the block ends."""
    server = Camera(images, hangs=hangs)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


def _jpeg(image: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
