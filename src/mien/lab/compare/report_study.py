"""The page of a study: settings, main effects, interactions, what is confused, what is missing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._format import p_value, percent, points
from mien._metrics import HEADLINE, format_metric, format_metric_interval, metric_name
from mien.lab.compare.plots import effect_plot
from mien.lab.compare.report import (
    claims_sections,
    count,
    disagreement_section,
    latency_section,
    millions,
    noise_section,
    seeds_sections,
)
from mien.lab.compare.study import EFFECT_METRICS, Effect, Setting, Study
from mien.lab.compare.write import as_csv, as_json, save_json, table_rows
from mien.lab.files import save_text
from mien.lab.html.blocks import Section, details, facts, note, page, paragraph, section, table

# What document 002 finds confused, in both directions: its Results.
NAMED_PAIRS = ((Emotion.FEAR, Emotion.HAPPY), (Emotion.ANGRY, Emotion.HAPPY))
_MOST = 3  # confusions told of every setting


def keep_study(study: Study, folder: Path, provenance: Mapping[str, str]) -> Path:
    """Write the figures alone to ``folder`` as ``FAMILY.json``. Raises ``OutputError``."""
    path = folder / f"{study.family}.json"
    said = {"split": study.comparison.split} | study_json(study) | {"provenance": dict(provenance)}
    save_json(path, said)
    return path


def write_study(study: Study, folder: Path, provenance: Mapping[str, str]) -> None:
    """Write ``comparison.json``, ``table.csv`` and ``report.html`` to ``folder``. Raises ``OutputError``."""
    text = study_page(study, provenance)
    said = as_json(study.comparison) | {"study": study_json(study), "provenance": dict(provenance)}
    save_json(folder / "comparison.json", said)
    save_text(folder / "table.csv", as_csv(_csv_rows(study)))
    save_text(folder / "report.html", text)


def study_json(study: Study) -> dict[str, Any]:
    """Settings, effects, confusions and missing members as plain values."""
    return {
        "family": study.family,
        "axes": {axis: list(values) for axis, values in study.axes.items()},
        "settings": [
            {
                "setting": list(setting),
                "models": [study.comparison.entries[p].name for p in places],
                "figures": _means([study.comparison.metrics[p]["all"] for p in places]),
                "agrees_with_voters": study.voters[setting],
                "milliseconds": _milliseconds(study, places),
                "confusions": [
                    dict(zip(("label", "read_as", "share"), found, strict=True)) for found in confusions(study, places)
                ],
            }
            for setting, places in study.settings.items()
        ],
        "effects_on_own_classes": [_plain(effect) for effect in study.own],
        "effects_on_shared_faces": [_plain(effect) for effect in study.shared],
        "missing": dict(study.missing),
    }


def _means(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds, of the edges of the interval, too."""
    means = {key: fmean(f[key] for f in figures) for key in HEADLINE}
    return {"n": figures[0]["n"], **means, "interval": [fmean(f["interval"][edge] for f in figures) for edge in (0, 1)]}


def _milliseconds(study: Study, places: Sequence[int]) -> dict[str, float] | None:
    """Of one face on one thread, by precision; the seeds of a setting share a graph. ``None`` where none was timed."""
    if study.comparison.latencies is None:
        return None
    cost = study.comparison.latencies.each[places[0]]
    timed = {precision: cost.timing(precision, 1) for precision in ("fp32", "int8")}
    return {precision: timing.ms for precision, timing in timed.items() if timing}


def _plain(effect: Effect) -> dict[str, Any]:
    keys = ("axis", "first", "second", "within", "figure", "value", "interval", "p", "matched")
    return {key: getattr(effect, key) for key in keys}


def _csv_rows(study: Study) -> list[dict[str, Any]]:
    setting_of = {
        study.comparison.entries[place].name: dict(zip(study.axes, setting, strict=True))
        for setting, places in study.settings.items()
        for place in places
    }
    return [setting_of[row["model"]] | row for row in table_rows(study.comparison)]


def study_page(study: Study, provenance: Mapping[str, str]) -> str:
    """The whole page. It shows faces of the data set."""
    there, total = len(study.settings), len(study.settings) + len(study.missing)
    sections = [
        section("Settings", *map(note, study.comparison.warnings()), *_settings(study)),
        section("What each factor does", *_effects(study)),
        section("What is confused", *_confusions(study)),
        noise_section(study.comparison),
        *([latency_section(study.comparison)] if study.comparison.latencies else []),
        disagreement_section(study.comparison),
        *seeds_sections(study.comparison),
        *claims_sections(study.comparison),
        *_missing(study),
    ]
    names = " x ".join(study.axes)
    lead = f"{names}: {there} of {total} settings are finished and judged on {study.comparison.split}."
    return page(f"Study {study.family}", sections, lead=lead, provenance=provenance, faces=True)


def _settings(study: Study) -> list[str]:
    header = [*study.axes, "accuracy", "95 % interval", "balanced", "macro F1", "log loss", "ECE", "shared faces"]
    header += ["voters", "parameters", "MMAC", "seeds"]
    rows = [_setting_row(study, setting, places) for setting, places in study.settings.items()]
    caption = "Means over seeds, of the edges of the intervals, too. Voters: of faces on which most of ten FER+ voters "
    caption += "agree, the share read as they say."
    blocks = [table(header, rows, caption=caption)]
    if study.comparison.common.narrowed:
        known = ", ".join(study.comparison.common.emotions)
        blocks.append(
            note(
                f"Fewer classes are easier: accuracies of other class sets answer other questions. Shared faces: those "
                f"labelled {known}, answers narrowed to these classes and made to sum to 1 again."
            )
        )
    return blocks


