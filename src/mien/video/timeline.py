"""Show a video as one HTML page without links or scripts: when each track is seen, and its emotions over time."""

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._face import Pixels
from mien._format import counted, percent, probability_percent
from mien._output import open_output, output_errors
from mien._page import escape, fill_page
from mien.report.html import percent_html
from mien.video.statistics import CurveSamples, TrackStatistics, VideoStatistics
from mien.video.types import FrameResult

_WIDTH, _HEIGHT = 2000, 200  # units of a drawing, stretched to its place: whole numbers keep the page small
_MAX_TICKS = 7  # of an axis
_TICK_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)  # s
_MIN_NAMED = 0.1  # probability from which an emotion is named with a value of the curve
_MAX_NAMED = 3
_CURVE_SAMPLES, _BAND_SAMPLES, _READOUT_SAMPLES, _TABLE_SAMPLES = 400, 300, 80, 24  # at most
_MAX_PEAKS = 5
_MARK_WIDTH = 0.09  # of a curve on a phone: marks that are closer have different rows
_WHOLE_AXIS = 0.25  # share of the video from which the curve of a track has the axis of the whole video
_BRIEF_SECONDS = 1.0  # tracks seen for less are folded away

_Kind = Emotion | None  # None: unsure
_Span = tuple[float, float]  # start and end in seconds


class Timeline:
    """Collects results and writes their page: for each track its curve, its thumbnails and its time by emotion.

    The page shows faces. Memory does not grow with the length of the video, nor with the number of tracks.

    Args:
        title: Heading of the page.
        facts: Texts about the video and the model by their terms, in their order.

    Example:
        >>> timeline = Timeline(title="Faces in video.mp4", facts={"model": "mien-1"})
        >>> timeline.add(FrameResult(0, 0.0, (640, 480), ()), np.zeros((480, 640, 3), np.uint8))
        >>> timeline.write("faces.html")  # doctest: +SKIP
    """

    def __init__(self, *, title: str, facts: Mapping[str, str] | None = None) -> None:
        self._title, self._facts = title, dict(facts or {})
        self._statistics = VideoStatistics()

    def add(self, result: FrameResult, pixels: Pixels) -> None:
        """Add a frame.

        Args:
            result: Its faces.
            pixels: The frame, RGB uint8 ``[H, W, 3]``.
        """
        for track, face in self._statistics.add(result):
            track.thumbnails.consider(face, result.seconds, pixels)

    def write(self, path: str | os.PathLike[str], *, partial: bool = False) -> None:
        """Write the page.

        Args:
            path: The HTML file.
            partial: Show that the run was interrupted before the end of the video.

        Raises:
            OutputError: If the file cannot be written.
        """
        self._statistics.finish()
        text = self._page(partial=partial)
        with open_output(path) as stream, output_errors(os.fspath(path)):
            stream.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))

    def _page(self, *, partial: bool) -> str:
        report, own = files("mien.report"), files("mien.video")
        style = (report / "page.css").read_text("utf-8") + (own / "timeline.css").read_text("utf-8")
        rules = "\n".join(f".e-{emotion} {{ --c: {emotion.color}; }}" for emotion in Emotion)
        return fill_page(
            own / "timeline.html",
            title=self._title,
            style=style + rules,
            facts=self._facts,
            summary=_summary(self._statistics, partial=partial),
            tracks=_sections(self._statistics),
        )


def _video_span(statistics: VideoStatistics) -> _Span:
    """From the first frame to the end of the last track, or to the last frame."""
    return statistics.first or 0.0, max([statistics.last, *(track.last for track in statistics)])


