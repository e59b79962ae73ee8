"""One person on the page of a film: the line in the overview, the card with curve, faces and shares. Strings only."""

from collections.abc import Mapping, Sequence
from html import escape

from mien._emotions import Emotion
from mien.overlay import confidence_text
from mien.stream.chart import (
    Kind,
    areas,
    axis,
    band,
    clock,
    drawing,
    duration,
    kind_name,
    rows,
    slices,
)
from mien.stream.people import Person
from mien.stream.thumbnails import Thumbnail

_POINTS = 400  # of a curve that is drawn
_BAND_POINTS = 300
_SLICES = 80  # moments that the read-out tells apart
_ROWS = 24  # of the table
_PEAKS = 5
_WHOLE = 0.25  # share of the film from which on a person's curve is drawn on the axis of the whole film


def row(person: Person, emotions: Sequence[Emotion], span: tuple[float, float]) -> str:
    """The line of a person in the overview: when in sight, and which emotion was the most probable."""
    inside = band(person.curve.samples(_BAND_POINTS), emotions, *span)
    label = f"{_seen(person)}; {_mostly(person.shares)}"
    return f'<li><a href="#person-{person.id}">Person {person.id}</a>{drawing(inside, label)}</li>'


def card(person: Person, emotions: Sequence[Emotion], film: tuple[float, float]) -> str:
    """The article of a person who was seen for a while."""
    span, zoomed = _span(person, film)
    portrait = person.thumbnails.portrait
    picture = "" if portrait is None else f'<img src="{portrait.uri}" width="64" height="64" alt="">'
    facts = [_seen(person), f"{duration(person.seconds)} in sight", _mostly(person.shares)]
    return f"""<article class="card person" id="person-{person.id}" aria-label="Person {person.id}">
<header>{picture}<div><h2>Person {person.id}</h2>
<p class="about">{"".join(f"<span>{escape(fact)}</span>" for fact in facts)}</p></div></header>
{_curve(person, emotions, span, zoomed=zoomed)}
<div class="below">{_peaks(person)}{_shares(person)}</div>
{_table(person, emotions)}
</article>
"""


def brief(person: Person, emotions: Sequence[Emotion]) -> str:
    """The list item of a person who was seen for a moment."""
    portrait = person.thumbnails.portrait
    picture = (
        '<span class="none"></span>'
        if portrait is None
        else f'<img src="{portrait.uri}" width="64" height="64" alt="">'
    )
    known = [kind for kind in person.shares if kind in emotions or kind is None]
    said = _mostly({kind: person.shares[kind] for kind in known})
    facts = f"at {clock(person.first)} for {duration(person.seconds)}"
    return f"<li>{picture}<div><b>Person {person.id}</b> {facts}<br>{escape(said)}</div></li>"


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
    return escape(confidence_text(probability)).replace(" ", "\N{NO-BREAK SPACE}")


def _span(person: Person, film: tuple[float, float]) -> tuple[tuple[float, float], bool]:
    """The times between which a curve is drawn: the film's, or for someone seen briefly in a long film one's own."""
    if person.last - person.first >= _WHOLE * (film[1] - film[0]):
        return film, False
    return (person.first, person.last), True


def _seen(person: Person) -> str:
    return f"seen from {clock(person.first)} to {clock(person.last)}"


def _mostly(shares: Mapping[Kind, float]) -> str:
    total = sum(shares.values())
    if not total:
        return "not read"
    ranked = sorted(shares, key=lambda kind: shares[kind], reverse=True)
    if len(ranked) == 1:
        return f"{kind_name(ranked[0])} throughout"
    return "mostly " + ", then ".join(f"{kind_name(kind)} ({share_text(shares[kind] / total)})" for kind in ranked[:2])


def _curve(person: Person, emotions: Sequence[Emotion], span: tuple[float, float], *, zoomed: bool) -> str:
    label = f"Probabilities of person {person.id} over time: {_mostly(person.shares)}; the table below has the values"
    marks = "".join(
        f'<i class="mark e-{kind_name(peak.emotion)}" style="left:{_left(peak, span):.2%}">{number}</i>'
        for number, peak in enumerate(person.thumbnails.peaks(_PEAKS), 1)
    )
    note = "<figcaption>The axis shows only the part of the film in which this person is in sight.</figcaption>"
    readout = slices(person.curve.samples(_SLICES), emotions, f"at-{person.id}", *span)
    return f"""<figure class="curve"><div class="marks" aria-hidden="true">{marks}</div>
<div class="plot"><span class="scale" aria-hidden="true"><i>100 %</i><i>50 %</i><i>0</i></span>
{drawing(areas(person.curve.samples(_POINTS), emotions, *span), label)}{axis(*span)}
<fieldset class="slices"><legend class="hidden">Values of person {person.id} at a moment; arrow keys change it</legend>
{readout}</fieldset></div>{note if zoomed else ""}</figure>"""


def _left(peak: Thumbnail, span: tuple[float, float]) -> float:
    return min(max((peak.seconds - span[0]) / max(span[1] - span[0], 1e-9), 0), 1)


def _peaks(person: Person) -> str:
    items = "".join(
        f'<li class="e-{kind_name(peak.emotion)}"><figure><img src="{peak.uri}" width="112" height="112" '
        f'alt="Person {person.id} at {clock(peak.seconds)}"><figcaption><span class="number">{number}</span>'
        f"<span><b>{kind_name(peak.emotion)}</b> {_percent(peak.probability)}<br>"
        f"{clock(peak.seconds)}</span></figcaption></figure></li>"
        for number, peak in enumerate(person.thumbnails.peaks(_PEAKS), 1)
    )
    return f'<div><h3>At their height</h3><ol class="peaks">{items}</ol></div>' if items else ""


def _shares(person: Person) -> str:
    total = sum(person.shares.values()) or 1.0
    ranked = sorted(person.shares, key=lambda kind: person.shares[kind], reverse=True)
    lines = "".join(
        f'<tr class="e-{kind_name(kind)}"><th scope="row">{kind_name(kind)}</th>'
        f'<td class="fill"><span class="bar"><i style="--p:{person.shares[kind] / total:.2%}"></i></span></td>'
        f"<td>{share_text(person.shares[kind] / total)}</td><td>{duration(person.shares[kind])}</td></tr>"
        for kind in ranked
    )
    return (
        f"<div><h3>Time by emotion</h3>{spread(person.shares, f'Time of person {person.id} by emotion')}"
        f'<table class="shares"><caption class="hidden">Time of person {person.id} by emotion</caption>'
        f'<thead class="hidden"><tr><th scope="col">emotion</th><td></td><th scope="col">share</th>'
        f'<th scope="col">time</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _table(person: Person, emotions: Sequence[Emotion]) -> str:
    header = "".join(f'<th scope="col">{emotion}</th>' for emotion in emotions)
    lines = []
    for at, probs in rows(person.curve.samples(_ROWS)):
        cells = (
            f'<td colspan="{len(emotions)}">away</td>'
            if probs is None
            else "".join(f"<td>{_percent(float(p))}</td>" for p in probs)
        )
        lines.append(f'<tr><th scope="row">{at}</th>{cells}</tr>')
    return (
        f"<details><summary>The curve as a table</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="The curve of person {person.id} as a table">'
        f"<table><caption>Mean probabilities of person {person.id} from each time on</caption>"
        f'<thead><tr><th scope="col">from</th>{header}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div></details>"
    )
