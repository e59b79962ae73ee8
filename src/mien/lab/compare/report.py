"""The report of a comparison or a study as an HTML page, and its summary as lines of text."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._format import counted, p_value, percent, points, points_interval, short_count
from mien._metrics import HEADLINE, METRICS, format_metric, format_metric_interval, metric_name
from mien.lab.compare.compare import ALPHA, Comparison, PairedTest, claimed_metrics, mean_metrics, over_seeds
from mien.lab.compare.entries import ModelEntry
from mien.lab.compare.latency import BATCHES
from mien.lab.compare.plots import ModelPoint, effect_plot, pareto_figure, recall_comparison_plot
from mien.lab.compare.study import EFFECT_METRICS, MOST_CONFUSED, Effect, Study, confusions
from mien.lab.evaluate.evaluation import NAMED_PAIRS
from mien.lab.html import (
    ImageTile,
    Section,
    beside,
    details,
    facts,
    gallery,
    headline,
    note,
    page,
    paragraph,
    plot,
    section,
    table,
)

_SENTENCES = 4  # sentences about differences in a summary; the report has all
_TILES = 24
_FULL_COLOUR = 0.2  # a difference that gets the full colour


def summarize_comparison(found: Comparison) -> list[str]:
    """Summarise a comparison or a study for a terminal.

    Args:
        found: The comparison.

    Returns:
        Lines of text: the metrics of each model, and the differences or, of a study, the effects on accuracy.
    """
    width = max(len(c.name) for c in found.entries)
    lines = []
    for place in found.ranking:
        name, metrics = found.entries[place].name, found.metrics[place]["all"]
        low, high = metrics["interval"]
        line = f"{name:<{width}}  {metrics['accuracy']:.2%} ({low:.2%} to {high:.2%})  "
        line += f"macro F1 {metrics['macro_f1']:.2%}  log loss {metrics['log_loss']:.3f}"
        if found.common.narrowed:
            line += f"  common faces {found.common_metrics[place]['accuracy']:.2%}"
        lines.append(line)
    lines.append(f"{_count_different(found)} pairs differ in accuracy by more than noise.")
    if not isinstance(found, Study):
        return lines + describe_differences(found, "accuracy")[:_SENTENCES]
    lines += [
        f"{e.axis}: {e.first} over {e.second} {points(e.value)} points ({points_interval(e.interval)}) of accuracy "
        f"on the shared faces, {e.matched} matched settings"
        for e in found.shared
        if e.within is None and e.metric == "accuracy"
    ]
    return lines + [f"missing {member}: {what}" for member, what in found.missing.items()]


def describe_differences(found: Comparison, metric: str) -> list[str]:
    """Describe which models differ significantly.

    Args:
        found: The comparison.
        metric: ``"accuracy"`` or ``"macro_f1"``.

    Returns:
        One sentence for each model, the best first.
    """
    sentences = []
    for place in found.ranking:
        beaten, equal = [], []
        for other in found.ranking:
            if other == place:
                continue
            value, differs = found.difference(place, other, metric)
            name = found.entries[other].name
            if not differs:
                equal.append(name)
            elif value > 0:
                beaten.append(f"{name} by {100 * value:.1f}")
        sentence = f"better than {_list_names(beaten)} points" if beaten else "better than none"
        if equal:
            sentence += f"; no significant difference from {_list_names(equal)}"
        sentences.append(f"{found.entries[place].name}: {sentence}.")
    return sentences


def _list_names(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _count_different(found: Comparison) -> str:
    return f"{sum(pair.accuracy_differs for pair in found.pairs)} of {len(found.pairs)}"


def comparison_page(found: Comparison, provenance: Mapping[str, str]) -> str:
    """Build the HTML page of a comparison or a study. It shows faces of the data set and must not be published.

    Args:
        found: The comparison.
        provenance: Shown at the end of the page.

    Returns:
        The page.
    """
    disagreement, seeds, claims = _disagreement_section(found), _seeds_sections(found), _claims_sections(found)
    if isinstance(found, Study):
        title, total = f"Study {found.family}", len(found.settings) + len(found.missing)
        lead = f"{' x '.join(found.axes)}: {len(found.settings)} of {total} settings are finished and evaluated on "
        lead += f"{found.split}."
        sections = [
            section("Settings", *map(note, found.warnings()), *_settings(found)),
            section("What each factor does", *_effects(found)),
            section("What is confused", *_confusions(found)),
            _tests_section(found),
            *([_latency_section(found)] if found.latencies else []),
            *(disagreement, *seeds, *claims),
        ]
        if found.missing:
            sections.append(section("Missing", paragraph("Settings without a finished run:"), facts(found.missing)))
    else:
        title, lead = "Comparison", f"{len(found.entries)} models on the same faces: their metrics, which differences "
        lead += "are noise, and what they cost."
        sections = [
            section("Metrics", *map(note, found.warnings()), _headline(found), *_metrics_table(found)),
            _tests_section(found),
            _latency_section(found),
            section("Recall by class", recall_comparison_plot(found), _recall_table(found)),
            *(disagreement, *seeds, *claims),
            section("What was evaluated", *_evaluated(found)),
        ]
    return page(title, sections, lead=lead, provenance=provenance, faces=True)


def _headline(found: Comparison) -> str:
    first, second = found.ranking[:2]
    metrics, (lead, differs) = found.common_metrics[first], found.difference(first, second, "accuracy")
    pair = next(p for p in found.pairs if {p.first, p.second} == {first, second})
    verdict = f"p {p_value(pair.accuracy_holm)} after correction" if differs else "this difference is noise"
    interval = format_metric_interval("accuracy", metrics["interval"])
    return headline(
        {
            f"accuracy of {found.entries[first].name}, the best": (
                percent(metrics["accuracy"]),
                f"{interval}, on the {metrics['n']:,} common faces",
            ),
            "lead over the next": (f"{100 * lead:.1f} points", f"{found.entries[second].name}; {verdict}"),
            "pairs that differ significantly": (_count_different(found), "in accuracy, all tests corrected"),
        }
    )


def _metric_cells(found: Comparison, places: Sequence[int]) -> list[str | None]:
    """Accuracy, its interval, the other main metrics, accuracy on the common faces: means over ``places``."""
    means = mean_metrics([found.metrics[place]["all"] for place in places])
    accuracy, *others = (format_metric(key, means[key]) for key in HEADLINE)
    common = fmean(found.common_metrics[place]["accuracy"] for place in places)
    return [accuracy, format_metric_interval("accuracy", means["interval"]), *others, percent(common)]


def _size_cells(entry: ModelEntry) -> list[str | None]:
    """Parameters, and millions of multiply-accumulates."""
    macs = None if entry.macs is None else f"{entry.macs / 1e6:,.{1 if entry.macs < 1e8 else 0}f}"
    return [None if entry.parameters is None else short_count(entry.parameters), macs]


def _metrics_table(found: Comparison) -> list[str]:
    header = ["model", "accuracy", "95 % interval", "clean", "balanced", "macro F1", "log loss", "ECE"]
    header += ["common faces", "classes", "faces", "parameters", "MMAC", "int8 MB", "precision", "seed"]
    rows = []
    for place in found.ranking:
        c, metrics, size = found.entries[place], found.metrics[place], found.int8_bytes(place)
        accuracy, interval, *others = _metric_cells(found, [place])
        clean = percent(metrics["clean"]["accuracy"]) if "clean" in metrics else None
        int8 = None if size is None else f"{size / 1e6:.1f}"
        classes, faces = len(c.emotions), f"{metrics['all']['n']:,}"
        cells = [accuracy, interval, clean, *others, classes, faces, *_size_cells(c), int8, c.precision, c.seed or None]
        rows.append([c.name, *cells])
    best = _best_cells(found)
    bold = [[(place, column) in best for column in range(1, len(header))] for place in found.ranking]
    blocks = []
    if found.common.narrowed:
        blocks.append(
            note(
                "These models know different classes, and fewer classes are easier: compare the column of common "
                f"faces, not the accuracies. It counts only faces labelled {', '.join(found.common.emotions)}. "
                "Probabilities of other classes are left out, and the rest is scaled to sum to 1."
            )
        )
    explanation = (
        "Each metric is on all faces of the model's own classes. Clean: accuracy without faces whose pixels occur in "
        "an earlier row or split. Common faces: accuracy on the faces and classes that all models share. ECE: expected "
        "calibration error. MMAC: millions of multiply-accumulates per face. Bold: the best of a column, even if the "
        "difference is noise. comparison.json has the intervals of all metrics."
    )
    return [*blocks, table(header, rows, best=bold), paragraph(explanation)]


def _best_cells(found: Comparison) -> set[tuple[int, int]]:
    """Model and column of the best values; columns of metrics on different faces have none."""
    best = {(found.ranking[0], 8)}
    if found.common.narrowed:
        return best
    columns = {"accuracy": 1, "balanced_accuracy": 4, "macro_f1": 5, "log_loss": 6, "ece": 7}
    for key, column in columns.items():
        values = [metrics["all"][key] for metrics in found.metrics]
        best.add((values.index(max(values) if METRICS[key].higher_is_better else min(values)), column))
    if all("clean" in metrics for metrics in found.metrics):
        clean = [metrics["clean"]["accuracy"] for metrics in found.metrics]
        best.add((clean.index(max(clean)), 3))
    return best


def _recall_table(found: Comparison) -> str:
    emotions = [e for e in Emotion if any(e in c.emotions for c in found.entries)]
    rows, shade = [], []
    for place in found.ranking:
        recall = found.recall(place)
        cells = (f"{100 * recall[e]:.0f}" if e in recall else None for e in emotions)
        rows.append([found.entries[place].name, *cells])
        shade.append([recall.get(e) for e in emotions])
    caption = "Recall in per cent: the share of the faces with this label that is predicted so. Own classes and faces."
    return table(["model", *emotions], rows, shade=shade, caption=caption)


def _evaluated(found: Comparison) -> list[str]:
    rows = []
    for c in found.entries:
        left_out = "; ".join(f"{count:,} {reason}" for reason, count in c.selection.account.items())
        faces = f"{len(c.predictions.rows):,} of {c.selection.total:,}"
        calibration = f"vector, instead of {c.calibration}" if c.own else c.calibration or "not known"
        rows.append([c.name, c.kind, calibration, faces, left_out or "none left out"])
    terms = {
        "split": found.split,
        "common faces": f"{len(found.common.rows):,}, {int(found.common.clean.sum()):,} of them clean",
        "common classes": ", ".join(found.common.emotions),
        "labels": "; ".join(sorted({c.selection.protocol for c in found.entries})),
        "tests": f"McNemar (exact) for accuracy; paired bootstrap for macro F1; Holm's correction; level {ALPHA}",
        "pairs": "each pair on the faces whose label both know, with the probabilities of the classes that both know",
    }
    header = ["model", "source of the predictions", "calibration", "faces", "left out"]
    return [facts(terms), table(header, rows, wrap=True)]


def _tests_section(found: Comparison) -> Section:
    blocks = [
        paragraph(
            "Every pair is tested on the same faces. Noise: the difference may be due to the choice of these faces (p "
            f"is at least {ALPHA}, corrected for {len(found.pairs)} pairs). Otherwise a cell says by how many points "
            "the model of its row is better (brown) or worse (blue) than the model of its column; a stronger colour "
            "means more."
        )
    ]
    for metric in ("accuracy", "macro_f1"):
        name = metric_name(metric)
        blocks += [f"<h3>{name[0].upper()}{name[1:]}</h3>", _test_matrix(found, metric)]
    sentences = map(paragraph, describe_differences(found, "accuracy"))
    header = ["first", "second", "faces", "first alone", "second alone", "accuracy", "95 % interval", "p", "corrected"]
    header += ["macro F1", "95 % interval", "p", "corrected", "verdict"]
    tests = table(header, [_test_row(found, pair) for pair in found.pairs])
    return section(
        "Which differences are noise",
        *blocks,
        details("The differences in accuracy in sentences", *sentences),
        details(f"{counted(len(found.pairs), 'test')} with all numbers", tests),
        paragraph(
            "The tests account for the random choice of the faces. They do not account for the variation between "
            "trainings: train several seeds and name all of them."
        ),
    )


def _test_matrix(found: Comparison, metric: str) -> str:
    rows: list[list[str]] = []
    shade: list[list[float | None]] = []
    for number, place in enumerate(found.ranking, 1):
        rows.append([f"{number} {found.entries[place].name}"])
        shade.append([])
        for other in found.ranking:
            value, differs = (0.0, False) if place == other else found.difference(place, other, metric)
            verdict = f"{'better' if value > 0 else 'worse'} {points(value)}" if differs else "noise"
            rows[-1].append("·" if place == other else verdict)
            strength = min(1.0, 0.15 + abs(value) / _FULL_COLOUR)
            shade[-1].append((strength if value > 0 else -strength) if differs else None)
    return table(["row against column", *map(str, range(1, len(rows) + 1))], rows, shade=shade)


def _test_row(found: Comparison, pair: PairedTest) -> list[str]:
    names = [found.entries[place].name for place in (pair.first, pair.second)]
    cells = [*names, f"{pair.n:,}", str(pair.first_alone), str(pair.second_alone)]
    better: dict[str, list[str]] = {}
    for metric, corrected in (("accuracy", pair.accuracy_holm), ("macro_f1", pair.f1_holm)):
        difference, differs = pair.difference(metric)
        cells += [points(difference.value), format_metric_interval(metric, difference.interval)]
        cells += [p_value(difference.p), p_value(corrected)]
        if differs:
            better.setdefault(names[0 if difference.value > 0 else 1], []).append(metric_name(metric))
    verdicts = [f"{name} in {' and '.join(metrics)}" for name, metrics in better.items()]
    return [*cells, ", ".join(verdicts) or "noise"]


def _latency_section(found: Comparison) -> Section:
    latencies = found.latencies.each if found.latencies else ()
    timed: list[float | None] = []
    for c, latency in zip(found.entries, latencies, strict=False):
        timing = latency.timings.get((c.precision, 1))  # of the graph whose accuracy is shown
        timed.append(timing.ms if timing else None)
    costs = [
        ("milliseconds a face, one thread, batch 1", timed, "faster", " Vertical lines: 95 % intervals."),
        ("millions of parameters", [c.parameters and c.parameters / 1e6 for c in found.entries], "smaller", ""),
    ]
    plots = []
    for label, values, better, remark in costs:
        shown = [
            ModelPoint(c.name, cost, metrics["accuracy"], (metrics["interval"][0], metrics["interval"][1]))
            for c, metrics, cost in zip(found.entries, found.common_metrics, values, strict=False)
            if cost
        ]
        if shown:
            accuracy = "accuracy on the common faces" if found.common.narrowed else "accuracy"
            figure, alt = pareto_figure(shown, cost=label, accuracy=accuracy)
            caption = f"On the dashed line: no other model is both {better} and more accurate.{remark}"
            plots.append(plot(figure, alt=alt, caption=caption))
    return section("What accuracy costs", *([beside(*plots)] if plots else []), *_timings(found))


def _timings(found: Comparison) -> list[str]:
    if found.latencies is None:
        return [paragraph("Nothing was timed.")]
    latencies, setting = found.latencies.each, found.latencies.setting
    kinds = [k for k in ("fp32", "int8", "as it is") if any((k, 1) in each.timings for each in latencies)]
    file_kinds = [kind for kind in kinds if kind != "as it is"]
    rows = []
    for place in found.ranking:
        latency = latencies[place]
        timings = [latency.timings.get((kind, batch)) for kind in kinds for batch in BATCHES]
        times = [f"{t.ms:.2f} ({t.median:.2f}, {t.slowest:.2f})" if t else None for t in timings]
        sizes = [f"{latency.bytes[kind] / 1e6:.1f}" if kind in latency.bytes else None for kind in file_kinds]
        rows.append([found.entries[place].name, *times, *sizes, latency.graph or None])
    header = ["model", *(f"{kind}, batch {batch}" for kind in kinds for batch in BATCHES)]
    header += [*(f"{kind}, MB" for kind in file_kinds), "graph"]
    terms = {
        "machine": f"{setting['processor']}, {setting['cores']} cores; load {setting['load']}",
        "method": f"ONNX Runtime {setting['onnxruntime']}, {setting['threads']} thread, batches of "
        f"{setting['batches']}; {setting['rounds']} rounds in which the models take turns; random crops, which cost as "
        "much as faces",
        "graphs": "For recorded predictions and runs, the graph that their recipe exports is timed, with initial "
        "weights: time and size do not depend on the weights. Time and size of int8 graphs are measured, their "
        "accuracy only where the predictions are int8.",
    }
    caption = "Milliseconds a face: the fastest round, and in brackets the median and the slowest round."
    blocks = [table(header, rows, caption=caption), facts(terms)]
    load = setting["load"].split()[0]
    if load.replace(".", "").isdigit() and float(load) > int(setting["cores"]) / 2:
        busy = f"The machine was busy (load {load} on {setting['cores']} cores): the times are too long, and models "
        busy += "with similar times may change places. Measure again when it is idle."
        blocks.insert(0, note(busy))
    reasons = {c.name: each.reason for c, each in zip(found.entries, latencies, strict=True) if each.reason}
    return [*blocks, paragraph("Not timed, or not in full:"), facts(reasons)] if reasons else blocks


def _disagreement_section(found: Comparison) -> Section:
    d = found.disagreement
    rows = [
        ["the best model alone", percent(max(d.accuracy))],
        ["the class that most models predict", percent(d.majority)],
        ["the mean of their probabilities", percent(d.mean)],
        ["at least one is right (oracle)", percent(d.oracle)],
        ["all are right", percent(d.all_right)],
        ["all are wrong", percent(d.all_wrong)],
    ]
    caption = f"Share of the {len(found.common.rows):,} common faces. No choice among the models is better than the "
    caption += "oracle."
    differ = "Disagreement: share of the faces for which two models predict different classes."
    faults = "Double fault: share of the faces that both get wrong; on the diagonal, that each gets wrong."
    return section(
        "Where they disagree",
        table(["together", "of the faces"], rows, caption=caption),
        beside(_share_matrix(found, d.differ, differ), _share_matrix(found, d.double_fault, faults)),
        "<h3>The faces on which they disagree most</h3>",
        paragraph("By the Jensen-Shannon divergence of their probabilities. Each prediction with its probability."),
        gallery(_tiles(found)),
    )


def _share_matrix(found: Comparison, values: NDArray[np.float64], caption: str) -> str:
    shares = values[np.ix_(found.ranking, found.ranking)]
    rows, shade = [], []
    for y, (place, line) in enumerate(zip(found.ranking, shares.tolist(), strict=True)):
        cells = ["·" if x == y and not value else f"{100 * value:.0f} %" for x, value in enumerate(line)]
        rows.append([f"{y + 1} {found.entries[place].name}", *cells])
        shade.append([value / max(float(values.max()), 1e-9) if value else None for value in line])
    return table(["", *map(str, range(1, len(rows) + 1))], rows, shade=shade, caption=caption)


def _tiles(found: Comparison) -> list[ImageTile]:
    common, faces = found.common, found.faces
    tiles = []
    for face in np.argsort(-found.disagreement.divergence, kind="stable")[:_TILES]:
        predictions = []
        for place in found.ranking:
            probs = common.probs[place, face]
            best = int(probs.argmax())
            predictions.append(f"{found.entries[place].name} {common.emotions[best]} {100 * probs[best]:.0f} %")
        row, label = int(common.rows[face]), common.emotions[common.labels[face]]
        image = faces.images[int(np.flatnonzero(faces.rows.numpy() == row)[0])].numpy()
        tiles.append(ImageTile(image, f"row {row}, labelled {label}: {'; '.join(predictions)}"))
    return tiles


def _seeds_sections(found: Comparison) -> list[Section]:
    rows = []
    for recipe, spread in over_seeds(found).items():
        cells = [recipe, spread["n"], ", ".join(spread["seeds"])]
        for key in HEADLINE:
            mean, sd = spread[key]["mean"], spread[key]["sd"]
            cells.append(f"{format_metric(key, mean)} ± {f'{100 * sd:.1f}' if METRICS[key].is_share else f'{sd:.3f}'}")
        rows.append(cells)
    header = ["recipe", "n", "seeds", *(metric_name(key, short=True) for key in HEADLINE)]
    caption = "Mean and standard deviation over seeds, on all faces: the variation between trainings."
    return [section("Over seeds", table(header, rows, caption=caption))] if rows else []


def _claims_sections(found: Comparison) -> list[Section]:
    rows, splits = [], {}
    for place in found.ranking:
        c = found.entries[place]
        for each in claimed_metrics(c.claim, [found.metrics[place]["all"]]):
            document, variant = str(c.claim["document"]), str(c.claim["variant"])
            splits[document] = str(c.claim["split"])
            changed = "as published" if variant == "faithful" else variant
            values = format_metric(each.key, each.claimed), format_metric(each.key, each.value)
            edges = format_metric_interval(each.key, each.interval)
            rows.append([c.name, document, changed, metric_name(each.key), *values, edges, each.verdict])
    if not rows:
        return []
    header = ["model", "document", "variant", "metric", "claimed", "measured here", "95 % interval", "verdict"]
    warning = (
        f"A document claims a metric on its own split; ours is measured on {found.split}. The splits differ, so the "
        "verdict does not test the document. Better: the whole interval is at least as good as the claim."
    )
    terms = {f"split of document {document}": split for document, split in sorted(splits.items())}
    return [section("Published metrics", note(warning), table(header, rows), facts(terms))]


def _settings(study: Study) -> list[str]:
    header = [*study.axes, "accuracy", "95 % interval", "balanced", "macro F1", "log loss", "ECE", "shared faces"]
    header += ["voters", "parameters", "MMAC", "seeds"]
    rows = []
    for setting, places in study.settings.items():
        voters = study.voters[setting]
        agreement = None if voters is None else percent(voters)
        sizes = _size_cells(study.entries[places[0]])
        rows.append([*setting, *_metric_cells(study, places), agreement, *sizes, len(places)])
    caption = "Means over seeds, also of the edges of the intervals. Voters: the share of the faces with a majority of "
    caption += "ten FER+ voters on which the prediction is this majority."
    blocks = [table(header, rows, caption=caption)]
    if study.common.narrowed:
        blocks.append(
            note(
                "Fewer classes are easier, so accuracies of different classes are not comparable. Shared faces: those "
                f"labelled {', '.join(study.common.emotions)}, with the probabilities of these classes scaled to sum "
                "to 1."
            )
        )
    return blocks


def _effects(study: Study) -> list[str]:
    several = any(len(places) > 1 for places in study.settings.values())
    draws = "faces and seeds" if several else "faces; one seed per setting, so the variation between trainings is not "
    draws += "" if several else "included"
    blocks = [
        paragraph(
            "A main effect is the mean difference between finished settings that are equal in everything else. "
            f"Intervals: 95 %, over draws of {draws}. Grey: the interval contains 0."
        )
    ]
    bases = [("On the faces and classes that all share", study.shared)]
    if study.common.narrowed:
        bases.append(("On each setting's own classes and faces", study.own))
    for title, found in bases:
        blocks.append(f"<h3>{title}</h3>")
        main = [e for e in found if e.within is None]
        rows = [(f"{e.axis}: {e.first} over {e.second}", e.value, e.interval) for e in main if e.metric == "accuracy"]
        if rows:
            blocks.append(effect_plot(rows, label="points of accuracy", caption="Main effects"))
            blocks.append(_effect_table(main, "Main effects, in points."))
        crossed = [e for e in found if e.within is not None]
        if crossed:
            caption = "Interactions: the effect in the first setting less that in the second, in points."
            blocks.append(details("Interactions of two factors", _effect_table(crossed, caption)))
    if not any(found for _, found in bases):
        blocks.append(paragraph("No two finished settings differ in one factor only: train more members."))
    return blocks


def _effect_table(effects: Sequence[Effect], caption: str) -> str:
    by_contrast: dict[str, dict[str, Effect]] = {}
    for effect in effects:
        name = f"{effect.axis}: {effect.first} over {effect.second}"
        if effect.within:
            axis, one, two = effect.within
            name += f", {axis} {one} against {two}"
        by_contrast.setdefault(name, {})[effect.metric] = effect
    rows = []
    for name, by_metric in by_contrast.items():
        cells: list[str | int] = [name]
        for metric in EFFECT_METRICS:
            each = by_metric[metric]
            cells += [points(each.value), format_metric_interval(metric, each.interval), p_value(each.p)]
        rows.append([*cells, by_metric["accuracy"].matched])
    header = [cell for metric in EFFECT_METRICS for cell in (metric_name(metric), "95 % interval", "p")]
    return table(["effect", *header, "matched settings"], rows, caption=caption)


def _confusions(study: Study) -> list[str]:
    named = [pair for pair, why in NAMED_PAIRS.items() if why == f"named by document {study.claim.document}"]
    directions = [(str(label), str(predicted)) for pair in named for label, predicted in (pair, pair[::-1])]
    most: list[list[str | None]] = []
    claimed: list[list[str | None]] = []
    shade: list[list[float | None]] = []
    for setting, places in study.settings.items():
        ranked = confusions(study, places)
        names = [f"{label} as {predicted} {percent(share)}" for label, predicted, share in ranked[:MOST_CONFUSED]]
        most.append([*setting, *names, *[None] * (MOST_CONFUSED - len(names))])
        shares = {(label, predicted): share for label, predicted, share in ranked}
        claimed.append([*setting, *(percent(shares[d]) if d in shares else None for d in directions)])
        strengths = (min(1.0, 2 * shares[d]) if d in shares else None for d in directions)
        shade.append([*[None] * (len(setting) - 1), *strengths])
    caption = "The share of the faces with a label that is predicted as another emotion; means over seeds."
    header = [*study.axes, *(f"{n}. most confused" for n in range(1, MOST_CONFUSED + 1))]
    blocks = [table(header, most, caption=caption)]
    if named:
        pairs = ", ".join(f"{label} with {predicted}" for label, predicted in named)
        caption = f"The pairs that document {study.claim.document} reports as confused: {pairs}."
        header = [*study.axes, *(f"{label} as {predicted}" for label, predicted in directions)]
        blocks.append(table(header, claimed, shade=shade, caption=caption))
    return blocks
