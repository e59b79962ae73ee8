"""The pictures of ``mien explain``: each face beside its maps. An ONNX file needs the core alone, a run the lab."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import typer

from mien._emotions import Emotion
from mien._errors import ImageError, MienError, ModelError
from mien._face import Face, Reading
from mien.commands.gather import gather
from mien.commands.lab import needs_lab
from mien.commands.map_page import PAGE, MapPage
from mien.commands.map_sheet import asked
from mien.commands.predict import ErrorLines, Tally, _with_progress, model_facts
from mien.decode import Source, decode, name_of
from mien.detect import Detector, open_detector
from mien.extract import extract
from mien.pipeline import Reader

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
    found = gather(what)
    emotions, about, readings = _open(wish, found.sources)
    method = wish.method + ("" if wish.layer == "features" else f" of layer {wish.layer}")
    tally, errors = Tally(), ErrorLines()
    count = len(found.failed) + len(found.sources)
    page = MapPage(wish.folder, emotions, about=about, method=method, meaning=_MEANING)
    with page, closing(readings):
        for reading in _with_progress(chain(found.failed, readings), count, bar=True):
            for sink in (tally, errors, page):
                sink.add(reading)
    typer.echo(f"{tally}. {wish.folder / PAGE}")
    return tally.status


def is_run(model: str) -> bool:
    """Whether ``model`` is the folder of a run, whose torch net has gradients."""
    path = Path(model)
    return (path / "final.pt").is_file() or any(path.glob("seed-*/final.pt"))


def _open(wish: PictureWish, sources: Sequence[Source]) -> tuple[list[Emotion], dict[str, str], Readings]:
    """The emotions that are asked for, what is said of the model, and the readings."""
    if is_run(wish.model):
        return _by_run(wish, sources)
    if wish.method != "map" or wish.layer != "features":
        raise ModelError(
            f"{wish.method} of {wish.layer} needs a run's torch net, and {wish.model} is an ONNX file; "
            "name a run (--model runs/NAME), or take --method map"
        )
    reader = Reader(wish.model, detector=wish.detector, precision=wish.precision, threads=wish.threads)
    emotions = _emotions(wish.emotions, reader.model.emotions, reader.model.name)
    return emotions, model_facts(reader), reader.read_many(sources, keep_pixels=True)


def _by_run(wish: PictureWish, sources: Sequence[Source]) -> tuple[list[Emotion], dict[str, str], Readings]:
    with needs_lab():
        from mien.lab.explain.look import Looker
        from mien.lab.model import open_model
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


def _read(looker: Any, sources: Iterable[Source], emotions: Sequence[Emotion], find: Detector) -> Readings:
    """As the core's reader reads, but with a ``Looker`` and the asked maps alone: each costs a pass of its own."""
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
