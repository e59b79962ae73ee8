"""Write an annotated video: boxes, labels and bars drawn on each frame, with the sound of the source."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cache, lru_cache
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mien._emotions import UNSURE_COLOR, Emotion
from mien._errors import MienError, OutputError
from mien._face import Box
from mien._format import probability_percent
from mien._output import Draft
from mien.overlay import ink, label_areas, line_width, overlap
from mien.video.audio import AudioCopier
from mien.video.sources import import_av, reason_of
from mien.video.types import FrameResult, TrackedFace

_DARK = "#0a0a0c"


_MIN_FONT = 11  # pixels: below it letters are no longer told apart


_STEADY = 0.12  # share by which the size of letters may be off before it changes: a size that jumps is a nuisance


_VEIL = 168  # of 256: how much the ground of the bars covers the frame


_KEPT = 256  # rendered labels that are kept; about 10 kB each


class _Panel(NamedTuple):
    """The ground of the bars: ``tint`` uint16 ``[h, w, 3]`` is added to the frame dimmed by ``veil`` ``[h, w, 1]``."""

    tint: NDArray[np.uint16]
    veil: NDArray[np.uint16]
    bars: tuple[tuple[int, int, int, int], ...]  # x1, y1, x2, y2 of every full bar


class FrameAnnotator:
    """Draws moment after moment of one video: only pixels of boxes, labels and bars are touched, rendered text is kept.

    It remembers the sizes of letters and the sides of the bars of the last result, so that neither jumps.
    """

    def __init__(self) -> None:
        self._label = lru_cache(_KEPT)(_render_label)
        self._panel = lru_cache(16)(_render_panel)
        self._sizes: dict[tuple[int, str], int] = {}
        self._left: set[int] = set()  # faces whose bars stand on the left

    def annotate(self, pixels: NDArray[np.uint8], result: FrameResult) -> NDArray[np.uint8]:
        """A new RGB uint8 ``[H, W, 3]`` array: ``pixels`` with box, id, emotion and confidence of every face.

        Where a face is large enough and there is room, bars of its smoothed probabilities stand beside it. A face
        without an emotion ("unsure") has a dashed box; one that the detector missed on this frame a pale one.
        """
        canvas = pixels.copy()
        faces = sorted(result.faces, key=lambda face: face.box.width * face.box.height, reverse=True)
        for face in reversed(faces):  # the largest last, so that its box is whole
            _draw_box(canvas, face)
        boxes = [face.box for face in faces]
        taken: list[Box] = []
        for index, face in enumerate(faces):
            self._add_label(canvas, face, boxes[:index] + boxes[index + 1 :], taken)
        for index, face in enumerate(faces):
            self._add_bars(canvas, face, boxes[:index] + boxes[index + 1 :] + taken, taken)
        present = {face.track_id for face in faces}
        self._sizes = {key: size for key, size in self._sizes.items() if key[0] in present}
        self._left &= present
        return canvas

    def _add_label(self, canvas: NDArray[np.uint8], face: TrackedFace, others: list[Box], taken: list[Box]) -> None:
        """The longest label that finds a free place; over another face if there is none; never over another label."""
        size_wh = (canvas.shape[1], canvas.shape[0])
        ideal = min(0.16 * min(face.box.width, face.box.height), max(size_wh) / 50)
        fontsize = self._steady((face.track_id, "label"), ideal)
        for avoided in (taken + others, taken):
            for text in _texts(face):
                tile = self._label(str(face.track_id), text, _color(face), fontsize)
                height, width = tile.shape[:2]
                if text and width > max(1.6 * face.box.width, 4 * fontsize):
                    continue  # a small face gets a short label
                for area in label_areas(face.box, width, height, size_wh):
                    if not any(overlap(area, other) for other in avoided):
                        _window(canvas, area)[:] = tile
                        taken.append(area)
                        return

    def _add_bars(self, canvas: NDArray[np.uint8], face: TrackedFace, avoided: list[Box], taken: list[Box]) -> None:
        emotions = tuple(face.probs)
        frame = Box(0, 0, canvas.shape[1], canvas.shape[0])
        room = 1.1 * face.box.height  # the bars stand at most so high
        ideal = min(face.box.height / (1.4 * len(emotions)), max(canvas.shape[:2]) / 72)
        panel = self._panel(emotions, self._steady((face.track_id, "bars"), ideal))
        if panel.veil.shape[0] > room:
            panel = self._panel(emotions, max(_MIN_FONT, int(ideal)))
        height, width = panel.veil.shape[:2]
        if height > min(room, canvas.shape[0]):
            return
        gap = line_width(face.box, (canvas.shape[1], canvas.shape[0])) + 3
        top = min(max(0, round(face.box.y1)), canvas.shape[0] - height)
        right, left = round(face.box.x2) + gap, round(face.box.x1) - gap - width
        for x in (left, right) if face.track_id in self._left else (right, left):
            area = Box(x, top, x + width, top + height)
            if _inside(area, frame) and not any(overlap(area, other) for other in avoided):
                _draw_bars(_window(canvas, area), panel, face)
                taken.append(area)
                (self._left.add if x == left else self._left.discard)(face.track_id)
                return

    def _steady(self, key: tuple[int, str], ideal: float) -> int:
        """The size of letters: that of the last moment unless it is far from ``ideal``."""
        size = self._sizes.get(key)
        if size is None or abs(ideal - size) > max(1.0, _STEADY * size):
            size = self._sizes[key] = round(ideal)
        return max(_MIN_FONT, size)


def _texts(face: TrackedFace) -> tuple[str, ...]:
    if face.emotion is None:
        return ("unsure", "")
    return (f"{face.emotion} {probability_percent(face.confidence)}", str(face.emotion), "")


def _color(face: TrackedFace) -> str:
    return UNSURE_COLOR if face.emotion is None else face.emotion.color


def _rgb(color: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(color[1:]), np.uint8)


def _window(canvas: NDArray[np.uint8], area: Box) -> NDArray[np.uint8]:
    x1, y1, x2, y2 = map(int, area)
    return canvas[y1:y2, x1:x2]


def _inside(area: Box, frame: Box) -> bool:
    return area.x1 >= frame.x1 and area.y1 >= frame.y1 and area.x2 <= frame.x2 and area.y2 <= frame.y2


def _draw_box(canvas: NDArray[np.uint8], face: TrackedFace) -> None:
    height, width = canvas.shape[:2]
    line = line_width(face.box, (width, height))
    x1, y1 = (max(0, round(v)) for v in face.box[:2])
    x2, y2 = min(width, round(face.box.x2)), min(height, round(face.box.y2))
    if x2 - x1 <= 2 * line or y2 - y1 <= 2 * line:
        return  # the box lies outside the picture, or is a dot
    color, dark = _rgb(_color(face)), _rgb(_DARK)
    if line > 1 and face.detected:  # a dark hairline around the colour keeps it visible on a bright ground
        for edge in _edges(canvas, max(0, x1 - 1), max(0, y1 - 1), min(width, x2 + 1), min(height, y2 + 1), 1):
            edge[:] = dark
    for edge in _edges(canvas, x1, y1, x2, y2, line):
        edge[:] = color if face.detected else edge // 2 + color // 2
        if face.emotion is None:
            _cut_dashes(edge, 3 * line, dark)


def _edges(canvas: NDArray[np.uint8], x1: int, y1: int, x2: int, y2: int, line: int) -> tuple[NDArray[np.uint8], ...]:
    """Views of the four sides of a frame; left and right leave out the corners."""
    return (
        canvas[y1 : y1 + line, x1:x2],
        canvas[y2 - line : y2, x1:x2],
        canvas[y1 + line : y2 - line, x1 : x1 + line],
        canvas[y1 + line : y2 - line, x2 - line : x2],
    )


def _cut_dashes(edge: NDArray[np.uint8], gap: int, dark: NDArray[np.uint8]) -> None:
    along = edge if edge.shape[0] > edge.shape[1] else edge.swapaxes(0, 1)
    for start in range(2 * gap, len(along) - gap, 3 * gap):
        along[start : start + gap] = dark


def _draw_bars(window: NDArray[np.uint8], panel: _Panel, face: TrackedFace) -> None:
    window[:] = (window * panel.veil + panel.tint) >> 8
    for (x1, y1, x2, y2), (emotion, probability) in zip(panel.bars, face.probs.items(), strict=True):
        window[y1:y2, x1 : x1 + max(1, round(probability * (x2 - x1)))] = _rgb(emotion.color)


@cache
def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    return ImageFont.load_default(size)


def _render_label(number: str, text: str, color: str, fontsize: int) -> NDArray[np.uint8]:
    """The number of a face, light on dark, beside its text on the colour; RGB uint8 ``[h, w, 3]``."""
    font = _font(fontsize)
    height, pad = round(1.5 * fontsize), round(0.4 * fontsize)
    tab = round(font.getlength(number)) + 2 * pad
    width = tab + (round(font.getlength(text)) + 2 * pad if text else 0)
    tile = Image.new("RGB", (width, height), color)
    draw = ImageDraw.Draw(tile)
    draw.rectangle((0, 0, tab - 1, height), fill=_DARK)
    draw.text((tab / 2, height / 2), number, fill="#ffffff", font=font, anchor="mm")
    draw.text((tab + pad, height / 2), text, fill=ink(color), font=font, anchor="lm")
    return np.asarray(tile)


def _render_panel(emotions: Sequence[Emotion], fontsize: int) -> _Panel:
    font = _font(fontsize)
    row, pad = round(1.3 * fontsize), round(0.45 * fontsize)
    names = round(max(font.getlength(str(emotion)) for emotion in emotions))
    left, length, thick = names + 2 * pad, 5 * fontsize, max(3, round(0.45 * fontsize))
    height, width = row * len(emotions) + pad, left + length + pad
    mask = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(mask)
    bars = []
    for index, emotion in enumerate(emotions):
        middle = pad / 2 + (index + 0.5) * row
        top = round(middle - thick / 2)
        draw.text((pad, middle), str(emotion), fill=235, font=font, anchor="lm")
        draw.rectangle((left, top, left + length - 1, top + thick - 1), fill=40)
        bars.append((left, top, left + length, top + thick))
    light = np.asarray(mask, np.uint16)[..., None]
    veil = ((256 - _VEIL) * (255 - light) // 255).astype(np.uint16)
    tint = (_rgb(_DARK).astype(np.uint16) * (256 - veil - light) + light * 255).astype(np.uint16)
    return _Panel(tint, veil, tuple(bars))


_CLOCK = 90_000  # ticks a second of presentation times: every usual frame rate is a whole number of them


_QUALITY = {"preset": "superfast", "crf": "20"}  # x264's: about 2 Mbit/s at 1280x720, 5 ms a frame on one core


_KEY_EVERY = 2.0  # seconds: how far a player has to go back when someone jumps


_USUAL_RATE = Fraction(25)


_BT709 = 1  # FFmpeg's number of the colours of HD video, which players assume


class VideoWriter:
    """Writes an MP4 (H.264, yuv420p) that browsers can stream, as a context manager.

    Every frame keeps its presentation time, also at a variable frame rate. The file appears at ``path`` when the block
    ends. After Ctrl-C or another error it holds the frames written so far, and can be played; without a frame there is
    no file. Memory does not grow with the length. ``note`` says which sound could not be copied unchanged.

    Args:
        path: The file to write.
        source: Video whose sound is copied; ``None`` for none.
        size_wh: Width and height in pixels. An odd side gets one more pixel, as yuv420p requires. Frames of another
            size are scaled to fit.
        rate: Approximate frames per second.

    Raises:
        MienError: If ``size_wh`` is empty.
        OutputError: If the file cannot be written.
    """

    def __init__(
        self, path: str | Path, *, source: Path | None, size_wh: tuple[int, int], rate: Fraction | float
    ) -> None:
        if min(size_wh) < 1:
            raise MienError(f"a video has at least one pixel, not {size_wh[0]}x{size_wh[1]}")
        self.note: str | None = None
        self.frames = 0
        self._path, self._source = path, source
        self._size_wh = size_wh
        self._rate = _usable(rate)
        self._annotator = FrameAnnotator()
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

    def write(self, pixels: NDArray[np.uint8], result: FrameResult) -> None:
        """Add the frame ``pixels``, RGB uint8 ``[H, W, 3]``, with the faces of its moment drawn on it.

        Raises ``OutputError`` when the video cannot be written.
        """
        picture = _fit(self._annotator.annotate(pixels, result), self._size_wh)
        if self._zero is None:
            self._zero = result.seconds
        seconds = result.seconds - self._zero
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
            self._sound = None if self._source is None else AudioCopier(self._source, self._container)
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
        """Close what is open, without a word: the video is not kept."""
        for part in (self._sound, self._container):
            try:
                if part is not None:
                    part.close()
            except (self._av.FFmpegError, OSError):
                pass

    def _refused(self, error: BaseException) -> OutputError:
        reason = reason_of(error)
        return OutputError(f"{self._path}: the video cannot be written ({reason}); free space, or name another place")


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
