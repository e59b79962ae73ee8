"""The page of a comparison, made to be read by a person."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._format import p_value, percent, points, short_count
from mien._metrics import HEADLINE, METRICS, format_metric, format_metric_interval, metric_name
from mien.lab.compare.compare import ALPHA, Comparison, PairedTest, over_seeds
from mien.lab.compare.latency import BATCHES, Latency, Timing
from mien.lab.compare.plots import Point, pareto, recall_plot
from mien.lab.html.blocks import Section, columns, details, facts, headline, note, page, paragraph, section, table
from mien.lab.html.figures import ImageTile, gallery
from mien.lab.significance import Difference


def count(value: float | None) -> str | None:
    """A large number short: 1.56 M, 783 k; ``None`` where it is not known."""
    return None if value is None else short_count(value)


def millions(value: float | None) -> str | None:
    """A number in millions, without the unit."""
    return None if value is None else f"{value / 1e6:,.1f}" if value < 1e8 else f"{value / 1e6:,.0f}"


def differences_in_words(comparison: Comparison, figure_name: str) -> list[str]:
    """One sentence a model, the best first: whom it beats beyond noise, whom it only seems to beat."""
    sentences = []
    for place in ranking(comparison):
        beaten, alike = [], []
        for other in ranking(comparison):
            if other == place:
                continue
            pair, sign = comparison.pair(place, other)
            found, differs = told(pair, figure_name)
            name = comparison.entries[other].name
            if not differs:
                alike.append(name)
            elif sign * found.value > 0:
                beaten.append(f"{name} by {100 * sign * found.value:.1f}")
        parts = [f"better than {_listed(beaten)} points" if beaten else "better than none"]
        parts += [f"not to be told from {_listed(alike)}"] if alike else []
        sentences.append(f"{comparison.entries[place].name}: {'; '.join(parts)}.")
    return sentences


def told(pair: PairedTest, figure_name: str) -> tuple[Difference, bool]:
    """The difference of a pair in ``accuracy`` or ``macro_f1``, and whether it is more than noise."""
    if figure_name == "accuracy":
        return pair.accuracy, pair.accuracy_differs
    return pair.macro_f1, pair.f1_differs


def ranking(comparison: Comparison) -> list[int]:
    """Places, the highest accuracy on the common faces first."""
    scores = [figures["accuracy"] for figures in comparison.common_metrics]
    return sorted(range(len(scores)), key=lambda place: (-scores[place], comparison.entries[place].name))


def account(reasons: Mapping[str, int]) -> str:
    """What was left out of a split and why, in one line."""
    return "; ".join(f"{number:,} {reason}" for reason, number in reasons.items()) or "none left out"


def claimed(claim: Mapping[str, Any], measured: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Figure, what a document claims, what is measured; only where both say it."""
    rows = []
    for key, value in claim.get("metrics", {}).items():
        name, _, emotion = key.partition(".")
        ours = measured.get(name, {}).get(emotion) if emotion else measured.get(name)
        if name == "macro_precision":
            ours = fmean(measured["precision"].values())
        if isinstance(ours, int | float):
            rows.append((key, float(value), float(ours)))
    return rows


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def latency_section(comparison: Comparison) -> Section:
    """Accuracy on the common faces against latency and against parameters; the measurement says how it was made."""
    plots, good = [], "accuracy on the common faces" if comparison.common.narrowed else "accuracy"
    timed = _points(comparison, [_own_ms(comparison, place) for place in range(len(comparison.entries))])
    if timed:
        caption = "On the line: no other model is both faster and better. Lines through points: 95 % intervals."
        plots.append(pareto(timed, label="milliseconds a face, one thread, batch 1", good=good, caption=caption))
    sized = _points(comparison, [c.parameters and c.parameters / 1e6 for c in comparison.entries])
    if sized:
        caption = "On the line: no other model is both smaller and better."
        plots.append(pareto(sized, label="millions of parameters", good=good, caption=caption))
    blocks = [columns(*plots)] if plots else []
    return section("What accuracy costs", *blocks, *_timings(comparison), *_left_out(comparison))


def _points(comparison: Comparison, latencies: list[float | None]) -> list[Point]:
    return [
        Point(c.name, cost, f["accuracy"], (f["interval"][0], f["interval"][1]))
        for c, f, cost in zip(comparison.entries, comparison.common_metrics, latencies, strict=True)
        if cost
    ]


