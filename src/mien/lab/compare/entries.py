"""The models of a comparison: recorded predictions, runs and files, each with its predictions for one set of faces."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mien._emotions import Emotion, class_set
from mien._errors import DataError, ModelError, RecipeError
from mien._progress import Progress, no_progress
from mien.infer import PRECISIONS, Classifier
from mien.lab.complexity import count_macs, count_parameters
from mien.lab.data import FaceSet, Split
from mien.lab.data.datasets import ALL
from mien.lab.evaluate.subjects import TestSet, load_tests, select
from mien.lab.models import Model, open_model
from mien.lab.predictions import Predictions, Selection, load_recorded, predict_selection, read_metrics
from mien.lab.recipe import load


@dataclass(frozen=True, eq=False)
class ModelEntry:
    """One model of a comparison and its predictions.

    - ``name``: unique in the comparison; ``recipe``, ``seed``: of its training, the seed empty where nobody says
    - ``source``: the folder or name it was given as; ``kind``: what answered, in words
    - ``parameters``, ``macs`` (multiply-accumulates a face): ``None`` where the file does not say
    - ``int8_bytes``: of its int8 file, ``None`` where there is none
    - ``claim``: what a document says of it, as in ``metrics.json``
    - ``learned_from``: SHA-256 of the set that it was trained on, empty where nobody says
    - ``model``: what can be timed, opened; ``None`` for recorded predictions, whose graph is made
      from ``plan``, their recipe
    """

    name: str
    recipe: str
    seed: str
    source: str
    kind: str
    predictions: Predictions
    selection: Selection
    parameters: int | None = None
    macs: int | None = None
    int8_bytes: int | None = None
    claim: Mapping[str, Any] = field(default_factory=dict)
    model: Model | None = None
    plan: Mapping[str, Any] | None = None
    learned_from: str = ""

    @property
    def precision(self) -> str:
        """Of what answered: int8 or fp32; "as it is" of somebody's own file."""
        if self.model is None or self.model.trained is not None:
            return "fp32"
        return self.model.about.get("precision", "as it is")

    @property
    def emotions(self) -> tuple[Emotion, ...]:
        """Its classes, in the order of its probabilities."""
        return self.predictions.emotions


@dataclass(frozen=True, eq=False)
class Entries:
    """The ``entries`` of a comparison, and the ``faces`` that they predict."""

    entries: tuple[ModelEntry, ...]
    faces: FaceSet


def recorded_folders(root: Path = Path("results")) -> list[str]:
    """Every folder below ``root`` that holds recorded predictions, sorted."""
    return sorted(str(path.parent) for path in root.rglob("predictions.npz"))


def load_entries(
    given: Sequence[str], data: Path | None, split: Split | None, *, progress: Progress = no_progress
) -> Entries:
    """The entries that ``given`` names, with predictions for ``split`` (``None``: all faces) of the set at ``data``.

    A folder of results/ gives its recorded predictions, for every seed below it; any other model is opened and run.
    ``progress`` is called with the name of each. Raises ``DataError`` or ``ModelError`` that names what is
    wrong with which of them.
    """
    places = [place for each in given for place in _places(each)]
    doubled = [place for place, times in Counter(_identity(p) for p in places).items() if times > 1]
    if doubled:
        raise DataError(f"{doubled[0]}: named twice; a model does not differ from itself")
    opened = {place: _open(place) for place in places if not _is_kept(Path(place))}
    size = max([model.size for model in opened.values()] or [0])
    (test,) = load_tests([data], _all_emotions(places, opened), size=size, label_map={})
    entries = []
    for place in places:
        progress(place)
        model = opened.get(place)
        entries.append(_asked(place, model, test, split) if model else _kept(Path(place), test, split))
    return Entries(unique_names(entries), test.faces)


def unique_names(entries: Sequence[ModelEntry]) -> tuple[ModelEntry, ...]:
    """The entries, with seeds, else sources, added to equal names."""
    for part in (lambda c: f"seed {c.seed}" if c.seed else "", lambda c: c.source):
        times = Counter(c.name for c in entries)
        entries = [replace(c, name=f"{c.name} ({part(c)})") if times[c.name] > 1 and part(c) else c for c in entries]
    return tuple(entries)


def _places(given: str) -> list[str]:
    """A folder of several seeds becomes each of them; everything else stays what it is."""
    path = Path(given)
    if not path.is_dir() or _is_kept(path) or (path / "final.pt").is_file():
        return [given]
    seeds = sorted(folder for folder in path.glob("seed-*") if _is_kept(folder) or (folder / "final.pt").is_file())
    below = [str(seed) for seed in seeds] or recorded_folders(path)  # of a family, or of results/ as a whole
    if not below:
        _refuse_unfinished(path)
    return below or [given]


