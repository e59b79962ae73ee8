"""An evaluation -> a page that people read: headline, tables, drawings, and the faces that were misread."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mien.lab.evaluate.evaluation import Direction, Evaluation, Pair, map_faces, most_confident_mistakes
from mien.lab.evaluate.plots import (
    average_precision,
    precision_plot,
    precision_recall,
    recall_plot,
    reliability,
    reliability_plot,
    risk_plot,
    training_plots,
)
from mien.lab.html import Tile, columns, details, facts, gallery, headline, note, page, paragraph, section, table
from mien.lab.html.blocks import Section
from mien.lab.inference import TTA

_OPEN = 4  # pairs whose faces show without being asked for


def confusion_section(e: Evaluation) -> Section:
    """Who is taken for whom: counts and rates."""
    counts = np.asarray(e.metrics["all"]["confusion"])
    support = counts.sum(1, keepdims=True)
    rates = counts / support.clip(min=1)
    names = [str(emotion) for emotion in e.predictions.emotions]
    shade = [[float(rate) if n else None for rate in row] for row, n in zip(rates, support[:, 0], strict=True)]
    count_rows = [[name, *(f"{n:,}" for n in row)] for name, row in zip(names, counts, strict=True)]
    rate_rows = [
        [name, *(f"{rate:.0%}" if n else None for rate in row)]
        for name, row, n in zip(names, rates, support[:, 0], strict=True)
    ]
    diagonal = [[x == y for x in range(len(names))] for y in range(len(names))]
    head = ["is \\ read as", *names]
    return section(
        "Confusion",
        paragraph("A row is what the label says, a column what the model reads."),
        columns(
            table(head, count_rows, caption="Faces", shade=shade, best=diagonal),
            table(head, rate_rows, caption="Share of the row", shade=shade, best=diagonal),
        ),
    )


def classes_section(e: Evaluation) -> Section:
    """Recall with its intervals, precision against recall, and every figure by emotion."""
    found = e.metrics["all"]
    precisions = average_precision(e.predictions.probs, e.predictions.labels, e.predictions.emotions)
    rows = [
        [
            name,
            f"{found['support'][name]:,}",
            *(
                None if name in found["absent"] else f"{found[part][name]:.1%}"
                for part in ("precision", "recall", "f1")
            ),
            f"{precisions[name]:.1%}" if name in precisions else None,
        ]
        for name in found["recall"]
    ]
    curves = precision_recall(e.predictions.probs, e.predictions.labels, e.predictions.emotions)
    return section(
        "By emotion",
        columns(
            recall_plot(found["recall"], e.recall_intervals, mean=found["balanced_accuracy"]), precision_plot(curves)
        ),
        table(["emotion", "faces", "precision", "recall", "F1", "average precision"], rows),
    )


def mistakes_section(e: Evaluation) -> Section:
    """The pairs that are confused most, with the faces of the surest mistakes."""
    rows = [[f"{p.there.truth} / {p.there.told}", _said(p.there), _said(p.back), f"{p.rank}", p.why] for p in e.pairs]
    head = ["pair", "first read as second", "second read as first", "rank", "why it is here"]
    caption = "Rank: place among all pairs by the number of mistakes in both directions."
    maps = (
        "Beside each face: where the network found the emotion that it wrongly named."
        if e.subject.model is not None
        else "These are kept answers: there is no model here that could draw maps."
    )
    return section(
        "Most confused pairs",
        paragraph(
            "Document 002 saw its nets take fear for happiness and anger for happiness. Here are these pairs, two more "
            "that are known to be close, and those that this model confuses most."
        ),
        table(head, rows, caption=caption),
        paragraph(f"Below, of every pair, the mistakes that the model was surest of. {maps}"),
        *(_gallery(e, pair) for pair in e.pairs if pair.there.count + pair.back.count),
    )


def _said(direction: Direction) -> str:
    rate = "no faces" if direction.rate is None else f"{direction.rate:.1%}"
    return f"{direction.count:,} ({rate})"


def _gallery(e: Evaluation, pair: Pair) -> str:
    """The faces of a pair: open for the most frequent ones, behind its name for the others."""
    parts = _galleries(e, pair)
    return "".join(parts) if pair.rank <= _OPEN else details(f"{pair.there.truth} / {pair.there.told}", *parts)


def _galleries(e: Evaluation, pair: Pair) -> list[str]:
    parts = []
    for direction in (pair.there, pair.back):
        places = most_confident_mistakes(e.predictions, e.faces, direction)
        if len(places):
            parts.append(f"<h3>{direction.truth}, read as {direction.told}</h3>")
            parts.append(gallery(_tiles(e, places, direction)))
    return parts


def _tiles(e: Evaluation, places: Any, direction: Direction) -> list[Tile]:
    faces = e.faces.select(torch.from_numpy(places))
    told, truth = (e.predictions.emotions.index(emotion) for emotion in (direction.told, direction.truth))
    maps = map_faces(e.subject.model, faces)
    return [
        Tile(
            faces.images[number].numpy(),
            f"row {e.predictions.rows[place]}: {e.predictions.probs[place, told]:.0%} {direction.told}, "
            f"{e.predictions.probs[place, truth]:.0%} {direction.truth}",
            None if maps is None else maps[number, told],
        )
        for number, place in enumerate(places)
    ]


# How the figures are called, and whether they are shares.
FIGURES = {
    "accuracy": ("accuracy", True),
    "balanced_accuracy": ("balanced accuracy", True),
    "macro_f1": ("macro F1", True),
    "weighted_f1": ("weighted F1", True),
    "top2": ("top-2 accuracy", True),
    "log_loss": ("log loss", False),
    "brier": ("Brier score", False),
    "ece": ("calibration error", False),
}


# Those that stand first.
HEAD = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss", "ece")


def split_name(split: str) -> str:
    """A split as a page names it."""
    return "all splits" if split == "all" else split


def shown(value: float | None, name: str) -> str:
    """A figure for people."""
    if value is None:
        return "–"
    return f"{value:.1%}" if FIGURES.get(name, ("", True))[1] else f"{value:.3f}"


def span(interval: Sequence[float] | None, name: str) -> str:
    """An interval for people."""
    return f"{shown(interval[0], name)} to {shown(interval[1], name)}" if interval else ""


def confidence_section(e: Evaluation) -> Section:
    """Whether answers are right as often as they claim."""
    error, bins = e.metrics["all"]["ece"], reliability(e.predictions.probs, e.predictions.labels)
    said = (
        f"The expected calibration error is {error:.3f}: over {len(bins)} bins of confidence, this is the mean "
        "distance between what the model claims and how often it is right."
    )
    drawn = reliability_plot(bins, error=error)
    return section("Is its confidence right?", columns(drawn, paragraph(said)))


def silence_section(e: Evaluation) -> Section:
    """Risk against coverage, and the threshold that gives 90 % precision."""
    found = e.abstention
    if found["threshold"] is None:
        said = f"No threshold of confidence makes {found['target']:.0%} of its answers right on these faces."
    else:
        said = (
            f"With the threshold {found['threshold']:.3f} it answers {found['coverage']:.1%} of the faces, and "
            f"{found['precision']:.1%} of these answers are right: the largest coverage with at least "
            f"{found['target']:.0%}."
        )
    words = "A threshold chosen on the faces that judge it is too good to be true."
    if found["elsewhere"]:
        there = found["elsewhere"]
        words += (
            f" Chosen on a random half and tried on the other, it answers {there['coverage']:.1%} with "
            f"{there['precision']:.1%} right (mean of {there['halves']} halves)."
        )
    area = f"Area under the curve: {found['aurc']:.3f}, the mean risk over all coverages; lower is better."
    text = paragraph(said) + note(words) + paragraph(area)
    return section("When should it stay silent?", columns(risk_plot(e.curve), text))


def votes_sections(e: Evaluation) -> list[Section]:
    """Agreement with the voters of FER+; no section where the set has no votes."""
    if not e.votes:
        return []
    majority, far = e.votes["majority"], e.votes["distribution"]
    eight = "contempt" in e.metrics["all"]["recall"]
    heads = {}
    if majority["agreement"] is not None:
        name = "majority accuracy" if eight else "agrees with the majority"
        heads[name] = (f"{majority['agreement']:.1%}", span(majority["interval"], "accuracy"))
    if not eight and majority["label_agreement"] is not None:
        heads["the labels agree with it"] = (f"{majority['label_agreement']:.1%}", "on the same faces")
    for key, said in (
        ("kl", "distance to the votes, KL"),
        ("total_variation", "total variation"),
        ("log_loss", "log loss to the votes"),
    ):
        if key in far:
            heads[said] = (f"{far[key]:.3f}", " to ".join(f"{edge:.3f}" for edge in far[f"{key}_interval"]))
    left = "".join(f" {count:,}: {reason}." for reason, count in majority["account"].items())
    rule = f"Rule: {e.votes['rule']}. {majority['n']:,} of the {majority['total']:,} faces have such a majority.{left}"
    spread = (
        f"The distances compare the probabilities with all votes for the model's {len(e.predictions.emotions)} "
        f"emotions on {far['n']:,} faces, in nats; total variation lies between 0 and 1."
    )
    if "vote_entropy" in far:
        spread += f" The people disagree among themselves: no answer has a log loss below {far['vote_entropy']:.3f}."
    return [section("Against the crowd of FER+", headline(heads), paragraph(rule), paragraph(spread))]


def write_report(evaluation: Evaluation, provenance: Mapping[str, str]) -> str:
    """The whole page, self-contained; faces of the set stand in it."""
    e = evaluation
    sections = [
        _figures(e),
        _what_was_judged(e),
        confusion_section(e),
        classes_section(e),
        confidence_section(e),
        silence_section(e),
        *votes_sections(e),
        *_training(e),
        mistakes_section(e),
    ]
    return page(
        f"{e.subject.name} on {e.test.name}",
        sections,
        lead=f"{split_name(e.selection.split)}: {len(e.predictions.labels):,} labelled faces, read one by one.",
        provenance=provenance,
        faces=True,
    )


def _figures(e: Evaluation) -> Section:
    found = e.metrics["all"]
    heads = {FIGURES[name][0]: (shown(found[name], name), span(found["intervals"].get(name), name)) for name in HEAD}
    parts = {"all": "all rows"} | ({"clean": "clean rows"} if "clean" in e.metrics else {})
    rows = [
        [
            FIGURES[name][0],
            *(f"{shown(e.metrics[part][name], name)}{_brackets(e.metrics[part], name)}" for part in parts),
        ]
        for name in FIGURES
    ]
    counts = "; ".join(f"{said}: {e.metrics[part]['n']:,}" for part, said in parts.items())
    clean = (
        " Clean rows are those whose exact pixels stand neither in an earlier split nor earlier in the same one."
        if "clean" in parts
        else ""
    )
    return section(
        "Figures",
        *(note(warning) for warning in e.warnings()),
        headline(heads),
        table(["", *parts.values()], rows, caption=f"{counts}. In brackets: 95 % intervals."),
        paragraph(
            "The intervals come from 2,000 bootstrap draws of the rows. That of the calibration error leans upwards, "
            f"as every draw adds noise to its bins.{clean}"
        ),
    )


def _brackets(found: Mapping[str, Any], name: str) -> str:
    said = span(found["intervals"].get(name), name)
    return f" ({said})" if said else ""


def _what_was_judged(e: Evaluation) -> Section:
    terms = {"model": e.subject.name, **e.subject.about}
    terms |= {"labels": e.selection.protocol, "data": f"{e.test.name}, {split_name(e.selection.split)}"}
    terms["views of a face"] = TTA[e.tta]
    account = [[reason, f"{count:,}"] for reason, count in e.selection.account.items()]
    total = [["judged", f"{len(e.predictions.labels):,}"], *account, ["rows in all", f"{e.selection.total:,}"]]
    return section("What was judged", facts(terms), table(["rows", ""], total))


def _training(e: Evaluation) -> list[Section]:
    if not e.subject.history:
        return []
    last = e.subject.history[-1]
    said = (
        f"{len(e.subject.history)} epochs; the last ended with a training loss of {last.get('loss', float('nan')):.3f}."
    )
    return [section("Training", paragraph(said), columns(*training_plots(e.subject.history)))]
