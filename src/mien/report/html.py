"""Readings as one HTML page that loads nothing. Each image is written when it is added."""

import base64
import io
import os
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import PurePath
from string import Template
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from mien._emotions import Emotion
from mien._face import Face, Reading
from mien._format import probability_percent
from mien._output import Draft, output_errors
from mien._page import head
from mien.overlay import enlarge, heat, opacity

_LONGEST = 960  # pixels of a thumbnail's longer side


_JPEG_QUALITY = 82


_OPEN_FACES = 8  # faces shown at once; the smaller ones of a crowd are folded away


_NAMED_FACES = 4  # up to so many boxes carry a name; in a crowd a number has to do


_NAMED = 0.08  # of the picture's width: a name is about so wide, narrower boxes carry a number


_SMALL = 0.03  # of the picture's width: narrower boxes show their label only when pointed at


def card(reading: Reading, number: int) -> str:
    """Return the HTML of one image with its faces.

    Args:
        reading: A reading with its pixels (``keep_pixels=True``).
        number: The number of the image, from 1.

    Returns:
        An ``article`` element.
    """
    faces = reading.faces
    marks = [f"has-{_kind(face)}" for face in faces] if faces else ["has-nobody"]
    layout = "one" if len(faces) < 2 else "many"
    parts = [
        f'<article class="card {layout} {" ".join(dict.fromkeys(marks))}" id="p{number}">',
        f"<h2><bdi>{escape(_name(reading.source))}</bdi></h2>",
        _about(reading),
        _picture(reading, number),
        _faces(faces, number) if faces else '<p class="nobody">No face was found in this picture.</p>',
        "</article>\n",
    ]
    return "\n".join(parts)


def _error_item(source: str, error: str) -> str:
    """Return the list item of an image that could not be read."""
    return f"<li><bdi>{escape(source)}</bdi><span>{escape(error)}</span></li>\n"


def _kind(face: Face) -> str:
    return "unsure" if face.emotion is None else str(face.emotion)


def _name(source: str) -> str:
    return PurePath(source.replace("\\", "/")).name or source


def _percent(value: float) -> str:
    return escape(probability_percent(value)).replace(" ", "\N{NO-BREAK SPACE}")


def _headline(face: Face) -> str:
    if face.emotion is None:
        return f"unsure, most likely {face.top} {_percent(face.confidence)}"
    return f"{face.emotion} {_percent(face.confidence)}"


def _about(reading: Reading) -> str:
    width, height = reading.size_wh
    count = len(reading.faces)
    facts = [f"{count} faces" if count > 1 else "1 face" if count else "no face", f"{width} × {height} pixels"]
    if reading.source != _name(reading.source):
        facts.insert(0, reading.source)
    if reading.note is not None:
        facts.append(reading.note)
    return '<p class="about">' + "".join(f"<span>{escape(fact)}</span>" for fact in facts) + "</p>"


def _data_uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _picture(reading: Reading, number: int) -> str:
    picture = Image.fromarray(np.asarray(reading.pixels))
    picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS, reducing_gap=3.0)
    readings = "; ".join(_headline(face) for face in reading.faces[:_OPEN_FACES]) or "no face"
    more = f"; and {len(reading.faces) - _OPEN_FACES} more faces" if len(reading.faces) > _OPEN_FACES else ""
    alt = f"Picture {escape(_name(reading.source))}: {readings}{more}"
    boxes = "".join(_box(reading, number, index) for index in reversed(range(len(reading.faces))))
    return (
        f'<div class="picture"><img loading="lazy" decoding="async" width="{picture.width}" height="{picture.height}" '
        f'alt="{alt}" src="{_data_uri(picture, "JPEG", quality=_JPEG_QUALITY, optimize=True)}">{boxes}</div>'
    )


def _box(reading: Reading, number: int, index: int) -> str:
    face, (width, height) = reading.faces[index], reading.size_wh
    x1, x2 = (min(max(v / width, 0), 1) for v in (face.box.x1, face.box.x2))
    y1, y2 = (min(max(v / height, 0), 1) for v in (face.box.y1, face.box.y2))
    crowded = len(reading.faces) > _NAMED_FACES
    flags = [f"e-{_kind(face)}"]
    flags += ["under"] if y1 < 0.08 else []
    flags += ["right"] if x1 > 0.7 else []
    flags += ["narrow"] if crowded and x2 - x1 < _NAMED else []
    flags += ["small"] if crowded and x2 - x1 < _SMALL else []
    name = "unsure" if face.emotion is None else _headline(face)
    if len(reading.faces) == 1:
        label = name
    else:
        label = f"{index + 1}" if crowded or x2 - x1 < _NAMED else f"{index + 1}<b> {name}</b>"
    place = f"left:{x1:.2%};top:{y1:.2%};width:{x2 - x1:.2%};height:{y2 - y1:.2%}"
    return (
        f'<a class="box {" ".join(flags)}" style="{place}" href="#p{number}f{index + 1}" '
        f'aria-label="Face {index + 1}: {_headline(face)}"><span>{label}</span></a>'
    )


