"""Evaluation of a model: every seed on every data set, written as metrics, predictions and reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mien._errors import DataError, checked
from mien._metrics import HEADLINE, format_metric, metric_name
from mien._page import escape
from mien._progress import Progress, no_progress
from mien._suggest import require_known
from mien.lab.data.datasets import read_split
from mien.lab.data.fer2013 import OFFICIAL_NAME
from mien.lab.evaluate.evaluation import (
    Evaluation,
    Task,
    check_uncalibrated,
    evaluate_task,
    prepare_evaluation,
)
from mien.lab.evaluate.plots import transfer_plot
from mien.lab.evaluate.report import class_cell, metric_keys, report_page, split_name, with_interval
from mien.lab.evaluate.subjects import answers_of_subject, find_subjects, load_tests
from mien.lab.files import file_set, output_folder, save_arrays, save_json, save_text
from mien.lab.html import headline, note, page, paragraph, section, table
from mien.lab.inference import TTA
from mien.lab.ledger import Answers, Ledger
from mien.lab.provenance import provenance


@dataclass(frozen=True)
class EvaluateOptions:
    """How to evaluate.

    Attributes:
        split: ``"PublicTest"``, ``"PrivateTest"``, ``"Training"`` or ``"all"``; ``None`` is PublicTest, or all rows of
            a data set without splits.
        out: Folder to write to; ``None`` is ``reports/evaluate/MODEL-SPLIT``.
        label_map: Label of a data set -> name of an emotion, or ``""`` to exclude its faces.
        tta: Test-time augmentation, a key of ``mien.lab.inference.TTA``.
        precision: Which file of a model is used, ``"int8"`` or ``"fp32"``.
        skip_unreadable: Whether images that cannot be read are left out and counted.
        ledger: Where a look at PrivateTest is written.
        uncalibrated: Whether a run is evaluated without its calibration.
    """

    split: str | None = None
    out: Path | None = None
    label_map: Mapping[str, str] = field(default_factory=dict)
    tta: str = "none"
    precision: str = "int8"
    skip_unreadable: bool = False
    ledger: Ledger = field(default_factory=Ledger)
    uncalibrated: bool = False


@checked
def evaluate(
    model: str,
    data: Sequence[Path | None] = (None,),
    *,
    options: EvaluateOptions | None = None,
    progress: Progress = no_progress,
) -> tuple[Path, dict[str, list[Evaluation]]]:
    """Evaluate a model on labelled faces and write the result.

    Writes ``metrics.json``, ``predictions.npz`` and ``report.html``. With several seeds or data sets, each has its own
    folder beside a summary. All inputs are checked before the model predicts the first face.

    Args:
        model: What ``find_subjects`` accepts: an embedded model, a file, a run, or a folder with several seeds.
        data: Data sets; ``None`` is the one that ``$MIEN_DATA`` names.
        options: How to evaluate; ``None`` is the defaults.
        progress: Called with the stage and the number of faces done.

    Returns:
        The folder; and name of the data set -> one evaluation for each seed.

    Raises:
        ModelError: If the model cannot be opened or does not return probabilities.
        DataError: If a data set cannot be read or has no rows to evaluate, or PrivateTest was looked at before for
            another model of its family.
        OutputError: If the folder cannot be written, or another process writes to it.

    Example:
        >>> from mien.lab.evaluate.evaluate import EvaluateOptions, evaluate
        >>> folder, found = evaluate("mien-0", [Path("faces")], options=EvaluateOptions(split="all"))  # doctest: +SKIP
        >>> found["faces"][0].metrics["all"]["accuracy"]  # doctest: +SKIP
        0.703
    """
    options = options or EvaluateOptions()
    require_known("test-time augmentation", options.tta, TTA, DataError)
    split = read_split(options.split)
    subjects = find_subjects(model, precision=options.precision)
    for subject in subjects if options.uncalibrated else ():
        check_uncalibrated(subject)
    progress("reading faces")
    tests = load_tests(
        data,
        subjects[0].emotions,
        size=subjects[0].size,
        label_map=options.label_map,
        skip_unreadable=options.skip_unreadable,
    )
    tasks = {test.name: [prepare_evaluation(each, test, split, tta=options.tta) for each in subjects] for test in tests}
    counted = [task for tests in tasks.values() for task in tests if task.is_counted]
    if counted:
        options.ledger.require(_answers(task, options) for task in counted)
    out = options.out or Path("reports") / "evaluate" / _name(tasks)
    names = ("metrics.json", "predictions.npz", "report.html")
    with output_folder(out, names), file_set(out) as draft:
        evaluations = {
            name: _evaluate_seeds(each, draft if len(tasks) == 1 else draft / name, options, progress)
            for name, each in tasks.items()
        }
        progress(f"writing {out}")
        if len(evaluations) > 1:
            source = provenance(", ".join(dict.fromkeys(each[0].test.faces.sha256 for each in evaluations.values())))
            _write(draft, transfer_metrics(evaluations) | {"provenance": source}, transfer_page(evaluations, source))
    return out, evaluations


def summarize_seeds(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Summarise the metrics of several seeds.

    Args:
        evaluations: One evaluation for each seed, of the same rows.

    Returns:
        For ``all`` and, where every seed has some, ``clean`` rows: metric -> mean, sample standard deviation (``std``)
        and number of seeds (``n``), and the same for the ``recall`` of each emotion.
    """
    summary: dict[str, Any] = {}
    for part in ("all", "clean"):
        if all(part in e.metrics for e in evaluations):
            found = [e.metrics[part] for e in evaluations]
            summary[part] = {key: _spread([each[key] for each in found]) for key in metric_keys(found[0])}
            present = [name for name in found[0]["recall"] if name not in found[0]["absent"]]
            summary[part]["recall"] = {name: _spread([each["recall"][name] for each in found]) for name in present}
    return summary


