"""``mien explain``: saliency maps of images, or of a model on a whole data set."""

import re
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien._emotions import Emotion
from mien._errors import MienError
from mien._face import Reading
from mien._suggest import suggest
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._extra import needs_lab
from mien.commands._inputs import Gathered, gather
from mien.commands._progress import TerminalProgress
from mien.commands._terminal import ErrorLines, Tally, with_progress

if TYPE_CHECKING:
    from mien.decode import Source

_FOLDER = Path("reports") / "explain"
_MAP, _FEATURES = "map", "features"  # the method and layer that need no lab
_Opened = tuple[list[Emotion], dict[str, str], Generator[Reading, None, None]]


def explain_command(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WHAT]...", help="Images, folders or quoted globs; with --data, the model."),
    ] = None,
    model: Annotated[
        str, typer.Option(help=f"An embedded model, an ONNX file, or the folder of a run; default: {DEFAULT_MODEL}.")
    ] = "",
    method: Annotated[
        str,
        typer.Option(help="map (needs no torch); of a run also grad-cam, grad-cam++, hires-cam, integrated-gradients."),
    ] = _MAP,
    layer: Annotated[str, typer.Option(help="Module of a run's net whose places are shown.")] = _FEATURES,
    emotion: Annotated[
        list[str] | None,
        typer.Option(help="Of images: also the map of this emotion; repeatable; all shows every emotion."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A data set to explain the model on, instead of images.")] = None,
    split: _options.SplitOption = None,
    label_map: _options.LabelMapOption = None,
    faces: Annotated[int, typer.Option(min=20, help="Largest number of faces of the data set.")] = 600,
    align: Annotated[bool, typer.Option(help="Align the faces by eyes, nose and mouth.")] = True,
    baseline: Annotated[str, typer.Option(help="What replaces removed pixels: blur or mean.")] = "blur",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawn faces and of everything random.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: reports/explain/...")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Folder for the metrics of a data set as MODEL.json; they show no face.")
    ] = None,
    precision: _options.PrecisionOption = "int8",
    detector: _options.DetectorOption = "blazeface",
    threads: Annotated[int, typer.Option(min=1, help="Cores to use.")] = 1,
) -> None:
    """Show where a model looks: maps of the faces in WHAT, or with --data attention by region and tests of the maps.

    Of images it writes NAME.maps.mien.png each, and explanation.html. Of a data set it writes explanation.json and
    report.html, which shows faces of the set: do not publish it.
    """
    if data is None:
        for option, value in (("--split", split), ("--map", label_map), ("--keep", keep)):
            if value:
                raise MienError(f"{option} is for a data set; name one with --data, or leave it out")
        if not what:
            raise MienError("name images to explain, or a data set with --data")
        name, found = model or DEFAULT_MODEL, gather(what)
        needs_run = _is_run(name) or method != _MAP or layer != _FEATURES
        opened = (
            _open_run(name, method, layer, emotion or [], found.sources, detector)
            if needs_run
            else _open_reader(name, emotion or [], found.sources, precision, detector, threads)
        )
        shown = method if layer == _FEATURES else f"{method} of layer {layer}"
        raise typer.Exit(_write_maps(opened, found, out or _FOLDER / "images", shown))

    if emotion:
        raise MienError("--emotion is for images; a data set is explained for every predicted emotion")
    name = _model_of(what or [], model)
    folder = out or _FOLDER / f"{_file_name(name)}-{method}"
    with needs_lab():
        from mien.lab.data.datasets import read_map
        from mien.lab.explain.report import describe_explanation, write_explanation
        from mien.lab.explain.study import explain_dataset
        from mien.lab.files import require_writable

    labels = read_map(label_map or [])
    for each in (folder, *([keep] if keep else [])):  # before the work
        require_writable(each)
    with TerminalProgress() as progress:
        explanation = explain_dataset(
            name,
            data,
            split=split,
            method=method,
            layer=layer,
            faces=faces,
            align=align,
            baseline=baseline,
            labels=labels,
            precision=precision,
            threads=threads,
            seed=seed,
            progress=progress,
        )
    if explanation.note:
        typer.echo(explanation.note, err=True)
    report = write_explanation(explanation, folder, keep=keep)
    for line in (*describe_explanation(explanation.metrics), report):
        typer.echo(str(line))


def _write_maps(opened: _Opened, found: Gathered, folder: Path, method: str) -> int:
    """Write the maps of images; return the exit status."""
    from mien.report.maps import MAP_PAGE, MapReport

    emotions, about, readings = opened
    tally, errors = Tally(), ErrorLines()
    with MapReport(folder, emotions, about=about, method=method) as report, closing(readings):
        for reading in with_progress(chain(found.failed, readings), len(found.failed) + len(found.sources)):
            for sink in (tally, errors, report):
                sink.add(reading)
    typer.echo(f"{tally}. {folder / MAP_PAGE}")
    return tally.status


def _open_reader(
    model: str, emotions: Sequence[str], sources: Sequence["Source"], precision: str, detector: str, threads: int
) -> _Opened:
    from mien.reader import Reader

    reader = Reader(model, detector=detector, precision=precision, threads=threads)
    chosen = _choose(emotions, reader.model.emotions, reader.model.name)
    return chosen, reader.describe(), reader.read_many(sources, keep_pixels=True)


def _open_run(
    model: str, method: str, layer: str, emotions: Sequence[str], sources: Sequence["Source"], detector: str
) -> _Opened:
    with needs_lab():
        from mien.lab.explain.methods import Explainer
        from mien.lab.models import open_model
    from mien.detect import open_detector

    opened = open_model(model)
    explainer = Explainer(opened, method, layer)
    chosen = _choose(emotions, opened.emotions, opened.name)
    about = {"model": opened.name, **opened.about, "detector": detector}
    return chosen, about, explainer.read_images(sources, chosen, open_detector(detector))


def _is_run(model: str) -> bool:
    """Whether ``model`` is the folder of a run, whose torch net has gradients."""
    path = Path(model)
    return (path / "final.pt").is_file() or any(path.glob("seed-*/final.pt"))


def _choose(names: Sequence[str], known: Sequence[Emotion], model: str) -> list[Emotion]:
    for name in names:
        if name not in known and name != "all":
            raise MienError(f"{model} has no emotion {name!r}{suggest(name, known)}; it has {', '.join(known)}, or all")
    return [emotion for emotion in known if emotion in names or "all" in names]


def _model_of(what: Sequence[str], model: str) -> str:
    if len(what) + bool(model) > 1:
        raise MienError("with --data, name one model: mien explain MODEL --data SET")
    return next(iter(what), model) or DEFAULT_MODEL


def _file_name(model: str) -> str:
    """The name of a model as part of a file name; of a seed also its recipe."""
    path = Path(model)
    seed = path.name.startswith("seed-")
    parts = [path.parent.name, path.name] if seed else [path.stem if path.is_file() else path.name]
    return re.sub(r"[^\w.+-]+", "-", "-".join(parts)).strip("-.") or "model"
