"""Readings as one HTML page that loads nothing. Each image is written when it is added."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from PIL import Image

from mien._emotions import Emotion
from mien._errors import MienError, OutputError, require_kind
from mien._face import Detection, Face, Reading, face_headline
from mien._format import probability_percent
from mien._output import PARTIAL, Draft, output_errors
from mien._page import data_uri, escape, fill_page
from mien.overlay import enlarge, heat, opacity
from mien.report.images import short_name, thumbnail

if TYPE_CHECKING:
    from mien.reader import Reader

_LONGEST = 960  # pixels of a thumbnail's longer side
_JPEG_QUALITY = 82
_OPEN_FACES = 8  # faces shown at once; the smaller ones of a crowd are collapsed
_NAMED_FACES = 4  # with more faces, boxes have a number instead of a name
_NAMED = 0.08  # of the image's width: a name is about this wide, so narrower boxes have a number
_SMALL = 0.03  # of the image's width: narrower boxes show their label only when the pointer is over them
# Bytes reserved for the summary, which is before the images in the page but is known only after them. Its size depends
# on the number of emotions, not of images.
_SUMMARY_ROOM = 8192


class Html:
    """Writes an HTML page with a summary, every image with its faces, the errors, and facts about the model.

    Readings are written when they are added, so that memory grows only with the number of errors. The page appears
    when the block ends. After ``KeyboardInterrupt`` or ``BrokenPipeError`` it contains the readings until then and a
    note. Without a reading until then, or after any other exception, there is no new file.

    Args:
        path: The file.
        title: The title of the page.
        model: Facts about the model, term to text, in the order to show them, as ``Reader.describe`` returns them.
        beside: A reader with a second model. It reads the same faces, and its probabilities are shown beside those of
            the readings.

    Raises:
        MienError: An argument is of another type.
        OutputError: The file cannot be written.

    Example:
        >>> from mien import Html, Reader
        >>> reader = Reader()
        >>> with Html("faces.html", title="Faces", model=reader.describe()) as page:  # doctest: +SKIP
        ...     for reading in reader.read_many(["photo.jpg"], keep_pixels=True):
        ...         page.add(reading)
    """

    def __init__(
        self, path: str | os.PathLike[str], *, title: str, model: Mapping[str, str], beside: "Reader | None" = None
    ) -> None:
        require_kind("title", title, str, "a text")
        require_kind("model", model, Mapping, "a table of terms and texts, as Reader.describe returns it")
        self._path, self._title, self._model = path, title, dict(model)
        self._beside = beside
        if beside is not None:
            from mien.reader import Reader

            require_kind("beside", beside, Reader, "a Reader with the second model")
            self._model["beside it"] = beside.describe()["model"]
        self._counts: Counter[str] = Counter()
        self._errors: list[str] = []

    def __enter__(self) -> Self:
        folder = files("mien.report")
        style = (folder / "page.css").read_text("utf-8") + _emotion_rules()
        page = fill_page(folder / "page.html", title=self._title, style=style, facts=self._model)
        opening, before, self._between, self._closing = re.split("<!--(?:summary|cards|errors)-->", page)
        self._summary_at = len(opening.encode("utf-8", "backslashreplace"))
        self._draft = Draft(self._path)
        if not self._draft.file.seekable():  # the summary is written last
            self._draft.drop()
            raise OutputError(f"{self._draft.name}: is a pipe, into which no page can be written; name a file")
        try:
            self._draft.write(opening + " " * _SUMMARY_ROOM + before)
        except BaseException:
            self._draft.drop()
            raise
        return self

    def add(self, reading: Reading) -> None:
        """Write one image.

        Args:
            reading: A reading with its pixels (``keep_pixels=True``), or one with an error.

        Raises:
            MienError: The reading has neither pixels nor an error.
            OutputError: The file cannot be written.
        """
        require_kind("reading", reading, Reading, "what Reader.read returns")
        self._counts["images"] += 1
        if reading.error is not None:
            self._errors.append(f"<li><bdi>{escape(reading.source)}</bdi><span>{escape(reading.error)}</span></li>\n")
            return
        if reading.pixels is None:
            raise MienError(f"{reading.source}: the page needs the image; read it with keep_pixels=True")
        others = self._read_beside(reading)
        self._draft.write(_card(reading, self._counts["images"], others))
        self._counts["differ"] += sum(other.differs for other in others)
        self._counts["faces"] += len(reading.faces)
        self._counts["no-face"] += not reading.faces
        self._counts.update(map(_kind, reading.faces))

    def _read_beside(self, reading: Reading) -> list["_Other"]:
        """Read the faces with the second model, if there is one."""
        if self._beside is None:
            return []
        found = [Detection(face.box, face.score, face.points) for face in reading.faces]
        pairs = zip(reading.faces, self._beside.read_faces(np.asarray(reading.pixels), found), strict=True)
        return [_Other(self._beside.model.name, other, face.top is not other.top) for face, other in pairs]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not (issubclass(kind, PARTIAL) and self._counts["images"]):
            self._draft.drop()
            return
        with self._draft:
            noun = "image" if len(self._errors) == 1 else "images"
            title = f"<summary>{len(self._errors):,} {noun} could not be read</summary>"
            errors = f'<details class="errors">{title}<ul>{"".join(self._errors)}</ul></details>'
            self._draft.write(self._between + (errors if self._errors else "") + self._closing)
            with output_errors(self._draft.name):
                self._draft.file.seek(self._summary_at)
            counts, partial = self._counts, kind is not None
            summary = _summary(counts, len(self._errors), has_two=self._beside is not None, partial=partial)
            if len(summary.encode()) > _SUMMARY_ROOM:  # only new emotions or words could cause it; tested
                raise AssertionError("the summary is larger than the space that is reserved for it")
            self._draft.write(summary)


class _Other(NamedTuple):
    """A face as a second model reads it, and whether its most probable emotion differs."""

    model: str
    face: Face
    differs: bool


def _emotion_rules() -> str:
    """Return CSS for colours, filters and the choice of a map. One rule for each emotion makes scripts unnecessary."""
    rules = [f".e-{emotion} {{ --c: {emotion.color}; }}" for emotion in Emotion]
    rules += [
        f"body:has(#show-{kind}:checked) .card:not(.has-{kind}) {{ display: none; }}"
        for kind in (*Emotion, "unsure", "no-face", "differ")
    ]
    rows = [f".face:has(.pick label:nth-of-type({index + 1})" for index in range(len(Emotion))]
    rules += [f"{row} :checked) {{ --k: {index}; }}" for index, row in enumerate(rows)]
    hovered = [f"{row}:hover) {{ --k: {index}; }}" for index, row in enumerate(rows)]
    return "\n".join([*rules, "@media (hover: hover) {", *hovered, "}"])


def _summary(counts: Counter[str], errors: int, *, has_two: bool, partial: bool) -> str:
    numbers = {kind[: -1 if counts[kind] == 1 else None]: counts[kind] for kind in ("images", "faces")}
    numbers |= {"unsure": counts["unsure"], "without a face": counts["no-face"], "unreadable": errors}
    numbers |= {"read differently": counts["differ"]} if has_two else {}
    notice = '<p class="partial" role="status">Interrupted: this page is partial and shows the images until then.</p>'
    entries = "".join(f"<div><dt>{term}</dt><dd>{number:,}</dd></div>" for term, number in numbers.items())
    return (
        f'<section class="summary" aria-label="Summary">{notice if partial else ""}'
        f'<dl class="figures">{entries}</dl>{_emotion_bar(counts)}</section>'
    )


def _emotion_bar(counts: Counter[str]) -> str:
    """Return the emotions of all faces as one bar, and its legend, which also selects the images that are shown."""
    kinds = [(kind, counts[kind]) for kind in (*map(str, Emotion), "unsure") if counts[kind]]
    parts = "".join(f'<i class="e-{kind}" style="flex:{count}" title="{kind}: {count:,}"></i>' for kind, count in kinds)
    label = ", ".join(f"{count} {kind}" for kind, count in kinds)
    bar = f'<div class="spread" role="img" aria-label="Faces by emotion: {label}">{parts}</div>' if kinds else ""
    choices = ['<label><input type="radio" name="show" id="show-all" checked>all</label>']
    shown = [(kind, f'<i class="e-{kind}"></i>{kind}', count) for kind, count in kinds]
    shown += [("no-face", "no face", counts["no-face"])] if counts["no-face"] else []
    shown += [("differ", "faces read differently", counts["differ"])] if counts["differ"] else []
    for kind, text, count in shown:
        choices.append(f'<label><input type="radio" name="show" id="show-{kind}">{text} <b>{count:,}</b></label>')
    return f'{bar}<fieldset class="shows"><legend>Show images with</legend>{"".join(choices)}</fieldset>'


def _card(reading: Reading, number: int, others: Sequence[_Other]) -> str:
    """Return the article of the image with this number, from 1. A second model has read all of its faces, or none."""
    faces, name = reading.faces, short_name(reading.source)
    kinds = [*(dict.fromkeys(map(_kind, faces)) or ["no-face"]), *["differ"] * any(each.differs for each in others)]
    classes = ["card", "one" if len(faces) < 2 else "many", *(f"has-{kind}" for kind in kinds)]
    facts = [reading.source] if reading.source != name else []
    facts.append(f"{len(faces)} faces" if len(faces) > 1 else "1 face" if faces else "no face")
    facts.append("{} × {} pixels".format(*reading.size_wh))
    facts += [] if reading.note is None else [reading.note]
    panels = [
        _panel(face, number, at + 1, alone=len(faces) == 1, other=others[at] if others else None)
        for at, face in enumerate(faces)
    ]
    details = f'<div class="faces">{"".join(panels[:_OPEN_FACES])}</div>'
    if rest := panels[_OPEN_FACES:]:
        title = f"{len(rest)} smaller {'face' if len(rest) == 1 else 'faces'}"
        details += f'<details><summary>{title}</summary><div class="faces">{"".join(rest)}</div></details>'
    return f"""<article class="{" ".join(classes)}" id="p{number}">
