"""``mien evaluate``: every seed on every set, and what is written of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mien.lab.data.datasets import is_fer2013, read_split, start_of
from mien.lab.evaluate.evaluation import Evaluation, Report, Task, check_tta, evaluate_task, prepare
from mien.lab.evaluate.plots import transfer_plot
from mien.lab.evaluate.report import FIGURES, HEAD, shown, span, split_name, write_report
from mien.lab.evaluate.subjects import find_subjects, load_tests
from mien.lab.files import require_writable, save_bytes, save_text
from mien.lab.html import headline, note, page, paragraph, section, table, write_page
from mien.lab.provenance import provenance


def summarize_seeds(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Mean, sample standard deviation and number of seeds of every figure and recall; of ``all`` and ``clean`` rows."""
    summary: dict[str, Any] = {}
    for part in ("all", "clean"):
        if all(part in e.metrics for e in evaluations):
            found = [e.metrics[part] for e in evaluations]
            summary[part] = {name: _spread([f[name] for f in found]) for name in FIGURES}
            there = [name for name in found[0]["recall"] if name not in found[0]["absent"]]
            summary[part]["recall"] = {name: _spread([f["recall"][name] for f in found]) for name in there}
    return summary


def seeds_metrics(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """``metrics.json`` of several seeds; each seed's own stands in its folder."""
    first = evaluations[0].to_json()
    kept = ("model", "emotions", "data", "data_sha256", "split", "total", "evaluated", "excluded", "protocol", "tta")
    return {key: first[key] for key in kept if key in first} | {
        "seeds": [
            {"seed": e.subject.seed, "all": e.metrics["all"], "clean": e.metrics.get("clean")} for e in evaluations
        ],
        "summary": summarize_seeds(evaluations),
    }


def seeds_page(evaluations: Sequence[Evaluation], folders: Sequence[str], provenance: Mapping[str, str]) -> str:
    """The page over several seeds, with links to the page of each."""
    first, summary = evaluations[0], summarize_seeds(evaluations)
    heads = {
        FIGURES[name][0]: (shown(summary["all"][name]["mean"], name), f"± {shown(summary['all'][name]['std'], name)}")
        for name in HEAD
    }
    parts = {"all": "all rows"} | ({"clean": "clean rows"} if "clean" in summary else {})
    rows = [[said, *(plus_minus(summary[part][name], name) for part in parts)] for name, (said, _) in FIGURES.items()]
    each = [[f"seed {e.subject.seed}", *(shown(e.metrics["all"][name], name) for name in FIGURES)] for e in evaluations]
    recall = [[name, plus_minus(value, "accuracy")] for name, value in summary["all"]["recall"].items()]
    n = len(evaluations)
    return page(
        f"{first.subject.name} on {first.test.name}, {n} seeds",
        [
            section(
                "Figures",
                headline(heads),
                table(["", *parts.values()], rows, caption=f"Mean ± sample standard deviation over {n} seeds."),
                note("The deviation tells how much a figure depends on the seed, not on which faces were judged."),
            ),
            section("Each seed", table(["", *(said for said, _ in FIGURES.values())], each), _links(folders)),
            section("Recall by emotion", table(["emotion", "recall"], recall)),
        ],
        lead=f"{split_name(first.selection.split)}: {len(first.predictions.labels):,} labelled faces, {n} seeds.",
        provenance=provenance,
    )


def transfer_metrics(sets: Mapping[str, Sequence[Evaluation]]) -> dict[str, Any]:
    """``metrics.json`` of several sets; each set's own stands in its folder."""
    told = {}
    for name, evaluations in sets.items():
        first = evaluations[0].to_json()
        kept = ("data_sha256", "split", "total", "evaluated", "excluded", "protocol", "warnings", "recall_intervals")
        told[name] = {key: first[key] for key in kept} | {"all": first["all"], "clean": first.get("clean")}
        if len(evaluations) > 1:
            told[name]["summary"] = summarize_seeds(evaluations)
    model = next(iter(sets.values()))[0].subject
    return {"model": model.name, "about": dict(model.about), "sets": told}


def transfer_page(sets: Mapping[str, Sequence[Evaluation]], provenance: Mapping[str, str]) -> str:
    """What transfers: figures and recalls of the same model on every set, side by side."""
    firsts = {name: evaluations[0] for name, evaluations in sets.items()}
    model = next(iter(firsts.values())).subject.name
    warnings = dict.fromkeys(warning for e in firsts.values() for warning in e.warnings())
    return page(
        f"{model} on {len(sets)} sets",
        [
            section(
                "What transfers",
                table(["set", "split", "faces", *(FIGURES[n][0] for n in FIGURES)], [_row(n, sets[n]) for n in sets]),
                paragraph(_how_to_read(sets)),
                _links(list(sets)),
                *(note(warning) for warning in warnings),
            ),
            section(
                "Recall by emotion",
                table(["emotion", *sets], _recall_rows(sets), caption="In brackets: 95 % intervals (Wilson)."),
                transfer_plot({name: e.metrics["all"] for name, e in firsts.items()}),
                note("Sets differ in how faces were found, cut and labelled; a gap is not the model's alone."),
            ),
            section("Rows left out", table(["set", "evaluated", "left out", "why"], _accounts(firsts), wrap=True)),
        ],
        lead="The same model, the same classes, other faces.",
        provenance=provenance,
    )


def plus_minus(spread: Mapping[str, float], name: str) -> str:
    """A mean and its deviation for people."""
    return f"{shown(spread['mean'], name)} ± {shown(spread['std'], name)}"


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else 0.0, "n": len(values)}