def _own_ms(comparison: Comparison, place: int) -> float | None:
    """Of the graph whose accuracy is shown, and no faster sibling of it."""
    if comparison.latencies is None:
        return None
    found = comparison.latencies.each[place].timing(comparison.entries[place].precision, 1)
    return found.ms if found else None


def _timings(comparison: Comparison) -> list[str]:
    if comparison.latencies is None:
        return [paragraph("Nothing was timed (--no-latency).")]
    latencies, setting = comparison.latencies.each, comparison.latencies.setting
    kinds = [k for k in ("fp32", "int8", "as it is") if any((k, 1) in cost.timings for cost in latencies)]
    header = ["model", *(f"{kind}, batch {batch}" for kind in kinds for batch in BATCHES)]
    header += [f"{kind}, MB" for kind in kinds if kind != "as it is"] + ["graph"]
    rows = []
    for place in ranking(comparison):
        cost = latencies[place]
        times = [_ms(cost.timing(kind, batch)) for kind in kinds for batch in BATCHES]
        sizes = [_mb(cost, kind) for kind in kinds if kind != "as it is"]
        rows.append([comparison.entries[place].name, *times, *sizes, cost.graph or None])
    caption = (
        "Milliseconds a face: of the round that was disturbed least, in brackets the median and the slowest round."
    )
    said = {
        "machine": f"{setting['processor']}, {setting['cores']} cores; load {setting['load']}",
        "how": f"ONNX Runtime {setting['onnxruntime']}, {setting['threads']} thread, batches of {setting['batches']}; "
        f"{setting['rounds']} rounds in which the models take turns; random crops, which cost what faces cost",
        "graphs": "Kept answers and runs are timed as the graph that their recipe exports, with fresh weights: time "
        "and size do not depend on them. int8 graphs are timed and weighed, not judged, unless the answers are int8.",
    }
    return [*_busy(setting), table(header, rows, caption=caption), facts(said)]


def _busy(setting: Mapping[str, str]) -> list[str]:
    load = setting["load"].split()[0]
    if load.replace(".", "").isdigit() and float(load) > int(setting["cores"]) / 2:
        return [
            note(
                f"The machine was busy (load {load} on {setting['cores']} cores): milliseconds are "
                "too many, and models that lie close may change places. Measure again when it is idle."
            )
        ]
    return []


def _left_out(comparison: Comparison) -> list[str]:
    if comparison.latencies is None:
        return []
    named = zip(comparison.entries, comparison.latencies.each, strict=True)
    reasons = {c.name: cost.reason for c, cost in named if cost.reason}
    return [paragraph("Not timed, or not in whole:"), facts(reasons)] if reasons else []


def _ms(timing: Timing | None) -> str | None:
    return f"{timing.ms:.2f} ({timing.median:.2f}, {timing.slowest:.2f})" if timing else None


def _mb(cost: Latency, kind: str) -> str | None:
    return f"{cost.bytes[kind] / 1e6:.1f}" if kind in cost.bytes else None


_TILES = 24


def disagreement_section(comparison: Comparison) -> Section:
    """How often two models differ or fail together, what all know together, and a gallery."""
    d, common = comparison.disagreement, comparison.common
    best = max(d.accuracy)
    together = [
        ["the best model alone", percent(best)],
        ["what most say", percent(d.majority)],
        ["the mean of their probabilities", percent(d.mean)],
        ["at least one is right (oracle)", percent(d.oracle)],
        ["all are right", percent(d.all_right)],
        ["all are wrong", percent(d.all_wrong)],
    ]
    caption = f"Share of the {len(common.rows):,} common faces. The oracle is the ceiling of every choice among them."
    differ = _matrix(comparison, d.differ, "Disagreement: share of the faces that two models answer differently.")
    faults = _matrix(comparison, d.double_fault, "Double fault: share that both get wrong, on the diagonal each alone.")
    tiles = gallery(_tiles(comparison))
    return section(
        "Where they disagree",
        table(["together", "of the faces"], together, caption=caption),
        columns(differ, faults),
        "<h3>The faces that divide them most</h3>",
        paragraph("By the Jensen-Shannon divergence of their probabilities. Each says what it reads and how surely."),
        tiles,
    )