<h2><bdi>{escape(name)}</bdi></h2>
<p class="about">{"".join(f"<span>{escape(fact)}</span>" for fact in facts)}</p>
{_image(reading, number)}
{details if faces else '<p class="no-face">No face was found in this image.</p>'}
</article>
"""


def _image(reading: Reading, number: int) -> str:
    image = thumbnail(np.asarray(reading.pixels), (_LONGEST, _LONGEST))
    readings = "; ".join(face_headline(face, percent_html) for face in reading.faces[:_OPEN_FACES]) or "no face"
    more = f"; and {len(reading.faces) - _OPEN_FACES} more faces" if len(reading.faces) > _OPEN_FACES else ""
    alt = f"Image {escape(short_name(reading.source))}: {readings}{more}"
    boxes = "".join(_box(reading, number, index) for index in reversed(range(len(reading.faces))))
    return (
        f'<div class="image"><img loading="lazy" decoding="async" width="{image.width}" height="{image.height}" '
        f'alt="{alt}" src="{data_uri(image, "JPEG", quality=_JPEG_QUALITY, optimize=True)}">{boxes}</div>'
    )


def _box(reading: Reading, number: int, index: int) -> str:
    face, (width, height) = reading.faces[index], reading.size_wh
    x1, x2 = (min(max(v / width, 0), 1) for v in (face.box.x1, face.box.x2))
    y1, y2 = (min(max(v / height, 0), 1) for v in (face.box.y1, face.box.y2))
    crowded = len(reading.faces) > _NAMED_FACES
    flags = {
        "under": y1 < 0.08,
        "right": x1 > 0.7,
        "narrow": crowded and x2 - x1 < _NAMED,
        "small": crowded and x2 - x1 < _SMALL,
    }
    classes = " ".join(["box", f"e-{_kind(face)}", *(name for name, is_set in flags.items() if is_set)])
    name = "unsure" if face.emotion is None else face_headline(face, percent_html)
    label = f"{index + 1}" if crowded or x2 - x1 < _NAMED else f"{index + 1}<b> {name}</b>"
    label = name if len(reading.faces) == 1 else label
    place = f"left:{x1:.2%};top:{y1:.2%};width:{x2 - x1:.2%};height:{y2 - y1:.2%}"
    return (
        f'<a class="{classes}" style="{place}" href="#p{number}f{index + 1}" '
        f'aria-label="Face {index + 1}: {face_headline(face, percent_html)}"><span>{label}</span></a>'
    )


def _panel(face: Face, number: int, index: int, *, alone: bool, other: _Other | None) -> str:
    """Return the section of a face: its crop, its maps and its probabilities, and those of a second model."""
    name = f"p{number}f{index}"
    side = face.crop.shape[0]
    crop = f'width="{side}" height="{side}" src="{data_uri(Image.fromarray(face.crop), "PNG")}"'
    maps = f"--map:url({_map_strip(face)});--own:url({_map_strip(face, own_scale=True)})"
    badge = "" if alone else f'<span class="number">{index}</span>'
    detail = f"most likely {face.top}, " if face.emotion is None else ""
    rows = "".join(
        f'<label class="e-{emotion}"><input type="radio" name="{name}" value="{emotion}"'
        f"{' checked' if emotion is face.top else ''}><span>{emotion}</span>"
        f"{_bar(probability)}{_bar(other.face.probs.get(emotion, 0.0)) if other else ''}</label>\n"
        for emotion, probability in face.probs.items()
    )
    label = f"Face {index}: {face_headline(face, percent_html)}"
    return f"""<section class="face e-{_kind(face)}" id="{name}" aria-label="{label}"
 style="--n:{len(face.probs)}">
