"""Figures of a study as sentences and cells."""

from collections.abc import Mapping
from typing import Any

from mien.lab.page.words import percent, points, points_within, within

Figures = Mapping[str, Any]
_ALIKE = 0.5  # rank correlation from which maps of a network without its weights count as still the same


def times(said: Figures) -> str:
    """A region's attention over chance, with its interval: ``1.30 (1.21-1.38)``."""
    low, high = said["relative_interval"]
    return f"{said['relative']:.2f} ({low:.2f}–{high:.2f})"


def share(said: Figures) -> str:
    """A region's share, with its interval: ``13.2 % (12.8-13.6)``."""
    low, high = said["interval"]
    return f"{percent(said['share'])} ({100 * low:.1f}–{100 * high:.1f})"


def claim(said: Figures) -> str:
    """The verdict on a claim, and the three figures that it rests on."""
    if said["verdict"] == "not measured":
        return f"Not measured: {said['why']}."
    yes = {True: "yes", False: "no"}
    chance = f"{said['relative']:.2f} times chance ({within(said['relative_interval'], '.2f')})"
    first = f"{said['over_rival']:+.2f} against the {said['rival']} ({within(said['over_rival_interval'], '+.2f')})"
    edges = points_within(said["over_other_emotions_interval"])
    more = f"{points(said['over_other_emotions'])} points of share ({edges})"
    return (
        f"{said['verdict'].capitalize()}. More than chance: {yes[said['more_than_chance']]}, {chance}. "
        f"More than any other region: {yes[said['more_than_any_other_region']]}, {first}. "
        f"More than for other emotions: {yes[said['more_than_for_other_emotions']]}, {more}."
    )


def account(figures: Figures) -> str:
    """Which faces were explained, and what became of the others."""
    faces, aligned = figures["faces"], figures["alignment"]
    left = "".join(f" Left out: {count:,} ({reason})." for reason, count in faces["left_out"].items())
    drawn = "" if faces["drawn"] == "all" else f", drawn {faces['drawn']} (seed {faces['seed']})"
    lost = aligned["key_points_not_found"], aligned["map_without_evidence"]
    lain = (
        f"{aligned['aligned']:,} of them could be laid on each other by an {aligned['how']}; in {lost[0]:,} the "
        "detector found no face of that size, and they stand in no mean map and in no share"
        if aligned["how"].startswith("affine")
        else "They were taken as they lie in their crops"
    )
    silent = f" {lost[1]:,} have a map without any evidence, and are left out, too." if lost[1] else ""
    return (
        f"{faces['explained']:,} faces of {faces['split']} ({faces['total']:,} rows){drawn}.{left} "
        f"{faces['read_rightly']:,} are read as they are labelled ({faces['protocol']}). {lain}.{silent}"
    )


def sound(sanity: Figures) -> str:
    """What the randomised weights say of the maps; of stages that leave every map flat nothing can be said."""
    known = [(n, stage) for n, stage in enumerate(sanity["stages"], start=1) if stage["correlation"] is not None]
    if not known:
        return "With the last layer shuffled every map is flat: there is nothing to compare."
    (_, first), (number, last) = known[0], known[-1]
    every = number == len(sanity["stages"])
    # A map turned upside down is as much the same as one that stays: what counts is how far it is from 0.
    near, far = sorted(abs(edge) for edge in last["interval"])
    verdict = (
        "The maps show what the network has learned, not the face alone."
        if far < _ALIKE
        else "The maps stay alike without what was learned: they show the face more than the network."
        if near > _ALIKE
        else "Part of the maps stays without what was learned: these faces do not settle how much."
    )
    what = "all weights" if every else f"the layers of {number} stages of {len(sanity['stages'])}"
    flat = "" if every else " Further on every map is flat: no more can be said."
    return (
        f"Rank correlation of the maps with those before: first stage shuffled {first['correlation']:+.2f}, "
        f"{what} shuffled {last['correlation']:+.2f} (95 % interval {within(last['interval'], '+.2f')}). "
        f"{verdict}{flat}"
    )


def faithful(figures: Figures) -> str:
    """Whether the map's order beats the other orders, by deletion and by insertion."""
    parts = []
    for kind, good in (("deletion", -1), ("insertion", 1)):
        for other, said in figures[kind]["map"]["less"].items():
            low, high = said["interval"]
            better = good * low > 0 and good * high > 0
            worse = good * low < 0 and good * high < 0
            name = "a blob at the centre" if other == "centre" else "random maps as coarse"
            verdict = "better than" if better else "worse than" if worse else "not to be told from"
            parts.append(f"{kind}: {verdict} {name} ({said['difference']:+.3f}, {within(said['interval'], '+.3f')})")
    return "Area under the curve, the map's less the other's. " + "; ".join(parts).capitalize() + "."