def _matrix(comparison: Comparison, values: NDArray[np.float64], caption: str) -> str:
    order = ranking(comparison)
    names = [comparison.entries[place].name for place in order]
    rows = [
        [f"{number} {name}", *("·" if a == b and not values[a, b] else f"{100 * values[a, b]:.0f} %" for b in order)]
        for number, (name, a) in enumerate(zip(names, order, strict=True), 1)
    ]
    top = max(float(values.max()), 1e-9)
    shade = [[float(values[a, b]) / top if values[a, b] else None for b in order] for a in order]
    return table(["", *(str(number) for number, _ in enumerate(names, 1))], rows, shade=shade, caption=caption)


def _tiles(comparison: Comparison) -> list[ImageTile]:
    common, faces = comparison.common, comparison.faces
    chosen = np.argsort(-comparison.disagreement.divergence, kind="stable")[:_TILES]
    place_of = {int(row): place for place, row in enumerate(faces.rows.tolist())}
    order = ranking(comparison)
    tiles = []
    for face in chosen:
        said = []
        for place in order:
            probs = common.probs[place, face]
            guess = int(probs.argmax())
            said.append(f"{comparison.entries[place].name} {common.emotions[guess]} {100 * probs[guess]:.0f} %")
        label = common.emotions[common.labels[face]]
        image = faces.images[place_of[int(common.rows[face])]].numpy()
        tiles.append(ImageTile(image, f"row {common.rows[face]}, labelled {label}: {'; '.join(said)}"))
    return tiles


# Points of difference that get the full colour.
_FULL = 0.2


def noise_section(comparison: Comparison) -> Section:
    """Matrices in words and colour, sentences, and every test with its numbers."""
    blocks = [
        paragraph(
            "Every pair is tested on the same faces. Noise: a difference that the choice of these faces may have made "
            f"(p of at least {ALPHA} once corrected for {len(comparison.pairs)} pairs). Else a cell says by how many "
            "points the model of its row is better or worse than that of its column; the stronger the colour, the more."
        )
    ]
    for key in ("accuracy", "macro_f1"):
        name = metric_name(key)
        blocks += [f"<h3>{name[0].upper()}{name[1:]}</h3>", _test_matrix(comparison, key)]
    sentences = "".join(paragraph(text) for text in differences_in_words(comparison, "accuracy"))
    blocks.append(details("The differences in accuracy in sentences", sentences))
    blocks.append(details(f"All {len(comparison.pairs)} tests with their numbers", _tests(comparison)))
    blocks.append(
        paragraph(
            "That the faces were drawn by chance is in these tests. That another seed would have trained another net "
            "is not: train several seeds and name them all."
        )
    )
    return section("Which differences are noise", *blocks)


def _test_matrix(comparison: Comparison, key: str) -> str:
    order = ranking(comparison)
    rows, shade = [], []
    for number, place in enumerate(order, 1):
        cells = [_cell(comparison, place, other, key) for other in order]
        rows.append([f"{number} {comparison.entries[place].name}", *(text for text, _ in cells)])
        shade.append([strength for _, strength in cells])
    return table(["row against column", *(str(number) for number, _ in enumerate(order, 1))], rows, shade=shade)


def _cell(comparison: Comparison, place: int, other: int, key: str) -> tuple[str, float | None]:
    if place == other:
        return "·", None
    pair, sign = comparison.pair(place, other)
    found, differs = told(pair, key)
    if not differs:
        return "noise", None
    value = sign * found.value
    return f"{'better' if value > 0 else 'worse'} {points(value)}", min(1.0, 0.15 + abs(value) / _FULL)


def _tests(comparison: Comparison) -> str:
    header = ["first", "second", "faces", "first alone", "second alone", "accuracy", "95 % interval", "p", "corrected"]
    header += ["macro F1", "95 % interval", "p", "corrected", "verdict"]
    return table(header, [_test(comparison, pair) for pair in comparison.pairs])


def _test(comparison: Comparison, pair: PairedTest) -> list[str]:
    first, second = (comparison.entries[place].name for place in (pair.first, pair.second))
    accuracy, f1 = pair.accuracy, pair.macro_f1
    return [
        first,
        second,
        f"{pair.n:,}",
        str(pair.first_alone),
        str(pair.second_alone),
        points(accuracy.value),
        format_metric_interval("accuracy", accuracy.interval),
        p_value(accuracy.p),
        p_value(pair.accuracy_holm),
        points(f1.value),
        format_metric_interval("macro_f1", f1.interval),
        p_value(f1.p),
        p_value(pair.f1_holm),
        verdict(first, second, pair),
    ]


