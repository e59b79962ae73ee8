"""Frames and their moments -> a film that people watch: annotated, at its own pace, with its own sound."""

from fractions import Fraction
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._errors import MienError, OutputError
from mien.report.output import Draft
from mien.stream.audio import Sound
from mien.stream.paint import Painter
from mien.stream.pictures import import_av, reason_of
from mien.stream.records import Moment

_CLOCK = 90_000  # ticks a second of presentation times: every usual frame rate is a whole number of them
_QUALITY = {"preset": "superfast", "crf": "20"}  # x264's: about 2 Mbit/s at 1280x720, 5 ms a frame on one core
_KEY_EVERY = 2.0  # seconds: how far a player has to go back when someone jumps
_USUAL_RATE = Fraction(25)
_BT709 = 1  # FFmpeg's number of the colours of HD video, which players assume


class FilmWriter:
    """Writes an MP4 (H.264, yuv420p) that any browser plays from its first bytes, as a context manager.

    Every frame keeps its presentation time, also at a varying frame rate. The sound of ``source`` is copied without a
    change (``note`` says where it could not be). The film appears at ``path`` when the block ends; after Ctrl-C or an
    error it holds the frames written until then, and can be played. Memory does not grow with its length. Where no
    frame was written there is no film.
    """

    def __init__(
        self, path: str | Path, *, source: Path | None, size_wh: tuple[int, int], rate: Fraction | float
    ) -> None:
        """``size_wh`` is in pixels; an odd side gets one more, as yuv420p needs. Frames of another size are fitted in.

        ``source`` is the film whose sound is taken, ``rate`` about how many frames a second will come.
        """
        if min(size_wh) < 1:
            raise MienError(f"a film has at least one pixel, not {size_wh[0]}x{size_wh[1]}")
        self.note: str | None = None
        self.frames = 0
        self._path, self._source = path, source
        self._size_wh = size_wh
        self._rate = _usable(rate)
        self._painter = Painter()
        self._refusal: OutputError | None = None
        self._ticks = -1
        self._zero: float | None = None if source is None else 0.0

    def __enter__(self) -> Self:
        self._av = import_av()
        self._draft = Draft(self._path)
        try:
            self._open()
        except BaseException:
            self._draft.drop()
            raise
        return self

    def write(self, pixels: NDArray[np.uint8], moment: Moment) -> None:
        """Add the frame ``pixels``, RGB uint8 ``[H, W, 3]``, with the faces of its moment drawn on it.

        Raises ``OutputError`` when the film cannot be written.
        """
        picture = _fit(self._painter.paint(pixels, moment), self._size_wh)
        if self._zero is None:
            self._zero = moment.seconds
        seconds = moment.seconds - self._zero
        frame = self._av.VideoFrame.from_numpy_buffer(picture, "rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="itu709", threads=1)
        self._ticks = max(self._ticks + 1, round(seconds * _CLOCK))  # two frames cannot stand at one time
        frame.pts, frame.time_base = self._ticks, Fraction(1, _CLOCK)
        try:
            self._container.mux(self._video.encode(frame))
            self.frames += 1
            if self._sound is not None:
                self._sound.until(seconds)
        except (self._av.FFmpegError, OSError) as error:
            self._refusal = self._refused(error)
            raise self._refusal from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.frames == 0 or self._refusal is not None:  # FFmpeg may crash when it goes on after a full disk
            self._let_go()
            self._draft.drop()
            return
        try:
            self._finish(whole=kind is None)
        except BaseException:
            self._let_go()
            self._draft.drop()
            if kind is None:
                raise
            return  # a better error is on its way
        self._draft.keep()

    def _open(self) -> None:
        try:
            self._container = self._av.open(
                str(self._draft.path), "w", format="mp4", options={"movflags": "+faststart"}
            )
            width, height = (side + side % 2 for side in self._size_wh)
            options = {**_QUALITY, "g": str(max(1, round(_KEY_EVERY * self._rate)))}
            clock = Fraction(1, _CLOCK)
            self._video = self._container.add_stream(
                "libx264", self._rate, options=options, width=width, height=height, time_base=clock
            )
            for name in ("colorspace", "color_primaries", "color_trc", "color_range"):
                setattr(self._video, name, _BT709)  # 1 is also FFmpeg's number of the range 16 to 235
            self._sound = None if self._source is None else Sound(self._source, self._container)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise self._refused(error) from error

    def _finish(self, *, whole: bool) -> None:
        try:
            self._container.mux(self._video.encode())
            if self._sound is not None:
                self._sound.finish(self._ticks / _CLOCK, whole=whole)
                self.note = self._sound.note
            self._container.close()
        except (self._av.FFmpegError, OSError) as error:
            raise self._refused(error) from error

    def _let_go(self) -> None:
        """Close what is open, without a word: the film is not kept."""
        for part in (self._sound, self._container):
            try:
                if part is not None:
                    part.close()
            except (self._av.FFmpegError, OSError):
                pass

    def _refused(self, error: BaseException) -> OutputError:
        reason = reason_of(error)
        return OutputError(f"{self._path}: the film cannot be written ({reason}); free space, or name another place")


def _usable(rate: Fraction | float) -> Fraction:
    """A frame rate that x264 takes; it only steers its choices, as every frame has its own time."""
    if not isfinite(rate) or not 0.1 <= rate <= 1000:
        return _USUAL_RATE
    return Fraction(rate).limit_denominator(1001)


def _fit(pixels: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """``pixels`` at ``size_wh``, scaled into the middle of black where they have another size; even, edges repeated."""
    width, height = size_wh
    if pixels.shape[:2] != (height, width):
        image = Image.fromarray(pixels)
        scale = min(width / image.width, height / image.height)
        image = image.resize((max(1, round(scale * image.width)), max(1, round(scale * image.height))))
        canvas = Image.new("RGB", size_wh)
        canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
        pixels = np.asarray(canvas)
    if width % 2 or height % 2:
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(pixels)
