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
from PIL import Image

from mien._emotions import Emotion
from mien._face import Face, Reading
from mien._page import head
from mien.commands.map_sheet import numbered, sheet, tiles
from mien.report.output import Draft, output_errors

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