def _row(name: str, evaluations: Sequence[Evaluation]) -> list[str]:
    first = evaluations[0]
    cells = [name, split_name(first.selection.split), f"{len(first.predictions.labels):,}"]
    if len(evaluations) > 1:
        summary = summarize_seeds(evaluations)["all"]
        return cells + [plus_minus(summary[figure], figure) for figure in FIGURES]
    found = first.metrics["all"]
    for figure in FIGURES:
        interval = span(found["intervals"].get(figure), figure)
        cells.append(shown(found[figure], figure) + (f" ({interval})" if interval else ""))
    return cells


def _how_to_read(sets: Mapping[str, Sequence[Evaluation]]) -> str:
    seeds = max(len(evaluations) for evaluations in sets.values())
    return (
        f"Mean ± standard deviation over {seeds} seeds; recalls and accounts below are of the first."
        if seeds > 1
        else "In brackets: 95 % bootstrap intervals over the rows."
    )


def _recall_rows(sets: Mapping[str, Sequence[Evaluation]]) -> list[list[str | None]]:
    firsts = [evaluations[0] for evaluations in sets.values()]
    rows: list[list[str | None]] = []
    for emotion in firsts[0].predictions.emotions:
        name = str(emotion)
        spans = [e.recall_intervals.get(name) for e in firsts]
        cells = [
            None if interval is None else f"{e.metrics['all']['recall'][name]:.1%} ({span(interval, 'accuracy')})"
            for e, interval in zip(firsts, spans, strict=True)
        ]
        rows.append([name, *cells])
    return rows


def _accounts(firsts: Mapping[str, Evaluation]) -> list[list[str]]:
    rows = []
    for name, e in firsts.items():
        why = "; ".join(f"{count:,}: {reason}" for reason, count in e.selection.account.items()) or "nothing"
        rows.append([name, f"{len(e.predictions.labels):,}", f"{sum(e.selection.account.values()):,}", why])
    return rows


def _links(folders: Sequence[str]) -> str:
    items = ", ".join(f'<a href="{escape(folder)}/report.html">{escape(folder)}</a>' for folder in folders)
    return f"<p>The full report of each: {items}.</p>"


@dataclass(frozen=True)
class EvaluateOptions:
    """How to evaluate: ``split`` (``None``: PublicTest, or all of an undivided set), folder ``out`` and the rest."""

    split: str | None = None
    out: Path | None = None
    label_map: Mapping[str, str] = field(default_factory=dict)
    tta: str = "none"
    precision: str = "int8"


def evaluate(
    what: str,
    data: Sequence[Path | None] = (None,),
    *,
    options: EvaluateOptions | None = None,
    report: Report = lambda *_: None,
) -> tuple[Path, dict[str, list[Evaluation]]]:
    """Evaluate ``what`` (see ``find_subjects``) on every set of ``data``; write files; answer the folder and results.

    The results are by the name of the set, one for each seed. A single evaluation writes ``metrics.json``,
    ``predictions.npz`` and ``report.html``; several seeds or sets a folder for each and a page over all. Everything
    is checked before the model reads a face. ``report`` hears what is done, how far it is, and of how much.
    Raises ``ModelError``, ``DataError`` and ``OutputError``.
    """
    options = options or EvaluateOptions()
    check_tta(options.tta)
    split = read_split(options.split)
    subjects = find_subjects(what, precision=options.precision)
    report("reading faces", 0, 1)
    tests = load_tests(data, subjects[0].emotions, size=subjects[0].size, label_map=options.label_map)
    tasks = {test.name: [prepare(each, test, split, tta=options.tta) for each in subjects] for test in tests}
    out = options.out or Path("reports") / "evaluate" / _name(tasks, data)
    require_writable(out)
    judged = {
        name: _judge_seeds(each, out if len(tasks) == 1 else out / name, options, report)
        for name, each in tasks.items()
    }
    if len(judged) > 1:
        origin = provenance(", ".join(dict.fromkeys(each[0].test.faces.sha256 for each in judged.values())))
        _write(out, transfer_metrics(judged) | {"provenance": origin}, transfer_page(judged, origin))
    return out, judged


def _judge_seeds(tasks: Sequence[Task], folder: Path, options: EvaluateOptions, report: Report) -> list[Evaluation]:
    if len(tasks) == 1:
        return [_judge_one(tasks[0], folder, options, report)]
    names = [f"seed-{task.subject.seed}" for task in tasks]
    found = [_judge_one(task, folder / name, options, report) for task, name in zip(tasks, names, strict=True)]
    origin = provenance(found[0].test.faces.sha256)
    _write(folder, seeds_metrics(found) | {"provenance": origin}, seeds_page(found, names, origin))
    return found


def _judge_one(task: Task, folder: Path, options: EvaluateOptions, report: Report) -> Evaluation:
    evaluation = evaluate_task(task, tta=options.tta, report=report)
    report(f"writing {folder}", 0, 1)
    origin = provenance(evaluation.test.faces.sha256)
    metrics = evaluation.to_json() | {"provenance": origin}
    text = write_report(evaluation, origin)
    save_bytes(folder / "predictions.npz", evaluation.predictions_file())
    _write(folder, metrics, text)
    return evaluation


def _write(folder: Path, metrics: Mapping[str, Any], text: str) -> None:
    save_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    write_page(folder / "report.html", text)


def _name(tasks: Mapping[str, Sequence[Task]], data: Sequence[Path | None]) -> str:
    """The folder of a report below reports/evaluate/: model and split; the set where it is not FER-2013."""
    (name, first), *others = tasks.items()
    model = "".join(c if c.isalnum() or c in "-_." else "-" for c in first[0].subject.name)
    if others:
        return "-".join([model, "on", *tasks])
    split = first[0].selection.split
    return f"{model}-{split}" if is_fer2013(start_of(data[0])) else f"{model}-{name}-{split}"
