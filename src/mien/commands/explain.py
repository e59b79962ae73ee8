"""``mien explain``: where a model looks, in pictures or over a whole data set."""

import json
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from mien._emotions import Emotion
from mien._errors import ImageError, MienError, ModelError
from mien._face import Face, Reading
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options
from mien.commands._extra import needs_lab
from mien.commands._inputs import gather
from mien.commands._progress import TerminalProgress
from mien.commands._terminal import ErrorLines, Tally, with_progress

if TYPE_CHECKING:
    from mien.decode import Source
    from mien.detect import Detector

_MEANING = "Bright places speak for it, places without colour do not. It shows what the network used, not what is felt."


Readings = Generator[Reading, None, None]


@dataclass(frozen=True)
class PictureWish:
    """What is asked of pictures, as the command's options name it."""

    model: str
    folder: Path
    method: str
    layer: str
    emotions: Sequence[str]
    precision: str
    detector: str
    threads: int


def explain_pictures(what: Sequence[str], wish: PictureWish) -> int:
    """Write the maps of the pictures that ``what`` names; returns the exit status of ``mien predict``."""
    from mien.commands.explain_images import PAGE, MapPage

    found = gather(what)
    emotions, about, readings = _open(wish, found.sources)
    method = wish.method + ("" if wish.layer == "features" else f" of layer {wish.layer}")
    tally, errors = Tally(), ErrorLines()
    count = len(found.failed) + len(found.sources)
    page = MapPage(wish.folder, emotions, about=about, method=method, meaning=_MEANING)
    with page, closing(readings):
        for reading in with_progress(chain(found.failed, readings), count):
            for sink in (tally, errors, page):
                sink.add(reading)
    typer.echo(f"{tally}. {wish.folder / PAGE}")
    return tally.status


def is_run(model: str) -> bool:
    """Whether ``model`` is the folder of a run, whose torch net has gradients."""
    path = Path(model)
    return (path / "final.pt").is_file() or any(path.glob("seed-*/final.pt"))


def _open(wish: PictureWish, sources: Sequence["Source"]) -> tuple[list[Emotion], dict[str, str], Readings]:
    """The emotions that are asked for, what is said of the model, and the readings."""
    if is_run(wish.model):
        return _by_run(wish, sources)
    if wish.method != "map" or wish.layer != "features":
        raise ModelError(
            f"{wish.method} of {wish.layer} needs a run's torch net, and {wish.model} is an ONNX file; "
            "name a run (--model runs/NAME), or take --method map"
        )
    from mien.reader import Reader

    reader = Reader(wish.model, detector=wish.detector, precision=wish.precision, threads=wish.threads)
    emotions = _emotions(wish.emotions, reader.model.emotions, reader.model.name)
    return emotions, reader.describe(), reader.read_many(sources, keep_pixels=True)


def _by_run(wish: PictureWish, sources: Sequence["Source"]) -> tuple[list[Emotion], dict[str, str], Readings]:
    from mien.detect import open_detector

    with needs_lab():
        from mien.lab.explain.methods import Looker
        from mien.lab.models import open_model
    model = open_model(wish.model)
    emotions = _emotions(wish.emotions, model.emotions, model.name)
    looker = Looker(model, wish.method, layer=wish.layer)
    about = {"model": model.name, **model.about, "detector": wish.detector}
    return emotions, about, _read(looker, sources, emotions, open_detector(wish.detector))


def _emotions(names: Sequence[str], known: Sequence[Emotion], model: str) -> list[Emotion]:
    for name in names:
        if name not in known and name != "all":
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {str(near[0])!r}?)" if near else ""
            raise MienError(
                f"{model} does not know the emotion {name!r}{hint}; it knows {', '.join(known)}, or say all"
            )
    return [emotion for emotion in known if emotion in names or "all" in names]


