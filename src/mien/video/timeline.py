"""A video as one page to look at: who was seen when, with which emotions. A single HTML file that loads nothing."""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from importlib.resources import files
from string import Template

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._format import probability_percent
from mien._output import open_output, output_errors
from mien._page import head
from mien.video.statistics import CurveSamples, Thumbnail, TrackStatistics, VideoStatistics
from mien.video.types import FrameResult

Kind = Emotion | None  # None: unsure


WIDTH, HEIGHT = 2000, 200  # units of a drawing, stretched to its place: whole numbers keep the page small


_TICKS = 7  # of an axis, at most


_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)  # seconds


_NAMED = 0.1  # probability from which on an emotion stands in a read-out


_MOST_NAMED = 3


def clock(seconds: float, *, tenths: bool = True) -> str:
    """A time as ``0:04.2``, or from an hour on ``1:02:03``."""
    tenth = round(10 * max(0.0, seconds))
    minutes, rest = divmod(tenth, 600)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}"
    return f"{minutes}:{rest // 10:02d}" + (f".{rest % 10}" if tenths else "")


def duration(seconds: float) -> str:
    """How long something lasted: ``0.4 s``, ``12 s``, ``3:20 min``, ``1:02:03 h``."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{clock(round(seconds), tenths=False)} {'min' if seconds < 3599.5 else 'h'}"


def kind_name(kind: Kind) -> str:
    """The word for an emotion or for none."""
    return "unsure" if kind is None else str(kind)


def values_text(emotions: Sequence[Emotion], sample: NDArray[np.float64]) -> str:
    """A sample of a track's curve in words: ``happy 93 %, neutral 5 %``, or ``unsure: sad 30 %, fear 28 %``."""
    probs, unsure = sample[:-1], sample[-1] > 0.5
    order = np.argsort(-probs, kind="stable")[:_MOST_NAMED]
    named = [i for rank, i in enumerate(order) if rank == 0 or probs[i] >= _NAMED]
    return ("unsure: " if unsure else "") + ", ".join(
        f"{emotions[i]} {probability_percent(float(probs[i]))}" for i in named
    )


def areas(samples: CurveSamples, emotions: Sequence[Emotion], start: float, end: float) -> str:
    """The probabilities stacked, in the order of ``emotions`` from below, as paths; nothing where someone is away."""
    parts = []
    for first, last in _runs(~np.isnan(samples.means[:, 0])):
        tops = np.cumsum(samples.means[first:last, :-1], axis=1)
        middles = samples.start + samples.step * (np.arange(first, last) + 0.5)
        edges = samples.start + samples.step * np.array([first, last])
        x = _across(np.concatenate([edges[:1], middles, edges[1:]]), start, end)
        for index in reversed(range(len(emotions))):  # each lies over the next higher one
            top = np.rint(HEIGHT * (1 - np.clip(tops[:, index], 0, 1))).astype(int)
            y = np.concatenate([top[:1], top, top[-1:]])
            line = " ".join(f"{a} {b}" for a, b in zip(x, y, strict=True))
            parts.append(f'<path class="e-{emotions[index]}" d="M{x[0]} {HEIGHT}L{line} {x[-1]} {HEIGHT}z"/>')
    return "".join(parts)


def band(samples: CurveSamples, emotions: Sequence[Emotion], start: float, end: float) -> str:
    """What was read over time, the most probable emotion or unsure, as rectangles; nothing where someone is away."""
    away, unsure = np.isnan(samples.means[:, 0]), samples.means[:, -1] > 0.5
    tops = np.where(unsure, len(emotions), np.argmax(np.nan_to_num(samples.means[:, :-1]), axis=1))
    tops = np.where(away, -1, tops)
    kinds: list[Kind] = [*emotions, None]
    changes = np.flatnonzero(np.diff(tops)) + 1
    parts = []
    for first, last in zip([0, *changes], [*changes, len(tops)], strict=True):
        if tops[first] >= 0:
            x1, x2 = _across(samples.start + samples.step * np.array([first, last]), start, end)
            color = f"e-{kind_name(kinds[tops[first]])}"
            parts.append(f'<rect class="{color}" x="{x1}" width="{max(4, x2 - x1)}" height="{HEIGHT}"/>')
    return "".join(parts)


