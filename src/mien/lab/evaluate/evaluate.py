"""``mien evaluate``: every seed on every set, and what is written of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mien.lab import checkpoint
from mien.lab.evaluate.answer import Report, check_views
from mien.lab.evaluate.evaluation import Evaluation, Task, judge, prepare
from mien.lab.evaluate.report import write_report
from mien.lab.evaluate.sets import load_tests
from mien.lab.evaluate.subject import find_subjects
from mien.lab.evaluate.summary import seeds_metrics, seeds_page, transfer_metrics, transfer_page
from mien.lab.feed.asked import read_split
from mien.lab.feed.sets import is_fer2013, start_of
from mien.lab.page import write_page
from mien.lab.provenance import provenance


@dataclass(frozen=True)
class Wish:
    """How to evaluate: ``split`` (``None``: PublicTest, or all of an undivided set), folder ``out`` and the rest."""

    split: str | None = None
    out: Path | None = None
    label_map: Mapping[str, str] = field(default_factory=dict)
    views: str = "one"
    precision: str = "int8"


def evaluate(
    what: str, data: Sequence[Path | None] = (None,), *, wish: Wish | None = None, report: Report = lambda *_: None
) -> tuple[Path, dict[str, list[Evaluation]]]:
    """Evaluate ``what`` (see ``find_subjects``) on every set of ``data``; write files; answer the folder and results.

    The results are by the name of the set, one for each seed. A single evaluation writes ``metrics.json``,
    ``answers.npz`` and ``report.html``; several seeds or sets a folder for each and a page over all. Nothing is read by
    the model before everything else has been checked. ``report`` hears what is done, how far it is, and of how much.
    Raises ``ModelError``, ``DataError`` and ``OutputError``.
    """
    wish = wish or Wish()
    check_views(wish.views)
    split = read_split(wish.split)
    subjects = find_subjects(what, precision=wish.precision)
    report("reading faces", 0, 1)
    tests = load_tests(data, subjects[0].emotions, size=subjects[0].size, label_map=wish.label_map)
    tasks = {test.name: [prepare(each, test, split, views=wish.views) for each in subjects] for test in tests}
    out = wish.out or Path("reports") / "evaluate" / _name(tasks, data)
    checkpoint.require_writable(out)
    judged = {
        name: _judge_seeds(each, out if len(tasks) == 1 else out / name, wish, report) for name, each in tasks.items()
    }
    if len(judged) > 1:
        origin = provenance(", ".join(dict.fromkeys(each[0].test.faces.sha256 for each in judged.values())))
        _write(out, transfer_metrics(judged) | {"provenance": origin}, transfer_page(judged, origin))
    return out, judged


def _judge_seeds(tasks: Sequence[Task], folder: Path, wish: Wish, report: Report) -> list[Evaluation]:
    if len(tasks) == 1:
        return [_judge_one(tasks[0], folder, wish, report)]
    names = [f"seed-{task.subject.seed}" for task in tasks]
    found = [_judge_one(task, folder / name, wish, report) for task, name in zip(tasks, names, strict=True)]
    origin = provenance(found[0].test.faces.sha256)
    _write(folder, seeds_metrics(found) | {"provenance": origin}, seeds_page(found, names, origin))
    return found


def _judge_one(task: Task, folder: Path, wish: Wish, report: Report) -> Evaluation:
    evaluation = judge(task, views=wish.views, report=report)
    report(f"writing {folder}", 0, 1)
    origin = provenance(evaluation.test.faces.sha256)
    metrics = evaluation.metrics() | {"provenance": origin}
    text = write_report(evaluation, origin)
    checkpoint.save_bytes(folder / "answers.npz", evaluation.answers_file())
    _write(folder, metrics, text)
    return evaluation


def _write(folder: Path, metrics: Mapping[str, Any], text: str) -> None:
    checkpoint.save_text(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    write_page(folder / "report.html", text)


def _name(tasks: Mapping[str, Sequence[Task]], data: Sequence[Path | None]) -> str:
    """The folder of a report below reports/evaluate/: model and split; the set where it is not FER-2013."""
    (name, first), *others = tasks.items()
    model = "".join(c if c.isalnum() or c in "-_." else "-" for c in first[0].subject.name)
    if others:
        return "-".join([model, "on", *tasks])
    split = first[0].selection.split
    return f"{model}-{split}" if is_fer2013(start_of(data[0])) else f"{model}-{name}-{split}"
