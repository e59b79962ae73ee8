"""The sound of a video, carried into another video packet by packet: no sample changes where MP4 can hold its codec."""

import errno
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mien._errors import SourceError
from mien.video.sources import import_av, reason_of, video_stream

# Codecs that players of MP4 know; PCM and the like may stand in the file by its standard but stay silent there.
_COPIED = {"aac", "mp3", "opus", "flac", "alac", "ac3", "eac3"}
_AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)  # hertz
_AAC_LAYOUTS = {"mono", "stereo", "5.1", "7.1"}
_LEAD = 0.1  # seconds of sound before the first picture that are kept: what a decoder needs to warm up
_NEW_CLOCK = 1.0  # seconds; sound that lies further behind what came before has another clock
_NEAR_END = 1.0  # seconds before the end of the pictures from which on they count as complete
_OF_THE_DISK = {errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG, errno.EPIPE, errno.EROFS, errno.EACCES}


class AudioCopier:
    """All sound of the video ``source``, muxed into ``container`` as its pictures get there.

    Times count from the first picture of ``source``, as those of its frames do. ``note`` says what could not be carried
    over as it was: sound that had to be encoded anew (as AAC), sound that breaks off, a stream that cannot be decoded.
    """

    def __init__(self, source: Path, container: Any) -> None:
        """``container`` is PyAV's, open for writing; its streams are added here, before its first packet."""
        av = import_av()
        # PyAV raises IndexError where a damaged file grows another stream.
        self._damage = (av.FFmpegError, IndexError)
        self.note: str | None = None
        self._container = container
        self._outputs: dict[int, _Copied | _Encoded] = {}
        self._ahead: Any = None  # the packet that was read and is not due yet
        self._source: Any = None
        try:
            self._source = av.open(f"file:{source}")
            self._add_streams()
        except (av.FFmpegError, OSError, ValueError, SourceError) as error:
            self.note = f"the sound of {source} cannot be read ({reason_of(error)})"
        self._clocks: dict[int, tuple[int, int | None]] = {}  # by stream: ticks that are added, and where it ends
        self._packets = self._read()

    def until(self, seconds: float) -> None:
        """Write the sound up to ``seconds``."""
        for packet, at, output in self._packets_until(seconds):
            self._guard(output, packet, at)

    def finish(self, seconds: float, *, whole: bool) -> None:
        """Write the rest and close the source; ``seconds`` is where the pictures end.

        With ``whole``, and where these are all pictures of the source, sound that goes on after them is kept.
        """
        if self._source is None:
            return
        try:
            self.until(float("inf") if whole and self._complete(seconds) else seconds)
            for output in self._outputs.values():
                output.flush()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the source. Safe to call twice."""
        self._packets.close()
        if self._source is not None:
            self._source.close()

    def _add_streams(self) -> None:
        av = import_av()
        video = video_stream(self._source, "")
        self._zero = float((video.start_time or 0) * video.time_base)
        self._end = _duration(video, self._source, self._zero)
        for stream in self._source.streams.audio:
            try:
                codec = stream.codec_context.codec.canonical_name
                kind = _Copied if codec in _COPIED else _Encoded
                self._outputs[stream.index] = kind(stream, self._container, self._zero)
            except (av.FFmpegError, ValueError, AttributeError):  # a codec that PyAV does not know has no context
                self._say("sound that cannot be decoded is left out")
                continue
            if kind is _Encoded:
                self._say(f"the sound ({codec}) is re-encoded as AAC, which players of MP4 know")

    def _packets_until(self, seconds: float) -> Iterator[tuple[Any, float, "_Copied | _Encoded"]]:
        while (packet := next(self._packets, None) if self._ahead is None else self._ahead) is not None:
            at = self._time(packet)
            if at > seconds:
                self._ahead = packet
                return
            self._ahead = None
            yield packet, at, self._outputs[packet.stream.index]

    def _read(self) -> Generator[Any, None, None]:
        """The packets of all streams that are carried over, in the order of the file."""
        if not self._outputs:
            return
        streams = [stream for stream in self._source.streams.audio if stream.index in self._outputs]
        try:
            for packet in self._source.demux(streams):
                self._on_one_clock(packet)
                if packet.pts is not None and self._time(packet) > -_LEAD:
                    yield packet
        except self._damage as error:
            self._say(f"the sound breaks off ({reason_of(error)})")

    def _on_one_clock(self, packet: Any) -> None:
        """Move a packet behind the one before it, where a recording stands behind another: its clock starts anew."""
        if packet.pts is None:
            return
        index = packet.stream.index
        shift, end = self._clocks.get(index, (0, None))
        if end is not None and packet.pts + shift < end - _NEW_CLOCK / packet.time_base:
            shift = end - packet.pts
        packet.pts += shift
        packet.dts = None if packet.dts is None else packet.dts + shift
        self._clocks[index] = shift, packet.pts + (packet.duration or 0)

    def _time(self, packet: Any) -> float:
        return float(packet.pts * packet.time_base) - self._zero

    def _guard(self, output: "_Copied | _Encoded", packet: Any, at: float) -> None:
        """Write a packet; one that is broken is left out."""
        try:
            output.write(packet)
        except (import_av().FFmpegError, ValueError) as error:
            if getattr(error, "errno", None) in _OF_THE_DISK:
                raise
            self._say(f"sound that is broken is left out, first at {max(0.0, at):.1f} s")

    def _complete(self, seconds: float) -> bool:
        return self._end is None or seconds >= self._end - _NEAR_END

    def _say(self, note: str) -> None:
        if self.note is None:
            self.note = note


def _duration(video: Any, container: Any, start: float) -> float | None:
    """Seconds of the pictures: as the stream says, or up to the end that Matroska or else the whole file tells."""
    if video.duration:
        return float(video.duration * video.time_base)
    parts = video.metadata.get("DURATION", "").split(":")
    if len(parts) == 3:
        with suppress(ValueError):
            return sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True)) - start
    return container.duration / 1e6 - start if container.duration else None


class _Copied:
    """A stream whose packets are written as they are, moved to the new zero."""

    def __init__(self, stream: Any, container: Any, zero: float) -> None:
        self._container = container
        self._zero = round(zero / stream.time_base)
        self._stream = container.add_stream_from_template(stream)
        self._stream.metadata.update(stream.metadata)
        self._last: int | None = None

    def write(self, packet: Any) -> None:
        packet.pts -= self._zero
        packet.dts = packet.pts if packet.dts is None else packet.dts - self._zero
        if self._last is not None and packet.dts <= self._last:
            raise ValueError("times run backwards")
        self._last = packet.dts
        packet.stream = self._stream
        self._container.mux(packet)

    def flush(self) -> None:
        """Nothing is held back."""


class _Encoded:
    """A stream that is decoded and encoded as AAC."""

    def __init__(self, stream: Any, container: Any, zero: float) -> None:
        self._container = container
        self._zero = zero
        layout = stream.layout.name if stream.layout.name in _AAC_LAYOUTS else "stereo"
        rate = next((r for r in _AAC_RATES if r <= stream.rate), _AAC_RATES[-1])
        self._stream = container.add_stream("aac", rate, layout=layout)
        self._stream.metadata.update(stream.metadata)

    def write(self, packet: Any) -> None:
        for frame in packet.decode():
            if frame.pts is not None:  # without a time it follows the one before it
                frame.pts -= round(self._zero / frame.time_base)
            self._container.mux(self._stream.encode(frame))

    def flush(self) -> None:
        self._container.mux(self._stream.encode())
