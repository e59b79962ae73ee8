"""The page and the pictures that ``mien explain`` writes for pictures, as one sink of readings."""

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path, PurePath
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mien._emotions import Emotion
from mien._face import Face, Reading
from mien._format import probability_percent
from mien._output import Draft, output_errors
from mien._page import head
from mien.overlay import map_over_crop

# Pixels.
_TILE_MAP_SHEET, _GAP, _LABEL, _MARGIN = 168, 12, 40, 28


_THUMB_MAP_SHEET = (760, 420)


_WIDTH = 1560  # of a sheet, where one face's row needs no more


_LETTERS, _SMALL = 17, 14


_PAPER, _INK, _MUTED = "#f7f5f1", "#1d1c1a", "#67635b"


def asked(top: Emotion, emotions: Sequence[Emotion]) -> list[Emotion]:
    """The emotions whose maps are shown of a face: its ``top`` one, then ``emotions`` as they stand."""
    return list(dict.fromkeys([top, *emotions]))


def sheet(reading: Reading, emotions: Sequence[Emotion]) -> NDArray[np.uint8]:
    """The picture with its faces numbered, and below it each face beside its maps: RGB uint8 ``[H, W, 3]``.

    Each face has the map of its top emotion and of ``emotions``, with names and probabilities. ``reading.pixels`` must
    be kept.
    """
    thumb = numbered(reading, _THUMB_MAP_SHEET)
    faces = reading.faces
    unit = max((1 + len(asked(face.top, emotions)) for face in faces), default=0) * (_TILE_MAP_SHEET + _GAP)
    across = min(max(1, (_WIDTH - 2 * _MARGIN) // (unit + _MARGIN)), len(faces))
    down = -(-len(faces) // across) if across else 0
    width = 2 * _MARGIN + max(across * (unit + _MARGIN) - _MARGIN - _GAP, thumb.width)
    height = 2 * _MARGIN + thumb.height + down * (_MARGIN + _TILE_MAP_SHEET + _LABEL)
    canvas = Image.new("RGB", (width, height), _PAPER)
    canvas.paste(thumb, (_MARGIN, _MARGIN))
    for index, face in enumerate(faces):
        x = _MARGIN + index % across * (unit + _MARGIN)
        y = 2 * _MARGIN + thumb.height + index // across * (_TILE_MAP_SHEET + _LABEL + _MARGIN)
        _row(canvas, (x, y), face, emotions, f"face {index + 1}" if len(faces) > 1 else "the face")
    return np.asarray(canvas)


def numbered(reading: Reading, most_wh: tuple[int, int]) -> Image.Image:
    """The picture at ``most_wh`` pixels at most, a box around each face, and its number where there are several."""
    picture = Image.fromarray(np.asarray(reading.pixels))
    picture.thumbnail(most_wh, Image.Resampling.LANCZOS)
    scale = picture.width / reading.size_wh[0]
    draw = ImageDraw.Draw(picture)
    for number, face in reversed(list(enumerate(reading.faces, start=1))):
        _box(draw, [scale * edge for edge in face.box], face.top, str(number) if len(reading.faces) > 1 else "")
    return picture


def tiles(face: Face, emotions: Sequence[Emotion], *, size: int) -> list[tuple[Emotion, str, NDArray[np.uint8]]]:
    """Emotion, probability as text, and the crop under the map, RGB uint8 ``[size, size, 3]``, of each asked one."""
    return [
        (e, probability_percent(face.probs[e]), map_over_crop(face, e, size=size)) for e in asked(face.top, emotions)
    ]


def _row(canvas: Image.Image, at: tuple[int, int], face: Face, emotions: Sequence[Emotion], name: str) -> None:
    draw, (x, y) = ImageDraw.Draw(canvas), at
    crop = Image.fromarray(face.crop).resize((_TILE_MAP_SHEET, _TILE_MAP_SHEET), Image.Resampling.BICUBIC)
    canvas.paste(crop.convert("RGB"), at)
    letters, small = ImageFont.load_default(_LETTERS), ImageFont.load_default(_SMALL)
    draw.text((x, y + _TILE_MAP_SHEET + 6), name, fill=_INK, font=letters)
    for place, (emotion, probability, image) in enumerate(tiles(face, emotions, size=_TILE_MAP_SHEET), start=1):
        left = x + place * (_TILE_MAP_SHEET + _GAP)
        canvas.paste(Image.fromarray(image), (left, y))
        draw.rectangle((left, y + _TILE_MAP_SHEET + 9, left + 11, y + _TILE_MAP_SHEET + 20), fill=emotion.color)
        draw.text((left + 18, y + _TILE_MAP_SHEET + 5), str(emotion), fill=_INK, font=letters)
        draw.text((left + _TILE_MAP_SHEET, y + _TILE_MAP_SHEET + 7), probability, fill=_MUTED, font=small, anchor="ra")
        if not (face.map(emotion) > 0).any():
            draw.text((left + 18, y + _TILE_MAP_SHEET + 25), "nothing speaks for it", fill=_MUTED, font=small)


def _box(draw: ImageDraw.ImageDraw, box: list[float], emotion: Emotion, number: str) -> None:
    draw.rectangle(box, outline=emotion.color, width=2)
    if number:
        font = ImageFont.load_default(_SMALL)
        width = round(font.getlength(number)) + 8
        x, y = box[0], max(box[1] - 17, 0)
        draw.rectangle((x, y, x + width, y + 17), fill=emotion.color)
        draw.text((x + width / 2, y + 8.5), number, fill="#0a0a0c", font=font, anchor="mm")


PAGE = "explanation.html"


_TILE = 144  # pixels


_THUMB = (960, 640)  # pixels


class MapPage:
    """Writes ``<name>.maps.mien.png`` for every picture, and ``explanation.html`` with all of them, into a folder.

    The page appears when the block ends without an exception, else no new one is left. Raises ``OutputError`` when the
    folder cannot be made or written.
    """

    def __init__(
        self, folder: Path, emotions: Sequence[Emotion], *, about: Mapping[str, str], method: str, meaning: str
    ) -> None:
        """``emotions`` are shown beside each face's top one; ``about`` is said of the model, term to text.

        ``method`` names how the maps are made, ``meaning`` is a sentence on what they show.
        """
        self._folder, self._emotions, self._about = folder, tuple(emotions), dict(about)
        self._method, self._meaning = method, meaning
        self._taken: set[str] = set()

    def __enter__(self) -> Self:
        with output_errors(str(self._folder)):
            self._folder.mkdir(parents=True, exist_ok=True)
        self._draft = Draft(self._folder / PAGE)
        self._write(head("Where mien looked", _CSS) + "\n" + _TOP.replace("$lead", escape(self._lead())))
        return self

    def add(self, reading: Reading) -> None:
        """Write the sheet of one picture and its part of the page; ``reading.pixels`` must be kept."""
        if reading.pixels is None:
            said = escape(reading.error or "")
            self._write(f"<section><h2>{escape(_name(reading))}</h2><p>{said}</p></section>\n")
            return
        drawn = sheet(reading, self._emotions)
        _save(drawn, self._folder / self._free_name(reading.source))
        self._write(_card(reading, self._emotions))

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

    def _lead(self) -> str:
        return (
            f"Each face as the network saw it, and where it found what speaks for an emotion: {self._method}. "
            f"{self._meaning}"
        )

    def _write(self, text: str) -> None:
        with output_errors(self._draft.name):
            self._draft.file.write(text.encode("utf-8", "backslashreplace"))

    def _free_name(self, source: str) -> str:
        stem = PurePath(source).stem.strip("<>") or "picture"
        name, number = f"{stem}.maps.mien.png", 1
        while name.lower() in self._taken:  # some file systems do not tell A.png from a.png
            number += 1
            name = f"{stem}-{number}.maps.mien.png"
        self._taken.add(name.lower())
        return name


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    draft = Draft(path)
    try:
        with output_errors(draft.name):
            Image.fromarray(pixels).save(draft.file, "PNG", compress_level=4)
    except BaseException:
        draft.drop()
        raise
    draft.keep()


def _name(reading: Reading) -> str:
    return PurePath(reading.source.replace("\\", "/")).name or reading.source


def _card(reading: Reading, emotions: Sequence[Emotion]) -> str:
    count = len(reading.faces)
    found = "No face was found." if not count else "1 face" if count == 1 else f"{count} faces"
    thumb = _image(numbered(reading, _THUMB), f"the picture, {found}")
    faces = "".join(_face(face, number, emotions, count) for number, face in enumerate(reading.faces, start=1))
    return f"<section><h2>{escape(_name(reading))}</h2>\n<p>{found}</p>\n{thumb}\n{faces}</section>\n"


def _face(face: Face, number: int, emotions: Sequence[Emotion], count: int) -> str:
    crop = Image.fromarray(face.crop).resize((_TILE, _TILE), Image.Resampling.BICUBIC)
    name = f"face {number}" if count > 1 else "the face"
    figures = [f"<figure>{_image(crop, name)}<figcaption>{name}</figcaption></figure>"]
    for emotion, probability, image in tiles(face, emotions, size=_TILE):
        none = "" if (face.map(emotion) > 0).any() else "<small>nothing speaks for it</small>"
        shown = _image(Image.fromarray(image), f"{name} under the map of {emotion}")
        caption = f'<i style="background:{emotion.color}"></i>{emotion} <b>{escape(probability)}</b>{none}'
        figures.append(f"<figure>{shown}<figcaption>{caption}</figcaption></figure>")
    return f'<div class="row">{"".join(figures)}</div>\n'


def _image(picture: Image.Image, alt: str) -> str:
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "JPEG", quality=86)
    code = base64.b64encode(stream.getvalue()).decode("ascii")
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img decoding="async" {size} alt="{escape(alt)}" src="data:image/jpeg;base64,{code}">'


_TOP = """<body>
<header class="top"><p class="wordmark">mien</p><h1>Where mien looked</h1><p>$lead</p></header>
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
