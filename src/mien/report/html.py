"""Readings as one page to look at: a single HTML file that loads nothing, written picture by picture."""

import os
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from html import escape
from importlib.resources import files
from string import Template
from types import TracebackType
from typing import Self

from mien._emotions import Emotion
from mien._face import Reading
from mien._page import head
from mien.report.cards import card, error_item
from mien.report.output import Draft, output_errors

# The summary stands before the pictures but is known after them: so many bytes are kept free for it. Its size is bound
# by the number of emotions, not of pictures.
_SUMMARY_ROOM = 8192


class Html:
    """A page with a summary, a card for every picture, the pictures that failed, and the model's figures.

    The page is written as the readings come, so memory does not grow with their number (but for the lines of pictures
    that failed), and appears at ``path`` when the block ends. After Ctrl-C (``KeyboardInterrupt``) it holds what was
    read until then and says so; after any other exception no new file is left. Raises ``OutputError`` when ``path``
    cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, title: str, model: Mapping[str, str]) -> None:
        """``title`` heads the page; ``model`` holds what is said of the model, term to text, in the order to show."""
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
        """Write the card of one picture; ``reading.pixels`` must be kept, unless it holds an error."""
        self._counts["pictures"] += 1
        if reading.error is not None:
            self._errors.append(error_item(reading.source, reading.error))
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