def _refuse_unfinished(path: Path) -> None:
    """Raises ``DataError`` for a run that was not trained to its end, and for figures without answers."""
    for folder in (path, *sorted(path.glob("seed-*"))):
        if (folder / "checkpoint.pt").is_file():
            raise DataError(f"{folder}: the run is not finished; the `mien train` that began it goes on with it")
        if (folder / "metrics.json").is_file() and not (folder / "model.onnx").is_file():
            raise DataError(f"{folder}: holds figures but no answers; `mien record` of its run writes them")


def _is_kept(path: Path) -> bool:
    return (path / "predictions.npz").is_file()


def _identity(place: str) -> str:
    return str(Path(place).resolve()) if Path(place).exists() else place


def _open(place: str, faces: FaceSet | None = None) -> Model:
    model = open_model(place, faces=faces)
    if model.trained is not None and model.trained.recipe.data.expand_first:
        raise ModelError(f"{place}: has learned from faces of every split (data.expand_first); not compared")
    return model


def _all_emotions(places: Sequence[str], opened: Mapping[str, Model]) -> tuple[Emotion, ...]:
    """The classes that any of them knows, in the order of ``Emotion``."""
    known = {emotion for model in opened.values() for emotion in model.emotions}
    for place in places:
        if place not in opened:
            known |= set(class_set(_recipe_of(Path(place))["data"]["classes"]))
    return tuple(emotion for emotion in Emotion if emotion in known)


def _recipe_of(folder: Path) -> dict[str, Any]:
    read_metrics(folder)  # says better what else the folder is
    try:
        said: dict[str, Any] = json.loads((folder / "recipe.json").read_text("utf-8"))
        class_set(said["data"]["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'recipe.json'}: cannot be read; write it again with `mien record`") from error
    return said


def _kept(folder: Path, test: TestSet, split: Split | None) -> ModelEntry:
    if split is None:
        raise DataError(f"{folder}: keeps answers for single splits; name one with --split, or name the run itself")
    said = read_metrics(folder)
    predictions, _ = load_recorded(folder, test.faces, split)
    selection = select(test, predictions.emotions, split)
    file = folder / "model.onnx"
    return ModelEntry(
        said["recipe"],
        said["recipe"],
        str(said["seed"]),
        str(folder),
        "recorded predictions (fp32, calibrated)",
        predictions,
        selection,
        said.get("parameters"),
        said.get("macs"),
        file.stat().st_size if file.is_file() else None,
        _claim(said["recipe"], said.get("claim", {})),
        plan=_recipe_of(folder),
        learned_from=said["data_sha256"],
    )


def _asked(place: str, model: Model, test: TestSet, split: Split | None) -> ModelEntry:
    if model.trained is not None:
        model = _open(place, test.faces)  # calibrated on these faces, where they are the run's own
    selection = select(test, model.emotions, split or ALL)
    about = model.about
    kind = ", ".join(filter(None, (about.get("kind", ""), about.get("precision", ""))))
    known = _known_of(model)
    return ModelEntry(
        model.name,
        about.get("recipe", model.name),
        about.get("seed", str(known.get("seed", ""))),
        place,
        kind,
        predict_selection(model, selection),
        selection,
        known.get("parameters"),
        known.get("macs"),
        known.get("int8_bytes"),
        known.get("claim", {}),
        model,
        learned_from=about.get("data_sha256", ""),
    )


def _known_of(model: Model) -> dict[str, Any]:
    """Parameters, MACs and claim: counted in a run's net, read from the card or the figures beside a file."""
    if model.trained is not None:
        net, recipe = model.trained.net, model.trained.recipe
        claim = _claim(recipe.name, asdict(recipe.claim))
        return {"parameters": count_parameters(net), "macs": count_macs(net, recipe.data.size), "claim": claim}
    said: dict[str, Any] = {}
    for name in ("card.json", "metrics.json"):
        beside = model.path.parent / name
        if beside.is_file():
            try:
                read = json.loads(beside.read_text("utf-8"))
                said |= {key: read[key] for key in ("parameters", "macs", "claim", "seed") if key in read}
            except (ValueError, TypeError, AttributeError):
                continue  # what stands beside a file says more of it, or nothing
    int8 = _int8_file(model)
    return said | ({"int8_bytes": int8.stat().st_size} if int8 else {})


def _claim(recipe: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the document says, as the shipped recipe of that name has it now; else as the run has ``said``."""
    try:
        return asdict(load(recipe).claim)
    except RecipeError:
        return said


def _int8_file(model: Model) -> Path | None:
    if model.about.get("precision") == "int8":
        return model.path
    beside = model.path.parent / PRECISIONS["int8"]
    alike = beside.is_file() and beside != model.path and model.about.get("precision") == "fp32"
    return beside if alike and Classifier(beside).name == model.name else None
