"""``mien explain``: saliency maps of images, or of a model on a whole data set."""

import re
from collections.abc import Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from mien._emotions import Emotion
from mien._errors import MienError
from mien._inputs import Inputs, expand_inputs
from mien._suggest import suggest
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._progress import TerminalProgress
from mien.commands._terminal import Tally, echo, print_json, with_progress

_FOLDER = Path("reports/explain")
_MAP, _FEATURES = "map", "features"  # the method and layer that need no lab


def explain_command(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="WHAT", help="Images, folders or quoted globs; with --data, the model."),
    ] = None,
    model: _options.ModelOption = "",
    method: Annotated[
        str,
        typer.Option(help="map (needs no torch); of a run also grad-cam, grad-cam++, hires-cam, integrated-gradients."),
    ] = _MAP,
    layer: Annotated[str, typer.Option(help="Module of a run's net whose activations the map shows.")] = _FEATURES,
    emotion: Annotated[
        list[str] | None,
        typer.Option(help="Of images: also the map of this emotion; repeatable; all shows every emotion."),
    ] = None,
    data: _options.DataOption = None,
    split: _options.SplitOption = None,
    label_map: _options.LabelMapOption = None,
    skip_unreadable: _options.SkipUnreadableOption = False,
    faces: _options.FacesOption = None,
    align: Annotated[bool, typer.Option(help="Align the faces by eyes, nose and mouth.")] = True,
    baseline: Annotated[str, typer.Option(help="What replaces removed pixels: blur or mean.")] = "blur",
    seed: _options.SeedOption = None,
    out: _options.OutOption = None,
    as_json: _options.JsonOption = False,
    keep: _options.KeepOption = None,
    precision: _options.PrecisionOption = "int8",
    detector: _options.DetectorOption = "blazeface",
    device: _options.DeviceOption = "cpu",
    threads: _options.LabThreadsOption = None,
    again: _options.AgainOption = "",
    ledger: _options.LedgerOption = None,
) -> None:
    """Show where a model looks: maps of the faces in WHAT, or with --data attention by region and tests of the maps.

    Of images it writes NAME.maps.mien.png each, and explanation.html. Of a data set it writes explanation.json and
    report.html, which shows faces of the set: do not publish it. Without --faces, 600 are drawn. The default model is
    mien-1, the folder is reports/explain/images, reports/explain/MODEL-METHOD, or that of --out.
    """
    if data is None:
        of_data = {"--split": split, "--map": label_map, "--keep": keep, "--skip-unreadable": skip_unreadable}
        of_data |= {"--json": as_json, "--faces": faces is not None, "--no-align": not align, "--again": again}
        of_data |= {"--baseline": baseline != "blur", "--seed": seed is not None, "--ledger": ledger}
        for option, value in of_data.items():
            if value:
                raise MienError(f"{option} is for a data set; name one with --data, or leave it out")
        if not what:
            raise MienError("name images to explain, or a data set with --data")
        status = _explain_images(
            expand_inputs(what),
            model or DEFAULT_MODEL,
            emotion or [],
            method=method,
            layer=layer,
            precision=precision,
            detector=detector,
            device=device,
            threads=threads,
            folder=out or _FOLDER / "images",
        )
        raise typer.Exit(status)

    for option, value in {"--emotion": emotion, "--detector": detector != "blazeface"}.items():
        if value:
            raise MienError(f"{option} is for images; leave it out, or leave out --data")
    if len(what or []) + bool(model) > 1:
        raise MienError("with --data, name one model: mien explain MODEL --data SET")
    from mien.lab.data.datasets import read_map
    from mien.lab.explain.report import describe_explanation, write_explanation
    from mien.lab.explain.study import explain_dataset
    from mien.lab.files import load_json, output_folder, require_writable

    name = what[0] if what else model or DEFAULT_MODEL
    folder = out or _FOLDER / f"{_file_name(name)}-{method}"
    labels = read_map(label_map or [])
    require_writable(keep)  # before the work
    names, runtime = ("explanation.json", "report.html"), _options.lab_runtime(device, threads)
    with output_folder(folder, names), runtime, TerminalProgress() as progress:
        explanation = explain_dataset(
            name,
            data,
            split=split,
            method=method,
            layer=layer,
            faces=600 if faces is None else faces,
            align=align,
            baseline=baseline,
            labels=labels,
            skip_unreadable=skip_unreadable,
            precision=precision,
            seed=seed or 0,
            ledger=_options.open_ledger(ledger, again),
            progress=progress,
        )
        report = write_explanation(explanation, folder, json_folder=keep)
    if as_json:
        print_json(load_json(folder / "explanation.json"))
        return
    if explanation.note:
        echo(explanation.note, err=True)
    for line in (*describe_explanation(explanation.metrics), report):
        echo(str(line))


def _explain_images(
    inputs: Inputs,
    model: str,
    emotions: Sequence[str],
    *,
    method: str,
    layer: str,
    precision: str,
    detector: str,
    device: str,
    threads: int | None,
    folder: Path,
) -> int:
    """Write the maps of images; return the exit status."""
    from mien.report.maps import MAP_PAGE, MapReport

    path = Path(model)
    is_run = (path / "final.pt").is_file() or any(path.glob("seed-*/final.pt"))
    if is_run or method != _MAP or layer != _FEATURES:
        from mien.detect import open_detector
        from mien.lab.explain.methods import Explainer
        from mien.lab.models import open_model

        with _options.lab_runtime(device, threads):
            opened = open_model(model)
        explainer = Explainer(opened, method, layer)
        chosen = _choose(emotions, opened.emotions, opened.name)
        about = {"model": opened.name, **opened.about, "detector": detector}
        readings = explainer.read_images(inputs.sources, chosen, open_detector(detector))
    else:
        cores = 1 if threads is None else threads
        reader = _options.open_reader(
            model, detector=detector, precision=precision, device=device, abstain=0.0, min_quality=0.0, threads=cores
        )
        chosen, about = _choose(emotions, reader.model.emotions, reader.model.name), reader.describe()
        readings = reader.read_many(inputs.sources, keep_pixels=True)
    if left_out := inputs.note():
        about |= {"left out": left_out}
    tally, count = Tally(), len(inputs.failed) + len(inputs.sources)
    shown_method = method if layer == _FEATURES else f"{method} of layer {layer}"
    with MapReport(folder, chosen, about=about, method=shown_method, roots=inputs.roots) as report, closing(readings):
        for reading in with_progress(chain(inputs.failed, readings), count):
            tally.add(reading)
            report.add(reading)
    echo(f"{tally}{f'; left out: {left_out}' if left_out else ''}. {folder / MAP_PAGE}")
    return tally.status


def _choose(names: Sequence[str], known: Sequence[Emotion], model: str) -> list[Emotion]:
    for name in names:
        if name not in known and name != "all":
            raise MienError(f"{model} has no emotion {name!r}{suggest(name, known)}; it has {', '.join(known)}, or all")
    return [emotion for emotion in known if emotion in names or "all" in names]


def _file_name(model: str) -> str:
    """The name of a model as part of a file name; of a seed also its recipe."""
    path = Path(model)
    seed = path.name.startswith("seed-")
    parts = [path.parent.name, path.name] if seed else [path.stem if path.is_file() else path.name]
    return re.sub(r"[^\w.+-]+", "-", "-".join(parts)).strip("-.") or "model"