def _summary(statistics: VideoStatistics, *, partial: bool) -> str:
    start, end = _video_span(statistics)
    values = {
        "track" if statistics.count == 1 else "tracks": f"{statistics.count:,}",
        "long": duration(end - start),
        "frames": f"{statistics.frames:,}",
        "faces a frame": f"{statistics.faces / max(1, statistics.frames):.1f}",
    }
    notice = '<p class="partial" role="status">Interrupted: this page shows the video up to there.</p>'
    entries = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in values.items())
    shares: dict[_Kind, float] = {}
    for track in statistics:
        for kind, seconds in track.shares.items():
            shares[kind] = shares.get(kind, 0.0) + seconds
    kinds: list[_Kind] = [*statistics.emotions, *([None] if shares.get(None) else [])]
    legend, total = "", sum(shares.values())
    if total:
        items = "".join(
            f'<li><i class="e-{_name(kind)}"></i>{_name(kind)} <b>{_share_text(shares.get(kind, 0.0) / total)}</b></li>'
            for kind in kinds
        )
        legend = f'<ul class="legend" aria-label="Colours, and shares of all time in sight">{items}</ul>'
    bar = _share_bar(shares, "Time of all tracks by emotion")
    return f'{notice if partial else ""}<dl class="figures">{entries}</dl>{bar}{legend}'


def _sections(statistics: VideoStatistics) -> str:
    long = [track for track in statistics if track.seconds >= _BRIEF_SECONDS]
    short = [track for track in statistics if track.seconds < _BRIEF_SECONDS]
    if not long and not short:
        return '<p class="no-face">No face was found in this video.</p>'
    emotions, span = statistics.emotions, _video_span(statistics)
    parts = []
    if long:
        rows = ""
        for track in long:
            drawn = band(track.curve.samples(_BAND_SAMPLES), emotions, *span)
            row = _drawing(drawn, f"{_seen(track)}; {_mostly(track)}")
            rows += f'<li><a href="#track-{track.track_id}">Track {track.track_id}</a>{row}</li>'
        parts.append(f'<section class="overview"><h2>When each track is seen</h2><ol>{rows}</ol></section>')
    parts += [_card(track, emotions, span) for track in long]
    if short:
        noun = "track" if len(short) == 1 else "tracks"
        items = ""
        for track in short:
            facts = f"<b>Track {track.track_id}</b> at {clock(track.first)} for {duration(track.seconds)}"
            portrait = _portrait(track) or '<span class="none"></span>'
            items += f"<li>{portrait}<div>{facts}<br>{escape(_mostly(track))}</div></li>"
        summary = f"{len(short)} {noun} in sight for less than a second"
        parts.append(f'<details class="brief"><summary>{summary}</summary><ul>{items}</ul></details>')
    if statistics.merged:
        parts.append(f'<p class="merged">Only counted: {counted(statistics.merged, "more track")}.</p>')
    return "\n".join(parts)


def _card(track: TrackStatistics, emotions: Sequence[Emotion], video: _Span) -> str:
    whole = track.last - track.first >= _WHOLE_AXIS * (video[1] - video[0])
    facts = [_seen(track), f"{duration(track.seconds)} in sight", _mostly(track)]
    return f"""<article class="card track" id="track-{track.track_id}" aria-label="Track {track.track_id}">
<header>{_portrait(track)}<div><h2>Track {track.track_id}</h2>
<p class="about">{"".join(f"<span>{escape(fact)}</span>" for fact in facts)}</p></div></header>
{_curve(track, emotions, video if whole else (track.first, track.last), zoomed=not whole)}
<div class="below">{_peaks(track)}{_shares(track)}</div>
{_table(track, emotions)}
</article>
"""


def _portrait(track: TrackStatistics) -> str:
    portrait = track.thumbnails.portrait
    return "" if portrait is None else f'<img src="{portrait.uri}" width="64" height="64" alt="">'


