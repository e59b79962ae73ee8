"""``mien stress``: what readings are worth when faces are noisy, blurred, dark, moved or half hidden."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def stress(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Names, ONNX files, run folders, or TOML of foreign models.")
    ],
    data: Annotated[
        Path | None, typer.Option(help="FER-2013 in any form, or a labelled folder or CSV; default: $MIEN_DATA.")
    ] = None,
    split: Annotated[str, typer.Option(help="Training, PublicTest, PrivateTest, or all.")] = "PublicTest",
    faces: Annotated[
        int | None,
        typer.Option(min=0, help="How many, each class with its share; 0: all. Default: 1500; with --groups all."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A spoiling or a kind (noisy, partial ...); repeatable.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="What mean corruption is relative to: a model or a stress.json; default: mien-0."),
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="Table with the column row or file, and a column a division of the faces.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of report.html, stress.json and stress.csv.")] = Path(
        "reports/stress"
    ),
    keep: Annotated[Path | None, typer.Option(help="Keep the figures of each model here, too, as NAME.json.")] = None,
    label_map: Annotated[
        list[str] | None, typer.Option("--map", metavar="LABEL=EMOTION", help="What a label of the data means.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the faces drawn and of all noise.")] = 0,
) -> None:
    """Spoil faces in 19 ways at five strengths and report what the answers of each MODEL are worth then.

    The same seed spoils the same faces alike for every model. The report shows no face of the data set.
    """
    from mien._errors import MissingExtraError

    try:
        from mien.lab.data import Split
        from mien.lab.provenance import provenance
        from mien.lab.stress import kept, spoilings
        from mien.lab.stress.faces import DEFAULT_COUNT
        from mien.lab.stress.groups import read_groups
        from mien.lab.stress.prepare import choose_reference, open_all
        from mien.lab.stress.report import write_report
        from mien.lab.stress.stress import Trial, name_models
        from mien.lab.stress.stress import stress as judge
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "lab") from error

    chosen = spoilings.choose(only or [])
    part = None if split == "all" else _choice(Split, split)
    labelled, opened = open_all(models, data, dict(_pair(text) for text in label_map or []))
    named = name_models(models, opened)
    divided = read_groups(groups, labelled) if groups else None
    count = faces if faces is not None else 0 if groups else DEFAULT_COUNT
    trial = Trial(part, count, chosen, seed)
    alike = dict(zip(models, named, strict=True))  # a reference may be called as its model is called here
    known, beside = choose_reference(alike.get(reference or "", reference), named, labelled, trial)
    if labelled.note:
        typer.echo(labelled.note, err=True)
    with _Bar() as bar:
        said = judge(
            named,
            labelled,
            trial,
            provenance=provenance(labelled.sha256),
            reference=known,
            beside=beside,
            groups=divided,
            report=bar,
        )
    kept.write_json(said, out / "stress.json")
    kept.write_table(said, out / "stress.csv")
    write_report(said, out / "report.html")
    if keep:
        kept.write_each(said, keep)
    _tell(said)
    typer.echo(str(out / "report.html"))


def _choice(kind: Any, text: str) -> Any:
    from mien._errors import DataError
    from mien.lab.data.columns import nearest

    by_name = {each.lower(): each for each in kind}
    if text.lower() not in by_name:
        raise DataError(f"no split {text!r}{nearest(text, list(kind))}; it is one of {', '.join(kind)}, all")
    return by_name[text.lower()]


def _pair(text: str) -> tuple[str, str]:
    from mien._errors import DataError

    label, equals, emotion = text.partition("=")
    if not (label and equals and emotion):
        raise DataError(f"--map {text!r}: write LABEL=EMOTION, such as joy=happy")
    return label.strip(), emotion.strip()


def _tell(said: Mapping[str, Any]) -> None:
    for model in said["models"]:
        clean, mean, ratio = model["clean"]["accuracy"], model["mean"]["accuracy"], model["corruption"]
        low, high = clean["interval"]
        against = ratio.get("why") or (
            f"mean corruption {ratio['mce']['value']:.1%} of {ratio['reference']}'s" if ratio["mce"] else ""
        )
        typer.echo(
            f"{model['name']}: {model['n']:,} faces, clean {clean['value']:.2%} ({low:.2%} to {high:.2%}), "
            f"spoilt {mean['value']:.2%}, answers flip {model['mean']['flips']:.1%}"
            + (f", {against}" if against else "")
        )
        left = "; ".join(f"{count:,} {why}" for why, count in model["account"].items())
        if left:
            typer.echo(f"  not judged: {left}")


class _Bar:
    """A rich progress bar on standard error; outside of a terminal, a line for each spoiling."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._progress.add_task("clean faces", total=None)
        self._doing = ""

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __call__(self, done: int, total: int, doing: str) -> None:
        self._progress.update(self._task, completed=done, total=total, description=doing)
        if doing != self._doing and not self._console.is_terminal:
            self._console.print(f"{doing}: from {done / total:.0%}", highlight=False)
        self._doing = doing