def verdict(first: str, second: str, pair: PairedTest) -> str:
    """What both tests of a pair say together, in words."""
    ahead = [
        (first if found.value > 0 else second, name)
        for found, differs, name in (
            (pair.accuracy, pair.accuracy_differs, "accuracy"),
            (pair.macro_f1, pair.f1_differs, "macro F1"),
        )
        if differs
    ]
    if not ahead:
        return "noise"
    if len({name for name, _ in ahead}) == 1:
        return f"{ahead[0][0]} in {' and '.join(figure for _, figure in ahead)}"
    return ", ".join(f"{name} in {figure}" for name, figure in ahead)


def comparison_page(comparison: Comparison, provenance: Mapping[str, str]) -> str:
    """The whole page. It shows faces of the data set: it is for this computer alone."""
    sections = [
        section("Figures", *map(note, comparison.warnings()), _headline(comparison), *_table(comparison)),
        noise_section(comparison),
        latency_section(comparison),
        section("Recall by class", recall_plot(comparison, ranking(comparison)), _recalls(comparison)),
        disagreement_section(comparison),
        *seeds_sections(comparison),
        *claims_sections(comparison),
        section("What was judged", *_judged(comparison)),
    ]
    count = len(comparison.entries)
    lead = f"{count} models on the same faces: what each is worth, which differences are noise, and what they cost."
    return page("Comparison", sections, lead=lead, provenance=provenance, faces=True)


def _headline(comparison: Comparison) -> str:
    order, common = ranking(comparison), comparison.common_metrics
    first, second = order[0], order[1]
    best = comparison.entries[first]
    pair, sign = comparison.pair(first, second)
    lead = sign * pair.accuracy.value
    verdict = f"p {p_value(pair.accuracy_holm)} after correction" if pair.accuracy_differs else "that is noise"
    real = sum(p.accuracy_differs for p in comparison.pairs)
    return headline(
        {
            f"accuracy of {best.name}, the best": (
                percent(common[first]["accuracy"]),
                f"{format_metric_interval('accuracy', common[first]['interval'])}, "
                f"on the {common[first]['n']:,} common faces",
            ),
            "ahead of the next": (
                f"{100 * lead:.1f} points",
                f"{comparison.entries[second].name}; {verdict}",
            ),
            "pairs that differ beyond noise": (
                f"{real} of {len(comparison.pairs)}",
                "in accuracy, all tests corrected",
            ),
        }
    )


def _table(comparison: Comparison) -> list[str]:
    header = ["model", "accuracy", "95 % interval", "clean", "balanced", "macro F1", "log loss", "ECE"]
    header += ["common faces", "classes", "faces", "parameters", "MMAC", "int8 MB", "answers", "seed"]
    order, best = ranking(comparison), _best(comparison)
    rows = [_row(comparison, place) for place in order]
    bold = [[(place, column) in best for column in range(1, len(header))] for place in order]
    blocks = [table(header, rows, best=bold)]
    blocks.append(
        paragraph(
            "Each figure is the model's own: all faces of its classes. Clean: without faces whose pixels stand in an "
            "earlier row or split. Common faces: accuracy where every model was asked the same question. ECE: expected "
            "calibration error. MMAC: millions of multiply-accumulates a face. Bold: the best of a column, noise or "
            "not. Intervals of every figure stand in comparison.json."
        )
    )
    if comparison.common.narrowed:
        known = ", ".join(comparison.common.emotions)
        blocks.insert(
            0,
            note(
                f"These models know different classes, and fewer classes are easier: compare the column of common "
                f"faces, not the accuracies. There, only faces labelled {known} count, and what a model gives to other "
                f"classes is left out, the rest made to sum to 1 again."
            ),
        )
    return blocks


def _row(comparison: Comparison, place: int) -> list[str | int | None]:
    c, own = comparison.entries[place], comparison.metrics[place]
    f = own["all"]
    size = int8_bytes(comparison, place)
    return [
        c.name,
        percent(f["accuracy"]),
        format_metric_interval("accuracy", f["interval"]),
        percent(own["clean"]["accuracy"]) if "clean" in own else None,
        *(format_metric(key, f[key]) for key in HEADLINE[1:]),
        percent(comparison.common_metrics[place]["accuracy"]),
        len(c.emotions),
        f"{f['n']:,}",
        count(c.parameters),
        millions(c.macs),
        None if size is None else f"{size / 1e6:.1f}",
        c.precision,
        c.seed or None,
    ]


def int8_bytes(comparison: Comparison, place: int) -> int | None:
    """Of the entry's own int8 file, else of the one that was made to be timed."""
    own = comparison.entries[place].int8_bytes
    if own is not None or comparison.latencies is None:
        return own
    return comparison.latencies.each[place].bytes.get("int8")