def _curve(track: TrackStatistics, emotions: Sequence[Emotion], span: _Span, *, zoomed: bool) -> str:
    number = track.track_id
    label = f"Probabilities of track {number} over time: {_mostly(track)}; the table below has the values"
    peaks = track.thumbnails.peaks(_MAX_PEAKS)
    places = [min(max(_share(peak.seconds, *span), 0), 1) for peak in peaks]
    rows = mark_rows(places)
    marks = "".join(
        f'<i class="mark e-{_name(peak.emotion)}" style="left:{place:.2%};--row:{row}">{rank}</i>'
        for rank, (peak, place, row) in enumerate(zip(peaks, places, rows, strict=True), 1)
    )
    note = "<figcaption>The axis shows only the part of the video in which this track is in sight.</figcaption>"
    highest = max(rows, default=0)
    return f"""<figure class="curve" style="--rows:{highest}"><div class="marks" aria-hidden="true">{marks}</div>
<div class="plot"><span class="scale" aria-hidden="true"><i>100 %</i><i>50 %</i><i>0</i></span>
{_drawing(areas(track.curve.samples(_CURVE_SAMPLES), emotions, *span), label)}{axis(*span)}
<fieldset class="slices">
<legend class="hidden">Values of track {number} at one time; arrow keys change it</legend>
{slices(track.curve.samples(_READOUT_SAMPLES), emotions, f"at-{number}", *span)}</fieldset></div>\
{note if zoomed else ""}</figure>"""


def mark_rows(places: Sequence[float]) -> list[int]:
    """Choose the rows of marks above a curve, so that none is over another on a phone.

    Args:
        places: Their places, 0 (left edge) to 1 (right edge).

    Returns:
        The row of each, 0 for the lowest.

    Example:
        >>> mark_rows([0.5, 0.1, 0.52])
        [0, 0, 1]
    """
    rows: list[int] = []
    for place in places:
        near = {row for row, other in zip(rows, places, strict=False) if abs(place - other) < _MARK_WIDTH}
        rows.append(next(row for row in range(len(places)) if row not in near))
    return rows


def _peaks(track: TrackStatistics) -> str:
    items = "".join(
        f'<li class="e-{_name(peak.emotion)}"><figure><img src="{peak.uri}" width="112" height="112" '
        f'alt="Track {track.track_id} at {clock(peak.seconds)}"><figcaption><span class="number">{rank}</span>'
        f"<span><b>{_name(peak.emotion)}</b> {percent_html(peak.probability)}<br>"
        f"{clock(peak.seconds)}</span></figcaption></figure></li>"
        for rank, peak in enumerate(track.thumbnails.peaks(_MAX_PEAKS), 1)
    )
    return f'<div><h3>Highest probabilities</h3><ol class="peaks">{items}</ol></div>' if items else ""


