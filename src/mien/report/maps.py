"""Readings as images of each face and its saliency maps, and one HTML page with all of them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mien._emotions import Emotion
from mien._face import Face, Pixels, Reading
from mien._format import probability_percent
from mien._output import Draft
from mien._page import escape, fill_page, image_tag
from mien.overlay import map_over_crop
from mien.report.images import ImageFolder, short_name, thumbnail

MAP_PAGE = "explanation.html"

# Sizes on the page in pixels.
_TILE = 144
_THUMB_WH = (960, 640)
# Sizes on the sheet, an image with all faces, in pixels.
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
        folder: The folder of the files. It is created if it does not exist.
        emotions: Emotions whose maps are shown, besides the most probable one of each face.
        about: Facts about the model, term to text.
        method: Name of the method of the maps.
        roots: Folders that were read: images below one of them are written to the same subfolders.

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
        roots: Iterable[str | os.PathLike[str]] = (),
    ) -> None:
        self._folder = ImageFolder(folder, roots)
        self._emotions, self._about, self._method = tuple(emotions), dict(about), method

    def __enter__(self) -> Self:
        self._folder.create()
        templates = files("mien.report")
        style, title = (templates / "maps.css").read_text("utf-8"), "Evidence for each emotion"
        facts, method = self._about, escape(self._method)
        page = fill_page(templates / "maps.html", title=title, style=style, facts=facts, method=method)
        opening, self._closing = page.split("<!--sections-->")
        self._draft = Draft(self._folder.path / MAP_PAGE, opening)
        return self

    def add(self, reading: Reading) -> None:
        """Write the image of one reading and its section of the page.

        Args:
            reading: A reading with its pixels (``keep_pixels=True``). Of one without pixels only the error is written.

        Raises:
            OutputError: A file cannot be written.
        """
        name = escape(short_name(reading.source))
        if reading.pixels is None:
            self._draft.write(f"<section><h2>{name}</h2><p>{escape(reading.error or '')}</p></section>\n")
            return
        sheet = Image.fromarray(map_sheet(reading, self._emotions))
        self._folder.save(sheet, reading.source, ".maps.mien.png")
        count = len(reading.faces)
        found = "No face was found." if not count else "1 face" if count == 1 else f"{count} faces"
        thumb = _img(numbered_faces(reading, _THUMB_WH), f"the image, {found}")
        rows = "".join(_row(*face, self._emotions) for face in _named(reading.faces))
        self._draft.write(f"<section><h2>{name}</h2>\n<p>{found}</p>\n{thumb}\n{rows}</section>\n")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._draft.drop()
            return
        with self._draft:
            self._draft.write(self._closing)


def map_sheet(reading: Reading, emotions: Sequence[Emotion] = ()) -> Pixels:
    """Draw an image with its numbered faces, and below it each face with its maps.

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
    for index, face in enumerate(_named(faces)):
        x = SHEET_MARGIN + index % columns * (unit + SHEET_MARGIN)
        y = 2 * SHEET_MARGIN + thumb.height + index // columns * row_height
        _draw_face(canvas, (x, y), *face, emotions)
    return np.asarray(canvas)


def numbered_faces(reading: Reading, max_wh: tuple[int, int]) -> Image.Image:
    """Draw an image with a box around each face, and its number where there are several.

    Args:
        reading: A reading with its pixels (``keep_pixels=True``).
        max_wh: Largest width and height in pixels.

    Returns:
        The image.
    """
    image = thumbnail(np.asarray(reading.pixels), max_wh)
    scale = image.width / reading.size_wh[0]
    draw = ImageDraw.Draw(image)
    for number, face in reversed(list(enumerate(reading.faces, start=1))):
        box = [scale * edge for edge in face.box]
        draw.rectangle(box, outline=face.top.color, width=2)
        if len(reading.faces) > 1:
            font = ImageFont.load_default(_SMALL_FONT)
            width = round(font.getlength(str(number))) + 8
            x, y = box[0], max(box[1] - 17, 0)
            draw.rectangle((x, y, x + width, y + 17), fill=face.top.color)
            draw.text((x + width / 2, y + 8.5), str(number), fill="#0a0a0c", font=font, anchor="mm")
    return image


def _shown(face: Face, emotions: Sequence[Emotion]) -> list[Emotion]:
    return list(dict.fromkeys([face.top, *emotions]))


def _named(faces: Sequence[Face]) -> list[tuple[str, Face]]:
    if len(faces) == 1:
        return [("the face", faces[0])]
    return [(f"face {number}", face) for number, face in enumerate(faces, start=1)]


def _tiles(face: Face, emotions: Sequence[Emotion], size: int) -> Iterator[tuple[Emotion, Image.Image, str, str]]:
    """Yield each emotion, its map, its probability, and a note where the map has no positive value."""
    for emotion in _shown(face, emotions):
        image = Image.fromarray(map_over_crop(face, emotion, size=size))
        note = "" if (face.map(emotion) > 0).any() else "no positive place"
        yield emotion, image, probability_percent(face.probs[emotion]), note


def _enlarged_crop(face: Face, size: int) -> Image.Image:
    return Image.fromarray(face.crop).resize((size, size), Image.Resampling.BICUBIC).convert("RGB")


def _draw_face(canvas: Image.Image, at: tuple[int, int], name: str, face: Face, emotions: Sequence[Emotion]) -> None:
    draw, (x, y), below = ImageDraw.Draw(canvas), at, at[1] + SHEET_TILE
    canvas.paste(_enlarged_crop(face, SHEET_TILE), at)
    font, small = ImageFont.load_default(_FONT), ImageFont.load_default(_SMALL_FONT)
    draw.text((x, below + 6), name, fill=_INK, font=font)
    for place, (emotion, image, probability, note) in enumerate(_tiles(face, emotions, SHEET_TILE), start=1):
        left = x + place * (SHEET_TILE + SHEET_GAP)
        canvas.paste(image, (left, y))
        draw.rectangle((left, below + 9, left + 11, below + 20), fill=emotion.color)
        draw.text((left + 18, below + 5), str(emotion), fill=_INK, font=font)
        draw.text((left + SHEET_TILE, below + 7), probability, fill=_MUTED, font=small, anchor="ra")
        draw.text((left + 18, below + 25), note, fill=_MUTED, font=small)


def _row(name: str, face: Face, emotions: Sequence[Emotion]) -> str:
    crop = _img(_enlarged_crop(face, _TILE), name)
    figures = [f"<figure>{crop}<figcaption>{name}</figcaption></figure>"]
    for emotion, image, probability, note in _tiles(face, emotions, _TILE):
        own = Image.fromarray(map_over_crop(face, emotion, size=_TILE, own_scale=True))
        alt = f"{name} under the map of {emotion}"
        shown = f'<span class="one">{_img(image, alt)}</span><span class="own">{_img(own, alt)}</span>'
        caption = f'<i style="background:{emotion.color}"></i>{emotion} <b>{escape(probability)}</b>'
        caption += f"<small>{note}</small>" if note else ""
        figures.append(f"<figure>{shown}<figcaption>{caption}</figcaption></figure>")
    return f'<div class="row">{"".join(figures)}</div>\n'


def _img(image: Image.Image, alt: str) -> str:
    return image_tag(image, alt, "JPEG", quality=86)
