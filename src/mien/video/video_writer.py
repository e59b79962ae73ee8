"""Write an annotated video: boxes, labels and bars drawn on each frame, with the audio of the source."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache, lru_cache
from math import isfinite
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mien._emotions import UNSURE_COLOR, Emotion
from mien._errors import MienError, OutputError
from mien._face import Box, Pixels
from mien._format import probability_percent
from mien._output import MARK, Draft
from mien.overlay import ink, label_areas, line_width, overlap
from mien.video.audio import AudioCopier
from mien.video.containers import import_av, reason_of
from mien.video.types import FrameResult, TrackedFace

_DARK = "#0a0a0c"
_MIN_FONT = 11  # pixels; smaller letters cannot be read
_FONT_TOLERANCE = 0.12  # relative error of a font size that is kept, because a changing size distracts
_VEIL = 168  # of 256: opacity of the background of the bars
_CACHED_LABELS = 256  # about 10 kB each
_CLOCK = 90_000  # ticks per second of presentation times: every usual frame rate is a whole number of them
_X264 = {"preset": "superfast", "crf": "20"}  # about 2 Mbit/s at 1280x720, 5 ms a frame on one core
_KEY_FRAME_SECONDS = 2.0  # interval of key frames, to which a player can seek
_BT709 = 1  # FFmpeg's number of the colour space of HD video, which players assume


class _Panel(NamedTuple):
    """The background of the bars: a frame is dimmed by ``veil`` ``[h, w, 1]``, then ``tint`` ``[h, w, 3]`` is added."""

    tint: NDArray[np.uint16]
    veil: NDArray[np.uint16]
    bars: tuple[tuple[int, int, int, int], ...]  # x1, y1, x2, y2 of each full bar


class FrameAnnotator:
    """Draws the results of one video on its frames. Only the pixels of boxes, labels and bars are touched.

    Font sizes and sides of the bars are kept from frame to frame, so that they do not jump. Rendered text is cached.

    Example:
        >>> FrameAnnotator().annotate(np.zeros((48, 64, 3), np.uint8), FrameResult(0, 0.0, (64, 48), ())).shape
        (48, 64, 3)
    """

    def __init__(self) -> None:
        self._label = lru_cache(_CACHED_LABELS)(_render_label)
        self._panel = lru_cache(16)(_render_panel)
        self._sizes: dict[tuple[int, str], int] = {}
        self._left: set[int] = set()  # tracks whose bars are on the left

    def annotate(self, pixels: Pixels, result: FrameResult) -> Pixels:
        """Draw the box, track number, emotion and confidence of each face.

        A face that is large enough and has free space beside it also gets bars of its smoothed probabilities. The box
        of an unsure face is dashed; that of a face which was not detected in this frame is pale.

        Args:
            pixels: The frame, RGB uint8 ``[H, W, 3]``.
            result: Its faces.

        Returns:
            A new array of the same shape.
        """
        canvas = pixels.copy()
        faces = sorted(result.faces, key=lambda face: face.box.width * face.box.height, reverse=True)
        for face in reversed(faces):  # the largest last, so that its box is complete
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

    def _add_label(self, canvas: Pixels, face: TrackedFace, others: list[Box], taken: list[Box]) -> None:
        """Draw the longest label for which there is space; over another face if necessary, never over a label."""
        size_wh = (canvas.shape[1], canvas.shape[0])
        ideal = min(0.16 * min(face.box.width, face.box.height), max(size_wh) / 50)
        fontsize = self._font_size((face.track_id, "label"), ideal)
        texts: tuple[str, ...] = ("unsure", "")
        if face.emotion is not None:
            texts = (f"{face.emotion} {probability_percent(face.confidence)}", str(face.emotion), "")
        for avoided in (taken + others, taken):
            for text in texts:
                tile = self._label(str(face.track_id), text, _color(face), fontsize)
                height, width = tile.shape[:2]
                if text and width > max(1.6 * face.box.width, 4 * fontsize):
                    continue  # a small face gets a short label
                for area in label_areas(face.box, width, height, size_wh):
                    if not any(overlap(area, other) for other in avoided):
                        _window(canvas, area)[:] = tile
                        taken.append(area)
                        return

    def _add_bars(self, canvas: Pixels, face: TrackedFace, avoided: list[Box], taken: list[Box]) -> None:
        """Draw the bars beside a face if there is space on either side."""
        emotions = tuple(face.probs)
        max_height = 1.1 * face.box.height
        ideal = min(face.box.height / (1.4 * len(emotions)), max(canvas.shape[:2]) / 72)
        panel = self._panel(emotions, self._font_size((face.track_id, "bars"), ideal))
        if panel.veil.shape[0] > max_height:
            panel = self._panel(emotions, max(_MIN_FONT, int(ideal)))
        height, width = panel.veil.shape[:2]
        if height > min(max_height, canvas.shape[0]):
            return
        gap = line_width(face.box, (canvas.shape[1], canvas.shape[0])) + 3
        top = min(max(0, round(face.box.y1)), canvas.shape[0] - height)
        right, left = round(face.box.x2) + gap, round(face.box.x1) - gap - width
        for x in (left, right) if face.track_id in self._left else (right, left):
            area = Box(x, top, x + width, top + height)
            inside = x >= 0 and x + width <= canvas.shape[1]
            if inside and not any(overlap(area, other) for other in avoided):
                window = _window(canvas, area)
                window[:] = (window * panel.veil + panel.tint) >> 8
                for (x1, y1, x2, y2), (emotion, probability) in zip(panel.bars, face.probs.items(), strict=True):
                    window[y1:y2, x1 : x1 + max(1, round(probability * (x2 - x1)))] = _rgb(emotion.color)
                taken.append(area)
                (self._left.add if x == left else self._left.discard)(face.track_id)
                return

    def _font_size(self, key: tuple[int, str], ideal: float) -> int:
        """The size of the last frame unless it differs much from ``ideal``."""
        size = self._sizes.get(key)
        if size is None or abs(ideal - size) > max(1.0, _FONT_TOLERANCE * size):
            size = self._sizes[key] = round(ideal)
        return max(_MIN_FONT, size)


def _color(face: TrackedFace) -> str:
    return UNSURE_COLOR if face.emotion is None else face.emotion.color


def _rgb(color: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(color[1:]), np.uint8)


def _window(canvas: Pixels, area: Box) -> Pixels:
    x1, y1, x2, y2 = map(int, area)
    return canvas[y1:y2, x1:x2]


def _draw_box(canvas: Pixels, face: TrackedFace) -> None:
    height, width = canvas.shape[:2]
    line = line_width(face.box, (width, height))
    x1, y1 = (max(0, round(v)) for v in face.box[:2])
    x2, y2 = min(width, round(face.box.x2)), min(height, round(face.box.y2))
    if x2 - x1 <= 2 * line or y2 - y1 <= 2 * line:
        return  # the box is outside the frame, or too small
    color, dark = _rgb(_color(face)), _rgb(_DARK)
    if line > 1 and face.detected:  # a dark outline keeps the box visible on a bright background
        for edge in _edges(canvas, max(0, x1 - 1), max(0, y1 - 1), min(width, x2 + 1), min(height, y2 + 1), 1):
            edge[:] = dark
    for edge in _edges(canvas, x1, y1, x2, y2, line):
        edge[:] = color if face.detected else edge // 2 + color // 2
        if face.emotion is None:
            along = edge if edge.shape[0] > edge.shape[1] else edge.swapaxes(0, 1)
            for start in range(6 * line, len(along) - 3 * line, 9 * line):
                along[start : start + 3 * line] = dark


def _edges(canvas: Pixels, x1: int, y1: int, x2: int, y2: int, line: int) -> tuple[Pixels, ...]:
    """Views of the four sides of a box; left and right leave out the corners."""
    return (
        canvas[y1 : y1 + line, x1:x2],
        canvas[y2 - line : y2, x1:x2],
        canvas[y1 + line : y2 - line, x1 : x1 + line],
        canvas[y1 + line : y2 - line, x2 - line : x2],
    )


@cache
def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    return ImageFont.load_default(size)


def _render_label(number: str, text: str, color: str, fontsize: int) -> Pixels:
    """The track number, light on dark, beside a text on a colour."""
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
    mask = Image.new("L", (left + length + pad, row * len(emotions) + pad), 0)
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


class VideoWriter:
    """Writes an MP4 (H.264, yuv420p) that browsers can stream, as a context manager.

    Each frame keeps its presentation time, also at a variable frame rate. The file appears at ``path`` when the block
    ends. After Ctrl-C or another error it contains the frames written so far and can be played; without a frame there
    is no file. Memory does not grow with the length. ``note`` says which audio could not be copied unchanged.

    Args:
        path: The file to write.
        source: Video whose audio is copied; ``None`` for none.
        size_wh: Width and height in pixels. An odd side gets one more pixel, as yuv420p requires. Frames of another
            size are scaled to fit.
        rate: Approximate frames per second.

    Raises:
        MienError: If ``size_wh`` is empty.
        OutputError: If the file cannot be written.

    Example:
        >>> frame = np.zeros((48, 64, 3), np.uint8)
        >>> with VideoWriter("faces.mp4", source=None, size_wh=(64, 48), rate=25) as writer:  # doctest: +SKIP
        ...     writer.write(frame, FrameResult(0, 0.0, (64, 48), ()))
    """

    def __init__(
        self, path: str | Path, *, source: Path | None, size_wh: tuple[int, int], rate: Fraction | float
    ) -> None:
        if min(size_wh) < 1:
            raise MienError(f"a video has at least one pixel, not {size_wh[0]}x{size_wh[1]}")
        self.note: str | None = None
        self.frames = 0
        self._path, self._source, self._size_wh = path, source, size_wh
        # x264 uses the rate only for its decisions, because each frame has its own time.
        usable = isfinite(rate) and 0.1 <= rate <= 1000
        self._rate = Fraction(rate).limit_denominator(1001) if usable else Fraction(25)
        self._annotator = FrameAnnotator()
        self._failed = False
        self._ticks = -1  # time of the last frame
        self._zero: float | None = None if source is None else 0.0  # of the first frame; 0 with audio

    def __enter__(self) -> Self:
        self._av = import_av()
        self._draft = Draft(self._path)
        try:
            with self._output_errors():
                self._open()
        except BaseException:
            self._draft.drop()
            raise
        return self

    def write(self, pixels: Pixels, result: FrameResult) -> None:
        """Add a frame with its faces drawn on it.

        Args:
            pixels: The frame, RGB uint8 ``[H, W, 3]``.
            result: Its faces and its time.

        Raises:
            OutputError: If the video cannot be written.
        """
        annotated = _fit(self._annotator.annotate(pixels, result), self._size_wh)
        if self._zero is None:
            self._zero = result.seconds
        seconds = result.seconds - self._zero
        frame = self._av.VideoFrame.from_numpy_buffer(annotated, "rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="itu709", threads=1)
        self._ticks = max(self._ticks + 1, round(seconds * _CLOCK))  # times must increase
        frame.pts, frame.time_base = self._ticks, Fraction(1, _CLOCK)
        with self._output_errors():
            self._container.mux(self._video.encode(frame))
            self.frames += 1
            if self._audio is not None:
                self._audio.until(seconds)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.frames == 0 or self._failed:  # FFmpeg can crash if it continues after a full disk
            self._discard()
            return
        try:
            with self._output_errors():
                self._container.mux(self._video.encode())
                if self._audio is not None:
                    self._audio.finish(self._ticks / _CLOCK, whole=kind is None)
                    self.note = self._audio.note
                self._container.close()
        except BaseException:
            self._discard()
            if kind is None:
                raise
            return  # the error that ended the block is raised instead
        self._draft.keep()

    def _open(self) -> None:
        options = {"movflags": "+faststart"}
        self._container = self._av.open(str(self._draft.path), "w", format="mp4", options=options)
        width, height = (side + side % 2 for side in self._size_wh)
        options = _X264 | {"g": str(max(1, round(_KEY_FRAME_SECONDS * self._rate)))}
        self._video = self._container.add_stream(
            "libx264", self._rate, options=options, width=width, height=height, time_base=Fraction(1, _CLOCK)
        )
        self._video.metadata["handler_name"] = MARK  # before the long tables of the file
        for name in ("colorspace", "color_primaries", "color_trc", "color_range"):
            setattr(self._video, name, _BT709)  # 1 is also FFmpeg's number of the range 16 to 235
        self._audio = None if self._source is None else AudioCopier(self._source, self._container)

    @contextmanager
    def _output_errors(self) -> Iterator[None]:
        """Turn the errors of FFmpeg and the system into ``OutputError``."""
        try:
            yield
        except (self._av.FFmpegError, OSError, ValueError) as error:
            self._failed = True
            reason = reason_of(error)
            message = f"{self._path}: the video cannot be written ({reason}); free space, or name another place"
            raise OutputError(message) from error

    def _discard(self) -> None:
        for part in (self._audio, self._container):
            if part is not None:
                with suppress(self._av.FFmpegError, OSError):
                    part.close()
        self._draft.drop()


def _fit(pixels: Pixels, size_wh: tuple[int, int]) -> Pixels:
    """Scale a frame of another size to fit, centred on black; repeat the last row or column for even sides."""
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