def _setting_row(study: Study, setting: Setting, places: Sequence[int]) -> list[str | int | None]:
    own = [study.comparison.metrics[p]["all"] for p in places]
    first, voters = study.comparison.entries[places[0]], study.voters[setting]
    return [
        *setting,
        percent(fmean(f["accuracy"] for f in own)),
        format_metric_interval("accuracy", [fmean(f["interval"][edge] for f in own) for edge in (0, 1)]),
        *(format_metric(key, fmean(f[key] for f in own)) for key in HEADLINE[1:]),
        percent(fmean(study.comparison.common_metrics[p]["accuracy"] for p in places)),
        None if voters is None else percent(voters),
        count(first.parameters),
        millions(first.macs),
        len(places),
    ]


def _effects(study: Study) -> list[str]:
    several = any(len(places) > 1 for places in study.settings.values())
    drawn = "faces and of seeds" if several else "faces; one seed a setting, so that chance in training is not in them"
    blocks = [
        paragraph(
            "A main effect is the mean difference between settings that are equal in everything else and both there. "
            f"Intervals: 95 %, over draws of the {drawn}. Grey: the interval holds 0."
        )
    ]
    bases = [("On the faces and classes that all share", study.shared)]
    if study.comparison.common.narrowed:
        bases.append(("On each setting's own classes and faces", study.own))
    for title, found in bases:
        main = [e for e in found if e.within is None]
        blocks.append(f"<h3>{title}</h3>")
        rows = [(f"{e.axis}: {e.first} over {e.second}", e.value, e.interval) for e in main if e.figure == "accuracy"]
        if rows:
            blocks.append(effect_plot(rows, label="points of accuracy", caption="Main effects"))
            blocks.append(_effect_table(main, "Main effects, in points."))
        crossed = [e for e in found if e.within is not None]
        if crossed:
            caption = "Interactions: the effect in the first setting less that in the second, in points."
            blocks.append(details("Interactions of two factors", _effect_table(crossed, caption)))
    if not any(found for _, found in bases):
        blocks.append(paragraph("No two finished settings differ in one factor alone: train more members."))
    return blocks


def _effect_table(found: Sequence[Effect], caption: str) -> str:
    by_contrast: dict[tuple[str, ...], dict[str, Effect]] = {}
    for effect in found:
        key = (effect.axis, effect.first, effect.second, *(effect.within or ()))
        by_contrast.setdefault(key, {})[effect.figure] = effect
    rows = []
    for figures in by_contrast.values():
        effect = figures["accuracy"]
        cells: list[str | int] = [f"{effect.axis}: {effect.first} over {effect.second}"]
        if effect.within:
            axis, one, two = effect.within
            cells = [f"{cells[0]}, {axis} {one} against {two}"]
        for name in EFFECT_METRICS:
            each = figures[name]
            cells += [points(each.value), format_metric_interval(name, each.interval), p_value(each.p)]
        rows.append([*cells, effect.matched])
    header = [cell for name in EFFECT_METRICS for cell in (metric_name(name), "95 % interval", "p")]
    return table(["effect", *header, "matched settings"], rows, caption=caption)


def _confusions(study: Study) -> list[str]:
    header = [*study.axes, *(f"{n}. most confused" for n in range(1, _MOST + 1))]
    rows = []
    for setting, places in study.settings.items():
        most = [f"{label} as {told} {percent(share)}" for label, told, share in confusions(study, places)]
        rows.append([*setting, *most[:_MOST], *[None] * (_MOST - len(most))])
    caption = "Of the faces with a label, the share that is read as another emotion; means over seeds."
    blocks = [table(header, rows, caption=caption)]
    if study.claim.document == "002":
        blocks += _named_pairs(study)
    return blocks


def _named_pairs(study: Study) -> list[str]:
    directions = [pair for named in NAMED_PAIRS for pair in (named, named[::-1])]
    rows: list[list[str | None]] = []
    shade: list[list[float | None]] = []
    for setting, places in study.settings.items():
        rates = {(label, told): share for label, told, share in confusions(study, places, most=None)}
        shares = [rates.get((str(label), str(told))) for label, told in directions]
        rows.append([*setting, *(None if s is None else percent(s) for s in shares)])
        strengths = [None if s is None else min(1.0, 2 * s) for s in shares]
        shade.append([*[None] * (len(study.axes) - 1), *strengths])
    header = [*study.axes, *(f"{label} as {told}" for label, told in directions)]
    said = "The pairs that document 002 names as confused: fear with happiness, anger with happiness."
    return [table(header, rows, shade=shade, caption=said)]


def confusions(study: Study, places: Sequence[int], *, most: int | None = _MOST) -> list[tuple[str, str, float]]:
    """Label, what it is read as, and the share of that label's faces, the most frequent first; means over seeds."""
    emotions = study.comparison.entries[places[0]].emotions
    tables = [np.array(study.comparison.metrics[p]["all"]["confusion"], dtype=np.float64) for p in places]
    rates: NDArray[np.float64] = np.mean([t / np.maximum(t.sum(1, keepdims=True), 1) for t in tables], axis=0)
    off = [
        (str(label), str(told), float(rates[y, x]))
        for y, label in enumerate(emotions)
        for x, told in enumerate(emotions)
        if x != y
    ]
    return sorted(off, key=lambda each: -each[2])[:most]


def _missing(study: Study) -> list[Section]:
    if not study.missing:
        return []
    return [section("Missing", paragraph("Settings that no finished run stands for:"), facts(study.missing))]
