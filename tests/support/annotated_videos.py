"""Write videos with the library, write videos with audio, and read both."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mien.video.video_writer import VideoWriter
from support.frame_results import SIZE, frame_result, gray_frame

av = pytest.importorskip("av", reason="videos need PyAV, which the video extra brings")


def write_annotated(path: Path, times: Sequence[float], *, source: Path | None = None, **settings: Any) -> VideoWriter:
    """Write grey frames at these times in seconds with ``VideoWriter``."""
    size_wh = settings.pop("size_wh", SIZE)
    with VideoWriter(path, source=source, size_wh=size_wh, rate=settings.pop("rate", 25)) as writer:
        for index, seconds in enumerate(times):
            writer.write(gray_frame(20 + 4 * (index % 50), size_wh), frame_result(index, seconds, size_wh=size_wh))
    return writer


def frames_of(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    """Time in seconds and RGB pixels of each frame."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def audio_of(path: Path) -> list[tuple[str, list[tuple[float, bytes]]]]:
    """Codec and packets (time in seconds, bytes) of each audio stream."""
    with av.open(str(path)) as container:
        streams = list(container.streams.audio)
        packets = [packet for packet in container.demux(streams) if packet.size]
        return [
            (
                stream.codec_context.codec.canonical_name,
                [(float(p.pts * p.time_base), bytes(p)) for p in packets if p.stream_index == stream.index],
            )
            for stream in streams
        ]


def tone(container: Any, stream: Any, hertz: float) -> Iterator[None]:
    """Coroutine that writes a tone up to each time sent to it, in seconds."""
    done = 0
    while True:
        until = yield
        while done + 1024 <= until * 48_000:
            wave = 0.2 * np.sin(2 * np.pi * hertz * np.arange(done, done + 1024) / 48_000)
            frame = av.AudioFrame.from_ndarray(np.repeat(wave[None].astype(np.float32), 2, 0), "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, done, Fraction(1, 48_000)
            container.mux(stream.encode(frame))
            done += 1024


def write_source_video(
    path: Path, codec: str | None, *, tones: int = 1, seconds: float = 2.0, video_start: float = 0.0, rate: int = 48_000
) -> Path:
    """Write a video of 2 seconds with tones encoded by ``codec``."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", 25, width=64, height=48, options={"preset": "ultrafast"})
        audio = [container.add_stream(codec, rate, layout="stereo") for _ in range(tones if codec else 0)]
        writers = [tone(container, stream, 440 * (i + 1)) for i, stream in enumerate(audio)]
        for writer in writers:
            next(writer)
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(gray_frame(5 * index, (64, 48)), "rgb24")
            frame.pts, frame.time_base = index * 40 + round(1000 * video_start), Fraction(1, 1000)
            container.mux(video.encode(frame))
            for writer in writers:
                writer.send(min((index + 1) / 25, seconds))
        container.mux(video.encode())
        for writer, stream in zip(writers, audio, strict=True):
            writer.send(seconds)
            container.mux(stream.encode())
    return path
