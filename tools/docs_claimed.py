"""The part of docs/results.md on claims: every figure of a document beside what was measured, with a verdict."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from docs_tables import MARK_NOTE, Json, Row, looks_cell, looks_mark, mean, published, table
from mien._metrics import format_metric, format_metric_interval, metric_name
from mien.lab.compare.compare import ClaimedMetric, claimed_metrics
from mien.lab.files import load_json
from mien.lab.html import drawing, new_plot
from mien.lab.significance import wilson_interval

# Words in the split of a claim -> why the claim is not comparable with a clean split of FER-2013.
INCOMPARABLE = {
    "shares faces": "its faces share copies with its training faces",
    "not said": "its split is unknown",
}
# Document 001 on single parts of its net: claim, key, claimed before and after, and the steps of the ablation.
PARTS = (
    ("fear as surprise, with the transformer", "confusion.fear.surprise", 0.38, 0.26, "attention", "transformer"),
    ("recall of disgust, with class weights", "recall.disgust", 0.28, 0.55, "branches", "weights"),
    ("neutral as sad, with spatial attention", "confusion.neutral.sad", None, 0.25, "backbone", "attention"),
)
RECALLS = "images/recall-001.svg"  # below docs/
ABLATION = "hybrid-ablation-narrow"


def claims_sections(rows: Sequence[Row], every: Sequence[Row], results: Path) -> list[str]:
    """A table for each published system, its figures down and our recipes across; the measured leak.

    ``every`` has the members of studies, too, for what document 001 says of single parts.
    """
    systems: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        claims = row.claim.get("metrics")
        if claims and (row.metrics_of("private") or row.metrics_of("public")):
            systems.setdefault((row.document, json.dumps(claims)), []).append(row)
    if not systems:
        return []
    leaks = _leak(results / "claims" / "leak.json")
    note = (
        "Every figure of a document, and what was measured on PrivateTest with its 95 % interval. Verdicts: better if "
        "the whole interval is at least as good as the claim (**bold**), worse if none of it is, else within noise; "
        "not comparable if the recipe has no such figure or other classes. A verdict compares numbers. Whether the "
        f"claim itself is comparable is said above each table. Documents 000 and 002 publish no figure. {MARK_NOTE}"
    )
    parts = ["## Claimed and measured", note]
    for group in systems.values():
        parts += _system(group)
        parts += leaks.get(published(group[0].name), [])
        parts += [f"![Recall by emotion]({RECALLS})"] if published(group[0].name) == "hybrid-resnet50" else []
        parts += _parts(every) if published(group[0].name) == "hybrid-resnet50" else []
    return parts


def draw_recalls(rows: Sequence[Row]) -> str | None:
    """The recalls of our recipes of document 001 with their intervals, and its claim, as SVG; ``None`` without any."""
    system = [row for row in rows if (row.document, "/" in row.name) == ("001", False) and row.metrics_of("private")]
    if not system:
        return None
    figure, axis = new_plot(8.0, 4.8)
    emotions = list(system[0].metrics_of("private")[0]["recall"])
    for place, row in enumerate(system):
        claim = {"metrics": dict.fromkeys((f"recall.{emotion}" for emotion in emotions), 0.0)}
        found = claimed_metrics(claim, row.metrics_of("private"))
        at = [number + 0.16 * (place - (len(system) - 1) / 2) for number in range(len(found))]
        errors = [[each.value - each.interval[0] for each in found], [each.interval[1] - each.value for each in found]]
        axis.errorbar(at, [each.value for each in found], yerr=errors, fmt="os^Dv*P"[place % 7], label=row.name)
    claims = {key.removeprefix("recall."): value for row in system for key, value in row.claim["metrics"].items()}
    known = [emotion for emotion in emotions if emotion in claims]
    axis.plot([emotions.index(e) for e in known], [claims[e] for e in known], "_", markersize=30, label="document 001")
    axis.set_xticks(range(len(emotions)), emotions)
    axis.set(ylabel="recall on PrivateTest", ylim=(0, 1))
    axis.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    return drawing(figure, alt="Recall of every emotion, recipes of document 001 with 95 % intervals")


def _system(rows: Sequence[Row]) -> list[str]:
    """Heading, split of the claim, and table of one system."""
    rows = sorted(
        rows, key=lambda row: (row.claim["variant"] != "faithful", -mean(row.metrics_of(_split(row)), "accuracy"))
    )
    claims: Mapping[str, float] = rows[0].claim["metrics"]
    columns = [_column(row, claims) for row in rows]
    for at, row in reversed(list(enumerate(rows))):
        if row.last_epoch is not None and "accuracy" in claims:
            columns.insert(at + 1, _last_epoch_column(row, row.last_epoch, claims))
    names = ["looks at PrivateTest", "calibration", *map(metric_name, claims)]
    claimed = ["", "", *(format_metric(key, claim) for key, claim in claims.items())]
    heading = f"### Document {rows[0].document}: `{published(rows[0].name)}`"
    split = rows[0].claim["split"]
    reasons = [reason for words, reason in INCOMPARABLE.items() if words in split]
    about = f"Claimed on: {split}." + "".join(f" The claim is not comparable: {reason}." for reason in reasons)
    heads = ["metric", "claimed", *(column[0] for column in columns)]
    lines = list(zip(names, claimed, *(column[1:] for column in columns), strict=True))
    return [heading, about, table(heads, lines), *_last_epoch_notes(rows, claims)]


def _column(row: Row, claims: Mapping[str, float]) -> list[str]:
    """Name, looks, calibration, and value and verdict of each figure."""
    found = {each.key: each for each in claimed_metrics(row.claim, row.metrics_of(_split(row)))}
    is_private = _split(row) == "private"
    head = [f"`{row.name}`" + ("" if is_private else ", PublicTest"), looks_cell(row.name) if is_private else "–"]
    mark = looks_mark(row.name) if is_private else ""
    return [*head, row.calibration, *(_cell(found.get(key)) + (mark if key in found else "") for key in claims)]


def _last_epoch_column(row: Row, accuracy: float, claims: Mapping[str, float]) -> list[str]:
    """The net of the last epoch, not calibrated, on PublicTest: its log has the accuracy alone."""
    n = row.metrics_of("public")[0]["n"]
    low, high = map(float, wilson_interval(round(accuracy * n), n))
    cell = _cell(ClaimedMetric("accuracy", claims["accuracy"], accuracy, (low, high)))
    figures = [cell if key == "accuracy" else "not recorded" for key in claims]
    return [f"`{row.name}`, last epoch, PublicTest", "–", "none", *figures]


def _last_epoch_notes(rows: Sequence[Row], claims: Mapping[str, float]) -> list[str]:
    return [
        f"As the document trained it, `{row.name}` is the net of its last epoch ({row.first['epochs']}), not "
        f"calibrated: {100 * row.last_epoch:.2f} % of PublicTest (`log.jsonl`), where the document has "
        f"{100 * claims['accuracy']:.2f} %. The column `{row.name}` is the epoch that was best on PublicTest, "
        "calibrated there. PrivateTest was not evaluated for the last epoch."
        for row in rows
        if row.last_epoch is not None and "accuracy" in claims
    ]


def _split(row: Row) -> str:
    return "private" if row.metrics_of("private") else "public"


def _cell(measured: ClaimedMetric | None) -> str:
    """Value, interval and verdict; bold if the whole interval is at least as good as the claim."""
    if measured is None:
        return "not comparable"
    value = format_metric(measured.key, measured.value)
    shown = f"**{value}**" if measured.verdict == "better" else value
    return f"{shown} ({format_metric_interval(measured.key, measured.interval)}), {measured.verdict}"


def _parts(rows: Sequence[Row]) -> list[str]:
    """What document 001 says of single parts of its net, beside the ablation; nothing without the ablation."""
    steps = {row.name.partition("/")[2]: row for row in rows if row.name.startswith(f"{ABLATION}/")}
    lines = [
        [
            what,
            f"{'–' if before is None else format_metric(key, before)} → {format_metric(key, after)}",
            " → ".join(_step_cell(key, after, steps[step]) for step in (first, second)),
            f"`{first}` → `{second}`",
            looks_cell(f"{ABLATION}/{second}"),
        ]
        for what, key, before, after, first, second in PARTS
        if first in steps and second in steps
    ]
    if not lines:
        return []
    note = (
        f"What the document says of single parts, beside the steps of `{ABLATION}` that add them, one seed each. These "
        "nets are narrow and start from random weights: only the directions can be compared."
    )
    return [f"{note}\n\n{table(['figure', 'claimed', 'measured', 'steps', 'looks'], lines)}"]


def _step_cell(key: str, claimed: float, row: Row) -> str:
    (found,) = claimed_metrics({"metrics": {key: claimed}}, row.metrics_of(_split(row)))
    return f"{format_metric(key, found.value)} ({format_metric_interval(key, found.interval)})"


def _leak(path: Path) -> dict[str, list[str]]:
    """The recipe whose leak `benchmarks/claims.py leak` measured -> a sentence on the leaky run and the clean one."""
    if not path.exists():
        return {}
    measured: Json = load_json(path)
    leaky, clean = measured["runs"]["leaky"], measured["runs"]["clean"]
    faces, public = measured["leaky"], measured["clean"]["PublicTest, all"]
    sentence = (
        f"The measured leak: `{leaky['recipe']}`, from random weights at {leaky['size']} px for {leaky['epochs']} "
        f"epochs, has an accuracy of {_accuracy(faces['all'])} on its {faces['all']['n']:,} validation faces: "
        f"{_accuracy(faces['with a relative'])} on those with a relative in training and "
        f"{_accuracy(faces['without'])} on those without. The same net, trained as long on Training alone, has "
        f"{_accuracy(public)} on PublicTest. [How it was measured](explanations/claims.md)."
    )
    return {published(clean["recipe"]): [sentence]}


def _accuracy(measured: Json) -> str:
    low, high = measured["accuracy_interval"]
    return f"{measured['accuracy']:.1f} % ({low:.1f} to {high:.1f})"
