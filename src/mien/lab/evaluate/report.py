"""The HTML report of one evaluation: metrics, tables, plots, and the faces that were misclassified."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mien._format import interval, percent, percent_interval
from mien._metrics import HEADLINE, METRICS, format_metric, format_metric_interval, metric_name
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
from mien.lab.html.blocks import Section, columns, details, facts, headline, note, page, paragraph, section, table
from mien.lab.html.figures import ImageTile, gallery
from mien.lab.inference import TTA
from mien.lab.metrics import Ints

_OPEN = 4  # pairs whose faces are shown without a click


def confusion_section(e: Evaluation) -> Section:
    """Build the confusion matrix: counts and shares of the label."""
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
    head = ["label \\ predicted", *names]
    return section(
        "Confusion",
        paragraph("Rows are labels, columns are predictions."),
        columns(
            table(head, count_rows, caption="Faces", shade=shade, best=diagonal),
            table(head, rate_rows, caption="Share of the row", shade=shade, best=diagonal),
        ),
    )


def classes_section(e: Evaluation) -> Section:
    """Build the section on single emotions: recall with intervals, precision against recall, and a table."""
    found = e.metrics["all"]
    precisions = average_precision(e.predictions.probs, e.predictions.labels, e.predictions.emotions)
    rows = [
        [
            name,
            f"{found['support'][name]:,}",
            *(
                None if name in found["absent"] else percent(found[part][name])
                for part in ("precision", "recall", "f1")
            ),
            percent(precisions[name]) if name in precisions else None,
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
    """Build the section on confused pairs, with the faces of the most confident mistakes."""
    rows = [[_pair_name(p), _count(p.forward), _count(p.backward), f"{p.rank}", p.reason] for p in e.pairs]
    head = ["pair", "first predicted as second", "second predicted as first", "rank", "reason"]
    caption = "Rank: place among all pairs by the number of mistakes in both directions."
    maps = (
        "Beside each face: where the network found the emotion that it predicted."
        if e.subject.model is not None
        else "These are recorded predictions: without a model there are no maps."
    )
    return section(
        "Most confused pairs",
        paragraph(
            "Document 002 reports that its nets confuse fear with happiness and anger with happiness. The table has "
            "these pairs, two more that are known to be close, and those that this model confuses most."
        ),
        table(head, rows, caption=caption),
        paragraph(f"Below: the most confident mistakes of every pair. {maps}"),
        *(_gallery(e, pair) for pair in e.pairs if pair.forward.count + pair.backward.count),
    )


def _pair_name(pair: Pair) -> str:
    return f"{pair.forward.label} / {pair.forward.predicted}"


def _count(direction: Direction) -> str:
    rate = "no faces" if direction.rate is None else percent(direction.rate)
    return f"{direction.count:,} ({rate})"


def _gallery(e: Evaluation, pair: Pair) -> str:
    """The faces of a pair: shown for the most frequent pairs, behind a click for the others."""
    parts = _galleries(e, pair)
    return "".join(parts) if pair.rank <= _OPEN else details(_pair_name(pair), *parts)


def _galleries(e: Evaluation, pair: Pair) -> list[str]:
    parts = []
    for direction in (pair.forward, pair.backward):
        indices = most_confident_mistakes(e.predictions, e.faces, direction)
        if len(indices):
            parts.append(f"<h3>{direction.label}, predicted as {direction.predicted}</h3>")
            parts.append(gallery(_tiles(e, indices, direction)))
    return parts


def _tiles(e: Evaluation, indices: Ints, direction: Direction) -> list[ImageTile]:
    faces = e.faces.select(torch.from_numpy(indices))
    label, predicted = (e.predictions.emotions.index(each) for each in (direction.label, direction.predicted))
    maps = map_faces(e.subject.model, faces)
    return [
        ImageTile(
            faces.images[number].numpy(),
            f"row {e.predictions.rows[index]}: {percent(e.predictions.probs[index, predicted], 0)} "
            f"{direction.predicted}, {percent(e.predictions.probs[index, label], 0)} {direction.label}",
            None if maps is None else maps[number, predicted],
        )
        for number, index in enumerate(indices)
    ]


def split_name(split: str) -> str:
    """Return the name of a split for reports."""
    return "all splits" if split == "all" else split


def metric_keys(metrics: Mapping[str, Any]) -> list[str]:
    """Return the keys of the table of metrics that ``metrics`` contains, in the order of the table."""
    return [key for key in METRICS if key in metrics]


def headline_of(metrics: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the headline metrics for ``headline``: name -> value and interval."""
    return {
        metric_name(key): (format_metric(key, metrics[key]), _interval(metrics, key))
        for key in HEADLINE
        if key in metrics
    }


def with_interval(metrics: Mapping[str, Any], key: str) -> str:
    """Return the value of a metric, with its 95 % interval in brackets where it has one."""
    edges = _interval(metrics, key)
    return format_metric(key, metrics[key]) + (f" ({edges})" if edges else "")


def _interval(metrics: Mapping[str, Any], key: str) -> str:
    edges = metrics["intervals"].get(key)
    return format_metric_interval(key, edges) if edges else ""


def confidence_section(e: Evaluation) -> Section:
    """Build the section on calibration."""
    error, bins = e.metrics["all"]["ece"], reliability(e.predictions.probs, e.predictions.labels)
    text = (
        f"The expected calibration error is {error:.3f}: the mean difference between confidence and accuracy over "
        f"{len(bins)} bins of confidence."
    )
    drawn = reliability_plot(bins, error=error)
    return section("Calibration", columns(drawn, paragraph(text)))


