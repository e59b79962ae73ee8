"""MODEL -> what is evaluated: a model that reads faces, or the kept answers of a run; one for every seed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mien._emotions import Emotion, class_set
from mien._errors import DataError
from mien.lab.data import FaceSet
from mien.lab.judge.recorded import read_metrics
from mien.lab.model import Model, open_model
from mien.lab.train.history import read_log

_MODELS = ("final.pt", "model.onnx")
_ANSWERS = "answers.npz"


@dataclass(frozen=True, eq=False)
class Subject:
    """Something that answered, or will: ``model``, or where that is ``None`` the answers kept in the folder ``path``.

    ``seed`` is "" where nobody says; ``history`` holds the records of its training's epochs, where a log stands beside.
    """

    name: str
    emotions: tuple[Emotion, ...]
    size: int
    path: Path
    about: Mapping[str, str]
    seed: str = ""
    model: Model | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def find_subjects(what: str, *, precision: str = "int8") -> tuple[Subject, ...]:
    """What ``what`` names: all that ``open_model`` takes; a recipe's folder with several ``seed-*`` is one for each.

    A folder of results/ without a model is its kept answers. Where one seed of several has no model, all are judged by
    what was kept, so that their figures compare. Raises ``ModelError`` or ``DataError``.
    """
    path = Path(what)
    folders = [] if _holds(path, *_MODELS, _ANSWERS) else _seeds(path)
    if not folders:
        kept = _is_kept(path, precision)
        return (_kept(path) if kept else _opened(what, precision),)
    kept = any(_is_kept(folder, precision) for folder in folders)
    subjects = tuple(_kept(folder) if kept else _opened(str(folder), precision) for folder in folders)
    for other in subjects[1:]:
        if other.emotions != subjects[0].emotions:
            raise DataError(f"{what}: its seeds answer for different classes; evaluate them one by one")
    return subjects


def calibrated(model: Model, faces: FaceSet) -> Model:
    """``model``; a run is opened again so that it is calibrated on ``faces`` where it was trained on them."""
    return model if model.trained is None else open_model(model.path, faces=faces)


def learned_from(subject: Subject, faces: FaceSet) -> bool:
    """Whether the subject says that it was trained on this very set."""
    return subject.about.get("data_sha256") == faces.sha256


def _seeds(path: Path) -> list[Path]:
    seeds = [entry for entry in path.glob("seed-*") if _holds(entry, *_MODELS, _ANSWERS)] if path.is_dir() else []
    return sorted(seeds, key=lambda seed: (len(seed.name), seed.name))


def _holds(path: Path, *names: str) -> bool:
    return any((path / name).is_file() for name in names)


def _is_kept(path: Path, precision: str) -> bool:
    """Whether ``path`` has answers and no model of this precision: results/ keep a small int8 file at most."""
    wanted = ("final.pt", "model.onnx" if precision == "int8" else "model-fp32.onnx")
    return _holds(path, _ANSWERS) and not _holds(path, *wanted)


def _opened(what: str, precision: str) -> Subject:
    model = open_model(what, precision=precision)
    folder = model.path if model.path.is_dir() else model.path.parent
    seed = model.about.get("seed", "")
    return Subject(model.name, model.emotions, model.size, model.path, model.about, seed, model, read_log(folder))


def _kept(folder: Path) -> Subject:
    said = read_metrics(folder)
    try:
        data = json.loads((folder / "recipe.json").read_text("utf-8"))["data"]
        emotions, size = class_set(data["classes"]), int(data["size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'recipe.json'}: cannot be read ({error}); write it with `mien record`") from error
    about = {
        "kind": "kept answers of a run (fp32, calibrated)",
        "recipe": str(said["recipe"]),
        "seed": str(said["seed"]),
    }
    about |= {key: str(said[key]) for key in ("commit", "data_sha256", "machine") if key in said}
    return Subject(str(said["recipe"]), emotions, size, folder, about, str(said["seed"]), None, read_log(folder))
