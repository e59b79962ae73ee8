"""``mien stress``: what readings are worth when faces are noisy, blurred, dark, moved or half hidden."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.commands import _options
from mien.commands._extra import needs_lab
from mien.commands._progress import TerminalProgress


def stress(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Names, ONNX files, run folders, or TOML of foreign models.")
    ],
    data: _options.Data = None,
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
    label_map: _options.LabelMap = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the faces drawn and of all noise.")] = 0,
) -> None:
    """Spoil faces in 19 ways at five strengths and report what the answers of each MODEL are worth then.

    The same seed spoils the same faces alike for every model. The report shows no face of the data set.
    """
    with needs_lab():
        from mien.lab.data.datasets import read_map, read_part
        from mien.lab.files import require_writable
        from mien.lab.provenance import provenance
        from mien.lab.robustness import corruptions as spoilings
        from mien.lab.robustness import report as kept
        from mien.lab.robustness.groups import read_groups
        from mien.lab.robustness.predictions import DEFAULT_COUNT
        from mien.lab.robustness.report import write_report
        from mien.lab.robustness.run import Trial, choose_reference, name_models, open_all
        from mien.lab.robustness.run import stress as judge

    chosen = spoilings.choose(only or [])
    for folder in (out, *([keep] if keep else [])):  # before the work, not after it
        require_writable(folder)
    part = read_part(split)
    labelled, opened = open_all(models, data, read_map(label_map or []))
    named = name_models(models, opened)
    divided = read_groups(groups, labelled) if groups else None
    count = faces if faces is not None else 0 if groups else DEFAULT_COUNT
    trial = Trial(part, count, chosen, seed)
    alike = dict(zip(models, named, strict=True))  # a reference may be called as its model is called here
    known, beside = choose_reference(alike.get(reference or "", reference), named, labelled, trial)
    if labelled.note:
        typer.echo(labelled.note, err=True)
    with TerminalProgress(overall=True) as bar:
        said = judge(
            named,
            labelled,
            trial,
            provenance=provenance(labelled.sha256),
            reference=known,
            beside=beside,
            groups=divided,
            report=lambda done, total, doing: bar(doing, done, total),
        )
    kept.write_json(said, out / "stress.json")
    kept.write_table(said, out / "stress.csv")
    write_report(said, out / "report.html")
    if keep:
        kept.write_each(said, keep)
    _tell(said)
    typer.echo(str(out / "report.html"))


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