def _drawing(inside: str, label: str) -> str:
    """An SVG that fills its place, with ``label`` for who cannot see it."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f"{inside}</svg>"
    )


def axis(start: float, end: float) -> str:
    """The times below a drawing, with lines through it."""
    step = next((s for s in _STEPS if (end - start) / s <= _TICKS), _STEPS[-1])
    first = int(np.ceil(start / step - 1e-6))
    marks = []
    for number in range(first, first + _TICKS + 1):
        at = number * step
        if at <= end + 1e-6:
            text = clock(at, tenths=step < 1)
            side = " last" if _share(at, start, end) > 0.97 else " first" if _share(at, start, end) < 0.03 else ""
            marks.append(f'<span class="tick{side}" style="left:{_share(at, start, end):.2%}"><i>{text}</i></span>')
    return f'<div class="axis" aria-hidden="true">{"".join(marks)}</div>'


def slices(samples: CurveSamples, emotions: Sequence[Emotion], name: str, start: float, end: float) -> str:
    """The read-out of a curve without a script: a choice of one of many results, by pointing, tapping or arrow keys."""
    labels = []
    for index, values in enumerate(samples.means):
        x1 = _share(samples.start + index * samples.step, start, end)
        x2 = _share(samples.start + (index + 1) * samples.step, start, end)
        at = samples.start + (index + 0.5) * samples.step
        text = "away" if np.isnan(values[0]) else values_text(emotions, values)
        labels.append(
            f'<label style="--l:{x1:.2%};--w:{max(0.0, min(x2, 1) - x1):.2%}"><input type="radio" name="{name}">'
            f"<span><b>{clock(at)}</b> {escape(text)}</span></label>"
        )
    return "".join(labels)


def _rows(samples: CurveSamples) -> Iterator[tuple[str, NDArray[np.float64] | None]]:
    """The curve for a table: the time of each sample, and its probabilities, ``None`` where someone is away."""
    for index, values in enumerate(samples.means):
        yield clock(samples.start + index * samples.step), None if np.isnan(values[0]) else values[:-1]


def _runs(there: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First and last + 1 of every stretch of true values."""
    changes = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(np.int8), [0]])))
    yield from zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True)


def _share(at: float, start: float, end: float) -> float:
    return (at - start) / max(end - start, 1e-9)


def _across(times: NDArray[np.float64], start: float, end: float) -> NDArray[np.int64]:
    shares = np.clip((times - start) / max(end - start, 1e-9), 0, 1)
    return np.rint(WIDTH * shares).astype(np.int64)


_POINTS = 400  # of a curve that is drawn


_BAND_POINTS = 300


_SLICES = 80  # results that the read-out tells apart


_ROWS = 24  # of the table


_PEAKS = 5


_WHOLE = 0.25  # share of the video from which on a track's curve is drawn on the axis of the whole video


def row(track: TrackStatistics, emotions: Sequence[Emotion], span: tuple[float, float]) -> str:
    """The line of a track in the overview: when in sight, and which emotion was the most probable."""
    inside = band(track.curve.samples(_BAND_POINTS), emotions, *span)
    label = f"{_seen(track)}; {_mostly(track.shares)}"
    return f'<li><a href="#track-{track.track_id}">Track {track.track_id}</a>{_drawing(inside, label)}</li>'