def _faces(faces: tuple[Face, ...], number: int) -> str:
    panels = [_panel(face, number, index + 1, alone=len(faces) == 1) for index, face in enumerate(faces)]
    page = '<div class="faces">' + "".join(panels[:_OPEN_FACES]) + "</div>"
    if rest := panels[_OPEN_FACES:]:
        noun = "face" if len(rest) == 1 else "faces"
        page += (
            f'<details><summary>{len(rest)} smaller {noun}</summary><div class="faces">{"".join(rest)}</div></details>'
        )
    return page


def _panel(face: Face, number: int, index: int, *, alone: bool) -> str:
    order = list(face.probs)
    crop = _data_uri(Image.fromarray(face.crop), "PNG")
    side = face.crop.shape[0]
    image = f'width="{side}" height="{side}" src="{crop}"'
    badge = "" if alone else f'<span class="number">{index}</span>'
    rows = "".join(_row(face, emotion, f"p{number}f{index}") for emotion in order)
    return f"""<section class="face e-{_kind(face)}" id="p{number}f{index}" aria-label="Face {index}: {_headline(face)}"
 style="--n:{len(order)}">
<h3>{badge}{_title(face)}</h3>
<div class="views">
<figure><img {image} alt="Face {index}, cut out and turned upright">
<figcaption>what the network saw</figcaption></figure>
<figure><div class="seen" role="img" aria-label="Face {index} under the map of the marked emotion">
<img {image} alt=""><i class="map" style="--map:url({_map_strip(face)})"></i></div>
<figcaption>where it found the marked emotion</figcaption></figure>
</div>
<fieldset class="pick"><legend class="hidden">Probabilities of face {index}; choose an emotion to see its map</legend>
{rows}</fieldset>
</section>
"""


def _title(face: Face) -> str:
    if face.emotion is None:
        return f'<span class="name">unsure</span><small>most likely {face.top}, {_percent(face.confidence)}</small>'
    return f'<span class="name">{face.emotion}</span><small>{_percent(face.confidence)}</small>'


def _row(face: Face, emotion: Emotion, group: str) -> str:
    probability = face.probs[emotion]
    checked = " checked" if emotion is face.top else ""
    return (
        f'<label class="e-{emotion}"><input type="radio" name="{group}" value="{emotion}"{checked}>'
        f"<span>{emotion}</span>"
        f'<span class="bar"><i style="--p:{probability:.2%}"></i></span>'
        f'<span class="value">{_percent(probability)}</span></label>\n'
    )


def _map_strip(face: Face) -> str:
    """The maps of all emotions side by side, each as large as the crop, as one translucent PNG with a palette."""
    side = face.crop.shape[0]
    values = np.hstack([enlarge(face.map(emotion), side) for emotion in face.probs])
    steps = np.linspace(0, 1, 256)
    strip = Image.fromarray(np.rint(255 * values).astype(np.uint8))
    strip.putpalette(heat(steps).tobytes())
    return _data_uri(strip, "PNG", transparency=np.rint(255 * opacity(steps)).astype(np.uint8).tobytes())


# Bytes reserved for the summary, which is before the images in the page but is known only after them. Its size depends
# on the number of emotions, not of images.
_SUMMARY_ROOM = 8192


class Html:
    """Writes an HTML page with a summary, every image with its faces, the errors, and facts about the model.

    Readings are written when they are added, so that memory grows only with the number of errors. The page appears
    when the block ends. After ``KeyboardInterrupt`` it contains the readings until then and a note; after any other
    exception there is no new file.

    Args:
        path: The file.
        title: The title of the page.
        model: Facts about the model, term to text, in the order to show them, as ``Reader.describe`` returns them.

    Raises:
        OutputError: The file cannot be written.

    Example:
        >>> from mien import Html, Reader
        >>> reader = Reader()
        >>> with Html("faces.html", title="Faces", model=reader.describe()) as page:  # doctest: +SKIP
        ...     for reading in reader.read_many(["photo.jpg"], keep_pixels=True):
        ...         page.add(reading)
    """

    def __init__(self, path: str | os.PathLike[str], *, title: str, model: Mapping[str, str]) -> None:
        self._path = path
        self._title = title
        self._model = dict(model)
        self._counts: Counter[str] = Counter()
        self._errors: list[str] = []

    def __enter__(self) -> Self:
        opening, rest = _page(self._title, self._model).split("<!--summary-->")
        before, rest = rest.split("<!--cards-->")
        self._between, self._closing = rest.split("<!--errors-->")
        self._draft = Draft(self._path)
        try:
            self._summary_at = self._write(opening)
            self._write(" " * _SUMMARY_ROOM + before)
        except BaseException:
            self._draft.drop()
            raise
        return self

    def add(self, reading: Reading) -> None:
        """Write one image.

        Args:
            reading: A reading with its pixels (``keep_pixels=True``), or one with an error.

        Raises:
            ValueError: The reading has neither pixels nor an error.
            OutputError: The file cannot be written.
        """
        self._counts["pictures"] += 1
        if reading.error is not None:
            self._errors.append(_error_item(reading.source, reading.error))
            return
        if reading.pixels is None:
            raise ValueError(f"{reading.source}: the page needs the picture; read it with keep_pixels=True")
        self._write(card(reading, self._counts["pictures"]))
        self._counts["faces"] += len(reading.faces)
        self._counts["nobody"] += not reading.faces
        self._counts.update("unsure" if face.emotion is None else str(face.emotion) for face in reading.faces)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, KeyboardInterrupt):
            self._draft.drop()
            return
        try:
            self._finish(partial=kind is not None)
        except BaseException:
            self._draft.drop()
            raise
        self._draft.keep()

    def _finish(self, *, partial: bool) -> None:
        self._write(self._between + _error_list(self._errors) + self._closing)
        with output_errors(self._draft.name):
            self._draft.file.seek(self._summary_at)
        summary = _summary(self._counts, len(self._errors), partial=partial)
        if len(summary.encode()) > _SUMMARY_ROOM:
            raise AssertionError("the summary outgrew its room")  # only new emotions or words could do it; tested
        self._write(summary)

    def _write(self, text: str) -> int:
        """Write ``text``, bytes of a file name that are no UTF-8 spelled out, and return the position after it."""
        with output_errors(self._draft.name):
            self._draft.file.write(text.encode("utf-8", "backslashreplace"))
            return self._draft.file.tell()


