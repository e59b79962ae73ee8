"""Readings as images of each face beside its saliency maps, and one HTML page with all of them."""

import base64
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path, PurePath
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mien._emotions import Emotion
from mien._face import Face, Reading
from mien._format import probability_percent
from mien._output import Draft, output_errors
from mien._page import head
from mien.overlay import map_over_crop
from mien.report.images import ImageNames, save_image

MAP_PAGE = "explanation.html"

# Pixels. Of the page:
_TILE = 144
_THUMB_WH = (960, 640)
# Of the sheet, an image with all faces:
SHEET_TILE, SHEET_GAP, SHEET_MARGIN = 168, 12, 28
SHEET_THUMB_WH = (760, 420)
_LABEL = 40
_MAX_WIDTH = 1560  # unless the row of one face is wider
_FONT, _SMALL_FONT = 17, 14
_PAPER, _INK, _MUTED = "#f7f5f1", "#1d1c1a", "#67635b"


class MapReport:
    """Writes ``<name>.maps.mien.png`` for every image that was read, and ``explanation.html`` with all of them.

    The page appears when the block ends without an exception.

    Args:
        folder: Where the files go. It is created if it does not exist.
        emotions: Emotions whose maps are shown, besides the most probable one of each face.
        about: Facts about the model, term to text.
        method: How the maps were computed.

    Raises:
        OutputError: ``folder`` cannot be created or written.

    Example:
        >>> from mien import Reader
        >>> reader = Reader()
        >>> with MapReport("maps", about=reader.describe()) as report:  # doctest: +SKIP
        ...     for reading in reader.read_many(["photo.jpg"], keep_pixels=True):
        ...         report.add(reading)
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        emotions: Sequence[Emotion] = (),
        *,
        about: Mapping[str, str],
        method: str = "map",
    ) -> None:
        self._folder, self._emotions, self._about, self._method = Path(folder), tuple(emotions), dict(about), method
        self._names = ImageNames()

    def __enter__(self) -> Self:
        with output_errors(str(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._draft = Draft(self._folder / MAP_PAGE)
        self._write(head("Where mien looked", _CSS) + "\n" + _TOP.replace("$method", escape(self._method)))
        return self

    def add(self, reading: Reading) -> None:
        """Write the image of one reading and its section of the page.

        Args:
            reading: A reading with its pixels (``keep_pixels=True``). One without pixels gets only its error.

        Raises:
            OutputError: A file cannot be written.
        """
        name = escape(PurePath(reading.source.replace("\\", "/")).name or reading.source)
        if reading.pixels is None:
            self._write(f"<section><h2>{name}</h2><p>{escape(reading.error or '')}</p></section>\n")
            return
        sheet = Image.fromarray(map_sheet(reading, self._emotions))
        save_image(sheet, self._folder / self._names.unused(reading.source, ".maps.mien.png"))
        self._write(f"<section><h2>{name}</h2>\n{_section(reading, self._emotions)}</section>\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._draft.drop()
            return
        try:
            terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in self._about.items())
            made = datetime.now().astimezone().strftime("%Y-%m-%d, %H:%M")
            self._write(_FOOT.replace("$terms", terms).replace("$made", made))
        except BaseException:
            self._draft.drop()
            raise
        self._draft.keep()

    def _write(self, text: str) -> None:
        with output_errors(self._draft.name):
            self._draft.file.write(text.encode("utf-8", "backslashreplace"))


def map_sheet(reading: Reading, emotions: Sequence[Emotion] = ()) -> NDArray[np.uint8]:
    """Draw an image with its numbered faces, and below it each face beside its maps.

    Args:
        reading: A reading with its pixels (``keep_pixels=True``).
        emotions: Emotions whose maps are shown, besides the most probable one of each face.

    Returns:
        RGB uint8 ``[H, W, 3]``.

    Example:
        >>> from mien import Reader
        >>> reading = Reader().read("photo.jpg", keep_pixels=True)  # doctest: +SKIP
        >>> sheet = map_sheet(reading)  # doctest: +SKIP
    """
    thumb = numbered_faces(reading, SHEET_THUMB_WH)
    faces = reading.faces
    unit = max((1 + len(_shown(face, emotions)) for face in faces), default=0) * (SHEET_TILE + SHEET_GAP)
    columns = min(max(1, (_MAX_WIDTH - 2 * SHEET_MARGIN) // (unit + SHEET_MARGIN)), len(faces))
    rows = -(-len(faces) // columns) if columns else 0
    width = 2 * SHEET_MARGIN + max(columns * (unit + SHEET_MARGIN) - SHEET_MARGIN - SHEET_GAP, thumb.width)
    row_height = SHEET_TILE + _LABEL + SHEET_MARGIN
    canvas = Image.new("RGB", (width, 2 * SHEET_MARGIN + thumb.height + rows * row_height), _PAPER)
    canvas.paste(thumb, (SHEET_MARGIN, SHEET_MARGIN))
    for index, face in enumerate(faces):
        x = SHEET_MARGIN + index % columns * (unit + SHEET_MARGIN)
        y = 2 * SHEET_MARGIN + thumb.height + index // columns * row_height
        _draw_face(canvas, (x, y), face, emotions, f"face {index + 1}" if len(faces) > 1 else "the face")
    return np.asarray(canvas)


def numbered_faces(reading: Reading, max_wh: tuple[int, int]) -> Image.Image:
    """Draw an image with a box around each face, and its number where there are several.

    Args:
        reading: A reading with its pixels (``keep_pixels=True``).
        max_wh: Largest width and height in pixels.

    Returns:
        The image.
    """
    image = Image.fromarray(np.asarray(reading.pixels))
    image.thumbnail(max_wh, Image.Resampling.LANCZOS)
    scale = image.width / reading.size_wh[0]
    draw = ImageDraw.Draw(image)
    for number, face in reversed(list(enumerate(reading.faces, start=1))):
        box = [scale * edge for edge in face.box]
        draw.rectangle(box, outline=face.top.color, width=2)
        if len(reading.faces) > 1:
            _draw_number(draw, box, face.top.color, str(number))
    return image


def _draw_number(draw: ImageDraw.ImageDraw, box: list[float], color: str, number: str) -> None:
    font = ImageFont.load_default(_SMALL_FONT)
    width = round(font.getlength(number)) + 8
    x, y = box[0], max(box[1] - 17, 0)
    draw.rectangle((x, y, x + width, y + 17), fill=color)
    draw.text((x + width / 2, y + 8.5), number, fill="#0a0a0c", font=font, anchor="mm")


class _Tile(NamedTuple):
    emotion: Emotion
    probability: str
    image: Image.Image
    is_empty: bool  # the map has no positive place


def _shown(face: Face, emotions: Sequence[Emotion]) -> list[Emotion]:
    return list(dict.fromkeys([face.top, *emotions]))


def _tiles(face: Face, emotions: Sequence[Emotion], size: int) -> Iterator[_Tile]:
    for emotion in _shown(face, emotions):
        image = Image.fromarray(map_over_crop(face, emotion, size=size))
        yield _Tile(emotion, probability_percent(face.probs[emotion]), image, not (face.map(emotion) > 0).any())


def _enlarged_crop(face: Face, size: int) -> Image.Image:
    return Image.fromarray(face.crop).resize((size, size), Image.Resampling.BICUBIC).convert("RGB")


def _draw_face(canvas: Image.Image, at: tuple[int, int], face: Face, emotions: Sequence[Emotion], name: str) -> None:
    draw, (x, y), below = ImageDraw.Draw(canvas), at, at[1] + SHEET_TILE
    canvas.paste(_enlarged_crop(face, SHEET_TILE), at)
    font, small = ImageFont.load_default(_FONT), ImageFont.load_default(_SMALL_FONT)
    draw.text((x, below + 6), name, fill=_INK, font=font)
    for place, tile in enumerate(_tiles(face, emotions, SHEET_TILE), start=1):
        left = x + place * (SHEET_TILE + SHEET_GAP)
        canvas.paste(tile.image, (left, y))
        draw.rectangle((left, below + 9, left + 11, below + 20), fill=tile.emotion.color)
        draw.text((left + 18, below + 5), str(tile.emotion), fill=_INK, font=font)
        draw.text((left + SHEET_TILE, below + 7), tile.probability, fill=_MUTED, font=small, anchor="ra")
        if tile.is_empty:
            draw.text((left + 18, below + 25), _EMPTY, fill=_MUTED, font=small)


def _section(reading: Reading, emotions: Sequence[Emotion]) -> str:
    count = len(reading.faces)
    found = "No face was found." if not count else "1 face" if count == 1 else f"{count} faces"
    thumb = _img(numbered_faces(reading, _THUMB_WH), f"the image, {found}")
    faces = "".join(_row(face, number, emotions, count) for number, face in enumerate(reading.faces, start=1))
    return f"<p>{found}</p>\n{thumb}\n{faces}"


def _row(face: Face, number: int, emotions: Sequence[Emotion], count: int) -> str:
    name = f"face {number}" if count > 1 else "the face"
    crop = _img(_enlarged_crop(face, _TILE), name)
    figures = [f"<figure>{crop}<figcaption>{name}</figcaption></figure>"]
    for tile in _tiles(face, emotions, _TILE):
        empty = f"<small>{_EMPTY}</small>" if tile.is_empty else ""
        shown = _img(tile.image, f"{name} under the map of {tile.emotion}")
        swatch = f'<i style="background:{tile.emotion.color}"></i>'
        caption = f"{swatch}{tile.emotion} <b>{escape(tile.probability)}</b>{empty}"
        figures.append(f"<figure>{shown}<figcaption>{caption}</figcaption></figure>")
    return f'<div class="row">{"".join(figures)}</div>\n'


def _img(image: Image.Image, alt: str) -> str:
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "JPEG", quality=86)
    code = base64.b64encode(stream.getvalue()).decode("ascii")
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img decoding="async" {size} alt="{escape(alt)}" src="data:image/jpeg;base64,{code}">'


_EMPTY = "no positive place"

_TOP = """<body>
<header class="top"><p class="wordmark">mien</p><h1>Where mien looked</h1><p>Each face as the network saw it, and the
places that raise the score of an emotion: $method. Bright places raise it; places without colour do not. A map shows
what the network used, not what a person feels.</p></header>
<main>
"""

_FOOT = """</main>
<footer><div><h2>The model</h2><dl>$terms</dl><p>Made $made on this computer; nothing left it.</p></div></footer>
</body>
</html>
"""

_CSS = """header p { max-width: 46rem; }
section { margin-bottom: 3rem; padding-top: 1.4rem; border-top: 1px solid var(--line); }
section h2 { margin: 0 0 .3rem; font-size: 1.5rem; overflow-wrap: anywhere; }
section > p { color: var(--muted); }
section > img { display: block; max-width: 100%; height: auto; border-radius: 8px; margin-bottom: 1.4rem; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; margin-bottom: 1.4rem; }
.row figure { margin: 0; width: 9rem; max-width: calc(50% - .4rem); }
.row img { display: block; width: 100%; height: auto; border-radius: 6px; }
.row figcaption { margin-top: .3rem; font-size: .9rem; line-height: 1.35; }
.row i { display: inline-block; width: .7rem; height: .7rem; margin-right: .4rem; border-radius: 2px; }
.row b { font-weight: 400; color: var(--muted); }
.row small { display: block; color: var(--muted); }
"""
