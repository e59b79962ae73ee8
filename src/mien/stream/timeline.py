"""A film as one page to look at: who was seen when, with which emotions. A single HTML file that loads nothing."""

import os
from collections.abc import Mapping
from datetime import datetime
from html import escape
from importlib.resources import files
from string import Template

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._page import head
from mien.report.output import open_output, output_errors
from mien.stream.chart import Kind, duration, kind_name
from mien.stream.people import People, Person
from mien.stream.person import brief, card, row, share_text, spread
from mien.stream.records import Moment

_BRIEF = 1.0  # seconds: people seen for less are folded away


class Timeline:
    """Collects moments and writes their page: curves, faces at their most expressive, shares of time, for each person.

    Memory does not grow with the length of the film, nor with the number of people. The page shows faces.
    """

    def __init__(self, *, title: str, facts: Mapping[str, str] | None = None) -> None:
        """``title`` heads the page; ``facts`` holds what is said of film and model, term to text, in their order."""
        self._title = title
        self._facts = dict(facts or {})
        self._people = People()
        self._frames = 0
        self._faces = 0
        self._first: float | None = None
        self._last = 0.0

    def add(self, moment: Moment, pixels: NDArray[np.uint8]) -> None:
        """Take the next moment and its frame, RGB uint8 ``[H, W, 3]``."""
        self._frames += 1
        self._faces += len(moment.faces)
        self._first = moment.seconds if self._first is None else self._first
        self._last = moment.seconds
        for person, face in self._people.add(moment):
            person.thumbnails.consider(face, moment.seconds, pixels)

    def write(self, path: str | os.PathLike[str], *, partial: bool = False) -> None:
        """Write the page; ``partial`` says on it that the film was not seen to its end. Raises ``OutputError``."""
        self._people.finish()
        text = self._page(partial=partial)
        with open_output(path) as stream, output_errors(os.fspath(path)):
            stream.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))

    def _page(self, *, partial: bool) -> str:
        report, own = files("mien.report"), files("mien.stream")
        style = (report / "page.css").read_text("utf-8") + (own / "timeline.css").read_text("utf-8")
        rules = "\n".join(f".e-{emotion} {{ --c: {emotion.color}; }}" for emotion in Emotion)
        made = datetime.now().astimezone()
        return Template((own / "timeline.html").read_text("utf-8")).substitute(
            title=escape(self._title),
            head=head(self._title, style + rules),
            made=made.isoformat(timespec="seconds"),
            made_text=f"{made:%Y-%m-%d, %H:%M}",
            summary=self._summary(partial=partial),
            people=self._sections(),
            facts="\n".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in self._facts.items()),
        )

    def _summary(self, *, partial: bool) -> str:
        count = self._people.count
        figures = {
            "person" if count == 1 else "people": f"{count:,}",
            "long": duration(self._end - self._start),
            "frames": f"{self._frames:,}",
            "faces a frame": f"{self._faces / max(1, self._frames):.1f}",
        }
        notice = '<p class="partial" role="status">Interrupted: this page shows the film up to there.</p>'
        entries = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in figures.items())
        shares: dict[Kind, float] = {}
        for person in self._people:
            for kind, seconds in person.shares.items():
                shares[kind] = shares.get(kind, 0.0) + seconds
        return (
            f'{notice if partial else ""}<dl class="figures">{entries}</dl>'
            f"{spread(shares, 'Time of all people by emotion')}{self._legend(shares)}"
        )

    def _legend(self, shares: Mapping[Kind, float]) -> str:
        total = sum(shares.values())
        kinds: list[Kind] = [*self._people.emotions, *([None] if shares.get(None) else [])]
        if not total:
            return ""
        named = [(kind_name(kind), share_text(shares.get(kind, 0.0) / total)) for kind in kinds]
        items = "".join(f'<li><i class="e-{name}"></i>{name} <b>{share}</b></li>' for name, share in named)
        return f'<ul class="legend" aria-label="Colours, and shares of all time in sight">{items}</ul>'

    def _sections(self) -> str:
        long = [person for person in self._people if person.seconds >= _BRIEF]
        short = [person for person in self._people if person.seconds < _BRIEF]
        if not long and not short:
            return '<p class="nobody">No face was found in this film.</p>'
        emotions, span = self._people.emotions, (self._start, self._end)
        parts = []
        if long:
            bands = "".join(row(person, emotions, span) for person in long)
            parts.append(f'<section class="who"><h2>Who is seen when</h2><ol>{bands}</ol></section>')
        parts += [card(person, emotions, span) for person in long]
        if short:
            parts.append(_folded(short, emotions))
        if self._people.merged:
            parts.append(
                f'<p class="merged">{self._people.merged:,} more people, each in sight for at most '
                f"{duration(self._people.merged_seconds)}, are only counted.</p>"
            )
        return "\n".join(parts)

    @property
    def _start(self) -> float:
        return self._first or 0.0

    @property
    def _end(self) -> float:
        """Where the last frame ends, by what is known of its people, or begins."""
        return max([self._last, *(person.last for person in self._people)])


def _folded(people: list[Person], emotions: tuple[Emotion, ...]) -> str:
    noun = "person" if len(people) == 1 else "people"
    items = "".join(brief(person, emotions) for person in people)
    summary = f"{len(people)} {noun} in sight for less than a second"
    return f'<details class="brief"><summary>{summary}</summary><ul>{items}</ul></details>'
