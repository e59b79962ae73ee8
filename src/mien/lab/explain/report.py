"""A study as a page to look at: what was found first, then how."""

from collections.abc import Mapping

import numpy as np

from mien._emotions import Emotion
from mien.lab.explain import words
from mien.lab.explain.faithful import ORDERS
from mien.lab.explain.plots import by_region, cascade, curve, outlined
from mien.lab.explain.regions import REGIONS
from mien.lab.explain.study import Study
from mien.lab.page import (
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
from mien.lab.page.blocks import Section
from mien.lab.page.words import percent, within

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
        lead=f"{words.account(study.figures)} Method: {method}.",
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
    verdicts = {f"{each['region']} for {each['emotion']}": words.claim(each) for each in claims}
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
        [f"{emotion} ({said['faces']})", *(words.times(said["regions"][region]) for region in REGIONS)]
        for emotion, said in found.items()
    ]
    strengths = [[min(max(by[r]["relative"] - 1, 0) / 2, 1) for r in REGIONS] for by in regions.values()]
    raw = [[emotion, *(words.share(by[region]) for region in REGIONS)] for emotion, by in regions.items()]
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
        paragraph(words.faithful(figures)),
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
            "From the last layer to the first, weights are shuffled within their layer, and stay so. "
            + words.sound(figures)
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
        paragraph(words.account(study.figures)),
        paragraph(
            "Attention is what is positive in a map (negative places count as 0), enlarged to the crop (bilinear), "
            "moved by the face's affine map, and divided by its sum. Chance is the same for a map that is 1 everywhere "
            "in the crop."
        ),
        facts({**about, "method": study.looker.method, "layer": study.looker.layer}),
        table(["emotion", "labelled", "read as"], counts),
    ]