def abstention_section(e: Evaluation) -> Section:
    """Build the section on abstention: risk against coverage, and the threshold for 90 % precision."""
    found = e.abstention
    if found["threshold"] is None:
        text = f"No threshold of confidence gives a precision of {percent(found['target'], 0)} on these faces."
    else:
        text = (
            f"With a threshold of {found['threshold']:.3f} the model answers for {percent(found['coverage'])} of the "
            f"faces, and {percent(found['precision'])} of these answers are correct. This is the largest coverage with "
            f"a precision of at least {percent(found['target'], 0)}."
        )
    words = "A threshold that is chosen and evaluated on the same faces looks better than it is."
    if found["elsewhere"]:
        other = found["elsewhere"]
        words += (
            f" Chosen on a random half and evaluated on the other half, the model answers for "
            f"{percent(other['coverage'])} with a precision of {percent(other['precision'])} (mean of "
            f"{other['halves']} halves)."
        )
    area = f"Area under the curve: {found['aurc']:.3f}, the mean risk over all coverages (AURC); lower is better."
    text = paragraph(text) + note(words) + paragraph(area)
    return section("Abstention", columns(risk_plot(e.curve), text))


def votes_sections(e: Evaluation) -> list[Section]:
    """Build the section on FER+ votes; no section for a set without votes."""
    if not e.votes:
        return []
    majority, distribution = e.votes["majority"], e.votes["distribution"]
    eight = "contempt" in e.metrics["all"]["recall"]
    heads = {}
    if majority["agreement"] is not None:
        name = "majority accuracy" if eight else "agreement with the majority"
        heads[name] = (percent(majority["agreement"]), percent_interval(majority["interval"]))
    if not eight and majority["label_agreement"] is not None:
        heads["agreement of the labels"] = (percent(majority["label_agreement"]), "on the same faces")
    for key, name in (
        ("kl", "distance to the votes, KL"),
        ("total_variation", "total variation"),
        ("log_loss", "log loss to the votes"),
    ):
        if key in distribution:
            heads[name] = (f"{distribution[key]:.3f}", interval(distribution[f"{key}_interval"]))
    left = "".join(f" {count:,}: {reason}." for reason, count in majority["account"].items())
    rule = f"Rule: {e.votes['rule']}. {majority['n']:,} of the {majority['total']:,} faces have such a majority.{left}"
    spread = (
        f"The distances compare the probabilities with all votes for the model's {len(e.predictions.emotions)} "
        f"emotions on {distribution['n']:,} faces, in nats; total variation is between 0 and 1."
    )
    if "vote_entropy" in distribution:
        entropy = distribution["vote_entropy"]
        spread += f" The voters disagree among themselves: no prediction has a log loss below {entropy:.3f}."
    return [section("Comparison with the votes of FER+", headline(heads), paragraph(rule), paragraph(spread))]


def write_report(evaluation: Evaluation, provenance: Mapping[str, str]) -> str:
    """Build the report of one evaluation; it contains faces of the data set.

    Args:
        evaluation: The evaluation.
        provenance: Shown at the end of the report.

    Returns:
        A self-contained HTML page.
    """
    e = evaluation
    sections = [
        _metrics(e),
        _inputs(e),
        confusion_section(e),
        classes_section(e),
        confidence_section(e),
        abstention_section(e),
        *votes_sections(e),
        *_training(e),
        mistakes_section(e),
    ]
    return page(
        f"{e.subject.name} on {e.test.name}",
        sections,
        lead=f"{split_name(e.selection.split)}: {len(e.predictions.labels):,} labelled faces.",
        provenance=provenance,
        faces=True,
    )


def _metrics(e: Evaluation) -> Section:
    parts = {"all": "all rows"} | ({"clean": "clean rows"} if "clean" in e.metrics else {})
    keys = metric_keys(e.metrics["all"])
    rows = [[metric_name(key), *(with_interval(e.metrics[part], key) for part in parts)] for key in keys]
    counts = "; ".join(f"{name}: {e.metrics[part]['n']:,}" for part, name in parts.items())
    clean = (
        " Clean rows are those whose exact pixels do not occur in an earlier split or earlier in the same split."
        if "clean" in parts
        else ""
    )
    return section(
        "Metrics",
        *(note(warning) for warning in e.warnings()),
        headline(headline_of(e.metrics["all"])),
        table(["", *parts.values()], rows, caption=f"{counts}. In brackets: 95 % intervals."),
        paragraph(
            "The intervals come from 2,000 bootstrap draws of the rows. The interval of the calibration error is "
            f"biased upwards, because every draw adds noise to its bins.{clean}"
        ),
    )


def _inputs(e: Evaluation) -> Section:
    terms = {"model": e.subject.name, **e.subject.about}
    terms |= {"labels": e.selection.protocol, "data": f"{e.test.name}, {split_name(e.selection.split)}"}
    terms["views of a face"] = TTA[e.tta]
    account = [[reason, f"{count:,}"] for reason, count in e.selection.account.items()]
    total = [["evaluated", f"{len(e.predictions.labels):,}"], *account, ["total", f"{e.selection.total:,}"]]
    return section("Model and data", facts(terms), table(["rows", ""], total))


def _training(e: Evaluation) -> list[Section]:
    if not e.subject.history:
        return []
    last = e.subject.history[-1]
    text = f"{len(e.subject.history)} epochs; training loss of the last epoch: {last.loss:.3f}."
    return [section("Training", paragraph(text), columns(*training_plots(e.subject.history)))]