def seeds_metrics(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Return the content of ``metrics.json`` over several seeds; the folder of each seed has its own.

    Args:
        evaluations: One evaluation for each seed, of the same rows.

    Returns:
        Plain values.
    """
    first = evaluations[0].to_json()
    shared = ["model", "emotions", "data", "data_sha256", "split", "total", "evaluated", "excluded", "protocol", "tta"]
    return {key: first[key] for key in shared if key in first} | {
        "seeds": [
            {"seed": e.subject.seed, "all": e.metrics["all"], "clean": e.metrics.get("clean")} for e in evaluations
        ],
        "summary": summarize_seeds(evaluations),
    }


def seeds_page(evaluations: Sequence[Evaluation], folders: Sequence[str], provenance: Mapping[str, str]) -> str:
    """Build the report over several seeds, with links to the report of each.

    Args:
        evaluations: One evaluation for each seed.
        folders: The folder of each, relative to the report.
        provenance: Shown at the end of the report.

    Returns:
        A self-contained HTML page.
    """
    first, summary, n = evaluations[0], summarize_seeds(evaluations), len(evaluations)
    keys, total = metric_keys(first.metrics["all"]), summary["all"]
    heads = {}
    for key in HEADLINE:
        spread = f"± {format_metric(key, total[key]['std'])}"
        heads[metric_name(key)] = (format_metric(key, total[key]["mean"]), spread)
    parts = {"all": "all rows"} | ({"clean": "clean rows"} if "clean" in summary else {})
    rows = [[metric_name(key), *(_plus_minus(summary[part][key], key) for part in parts)] for key in keys]
    each = [
        [f"seed {e.subject.seed}", *(format_metric(key, e.metrics["all"][key]) for key in keys)] for e in evaluations
    ]
    recall = [[name, _plus_minus(value, "recall")] for name, value in total["recall"].items()]
    return page(
        f"{first.subject.name} on {first.test.name}, {n} seeds",
        [
            section(
                "Metrics",
                headline(heads),
                table(["", *parts.values()], rows, caption=f"Mean ± sample standard deviation over {n} seeds."),
                note("The deviation shows how a metric depends on the seed, not how it depends on the faces."),
            ),
            section("Each seed", table(["", *(metric_name(key) for key in keys)], each), _links(folders)),
            section("Recall by emotion", table(["emotion", "recall"], recall)),
        ],
        lead=f"{split_name(first.selection.split)}: {len(first.predictions.labels):,} labelled faces, {n} seeds.",
        provenance=provenance,
    )


def transfer_metrics(sets: Mapping[str, Sequence[Evaluation]]) -> dict[str, Any]:
    """Return the content of ``metrics.json`` over several data sets; the folder of each data set has its own.

    Args:
        sets: Name of the data set -> one evaluation for each seed.

    Returns:
        Plain values.
    """
    content = {}
    for name, evaluations in sets.items():
        first = evaluations[0].to_json()
        shared = ("data_sha256", "split", "total", "evaluated", "excluded", "protocol", "warnings", "class_intervals")
        content[name] = {key: first[key] for key in shared} | {"all": first["all"], "clean": first.get("clean")}
        if len(evaluations) > 1:
            content[name]["summary"] = summarize_seeds(evaluations)
    model = next(iter(sets.values()))[0].subject
    return {"model": model.name, "about": dict(model.about), "sets": content}


def transfer_page(sets: Mapping[str, Sequence[Evaluation]], provenance: Mapping[str, str]) -> str:
    """Build the report that compares one model on several data sets.

    Args:
        sets: Name of the data set -> one evaluation for each seed.
        provenance: Shown at the end of the report.

    Returns:
        A self-contained HTML page.
    """
    firsts = {name: evaluations[0] for name, evaluations in sets.items()}
    one, seeds = next(iter(firsts.values())), max(len(evaluations) for evaluations in sets.values())
    keys = metric_keys(one.metrics["all"])
    transfer, counts = [], []
    for name, e in firsts.items():
        summary = summarize_seeds(sets[name])["all"] if len(sets[name]) > 1 else None
        cells = [_plus_minus(summary[key], key) if summary else with_interval(e.metrics["all"], key) for key in keys]
        evaluated, account = f"{len(e.predictions.labels):,}", e.selection.account
        transfer.append([name, split_name(e.selection.split), evaluated, *cells])
        reasons = "; ".join(f"{count:,}: {reason}" for reason, count in account.items()) or "none"
        counts.append([name, evaluated, f"{sum(account.values()):,}", reasons])
    emotions = map(str, one.predictions.emotions)
    recalls = [[emotion, *(class_cell(e, "recall", emotion) for e in firsts.values())] for emotion in emotions]
    explanation = (
        f"Mean ± standard deviation over {seeds} seeds; recalls and row counts below are those of the first seed."
        if seeds > 1
        else "In brackets: 95 % intervals."
    )
    warnings = dict.fromkeys(warning for e in firsts.values() for warning in e.warnings())
    return page(
        f"{one.subject.name} on {len(sets)} sets",
        [
            section(
                "Transfer",
                table(["set", "split", "faces", *map(metric_name, keys)], transfer),
                paragraph(explanation),
                _links(list(sets)),
                *(note(warning) for warning in warnings),
            ),
            section(
                "Recall by emotion",
                table(["emotion", *sets], recalls, caption="In brackets: 95 % intervals (Wilson)."),
                transfer_plot({name: e.metrics["all"] for name, e in firsts.items()}),
                note("Data sets differ in how faces were found, cropped and labelled, not only in their difficulty."),
            ),
            section("Excluded rows", table(["set", "evaluated", "excluded", "reasons"], counts, wrap=True)),
        ],
        lead="The same model and the same classes on different faces.",
        provenance=provenance,
    )


def _evaluate_seeds(
    tasks: Sequence[Task], folder: Path, options: EvaluateOptions, progress: Progress
) -> list[Evaluation]:
    if len(tasks) == 1:
        return [_evaluate_one(tasks[0], folder, options, progress)]
    names = [f"seed-{task.subject.seed}" for task in tasks]
    found = [_evaluate_one(task, folder / name, options, progress) for task, name in zip(tasks, names, strict=True)]
    source = provenance(found[0].test.faces.sha256, found[0].test.faces.note)
    _write(folder, seeds_metrics(found) | {"provenance": source}, seeds_page(found, names, source))
    return found


def _evaluate_one(task: Task, folder: Path, options: EvaluateOptions, progress: Progress) -> Evaluation:
    evaluation = evaluate_task(task, tta=options.tta, uncalibrated=options.uncalibrated, progress=progress)
    if task.is_counted:
        kind = "fp32" if task.recorded is not None else evaluation.subject.about.get("precision", "fp32")
        found = {kind if options.tta == "none" else f"{kind} {options.tta}": evaluation.predictions.accuracy}
        (looks,) = options.ledger.add([replace(_answers(task, options), accuracy=found)], task.test.faces.sha256)
        evaluation = replace(evaluation, looks=looks)
    source = provenance(evaluation.test.faces.sha256, evaluation.test.faces.note)
    text = report_page(evaluation, source)
    save_arrays(folder / "predictions.npz", evaluation.arrays())
    _write(folder, evaluation.to_json() | {"provenance": source}, text)
    return evaluation


def _answers(task: Task, options: EvaluateOptions) -> Answers:
    return answers_of_subject(task.subject, task.test.faces, options.tta, uncalibrated=options.uncalibrated)


def _write(folder: Path, metrics: Mapping[str, Any], text: str) -> None:
    save_json(folder / "metrics.json", metrics)
    save_text(folder / "report.html", text)


def _name(tasks: Mapping[str, Sequence[Task]]) -> str:
    """The folder of a report below reports/evaluate/: model, data set unless it is FER-2013, and split."""
    (name, first), *others = tasks.items()
    model = "".join(c if c.isalnum() or c in "-_." else "-" for c in first[0].subject.name)
    if others:
        return "-".join([model, "on", *tasks])
    split = first[0].selection.split
    return f"{model}-{split}" if name == OFFICIAL_NAME else f"{model}-{name}-{split}"


def _plus_minus(spread: Mapping[str, float], key: str) -> str:
    return f"{format_metric(key, spread['mean'])} ± {format_metric(key, spread['std'])}"


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else 0.0, "n": len(values)}


def _links(folders: Sequence[str]) -> str:
    items = ", ".join(f'<a href="{escape(folder)}/report.html">{escape(folder)}</a>' for folder in folders)
    return f"<p>Full reports: {items}.</p>"
