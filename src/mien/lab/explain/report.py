"""A study as a page to look at: what was found first, then how."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mien._emotions import Emotion
from mien.lab.explain.attention import REGIONS
from mien.lab.explain.faithfulness import ORDERS
from mien.lab.explain.plots import by_region, cascade, curve, outlined
from mien.lab.explain.study import Study
from mien.lab.html import (
    Tile,
    columns,
    details,
    facts,
    gallery,
    headline,
    note,
    page,
    paragraph,
    picture,
    section,
    table,
)
from mien.lab.html.blocks import Section, percent, points, points_within, within

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


_EXAMPLES = 3  # faces of each emotion, the most confident


def report(study: Study, *, about: Mapping[str, str], provenance: Mapping[str, str]) -> str:
    """The HTML of a page that loads nothing; ``about`` says what was explained, ``provenance`` where from."""
    sections = [
        section("What was found", _headline(study), _claims(study)),
        _maps(study),
        _attention(study),
        _faithful(study),
        _sanity(study),
        _examples(study),
        section("How it was done", *_how(study, about)),
    ]
    name, method = study.looker.model.name, study.looker.method
    return page(
        f"Where {name} looks",
        sections,
        lead=f"{account(study.figures)} Method: {method}.",
        provenance=provenance,
        faces=True,
    )


def _headline(study: Study) -> str:
    figures = study.figures
    curves, stages = figures["faithfulness"], figures["sanity"]["stages"]
    last = stages[-1]
    shown = {
        "faces explained": (f"{figures['faces']['explained']:,}", f"{figures['alignment']['aligned']:,} aligned"),
        **{
            f"area under {kind}": (
                f"{curves[kind]['map']['area']:.3f}",
                f"random {curves[kind]['random']['area']:.3f}, centre {curves[kind]['centre']['area']:.3f}",
            )
            for kind in ("deletion", "insertion")
        },
    }
    if last["correlation"] is not None:
        shown["rank correlation, weights shuffled"] = (
            f"{last['correlation']:+.2f}",
            within(last["interval"], "+.2f"),
        )
    return headline(shown)


def _claims(study: Study) -> str:
    claims = study.figures["claims"]
    if not claims:
        return note("The model knows neither surprise nor happiness: document 000's sentence does not apply to it.")
    said = (
        "Document 000 says: eyes for surprise, mouth for happiness. Such a claim holds where all three answers are "
        "yes, and in part where the region gets more than chance and more than it gets for other emotions."
    )
    verdicts = {f"{each['region']} for {each['emotion']}": claim(each) for each in claims}
    return paragraph(said) + facts(verdicts) + note(_coarse(study))


def _coarse(study: Study) -> str:
    height, width = study.figures["map"]
    best = study.figures["regions"]["resolvable"]
    parts = ", ".join(f"{region} {percent(share, 0)}" for region, share in best.items())
    return (
        f"How sharp the maps are: {height} x {width} places. A map that covered one region exactly would show so much "
        f"of itself there, the rest on its neighbours: {parts}. Differences between neighbours are blurred accordingly."
    )


def _maps(study: Study) -> Section:
    emotions, attention = study.looker.model.emotions, study.attention
    means = {i: attention.maps[attention.targets == i].mean(axis=0) for i in np.unique(attention.targets)}
    overall = np.mean(list(means.values()), axis=0)
    own = {i: np.maximum(mean - overall, 0) for i, mean in means.items()}
    faces = {i: study.mean_faces[i].round().clip(0, 255).astype(np.uint8) for i in means}
    count = {i: int((attention.targets == i).sum()) for i in means}
    mean_face = np.mean(list(faces.values()), axis=0).round().astype(np.uint8)
    return section(
        "Mean maps",
        paragraph(
            "The mean of all aligned faces read as an emotion, and the mean of their maps. Each map counts alike; only "
            "what speaks for the emotion is in it, brightest at its own largest value."
        ),
        gallery(Tile(faces[i], f"{emotions[i]}, {count[i]} faces", means[i]) for i in means),
        paragraph("What sets an emotion apart: where its mean map exceeds the mean over all emotions."),
        gallery(Tile(faces[i], f"{emotions[i]} beyond the others", own[i]) for i in means),
        details("The regions, drawn on the mean face", picture(outlined(mean_face), alt="regions on the mean face")),
    )


def _attention(study: Study) -> Section:
    found = study.figures["attention"]
    regions = {emotion: said["regions"] for emotion, said in found.items()}
    rows = [
        [f"{emotion} ({said['faces']})", *(times(said["regions"][region]) for region in REGIONS)]
        for emotion, said in found.items()
    ]
    strengths = [[min(max(by[r]["relative"] - 1, 0) / 2, 1) for r in REGIONS] for by in regions.values()]
    raw = [[emotion, *(share(by[region]) for region in REGIONS)] for emotion, by in regions.items()]
    return section(
        "Attention by region",
        by_region(regions),
        table(
            ["read as (faces)", *REGIONS],
            rows,
            shade=strengths,
            caption="Share of attention over the share that a map spread evenly would give: chance is 1. "
            "95 % bootstrap intervals over faces.",
        ),
        details("Shares themselves", table(["read as", *REGIONS], raw, caption="Of the whole map; rows sum to 100 %.")),
    )


def _faithful(study: Study) -> Section:
    figures = study.figures["faithfulness"]
    rows = [
        [
            f"{kind}, {'lower' if kind == 'deletion' else 'higher'} is better",
            *(f"{figures[kind][o]['area']:.3f} ({within(figures[kind][o]['interval'])})" for o in ORDERS),
        ]
        for kind in ("deletion", "insertion")
    ]
    return section(
        "Faithfulness",
        paragraph(
            f"The most marked pixels of {figures['faces']} faces are removed first, or given back first; what stands "
            f"in their place is {figures['baseline']}. The curves show the mean probability of the emotion first read."
        ),
        columns(curve(figures, "deletion"), curve(figures, "insertion")),
        table(["area under the curve", *(_ORDER_NAMES[o] for o in ORDERS)], rows),
        paragraph(faithful(figures)),
    )


_ORDER_NAMES = {"map": "the map", "random": "random maps, as coarse", "centre": "blob at the centre"}


def _sanity(study: Study) -> Section:
    figures = study.figures["sanity"]
    rows = [
        [
            f"{number}",
            "–" if stage["correlation"] is None else f"{stage['correlation']:+.2f}",
            "" if stage["interval"] is None else within(stage["interval"], "+.2f"),
            f"{stage['without_a_map']}",
            ", ".join(stage["layers"]),
        ]
        for number, stage in enumerate(figures["stages"], start=1)
    ]
    return section(
        "Randomised weights",
        paragraph(
            "From the last layer to the first, weights are shuffled within their layer, and stay so. " + sound(figures)
        ),
        cascade(figures),
        details(
            "Stages",
            table(["stage", "correlation", "95 % interval", "flat maps", "layers newly shuffled"], rows, wrap=True),
        ),
    )


def _examples(study: Study) -> Section:
    emotions, tiles = study.looker.model.emotions, []
    for index in range(len(emotions)):
        rows = np.flatnonzero(study.targets == index)
        best = rows[np.argsort(-study.probs[rows, index], kind="stable")[:_EXAMPLES]]
        tiles += [Tile(study.crops[row], _caption(study, row, emotions), study.maps[row]) for row in best]
    return section(
        "Single faces", paragraph(f"The {_EXAMPLES} most confident answers of each emotion."), gallery(tiles)
    )


def _caption(study: Study, row: int, emotions: tuple[Emotion, ...]) -> str:
    said, truth = int(study.targets[row]), int(study.labels[row])
    return f"{emotions[said]} {percent(float(study.probs[row, said]), 0)}" + (
        "" if said == truth else f", labelled {emotions[truth]}"
    )


def _how(study: Study, about: Mapping[str, str]) -> list[str]:
    chosen = study.figures["faces"]
    counts: list[list[str | int | float | None]] = [
        [emotion, chosen["by_label"][emotion], chosen["by_answer"][emotion]] for emotion in chosen["by_label"]
    ]
    return [
        paragraph(account(study.figures)),
        paragraph(
            "Attention is what is positive in a map (negative places count as 0), enlarged to the crop (bilinear), "
            "moved by the face's affine map, and divided by its sum. Chance is the same for a map that is 1 everywhere "
            "in the crop."
        ),
        facts({**about, "method": study.looker.method, "layer": study.looker.layer}),
        table(["emotion", "labelled", "read as"], counts),
    ]