def _card(track: TrackStatistics, emotions: Sequence[Emotion], video: tuple[float, float]) -> str:
    """The article of a track who was seen for a while."""
    span, zoomed = _span(track, video)
    portrait = track.thumbnails.portrait
    picture = "" if portrait is None else f'<img src="{portrait.uri}" width="64" height="64" alt="">'
    facts = [_seen(track), f"{duration(track.seconds)} in sight", _mostly(track.shares)]
    return f"""<article class="card track" id="track-{track.track_id}" aria-label="Track {track.track_id}">
<header>{picture}<div><h2>Track {track.track_id}</h2>
<p class="about">{"".join(f"<span>{escape(fact)}</span>" for fact in facts)}</p></div></header>
{_curve(track, emotions, span, zoomed=zoomed)}
<div class="below">{_peaks(track)}{_shares(track)}</div>
{_table(track, emotions)}
</article>
"""


def brief(track: TrackStatistics, emotions: Sequence[Emotion]) -> str:
    """The list item of a track who was seen for a result."""
    portrait = track.thumbnails.portrait
    picture = (
        '<span class="none"></span>'
        if portrait is None
        else f'<img src="{portrait.uri}" width="64" height="64" alt="">'
    )
    known = [kind for kind in track.shares if kind in emotions or kind is None]
    said = _mostly({kind: track.shares[kind] for kind in known})
    facts = f"at {clock(track.first)} for {duration(track.seconds)}"
    return f"<li>{picture}<div><b>Track {track.track_id}</b> {facts}<br>{escape(said)}</div></li>"


def spread(shares: Mapping[Kind, float], name: str) -> str:
    """Shares of time as one bar."""
    total = sum(shares.values())
    kinds: list[Kind] = [kind for kind in (*Emotion, None) if shares.get(kind)]
    if not kinds:
        return ""
    spoken = ", ".join(f"{kind_name(kind)} {share_text(shares[kind] / total)}" for kind in kinds)
    parts = "".join(
        f'<i class="e-{kind_name(kind)}" style="flex:{shares[kind]:.3f}" title="{kind_name(kind)}"></i>'
        for kind in kinds
    )
    return f'<div class="spread" role="img" aria-label="{name}: {spoken}">{parts}</div>'


def share_text(share: float) -> str:
    """A share of time: ``61 %``."""
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _percent(probability: float) -> str:
    return escape(probability_percent(probability)).replace(" ", "\N{NO-BREAK SPACE}")


def _span(track: TrackStatistics, video: tuple[float, float]) -> tuple[tuple[float, float], bool]:
    """The times between which a curve is drawn: the video's, or for someone seen briefly in a long video one's own."""
    if track.last - track.first >= _WHOLE * (video[1] - video[0]):
        return video, False
    return (track.first, track.last), True


def _seen(track: TrackStatistics) -> str:
    return f"seen from {clock(track.first)} to {clock(track.last)}"


def _mostly(shares: Mapping[Kind, float]) -> str:
    total = sum(shares.values())
    if not total:
        return "not read"
    ranked = sorted(shares, key=lambda kind: shares[kind], reverse=True)
    if len(ranked) == 1:
        return f"{kind_name(ranked[0])} throughout"
    return "mostly " + ", then ".join(f"{kind_name(kind)} ({share_text(shares[kind] / total)})" for kind in ranked[:2])


def _curve(track: TrackStatistics, emotions: Sequence[Emotion], span: tuple[float, float], *, zoomed: bool) -> str:
    label = (
        f"Probabilities of track {track.track_id} over time: {_mostly(track.shares)}; the table below has the values"
    )
    marks = "".join(
        f'<i class="mark e-{kind_name(peak.emotion)}" style="left:{_left(peak, span):.2%}">{number}</i>'
        for number, peak in enumerate(track.thumbnails.peaks(_PEAKS), 1)
    )
    note = "<figcaption>The axis shows only the part of the video in which this track is in sight.</figcaption>"
    readout = slices(track.curve.samples(_SLICES), emotions, f"at-{track.track_id}", *span)
    return f"""<figure class="curve"><div class="marks" aria-hidden="true">{marks}</div>
<div class="plot"><span class="scale" aria-hidden="true"><i>100 %</i><i>50 %</i><i>0</i></span>
{_drawing(areas(track.curve.samples(_POINTS), emotions, *span), label)}{axis(*span)}
<fieldset class="slices">
<legend class="hidden">Values of track {track.track_id} at one time; arrow keys change it</legend>
{readout}</fieldset></div>{note if zoomed else ""}</figure>"""


