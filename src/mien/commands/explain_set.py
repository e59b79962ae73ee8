"""The data set of ``mien explain``: figures and a page of where a model looks over many faces."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from mien._errors import DataError, MienError, MissingExtraError
from mien.detect import open_detector

# A crop is enlarged to 192 pixels before its face is looked for: it is there, and fills most of that.
_SURE, _LEAST = 0.5, 80.0


@dataclass(frozen=True)
class SetWish:
    """What is asked of a data set, as the command's options name it."""

    model: str
    data: Path
    split: str | None
    folder: Path
    method: str
    layer: str
    faces: int
    align: bool
    baseline: str
    seed: int
    precision: str
    threads: int


def explain_set(wish: SetWish, label_map: Sequence[str]) -> None:
    """Explain the model on the data set, write ``explanation.json`` and ``report.html``, and say what was found."""
    try:
        from mien.lab import checkpoint
        from mien.lab.explain import words
        from mien.lab.explain.look import Looker
        from mien.lab.explain.report import report
        from mien.lab.explain.study import study
        from mien.lab.feed.test_set import load_test_set
        from mien.lab.judge.examine import select_rows
        from mien.lab.model import open_model
        from mien.lab.page import write_page
        from mien.lab.provenance import provenance
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "lab") from error

    labels = read_map(label_map)
    model = open_model(wish.model, precision=wish.precision, threads=wish.threads)
    Looker(model, wish.method, layer=wish.layer)  # what it cannot do is said before the faces are read
    faces = load_test_set(wish.data, model.emotions, size=model.size, labels=labels)
    if model.trained is not None:
        model = open_model(wish.model, faces=faces)  # calibrated where these are its faces
    selection = select_rows(faces, model.emotions, _split(faces, wish.split))
    if faces.note:
        typer.echo(faces.note, err=True)
    with _Bar() as bar:
        found = study(
            Looker(model, wish.method, layer=wish.layer),
            selection,
            locate=open_detector(threshold=_SURE, min_face=_LEAST) if wish.align else None,
            faces=wish.faces,
            baseline=wish.baseline,
            seed=wish.seed,
            report=bar,
        )
    source = provenance(faces.sha256)
    about = {"model": model.name, **model.about}
    kept = {"model": about, **found.figures, "provenance": source}
    checkpoint.save_text(wish.folder / "explanation.json", json.dumps(kept, indent=1) + "\n")
    write_page(wish.folder / "report.html", report(found, about=about, provenance=source))
    typer.echo(words.account(found.figures))
    for said in found.figures["claims"]:
        typer.echo(f"{said['region']} for {said['emotion']}: {words.claim(said)}")
    typer.echo(words.faithful(found.figures["faithfulness"]))
    typer.echo(words.sound(found.figures["sanity"]))
    typer.echo(str(wish.folder / "report.html"))


def read_map(pairs: Sequence[str]) -> Mapping[str, str]:
    """``LABEL=EMOTION`` words as a mapping. Raises ``MienError`` for a word without ``=``."""
    for pair in pairs:
        if "=" not in pair:
            raise MienError(f"--map {pair}: write LABEL=EMOTION")
    return dict(pair.split("=", 1) for pair in pairs)


def _split(faces: Any, wanted: str | None) -> Any:
    """The ``Split`` that is wanted of a ``FaceSet``, ``None`` for all of it."""
    from mien.lab.data import Split

    if wanted is None:
        return Split.PUBLIC_TEST if len(faces.split(Split.PUBLIC_TEST)) else None
    if wanted == "all":
        return None
    if wanted not in tuple(Split):
        raise DataError(f"unknown split {wanted!r}; it is one of {', '.join(Split)}, or all")
    return Split(wanted)


class _Bar:
    """A rich progress bar on standard error; outside of a terminal, a plain line for every new thing that is done."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal, transient=True)
        self.task = self.progress.add_task("", total=None)
        self.doing = ""

    def __enter__(self) -> "_Bar":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def __call__(self, doing: str, done: int, total: int) -> None:
        if doing != self.doing and not self.console.is_terminal:
            self.console.print(doing, highlight=False)
        if doing != self.doing:
            self.progress.reset(self.task, total=total)
        self.doing = doing
        self.progress.update(self.task, description=doing, completed=done, total=total)