<h3>{badge}<span class="name">{_kind(face)}</span><small>{detail}{percent_html(face.confidence)}</small></h3>
{_headline(other) if other else ""}
<div class="crops">
<figure><img {crop} alt="Crop of face {index}, upright">
<figcaption>input of the network</figcaption></figure>
<figure><div class="overlay" role="img" aria-label="Face {index} under the map of the selected emotion">
<img {crop} alt=""><i class="map" style="{maps}"></i></div>
<figcaption>evidence for the selected emotion</figcaption></figure>
</div>
<fieldset class="pick"><legend class="hidden">Probabilities of face {index}; select an emotion to see its map</legend>
{rows}</fieldset>
<p class="quality">{face.quality}</p>
</section>
"""


def _headline(other: _Other) -> str:
    """Return the line of a second model, and what its bars are."""
    text = f"{escape(other.model)}, the lower bars: {face_headline(other.face, percent_html)}"
    return f'<p class="other{" differs" if other.differs else ""}">{text}</p>'


def _bar(probability: float) -> str:
    return (
        f'<span class="bar"><i style="--p:{probability:.2%}"></i></span>'
        f'<span class="value">{percent_html(probability)}</span>'
    )


def _map_strip(face: Face, *, own_scale: bool = False) -> str:
    """Return the maps of all emotions side by side, each as large as the crop, as one translucent PNG."""
    side = face.crop.shape[0]
    values = np.hstack([enlarge(face.map(emotion, own_scale=own_scale), side) for emotion in face.probs])
    steps = np.linspace(0, 1, 256)
    strip = Image.fromarray(np.rint(255 * values).astype(np.uint8))
    strip.putpalette(heat(steps).tobytes())
    return data_uri(strip, "PNG", transparency=np.rint(255 * opacity(steps)).astype(np.uint8).tobytes())


def _kind(face: Face) -> str:
    return "unsure" if face.emotion is None else str(face.emotion)


def percent_html(value: float) -> str:
    """Format a probability as a percentage that is not broken across lines.

    Args:
        value: The probability, 0..1.

    Returns:
        The text in HTML.
    """
    return escape(probability_percent(value)).replace(" ", "\N{NO-BREAK SPACE}")
