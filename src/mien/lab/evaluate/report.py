"""The HTML report of one evaluation: metrics, tables, plots, and the faces that were misclassified."""

from collections.abc import Mapping
from typing import Any

import torch

from mien._format import interval, percent, percent_interval
from mien._metrics import HEADLINE, METRICS, format_metric, format_metric_interval, metric_name
from mien.lab.evaluate.evaluation import Direction, Evaluation, Pair, map_faces, most_confident_mistakes
from mien.lab.evaluate.plots import (
    average_precision,
    class_recall_plot,
    precision_plot,
    precision_recall,
    reliability,
    reliability_plot,
    risk_plot,
    selective,
    training_plots,
)
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
    section,
    table,
)
from mien.lab.inference import TTA

_OPEN = 4  # pairs whose faces are shown without a click


def _confusion(e: Evaluation) -> Section:
    """The confusion matrix, in counts and in shares of the label."""
    names = [str(emotion) for emotion in e.predictions.emotions]
    count_rows, rate_rows, shade = [], [], []
    for name, counts in zip(names, e.metrics["all"]["confusion"], strict=True):
        support = sum(counts)
        rates = [count / support if support else None for count in counts]
        shade.append(rates)
        count_rows.append([name, *(f"{count:,}" for count in counts)])
        rate_rows.append([name, *(None if rate is None else f"{rate:.0%}" for rate in rates)])
    diagonal = [[x == y for x in range(len(names))] for y in range(len(names))]
    head = ["label \\ predicted", *names]
    return section(
        "Confusion matrix",
        paragraph("Rows are labels, columns are predictions."),
        beside(
            table(head, count_rows, caption="Faces", shade=shade, best=diagonal),
            table(head, rate_rows, caption="Share of the row", shade=shade, best=diagonal),
        ),
    )


def _classes(e: Evaluation) -> Section:
    """Single emotions: recall with intervals, precision against recall, and a table."""
    found, predicted = e.metrics["all"], (e.predictions.probs, e.predictions.labels, e.predictions.emotions)
    precisions, rows = average_precision(*predicted), []
    for name, support in found["support"].items():
        known = [class_cell(e, part, name) for part in ("precision", "recall", "f1")]
        rows.append([name, f"{support:,}", *known, percent(precisions[name]) if name in precisions else None])
    recalls = class_recall_plot(found["recall"], e.class_intervals["recall"], mean=found["balanced_accuracy"])
    return section(
        "By emotion",
        beside(recalls, precision_plot(precision_recall(*predicted))),
        table(
            ["emotion", "faces", "precision", "recall", "F1", "average precision"],
            rows,
            caption="In brackets: 95 % intervals.",
        ),
    )


def class_cell(e: Evaluation, part: str, name: str) -> str | None:
    """Format a metric of one emotion with its interval.

    Args:
        e: The evaluation.
        part: ``"recall"``, ``"precision"`` or ``"f1"``.
        name: The emotion.

    Returns:
        For example ``70.5 % (69.0 to 72.1)``; ``None`` without such a value.
    """
    edges = e.class_intervals[part].get(name)
    return f"{percent(e.metrics['all'][part][name])} ({percent_interval(edges)})" if edges else None


def _mistakes(e: Evaluation) -> Section:
    """The confused pairs, with the faces of the most confident mistakes."""
    rows = [[_pair_name(p), _count(p.forward), _count(p.backward), f"{p.rank}", p.reason] for p in e.pairs]
    head = ["pair", "first predicted as second", "second predicted as first", "rank", "reason"]
    caption = "Rank among all pairs by the number of mistakes in both directions."
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
        *(_pair_faces(e, pair) for pair in e.pairs if pair.forward.count + pair.backward.count),
    )


def _pair_name(pair: Pair) -> str:
    return f"{pair.forward.label} / {pair.forward.predicted}"


def _count(direction: Direction) -> str:
    rate = "no faces" if direction.rate is None else percent(direction.rate)
    return f"{direction.count:,} ({rate})"


def _pair_faces(e: Evaluation, pair: Pair) -> str:
    """The faces of a pair: shown for the most frequent pairs, behind a click for the others."""
    parts = []
    for direction in (pair.forward, pair.backward):
        indices = most_confident_mistakes(e.predictions, e.selection.faces, direction)
        if not len(indices):
            continue
        faces = e.selection.faces.select(torch.from_numpy(indices))
        label, predicted = (e.predictions.emotions.index(each) for each in (direction.label, direction.predicted))
        maps, tiles = map_faces(e.subject.model, faces), []
        for number, (row, probs) in enumerate(
            zip(e.predictions.rows[indices], e.predictions.probs[indices], strict=True)
        ):
            caption = (
                f"row {row}: {percent(probs[predicted], 0)} {direction.predicted}, "
                f"{percent(probs[label], 0)} {direction.label}"
            )
            map_ = None if maps is None else maps[number, predicted]
            tiles.append(ImageTile(faces.images[number].numpy(), caption, map_))
        parts += [f"<h3>{direction.label}, predicted as {direction.predicted}</h3>", gallery(tiles)]
    return "".join(parts) if pair.rank <= _OPEN else details(_pair_name(pair), *parts)


def split_name(split: str) -> str:
    """Return the name of a split for reports.

    Args:
        split: Name of a split, or ``"all"``.

    Returns:
        The name.
    """
    return "all splits" if split == "all" else split


def metric_keys(metrics: Mapping[str, Any]) -> list[str]:
    """Return the known keys of metrics.

    Args:
        metrics: What ``compute_metrics`` returns.

    Returns:
        The keys that are in the table ``METRICS``, in its order.
    """
    return [key for key in METRICS if key in metrics]