def _read(looker: Any, sources: Iterable["Source"], emotions: Sequence[Emotion], find: "Detector") -> Readings:
    """As the core's reader reads, but with a ``Looker`` and the asked maps alone: each costs a pass of its own."""
    from mien.commands.explain_images import asked
    from mien.decode import decode, name_of
    from mien.extract import extract

    for source in sources:
        try:
            picture = decode(source)
        except ImageError as error:
            yield Reading((), name_of(source), (0, 0), error=" ".join(str(error).split()))
            continue
        detections = find(picture.pixels)
        crops, to_image = extract(picture.pixels, detections, size=looker.model.size)
        known = looker.model.emotions
        faces = []
        for detection, crop, matrix, row in zip(detections, crops, to_image, looker.read(crops), strict=True):
            probs = dict(zip(known, row.tolist(), strict=True))
            top = known[int(row.argmax())]
            places = np.array([known.index(e) for e in asked(top, emotions)])
            seen = looker.maps(np.repeat(crop[None], len(places), axis=0), places)
            maps = np.zeros((len(known), *seen.shape[1:]), np.float32)
            maps[places] = seen
            box, score, points = detection.box, detection.score, detection.points
            faces.append(Face(box, score, points, top, probs[top], probs, maps, crop, matrix))
        height, width = picture.pixels.shape[:2]
        yield Reading(tuple(faces), picture.source, (width, height), picture.note, pixels=picture.pixels)


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
    from mien.detect import open_detector

    with needs_lab():
        from mien.lab.data.datasets import chosen_split, load_test_set, read_map, read_split
        from mien.lab.explain import report as words
        from mien.lab.explain.methods import Looker
        from mien.lab.explain.report import report
        from mien.lab.explain.study import study
        from mien.lab.files import require_writable, save_text
        from mien.lab.html import write_page
        from mien.lab.models import open_model
        from mien.lab.predictions import select_rows
        from mien.lab.provenance import provenance

    labels, wanted = read_map(label_map), read_split(wish.split)
    model = open_model(wish.model, precision=wish.precision, threads=wish.threads)
    Looker(model, wish.method, layer=wish.layer)  # what it cannot do is said before the faces are read
    faces = load_test_set(wish.data, model.emotions, size=model.size, labels=labels)
    if model.trained is not None:
        model = open_model(wish.model, faces=faces)  # calibrated where these are its faces
    selection = select_rows(faces, model.emotions, chosen_split(wanted, faces))
    for folder in (wish.folder, *([wish.keep] if wish.keep else [])):
        require_writable(folder)
    if faces.note:
        typer.echo(faces.note, err=True)
    with TerminalProgress() as bar:
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
    save_text(wish.folder / "explanation.json", told)
    if wish.keep:
        save_text(wish.keep / f"{model.name}.json", told)
    write_page(wish.folder / "report.html", report(found, about=about, provenance=source))
    typer.echo(words.account(found.figures))
    for said in found.figures["claims"]:
        typer.echo(f"{said['region']} for {said['emotion']}: {words.claim(said)}")
    typer.echo(words.faithful(found.figures["faithfulness"]))
    typer.echo(words.sound(found.figures["sanity"]))
    typer.echo(str(wish.folder / "report.html"))


# As mien.lab.explain has them, which may not be there.
METHODS = ("map", "grad-cam", "grad-cam++", "hires-cam", "integrated-gradients")


BASELINES = ("blur", "mean")


def explain(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WHAT]...", help="Pictures, folders or quoted globs; with --data, the model."),
    ] = None,
    model: Annotated[
        str, typer.Option(help=f"An embedded model, an ONNX file, or the folder of a run; default: {DEFAULT_MODEL}.")
    ] = "",
    method: Annotated[
        str,
        typer.Option(help="map (needs no torch); of a run also grad-cam, grad-cam++, hires-cam, integrated-gradients."),
    ] = "map",
    layer: Annotated[str, typer.Option(help="Module of a run's net whose places are shown.")] = "features",
    emotion: Annotated[
        list[str] | None,
        typer.Option(help="In pictures: also this emotion's map; may come several times; all shows every one."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A data set to explain the model on, instead of pictures.")] = None,
    split: _options.Split = None,
    label_map: _options.LabelMap = None,
    faces: Annotated[int, typer.Option(min=20, help="Faces of the data set at most, evenly from its classes.")] = 600,
    align: Annotated[bool, typer.Option(help="Lay faces on each other by eyes, nose and mouth.")] = True,
    baseline: Annotated[str, typer.Option(help="What removed pixels become: blur or mean.")] = "blur",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the drawn faces and of everything random.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: reports/explain/...")] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Keep the figures of a data set here, too, as MODEL.json: they hold no face.")
    ] = None,
    precision: _options.Precision = "int8",
    detector: _options.Detector = "blazeface",
    threads: Annotated[int, typer.Option(min=1, help="Cores to use.")] = 1,
) -> None:
    """Show where a model looks: in WHAT, a face and its maps; with --data, mean maps, attention by region and tests.

    Of pictures it writes NAME.maps.mien.png each, and explanation.html; of a data set explanation.json and report.html,
    which shows faces of the set and is yours to keep.
    """
    for option, word, known in (("method", method, METHODS), ("baseline", baseline, BASELINES)):
        if word not in known:
            raise MienError(f"unknown {option} {word!r}{_nearest(word, known)} (there are: {', '.join(known)})")
    where = Path("reports") / "explain"
    if data is not None:
        if emotion:
            raise MienError("--emotion is for pictures; a data set is explained for every emotion that it is read as")
        name = _model_of(what or [], model)
        folder = out or where / f"{_word(name)}-{method}"
        explain_set(
            SetWish(name, data, split, folder, method, layer, faces, align, baseline, seed, precision, threads, keep),
            label_map or [],
        )
        return
    if not what:
        raise MienError("name pictures to explain, or a data set with --data")
    if split or label_map or keep:
        option = "--split" if split else "--map" if label_map else "--keep"
        raise MienError(f"{option} is for a data set; name one with --data, or leave it out")

    wish = PictureWish(
        model or DEFAULT_MODEL, out or where / "pictures", method, layer, emotion or [], precision, detector, threads
    )
    raise typer.Exit(explain_pictures(what, wish))


def _nearest(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _model_of(what: Sequence[str], model: str) -> str:
    if len(what) + bool(model) > 1:
        raise MienError("with --data, name one model: mien explain MODEL --data SET")
    return next(iter(what), model) or DEFAULT_MODEL


def _word(name: str) -> str:
    """The name of a model as a part of a file's name; of a run the recipe's, too."""
    path = Path(name)
    parts = (
        [path.parent.name, path.name] if path.name.startswith("seed-") else [path.stem if path.is_file() else path.name]
    )
    return re.sub(r"[^\w.+-]+", "-", "-".join(parts)).strip("-.") or "model"