def _left(peak: Thumbnail, span: tuple[float, float]) -> float:
    return min(max((peak.seconds - span[0]) / max(span[1] - span[0], 1e-9), 0), 1)


def _peaks(track: TrackStatistics) -> str:
    items = "".join(
        f'<li class="e-{kind_name(peak.emotion)}"><figure><img src="{peak.uri}" width="112" height="112" '
        f'alt="Track {track.track_id} at {clock(peak.seconds)}"><figcaption><span class="number">{number}</span>'
        f"<span><b>{kind_name(peak.emotion)}</b> {_percent(peak.probability)}<br>"
        f"{clock(peak.seconds)}</span></figcaption></figure></li>"
        for number, peak in enumerate(track.thumbnails.peaks(_PEAKS), 1)
    )
    return f'<div><h3>At their height</h3><ol class="peaks">{items}</ol></div>' if items else ""


def _shares(track: TrackStatistics) -> str:
    total = sum(track.shares.values()) or 1.0
    ranked = sorted(track.shares, key=lambda kind: track.shares[kind], reverse=True)
    lines = "".join(
        f'<tr class="e-{kind_name(kind)}"><th scope="row">{kind_name(kind)}</th>'
        f'<td class="fill"><span class="bar"><i style="--p:{track.shares[kind] / total:.2%}"></i></span></td>'
        f"<td>{share_text(track.shares[kind] / total)}</td><td>{duration(track.shares[kind])}</td></tr>"
        for kind in ranked
    )
    return (
        f"<div><h3>Time by emotion</h3>{spread(track.shares, f'Time of track {track.track_id} by emotion')}"
        f'<table class="shares"><caption class="hidden">Time of track {track.track_id} by emotion</caption>'
        f'<thead class="hidden"><tr><th scope="col">emotion</th><td></td><th scope="col">share</th>'
        f'<th scope="col">time</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _table(track: TrackStatistics, emotions: Sequence[Emotion]) -> str:
    header = "".join(f'<th scope="col">{emotion}</th>' for emotion in emotions)
    lines = []
    for at, probs in _rows(track.curve.samples(_ROWS)):
        cells = (
            f'<td colspan="{len(emotions)}">away</td>'
            if probs is None
            else "".join(f"<td>{_percent(float(p))}</td>" for p in probs)
        )
        lines.append(f'<tr><th scope="row">{at}</th>{cells}</tr>')
    return (
        f"<details><summary>The curve as a table</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="The curve of track {track.track_id} as a table">'
        f"<table><caption>Mean probabilities of track {track.track_id} from each time on</caption>"
        f'<thead><tr><th scope="col">from</th>{header}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></details>"
    )


_BRIEF = 1.0  # seconds: tracks seen for less are folded away


class Timeline:
    """Collects results and writes their page: curves, faces at their most expressive, shares of time, for each track.

    Memory does not grow with the length of the video, nor with the number of tracks. The page shows faces.
    """

    def __init__(self, *, title: str, facts: Mapping[str, str] | None = None) -> None:
        """``title`` heads the page; ``facts`` holds what is said of video and model, term to text, in their order."""
        self._title = title
        self._facts = dict(facts or {})
        self._statistics = VideoStatistics()
        self._frames = 0
        self._faces = 0
        self._first: float | None = None
        self._last = 0.0

    def add(self, result: FrameResult, pixels: NDArray[np.uint8]) -> None:
        """Take the next moment and its frame, RGB uint8 ``[H, W, 3]``."""
        self._frames += 1
        self._faces += len(result.faces)
        self._first = result.seconds if self._first is None else self._first
        self._last = result.seconds
        for track, face in self._statistics.add(result):
            track.thumbnails.consider(face, result.seconds, pixels)

    def write(self, path: str | os.PathLike[str], *, partial: bool = False) -> None:
        """Write the page; ``partial`` says on it that the video was not seen to its end. Raises ``OutputError``."""
        self._statistics.finish()
        text = self._page(partial=partial)
        with open_output(path) as stream, output_errors(os.fspath(path)):
            stream.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))

    def _page(self, *, partial: bool) -> str:
        report, own = files("mien.report"), files("mien.video")
        style = (report / "page.css").read_text("utf-8") + (own / "timeline.css").read_text("utf-8")
        rules = "\n".join(f".e-{emotion} {{ --c: {emotion.color}; }}" for emotion in Emotion)
        made = datetime.now().astimezone()
        return Template((own / "timeline.html").read_text("utf-8")).substitute(
            title=escape(self._title),
            head=head(self._title, style + rules),
            made=made.isoformat(timespec="seconds"),
            made_text=f"{made:%Y-%m-%d, %H:%M}",
            summary=self._summary(partial=partial),
            tracks=self._sections(),
            facts="\n".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in self._facts.items()),
        )

    def _summary(self, *, partial: bool) -> str:
        count = self._statistics.count
        figures = {
            "track" if count == 1 else "tracks": f"{count:,}",
            "long": duration(self._end - self._start),
            "frames": f"{self._frames:,}",
            "faces a frame": f"{self._faces / max(1, self._frames):.1f}",
        }
        notice = '<p class="partial" role="status">Interrupted: this page shows the video up to there.</p>'
        entries = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in figures.items())
        shares: dict[Kind, float] = {}
        for track in self._statistics:
            for kind, seconds in track.shares.items():
                shares[kind] = shares.get(kind, 0.0) + seconds
        return (
            f'{notice if partial else ""}<dl class="figures">{entries}</dl>'
            f"{spread(shares, 'Time of all tracks by emotion')}{self._legend(shares)}"
        )

    def _legend(self, shares: Mapping[Kind, float]) -> str:
        total = sum(shares.values())
        kinds: list[Kind] = [*self._statistics.emotions, *([None] if shares.get(None) else [])]
        if not total:
            return ""
        named = [(kind_name(kind), share_text(shares.get(kind, 0.0) / total)) for kind in kinds]
        items = "".join(f'<li><i class="e-{name}"></i>{name} <b>{share}</b></li>' for name, share in named)
        return f'<ul class="legend" aria-label="Colours, and shares of all time in sight">{items}</ul>'

    def _sections(self) -> str:
        long = [track for track in self._statistics if track.seconds >= _BRIEF]
        short = [track for track in self._statistics if track.seconds < _BRIEF]
        if not long and not short:
            return '<p class="nobody">No face was found in this video.</p>'
        emotions, span = self._statistics.emotions, (self._start, self._end)
        parts = []
        if long:
            bands = "".join(row(track, emotions, span) for track in long)
            parts.append(f'<section class="overview"><h2>Who is seen when</h2><ol>{bands}</ol></section>')
        parts += [_card(track, emotions, span) for track in long]
        if short:
            parts.append(_folded(short, emotions))
        if self._statistics.merged:
            parts.append(
                f'<p class="merged">{self._statistics.merged:,} more tracks, each in sight for at most '
                f"{duration(self._statistics.merged_seconds)}, are only counted.</p>"
            )
        return "\n".join(parts)

    @property
    def _start(self) -> float:
        return self._first or 0.0

    @property
    def _end(self) -> float:
        """Where the last frame ends, by what is known of its tracks, or begins."""
        return max([self._last, *(track.last for track in self._statistics)])


def _folded(tracks: list[TrackStatistics], emotions: tuple[Emotion, ...]) -> str:
    noun = "track" if len(tracks) == 1 else "tracks"
    items = "".join(brief(track, emotions) for track in tracks)
    summary = f"{len(tracks)} {noun} in sight for less than a second"
    return f'<details class="brief"><summary>{summary}</summary><ul>{items}</ul></details>'
