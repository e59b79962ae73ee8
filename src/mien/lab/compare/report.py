"""The page of a comparison, made to be read by a person."""

from collections.abc import Mapping

from mien._emotions import Emotion
from mien.lab.compare import words
from mien.lab.compare.compare import FIGURES, Comparison, over_seeds
from mien.lab.compare.pairs import ALPHA
from mien.lab.compare.plots import recall_plot
from mien.lab.compare.report_cost import cost_section
from mien.lab.compare.report_disagree import disagreement_section
from mien.lab.compare.report_pairs import noise_section
from mien.lab.page import facts, headline, note, page, paragraph, section, table
from mien.lab.page.blocks import Section
from mien.lab.page.words import p_value, percent, points


def report(comparison: Comparison, provenance: Mapping[str, str]) -> str:
    """The whole page. It shows faces of the data set: it is for this computer alone."""
    sections = [
        section("Figures", *map(note, comparison.warnings()), _headline(comparison), *_table(comparison)),
        noise_section(comparison),
        cost_section(comparison),
        section("Recall by class", recall_plot(comparison, words.ranking(comparison)), _recalls(comparison)),
        disagreement_section(comparison),
        *seeds_sections(comparison),
        *claims_sections(comparison),
        section("What was judged", *_judged(comparison)),
    ]
    count = len(comparison.contenders)
    lead = f"{count} models on the same faces: what each is worth, which differences are noise, and what they cost."
    return page("Comparison", sections, lead=lead, provenance=provenance, faces=True)


def _headline(comparison: Comparison) -> str:
    order, common = words.ranking(comparison), comparison.common_figures
    first, second = order[0], order[1]
    best = comparison.contenders[first]
    pair, sign = comparison.pair(first, second)
    lead = sign * pair.accuracy.value
    verdict = f"p {p_value(pair.accuracy_holm)} after correction" if pair.accuracy_differs else "that is noise"
    real = sum(p.accuracy_differs for p in comparison.pairs)
    return headline(
        {
            f"accuracy of {best.name}, the best": (
                percent(common[first]["accuracy"]),
                f"{words.interval('accuracy', common[first]['interval'])}, on the {common[first]['n']:,} common faces",
            ),
            "ahead of the next": (
                f"{100 * lead:.1f} points",
                f"{comparison.contenders[second].name}; {verdict}",
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
    order, best = words.ranking(comparison), _best(comparison)
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
    c, own = comparison.contenders[place], comparison.figures[place]
    f = own["all"]
    size = int8_bytes(comparison, place)
    return [
        c.name,
        percent(f["accuracy"]),
        words.interval("accuracy", f["interval"]),
        percent(own["clean"]["accuracy"]) if "clean" in own else None,
        *(words.figure(key, f[key]) for key in list(FIGURES)[1:]),
        percent(comparison.common_figures[place]["accuracy"]),
        len(c.emotions),
        f"{f['n']:,}",
        words.count(c.parameters),
        words.millions(c.macs),
        None if size is None else f"{size / 1e6:.1f}",
        c.precision,
        c.seed or None,
    ]


def int8_bytes(comparison: Comparison, place: int) -> int | None:
    """Of the contender's own int8 file, else of the one that was made to be timed."""
    own = comparison.contenders[place].int8_bytes
    if own is not None or comparison.costs is None:
        return own
    return comparison.costs.each[place].bytes.get("int8")


def _best(comparison: Comparison) -> set[tuple[int, int]]:
    """Place and column of what stands out; a column of figures on other faces has no best."""
    columns = {"accuracy": 1, "balanced_accuracy": 4, "macro_f1": 5, "log_loss": 6, "ece": 7}
    found = set()
    if not comparison.common.narrowed:
        for key, column in columns.items():
            values = [f["all"][key] for f in comparison.figures]
            found.add((values.index(max(values) if FIGURES[key] else min(values)), column))
        if all("clean" in f for f in comparison.figures):
            clean = [f["clean"]["accuracy"] for f in comparison.figures]
            found.add((clean.index(max(clean)), 3))
    found.add((words.ranking(comparison)[0], 8))
    return found


def _recalls(comparison: Comparison) -> str:
    emotions = [e for e in Emotion if any(e in c.emotions for c in comparison.contenders)]
    order = words.ranking(comparison)
    recalls = [comparison.recall(place) for place in order]
    rows = [
        [comparison.contenders[place].name, *(f"{100 * r[e]:.0f}" if e in r else None for e in emotions)]
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
        cells = [f"{words.figure(k, found[k]['mean'])} ± {_spread(k, found[k]['sd'])}" for k in FIGURES]
        rows.append([recipe, found["n"], ", ".join(found["seeds"]), *cells])
    header = ["recipe", "n", "seeds", *(words.HEADINGS[key] for key in FIGURES)]
    caption = "Mean and standard deviation over seeds, on all faces: what training again changes."
    return [section("Over seeds", table(header, rows, caption=caption))]


def _spread(key: str, value: float) -> str:
    return f"{value:.3f}" if key in words.PLAIN else f"{100 * value:.1f}"


def claims_sections(comparison: Comparison) -> list[Section]:
    """What documents claim beside what is measured; nothing where no document claims a figure."""
    rows, splits = [], {}
    for place in words.ranking(comparison):
        c = comparison.contenders[place]
        for key, theirs, ours in words.claimed(c.claim, comparison.figures[place]["all"]):
            splits[str(c.claim["document"])] = str(c.claim["split"])
            changed = "as published" if c.claim["variant"] == "faithful" else str(c.claim["variant"])
            said = [words.figure(key, theirs), words.figure(key, ours)]
            gap = f"{ours - theirs:+.3f}" if key in words.PLAIN else points(ours - theirs)
            rows.append([c.name, str(c.claim["document"]), changed, words.heading(key), *said, gap])
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
        [c.name, c.kind, f"{len(c.answers.rows):,} of {c.selection.total:,}", words.account(c.selection.account)]
        for c in comparison.contenders
    ]
    common = comparison.common
    terms = {
        "split": comparison.split,
        "faces of all models": f"{len(common.rows):,}, {int(common.clean.sum()):,} of them clean",
        "classes of all models": ", ".join(common.emotions),
        "labels": "; ".join(sorted({c.selection.protocol for c in comparison.contenders})),
        "tests": f"McNemar, exact, on accuracy; paired bootstrap on macro F1; Holm's correction; alarm level {ALPHA}",
        "pairs": "each pair on the faces whose label both know, answers narrowed to the classes that both know",
    }
    return [facts(terms), table(["model", "what answered", "faces", "left out"], rows, wrap=True)]