def _page(title: str, model: Mapping[str, str]) -> str:
    folder = files("mien.report")
    made = datetime.now().astimezone()
    return Template((folder / "page.html").read_text("utf-8")).substitute(
        title=escape(title),
        head=head(title, (folder / "page.css").read_text("utf-8") + _emotion_rules()),
        model="\n".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in model.items()),
        made=made.isoformat(timespec="seconds"),
        made_text=f"{made:%Y-%m-%d, %H:%M}",
    )


def _emotion_rules() -> str:
    """Colours, filters and the choice of map: one rule for every emotion, which spares the page all scripts."""
    rules = [f".e-{emotion} {{ --c: {emotion.color}; }}" for emotion in Emotion]
    rules += [
        f"body:has(#show-{kind}:checked) .card:not(.has-{kind}) {{ display: none; }}"
        for kind in (*Emotion, "unsure", "nobody")
    ]
    chosen, pointed = [], []
    for index in range(len(Emotion)):
        row = f".face:has(.pick label:nth-of-type({index + 1})"
        chosen.append(f"{row} :checked) {{ --k: {index}; }}")
        pointed.append(f"{row}:hover) {{ --k: {index}; }}")
    return "\n".join([*rules, *chosen, "@media (hover: hover) {", *pointed, "}"])


def _summary(counts: Counter[str], failed: int, *, partial: bool) -> str:
    figures = {
        "pictures": counts["pictures"],
        "faces": counts["faces"],
        "unsure": counts["unsure"],
        "without a face": counts["nobody"],
        "unreadable": failed,
    }
    notice = (
        '<p class="partial" role="status">Interrupted: this page is partial and shows what was read until then.</p>'
    )
    entries = "".join(f"<div><dt>{term}</dt><dd>{number:,}</dd></div>" for term, number in figures.items())
    return (
        f'<section class="summary" aria-label="Summary">{notice if partial else ""}'
        f'<dl class="figures">{entries}</dl>{_spread(counts)}</section>'
    )


def _spread(counts: Counter[str]) -> str:
    """The emotions of all faces as one bar, and its legend, which also chooses the pictures that are shown."""
    kinds = [(kind, counts[kind]) for kind in (*map(str, Emotion), "unsure") if counts[kind]]
    parts = "".join(f'<i class="e-{kind}" style="flex:{count}" title="{kind}: {count:,}"></i>' for kind, count in kinds)
    spoken = ", ".join(f"{count} {kind}" for kind, count in kinds)
    bar = f'<div class="spread" role="img" aria-label="Faces by emotion: {spoken}">{parts}</div>' if kinds else ""
    choices = [_choice("all", "all", counts["pictures"], checked=True)]
    choices += [_choice(kind, kind, count) for kind, count in kinds]
    choices += [_choice("nobody", "no face", counts["nobody"])] if counts["nobody"] else []
    return f'{bar}<fieldset class="shows"><legend>Show pictures with</legend>{"".join(choices)}</fieldset>'


def _choice(kind: str, text: str, count: int, *, checked: bool = False) -> str:
    dot = "" if kind in ("all", "nobody") else f'<i class="e-{kind}"></i>'
    number = "" if kind == "all" else f" <b>{count:,}</b>"
    flag = " checked" if checked else ""
    return f'<label><input type="radio" name="show" id="show-{kind}"{flag}>{dot}{text}{number}</label>'


def _error_list(items: list[str]) -> str:
    if not items:
        return ""
    noun = "picture" if len(items) == 1 else "pictures"
    title = f"{len(items):,} {noun} could not be read"
    return f'<details class="errors"><summary>{title}</summary><ul>{"".join(items)}</ul></details>'