def with_interval(metrics: Mapping[str, Any], key: str) -> str:
    """Format a metric with its interval.

    Args:
        metrics: What ``compute_metrics`` returns.
        key: The key of the metric.

    Returns:
        The value, with the 95 % interval in brackets if the metric has one.
    """
    edges = _interval(metrics, key)
    return format_metric(key, metrics[key]) + (f" ({edges})" if edges else "")


def _interval(metrics: Mapping[str, Any], key: str) -> str:
    edges = metrics["intervals"].get(key)
    return format_metric_interval(key, edges) if edges else ""


def _calibration(e: Evaluation) -> Section:
    error, bins = e.metrics["all"]["ece"], reliability(e.predictions.probs, e.predictions.labels)
    text = (
        f"The expected calibration error is {error:.3f}: the mean difference between confidence and accuracy over "
        f"{len(bins)} bins of confidence, less the part that noise adds (Kumar et al., 2019)."
    )
    rows = [
        [metric_name(key), format_metric(key, before), format_metric(key, e.metrics["all"][key])]
        for key, before in e.uncalibrated.items()
    ]
    both = [table(["", "before calibration", "after"], rows)] if rows else []
    return section("Calibration", beside(reliability_plot(bins, error=error), paragraph(text)), *both)


def _abstention(e: Evaluation) -> Section:
    """Risk against coverage, and the threshold for 90 % precision."""
    found = e.abstention
    if found["threshold"] is None:
        text = f"No threshold of confidence gives a precision of {percent(found['target'], 0)} on these faces."
    else:
        text = (
            f"With a threshold of {found['threshold']:.3f} the model predicts {percent(found['coverage'])} of the "
            f"faces, and {percent(found['precision'])} of these predictions are correct. This is the largest coverage "
            f"with a precision of at least {percent(found['target'], 0)}."
        )
    caution = "A threshold that is chosen and evaluated on the same faces looks better than it is."
    if found["elsewhere"]:
        other = found["elsewhere"]
        caution += (
            f" Chosen on a random half and evaluated on the other half, it gives a coverage of "
            f"{percent(other['coverage'])} with a precision of {percent(other['precision'])} (mean of "
            f"{other['halves']} halves)."
        )
    area = f"Area under the curve: {found['aurc']:.3f}, the mean risk over all coverages (AURC); lower is better."
    curve = selective(e.predictions.probs, e.predictions.labels)
    return section("Selective prediction", beside(risk_plot(curve), paragraph(text) + note(caution) + paragraph(area)))


def _votes(e: Evaluation) -> list[Section]:
    """The comparison with the votes of FER+; no section for a data set without votes."""
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
    names = {
        "kl": "distance to the votes, KL",
        "total_variation": "total variation",
        "log_loss": "log loss to the votes",
    }
    for key, name in names.items():
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


def report_page(evaluation: Evaluation, provenance: Mapping[str, str]) -> str:
    """Build the report of one evaluation; it contains faces of the data set.

    Args:
        evaluation: The evaluation.
        provenance: Shown at the end of the report.

    Returns:
        A self-contained HTML page.
    """
    e = evaluation
    named = {"model": e.subject.name, **e.subject.about, "labels": e.selection.protocol}
    named |= {"data": f"{e.test.name}, {split_name(e.selection.split)}", "views of a face": TTA[e.tta]}
    account = [[reason, f"{count:,}"] for reason, count in e.selection.account.items()]
    counts = [["evaluated", f"{len(e.predictions.labels):,}"], *account, ["total", f"{e.selection.total:,}"]]
    sections = [
        _metrics(e),
        section("Model and data", facts(named), table(["rows", ""], counts)),
        _confusion(e),
        _classes(e),
        _calibration(e),
        _abstention(e),
        *_votes(e),
    ]
    if e.subject.history:
        last = f"training loss of the last epoch: {e.subject.history[-1].loss:.3f}."
        text = paragraph(f"{len(e.subject.history)} epochs; {last}")
        sections.append(section("Training", text, beside(*training_plots(e.subject.history))))
    return page(
        f"{e.subject.name} on {e.test.name}",
        [*sections, _mistakes(e)],
        lead=f"{split_name(e.selection.split)}: {len(e.predictions.labels):,} labelled faces.",
        provenance=provenance,
        faces=True,
    )


def _metrics(e: Evaluation) -> Section:
    parts = {"all": "all rows"} | ({"clean": "clean rows"} if "clean" in e.metrics else {})
    keys, found = metric_keys(e.metrics["all"]), e.metrics["all"]
    rows = [[metric_name(key), *(with_interval(e.metrics[part], key) for part in parts)] for key in keys]
    counts = "; ".join(f"{name}: {e.metrics[part]['n']:,}" for part, name in parts.items())
    copies = "Clean rows are those whose exact pixels do not occur in an earlier split or earlier in the same split."
    clean = f" {copies}" if "clean" in parts else ""
    heads = {metric_name(key): (format_metric(key, found[key]), _interval(found, key)) for key in HEADLINE}
    return section(
        "Metrics",
        *(note(warning) for warning in e.warnings()),
        headline(heads),
        table(["", *parts.values()], rows, caption=f"{counts}. In brackets: 95 % intervals."),
        paragraph(
            "Intervals: Wilson's for shares, combined for means over classes; of log loss and Brier score from 2,000 "
            f"bootstrap draws of the rows. The calibration error is debiased.{clean}"
        ),
    )
