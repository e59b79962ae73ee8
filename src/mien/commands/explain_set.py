"""The data set of ``mien explain``: figures and a page of where a model looks over many faces."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from mien.commands.lab import needs_lab
from mien.commands.progress import Stages
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
    keep: Path | None = None


def explain_set(wish: SetWish, label_map: Sequence[str]) -> None:
    """Explain the model on the data set, write ``explanation.json`` and ``report.html``, and say what was found."""
    with needs_lab():
        from mien.lab import checkpoint
        from mien.lab.explain import words
        from mien.lab.explain.look import Looker
        from mien.lab.explain.report import report
        from mien.lab.explain.study import study
        from mien.lab.feed.asked import chosen_split, read_map, read_split
        from mien.lab.feed.test_set import load_test_set
        from mien.lab.judge.examine import select_rows
        from mien.lab.model import open_model
        from mien.lab.page import write_page
        from mien.lab.provenance import provenance

    labels, wanted = read_map(label_map), read_split(wish.split)
    model = open_model(wish.model, precision=wish.precision, threads=wish.threads)
    Looker(model, wish.method, layer=wish.layer)  # what it cannot do is said before the faces are read
    faces = load_test_set(wish.data, model.emotions, size=model.size, labels=labels)
    if model.trained is not None:
        model = open_model(wish.model, faces=faces)  # calibrated where these are its faces
    selection = select_rows(faces, model.emotions, chosen_split(wanted, faces))
    for folder in (wish.folder, *([wish.keep] if wish.keep else [])):
        checkpoint.require_writable(folder)
    if faces.note:
        typer.echo(faces.note, err=True)
    with Stages() as bar:
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
    told = json.dumps({"model": about, **found.figures, "provenance": source}, indent=1) + "\n"
    checkpoint.save_text(wish.folder / "explanation.json", told)
    if wish.keep:
        checkpoint.save_text(wish.keep / f"{model.name}.json", told)
    write_page(wish.folder / "report.html", report(found, about=about, provenance=source))
    typer.echo(words.account(found.figures))
    for said in found.figures["claims"]:
        typer.echo(f"{said['region']} for {said['emotion']}: {words.claim(said)}")
    typer.echo(words.faithful(found.figures["faithfulness"]))
    typer.echo(words.sound(found.figures["sanity"]))
    typer.echo(str(wish.folder / "report.html"))
