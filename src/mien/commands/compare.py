"""``mien compare``: many models in one table and report, with paired tests, or a family of recipes as a study."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._extra import needs_lab
from mien.commands._progress import TerminalProgress

_LINES = 4  # sentences about differences that the terminal shows; the report has all


def compare_command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of results/ (their kept answers), run folders, embedded models, ONNX files or TOML adapters; "
            "none: everything under results/ and the default model."
        ),
    ] = None,
    data: _options.DataOption = None,
    split: Annotated[str, typer.Option(help="PublicTest, PrivateTest, Training or all.")] = "PublicTest",
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("reports/compare"),
    latency: Annotated[bool, typer.Option(help="Time every model on one thread.")] = True,
    grid: Annotated[str, typer.Option(help="A family of recipes to study instead: vgg-vs-resnet.")] = "",
    keep: Annotated[
        Path | None, typer.Option(help="Keep the figures here, too, as SPLIT.json, of a study as FAMILY.json.")
    ] = None,
) -> None:
    """Compare models: figures with intervals, which differences are noise, cost, recall, disagreement."""
    from mien._errors import DataError

    with needs_lab():
        from mien.lab import compare as lab
        from mien.lab.data.datasets import read_part
        from mien.lab.files import require_writable
        from mien.lab.provenance import provenance

    part = read_part(split)
    if grid and runs:
        raise DataError("--grid finds its runs itself; leave RUN out, or leave --grid out")
    for folder in (out, *([keep] if keep else [])):
        require_writable(folder)
    with TerminalProgress(lines=False) as progress:
        if grid:
            study = lab.study(grid, data, part, latency=latency, progress=progress)
            lab.write_study(study, out, provenance(study.comparison.faces.sha256))
            if keep:
                lab.keep_study(study, keep, provenance(study.comparison.faces.sha256))
            compared, lines = study.comparison, _of_study(study)
        else:
            named = list(runs) if runs else [*lab.recorded_folders(), DEFAULT_MODEL]
            compared = lab.compare(named, data, part, latency=latency, progress=progress)
            lab.write_comparison(compared, out, provenance(compared.faces.sha256))
            if keep:
                lab.keep_comparison(compared, keep, provenance(compared.faces.sha256))
            lines = _of_comparison(compared)
    for line in lines:
        typer.echo(line)
    for warning in compared.warnings():
        typer.echo(f"note: {warning}", err=True)
    typer.echo(str(out / "report.html"))


def _of_comparison(comparison: Any, *, sentences: bool = True) -> list[str]:
    from mien.lab.compare import report as words

    width = max(len(c.name) for c in comparison.entries)
    lines = []
    for place in words.ranking(comparison):
        c, f = comparison.entries[place], comparison.metrics[place]["all"]
        low, high = f["interval"]
        lines.append(
            f"{c.name:<{width}}  {f['accuracy']:.2%} ({low:.2%} to {high:.2%})  macro F1 {f['macro_f1']:.2%}  "
            f"log loss {f['log_loss']:.3f}{_common(comparison, place)}"
        )
    real = sum(pair.accuracy_differs for pair in comparison.pairs)
    lines.append(f"{real} of {len(comparison.pairs)} pairs differ in accuracy by more than noise.")
    return lines + (words.differences_in_words(comparison, "accuracy")[:_LINES] if sentences else [])


def _common(comparison: Any, place: int) -> str:
    if not comparison.common.narrowed:
        return ""
    return f"  common faces {comparison.common_metrics[place]['accuracy']:.2%}"


def _of_study(study: Any) -> list[str]:
    lines = _of_comparison(study.comparison, sentences=False)
    for effect in study.shared:
        if effect.within is None and effect.figure == "accuracy":
            low, high = (100 * edge for edge in effect.interval)
            lines.append(
                f"{effect.axis}: {effect.first} over {effect.second} {100 * effect.value:+.1f} points "
                f"({low:+.1f} to {high:+.1f}) of accuracy on the shared faces, {effect.matched} matched settings"
            )
    return lines + [f"missing {member}: {what}" for member, what in study.missing.items()]
