"""Curves of people as HTML and inline SVG: stacked areas with a read-out, bands by emotion, axes. Strings only.

The samples are of a ``Person``: a column for each emotion, and a last one that is 1 where the reader was unsure.
"""

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien.overlay import confidence_text
from mien.stream.curves import Samples

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
    """A sample of a person's curve in words: ``happy 93 %, neutral 5 %``, or ``unsure: sad 30 %, fear 28 %``."""
    probs, unsure = sample[:-1], sample[-1] > 0.5
    order = np.argsort(-probs, kind="stable")[:_MOST_NAMED]
    named = [i for rank, i in enumerate(order) if rank == 0 or probs[i] >= _NAMED]
    return ("unsure: " if unsure else "") + ", ".join(
        f"{emotions[i]} {confidence_text(float(probs[i]))}" for i in named
    )


def areas(samples: Samples, emotions: Sequence[Emotion], start: float, end: float) -> str:
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


def band(samples: Samples, emotions: Sequence[Emotion], start: float, end: float) -> str:
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


def drawing(inside: str, label: str) -> str:
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


def slices(samples: Samples, emotions: Sequence[Emotion], name: str, start: float, end: float) -> str:
    """The read-out of a curve without a script: a choice of one of many moments, by pointing, tapping or arrow keys."""
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


def rows(samples: Samples) -> Iterator[tuple[str, NDArray[np.float64] | None]]:
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