def _shares(track: TrackStatistics) -> str:
    total = sum(track.shares.values()) or 1.0
    label = f"Time of track {track.track_id} by emotion"
    lines = "".join(
        f'<tr class="e-{_name(kind)}"><th scope="row">{_name(kind)}</th>'
        f'<td class="fill"><span class="bar"><i style="--p:{track.shares[kind] / total:.2%}"></i></span></td>'
        f"<td>{_share_text(track.shares[kind] / total)}</td><td>{duration(track.shares[kind])}</td></tr>"
        for kind in _ranked(track)
    )
    return (
        f"<div><h3>Time by emotion</h3>{_share_bar(track.shares, label)}"
        f'<table class="shares"><caption class="hidden">{label}</caption>'
        '<thead class="hidden"><tr><th scope="col">emotion</th><td></td><th scope="col">share</th>'
        f'<th scope="col">time</th></tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _table(track: TrackStatistics, emotions: Sequence[Emotion]) -> str:
    header = "".join(f'<th scope="col">{emotion}</th>' for emotion in emotions)
    samples, lines = track.curve.samples(_TABLE_SAMPLES), []
    for index, values in enumerate(samples.means):
        cells = f'<td colspan="{len(emotions)}">away</td>'
        if not np.isnan(values[0]):
            cells = "".join(f"<td>{percent_html(float(p))}</td>" for p in values[:-1])
        lines.append(f'<tr><th scope="row">{clock(samples.start + index * samples.step)}</th>{cells}</tr>')
    return (
        "<details><summary>The curve as a table</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="The curve of track {track.track_id} as a table">'
        f"<table><caption>Mean probabilities of track {track.track_id} from each time on</caption>"
        f'<thead><tr><th scope="col">from</th>{header}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></details>"
    )


def _share_bar(shares: Mapping[_Kind, float], label: str) -> str:
    """Shares of time as one bar."""
    total = sum(shares.values())
    kinds: list[_Kind] = [kind for kind in (*Emotion, None) if shares.get(kind)]
    if not kinds:
        return ""
    texts = ", ".join(f"{_name(kind)} {_share_text(shares[kind] / total)}" for kind in kinds)
    parts = "".join(
        f'<i class="e-{_name(kind)}" style="flex:{shares[kind]:.3f}" title="{_name(kind)}"></i>' for kind in kinds
    )
    return f'<div class="spread" role="img" aria-label="{label}: {texts}">{parts}</div>'


def _ranked(track: TrackStatistics) -> list[_Kind]:
    return sorted(track.shares, key=lambda kind: track.shares[kind], reverse=True)


def _mostly(track: TrackStatistics) -> str:
    total, ranked = sum(track.shares.values()), _ranked(track)
    if not total:
        return "not read"
    if len(ranked) == 1:
        return f"{_name(ranked[0])} throughout"
    return "mostly " + ", then ".join(f"{_name(k)} ({_share_text(track.shares[k] / total)})" for k in ranked[:2])


def _seen(track: TrackStatistics) -> str:
    return f"seen from {clock(track.first)} to {clock(track.last)}"


def _name(kind: _Kind) -> str:
    return "unsure" if kind is None else str(kind)


def _share_text(share: float) -> str:
    return percent(share, 0).replace(" ", "\N{NO-BREAK SPACE}")


def clock(seconds: float, *, tenths: bool = True) -> str:
    """Format a time of a video.

    Args:
        seconds: The time; negative ones become 0.
        tenths: Show tenths of a second, below an hour.

    Returns:
        For example ``0:04.2``, or ``1:02:03`` from an hour on.
    """
    tenth = round(10 * max(0.0, seconds))
    minutes, rest = divmod(tenth, 600)
    if minutes >= 60:
        return f"{minutes // 60}:{minutes % 60:02d}:{rest // 10:02d}"
    return f"{minutes}:{rest // 10:02d}" + (f".{rest % 10}" if tenths else "")


def duration(seconds: float) -> str:
    """Format a duration.

    Args:
        seconds: The duration.

    Returns:
        For example ``0.4 s``, ``12 s``, ``3:20 min`` or ``1:02:03 h``.
    """
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{clock(round(seconds), tenths=False)} {'min' if seconds < 3599.5 else 'h'}"


def values_text(emotions: Sequence[Emotion], sample: NDArray[np.float64]) -> str:
    """Format a sample of the curve of a track.

    Args:
        emotions: The emotions of the model, in its order.
        sample: Their probabilities, and last the share of time in which the reader was unsure.

    Returns:
        The highest values, for example ``happy 93 %, neutral 5 %`` or ``unsure: sad 30 %, fear 28 %``.
    """
    probs = sample[:-1]
    order = np.argsort(-probs, kind="stable")[:_MAX_NAMED]
    named = [i for rank, i in enumerate(order) if rank == 0 or probs[i] >= _MIN_NAMED]
    texts = (f"{emotions[i]} {probability_percent(float(probs[i]))}" for i in named)
    return ("unsure: " if sample[-1] > 0.5 else "") + ", ".join(texts)


def areas(samples: CurveSamples, emotions: Sequence[Emotion], start: float, end: float) -> str:
    """Draw the probabilities of a track as stacked areas, with a gap where it was away.

    Args:
        samples: The curve.
        emotions: The emotions of the model, stacked in this order from below.
        start: Time at the left edge in seconds.
        end: Time at the right edge in seconds.

    Returns:
        Paths of SVG.
    """
    parts = []
    present = ~np.isnan(samples.means[:, 0])
    changes = np.flatnonzero(np.diff(present, prepend=False, append=False))
    for first, last in changes.reshape(-1, 2).tolist():
        tops = np.cumsum(samples.means[first:last, :-1], axis=1)
        middles = samples.start + samples.step * (np.arange(first, last) + 0.5)
        edges = samples.start + samples.step * np.array([first, last])
        x = _across(np.concatenate([edges[:1], middles, edges[1:]]), start, end)
        for index in reversed(range(len(emotions))):  # each is drawn over the one above it
            top = np.rint(_HEIGHT * (1 - np.clip(tops[:, index], 0, 1))).astype(int)
            y = np.concatenate([top[:1], top, top[-1:]])
            line = " ".join(f"{a} {b}" for a, b in zip(x, y, strict=True))
            parts.append(f'<path class="e-{emotions[index]}" d="M{x[0]} {_HEIGHT}L{line} {x[-1]} {_HEIGHT}z"/>')
    return "".join(parts)


def band(samples: CurveSamples, emotions: Sequence[Emotion], start: float, end: float) -> str:
    """Draw the most probable emotion of a track over time as a band, with a gap where it was away.

    Args:
        samples: The curve.
        emotions: The emotions of the model, in its order.
        start: Time at the left edge in seconds.
        end: Time at the right edge in seconds.

    Returns:
        Rectangles of SVG.
    """
    away, unsure = np.isnan(samples.means[:, 0]), samples.means[:, -1] > 0.5
    tops = np.where(unsure, len(emotions), np.argmax(np.nan_to_num(samples.means[:, :-1]), axis=1))
    tops = np.where(away, -1, tops)
    names = [*emotions, "unsure"]
    changes = np.flatnonzero(np.diff(tops)) + 1
    parts = []
    for first, last in zip([0, *changes], [*changes, len(tops)], strict=True):
        if tops[first] >= 0:
            x1, x2 = _across(samples.start + samples.step * np.array([first, last]), start, end)
            color = f"e-{names[tops[first]]}"
            parts.append(f'<rect class="{color}" x="{x1}" width="{max(4, x2 - x1)}" height="{_HEIGHT}"/>')
    return "".join(parts)


def axis(start: float, end: float) -> str:
    """Draw the time axis below a plot.

    Args:
        start: Time at the left edge in seconds.
        end: Time at the right edge in seconds.

    Returns:
        HTML with at most eight ticks at round times.
    """
    step = next((s for s in _TICK_STEPS if (end - start) / s <= _MAX_TICKS), _TICK_STEPS[-1])
    first = int(np.ceil(start / step - 1e-6))
    marks = []
    for at in (number * step for number in range(first, first + _MAX_TICKS + 1)):
        if at <= end + 1e-6:
            share = _share(at, start, end)
            side = " last" if share > 0.97 else " first" if share < 0.03 else ""
            text = clock(at, tenths=step < 1)
            marks.append(f'<span class="tick{side}" style="left:{share:.2%}"><i>{text}</i></span>')
    return f'<div class="axis" aria-hidden="true">{"".join(marks)}</div>'


def slices(samples: CurveSamples, emotions: Sequence[Emotion], name: str, start: float, end: float) -> str:
    """Build the readout of a curve, which needs no script: one radio button for each sample.

    Args:
        samples: The curve.
        emotions: The emotions of the model, in its order.
        name: Name of the group of radio buttons, unique on the page.
        start: Time at the left edge in seconds.
        end: Time at the right edge in seconds.

    Returns:
        The labels with their buttons in HTML.
    """
    labels = []
    for index, values in enumerate(samples.means):
        left = _share(samples.start + index * samples.step, start, end)
        right = min(_share(samples.start + (index + 1) * samples.step, start, end), 1)
        middle = clock(samples.start + (index + 0.5) * samples.step)
        text = "away" if np.isnan(values[0]) else values_text(emotions, values)
        labels.append(
            f'<label style="--l:{left:.2%};--w:{max(0.0, right - left):.2%}"><input type="radio" name="{name}">'
            f"<span><b>{middle}</b> {escape(text)}</span></label>"
        )
    return "".join(labels)


def _drawing(content: str, label: str) -> str:
    """An SVG that fills its place; ``label`` is for screen readers."""
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f"{content}</svg>"
    )


def _share(at: float, start: float, end: float) -> float:
    return (at - start) / max(end - start, 1e-9)


def _across(times: NDArray[np.float64], start: float, end: float) -> NDArray[np.int64]:
    shares = np.clip((times - start) / max(end - start, 1e-9), 0, 1)
    return np.rint(_WIDTH * shares).astype(np.int64)