def _best(comparison: Comparison) -> set[tuple[int, int]]:
    """Place and column of what stands out; a column of figures on other faces has no best."""
    columns = {"accuracy": 1, "balanced_accuracy": 4, "macro_f1": 5, "log_loss": 6, "ece": 7}
    found = set()
    if not comparison.common.narrowed:
        for key, column in columns.items():
            values = [f["all"][key] for f in comparison.metrics]
            found.add((values.index(max(values) if METRICS[key].higher_is_better else min(values)), column))
        if all("clean" in f for f in comparison.metrics):
            clean = [f["clean"]["accuracy"] for f in comparison.metrics]
            found.add((clean.index(max(clean)), 3))
    found.add((ranking(comparison)[0], 8))
    return found


def _recalls(comparison: Comparison) -> str:
    emotions = [e for e in Emotion if any(e in c.emotions for c in comparison.entries)]
    order = ranking(comparison)
    recalls = [comparison.recall(place) for place in order]
    rows = [
        [comparison.entries[place].name, *(f"{100 * r[e]:.0f}" if e in r else None for e in emotions)]
        for place, r in zip(order, recalls, strict=True)
    ]
    shade = [[r.get(e) for e in emotions] for r in recalls]
    caption = "Recall in per cent: of the faces with that label, the share that is read so. Own classes, own faces."
    return table(["model", *emotions], rows, shade=shade, caption=caption)


def seeds_sections(comparison: Comparison) -> list[Section]:
    """Mean and standard deviation of recipes that were trained more than once; nothing where none was."""
    groups = over_seeds(comparison)
    if not groups:
        return []
    rows = []
    for recipe, found in groups.items():
        cells = [f"{format_metric(k, found[k]['mean'])} ± {_spread(k, found[k]['sd'])}" for k in HEADLINE]
        rows.append([recipe, found["n"], ", ".join(found["seeds"]), *cells])
    header = ["recipe", "n", "seeds", *(metric_name(key, short=True) for key in HEADLINE)]
    caption = "Mean and standard deviation over seeds, on all faces: what training again changes."
    return [section("Over seeds", table(header, rows, caption=caption))]


def _spread(key: str, value: float) -> str:
    return f"{value:.3f}" if not METRICS[key].is_share else f"{100 * value:.1f}"


def claims_sections(comparison: Comparison) -> list[Section]:
    """What documents claim beside what is measured; nothing where no document claims a figure."""
    rows, splits = [], {}
    for place in ranking(comparison):
        c = comparison.entries[place]
        for key, theirs, ours in claimed(c.claim, comparison.metrics[place]["all"]):
            splits[str(c.claim["document"])] = str(c.claim["split"])
            changed = "as published" if c.claim["variant"] == "faithful" else str(c.claim["variant"])
            said = [format_metric(key, theirs), format_metric(key, ours)]
            gap = f"{ours - theirs:+.3f}" if key in METRICS and not METRICS[key].is_share else points(ours - theirs)
            rows.append([c.name, str(c.claim["document"]), changed, metric_name(key), *said, gap])
    if not rows:
        return []
    header = ["model", "document", "variant", "figure", "claimed", "measured here", "difference"]
    warning = (
        f"A claim is what a document says of its own split; ours are measured on {comparison.split}. The splits "
        "differ, so a difference here is no test of the document."
    )
    terms = {f"split of document {document}": split for document, split in sorted(splits.items())}
    return [section("Published figures", note(warning), table(header, rows), facts(terms))]


def _judged(comparison: Comparison) -> list[str]:
    rows = [
        [c.name, c.kind, f"{len(c.predictions.rows):,} of {c.selection.total:,}", account(c.selection.account)]
        for c in comparison.entries
    ]
    common = comparison.common
    terms = {
        "split": comparison.split,
        "faces of all models": f"{len(common.rows):,}, {int(common.clean.sum()):,} of them clean",
        "classes of all models": ", ".join(common.emotions),
        "labels": "; ".join(sorted({c.selection.protocol for c in comparison.entries})),
        "tests": f"McNemar, exact, on accuracy; paired bootstrap on macro F1; Holm's correction; alarm level {ALPHA}",
        "pairs": "each pair on the faces whose label both know, answers narrowed to the classes that both know",
    }
    return [facts(terms), table(["model", "what answered", "faces", "left out"], rows, wrap=True)]
