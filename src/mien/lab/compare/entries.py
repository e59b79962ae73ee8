"""The models of a comparison: recorded predictions, runs and files, each with its predictions for one set of faces."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mien._emotions import Emotion, class_set
from mien._errors import DataError, ModelError, RecipeError
from mien._progress import Progress, no_progress
from mien.infer import PRECISIONS, Classifier
from mien.lab.data import FaceSet, Split
from mien.lab.data.datasets import ALL, as_in_training
from mien.lab.evaluate.subjects import TestSet, calibrated, load_tests, select
from mien.lab.export.calibrate import Calibration, fit_vector
from mien.lab.files import load_json
from mien.lab.ledger import Answers, Ledger, changed_answers, is_private_test, recorded_answers
from mien.lab.models import Model, answers_of_model, open_model
from mien.lab.nets import count_macs, count_parameters
from mien.lab.predictions import Predictions, Selection, load_recorded, predict_selection, read_metrics
from mien.lab.recipe import load


@dataclass(frozen=True, eq=False)
class ModelEntry:
    """One model of a comparison and its predictions.

    Attributes:
        name: Its name, unique in the comparison.
        recipe: Name of the recipe of its training.
        seed: Seed of its training; empty where it is not known.
        source: The folder, file or name that it was opened from.
        kind: What made the predictions, for people.
        predictions: Its predictions.
        selection: The rows that were predicted, and those that were left out.
        parameters: Number of parameters; ``None`` where it is not known.
        macs: Multiply-accumulates per face; ``None`` where they are not known.
        int8_bytes: Size of its int8 file; ``None`` where there is none.
        claim: Metrics that a document claims for it, as in ``metrics.json``.
        model: The opened model, which can be timed; ``None`` for recorded predictions.
        recorded_recipe: Resolved recipe of recorded predictions, from which a graph can be exported for timing.
        learned_from: SHA-256 of the data set that it was trained on; empty where it is not known.
        looks: A sentence on the looks at PrivateTest; empty where there was one at most.
        calibration: Calibration of the model itself: vector, temperature or none; empty where it is not known.
        own: Its predictions with that calibration, where ``predictions`` have another one.
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
    recorded_recipe: Mapping[str, Any] | None = None
    learned_from: str = ""
    looks: str = ""
    calibration: str = ""
    own: Predictions | None = None

    @property
    def precision(self) -> str:
        """Precision of the predictions: int8 or fp32, or "as it is" for a foreign file."""
        if self.model is None or self.model.trained is not None:
            return "fp32"
        return self.model.about.get("precision", "as it is")

    @property
    def emotions(self) -> tuple[Emotion, ...]:
        """Its classes, in the order of its probabilities."""
        return self.predictions.emotions


@dataclass(frozen=True, eq=False)
class Entries:
    """The models of a comparison.

    Attributes:
        entries: One entry for each model.
        faces: The data set that they predict.
    """

    entries: tuple[ModelEntry, ...]
    faces: FaceSet


def recorded_folders(root: Path) -> list[str]:
    """Find the folders of recorded predictions.

    Args:
        root: The folder to search, such as ``results/``.

    Returns:
        Every folder below ``root`` with recorded predictions, sorted.
    """
    return sorted(str(path.parent) for path in root.rglob("predictions.npz"))


def load_entries(
    models: Sequence[str],
    data: Path | None,
    split: Split | None,
    *,
    own_calibration: bool = False,
    ledger: Ledger | None = None,
    skip_unreadable: bool = False,
    progress: Progress = no_progress,
) -> Entries:
    """Load the models of a comparison and their predictions.

    Models are compared with the same calibration. If the calibrations of mien's models differ, those without vector
    scaling get it: it is fitted to their log-probabilities of PublicTest. Other models stay as they are.

    Args:
        models: Folders of recorded predictions, or what ``open_model`` accepts. A folder of several runs is replaced
            by its runs. Recorded predictions are read; any other model predicts the faces.
        data: The data set; ``None`` is the one that ``$MIEN_DATA`` names.
        split: The split; ``None`` is all faces.
        own_calibration: Whether every model keeps its own calibration.
        ledger: Where a look at PrivateTest is written; ``None``: in ``default_ledger()``.
        skip_unreadable: Whether images that cannot be read are left out and counted.
        progress: Called before each model.

    Returns:
        One entry for each model or run, in the order of ``models``.

    Raises:
        DataError: If a model is named twice, a run is not finished, predictions or the data set cannot be read, or
            PrivateTest was looked at before for another model of its family.
        ModelError: If a model cannot be opened, or has learned from test faces.
    """
    sources = [source for name in models for source in _find_runs(name)]
    paths = Counter(str(Path(source).resolve()) if Path(source).exists() else source for source in sources)
    repeated = [path for path, times in paths.items() if times > 1]
    if repeated:
        raise DataError(f"{repeated[0]}: named twice; a model does not differ from itself")
    opened, known = dict[str, Model](), set[Emotion]()
    for source in sources:
        if _is_recorded(Path(source)):
            known |= set(class_set(_read_recipe(Path(source))["data"]["classes"]))
            continue
        opened[source] = own = open_model(source)
        if own.trained is not None and (leak := own.trained.recipe.data.leak):
            raise ModelError(f"{source}: has learned from test faces ({leak}) and cannot be compared")
        known |= set(own.emotions)
    size = max((model.size for model in opened.values()), default=0)
    emotions = tuple(emotion for emotion in Emotion if emotion in known)
    (test,) = load_tests([data], emotions, size=size, label_map={}, skip_unreadable=skip_unreadable)
    trained_on = [(opened[s].about if s in opened else read_metrics(Path(s))).get("data_sha256") for s in sources]
    test = replace(test, faces=as_in_training(test.faces, trained_on))
    methods = {source: _calibration_method(source, opened.get(source), test.faces) for source in sources}
    changed = set() if own_calibration else _to_recalibrate(methods, test.faces)
    ledger, answers = ledger or Ledger(), list[Answers]()
    if is_private_test(test.faces, split or ALL):
        answers = [_answers(source, opened.get(source), test, recalibrated=source in changed) for source in sources]
        _require(ledger, answers, changed)
    entries = []
    for number, source in enumerate(sources):
        progress("predictions", number, len(sources))
        entry = replace(_open(source, opened.get(source), test, split), calibration=methods[source])
        entries.append(_recalibrate(entry, test, split) if source in changed else entry)
    if answers:
        pairs = zip(answers, entries, strict=True)
        seen = [replace(own, accuracy={entry.precision: entry.predictions.accuracy}) for own, entry in pairs]
        looks = ledger.add(seen, test.faces.sha256)
        entries = [replace(entry, looks=sentence) for entry, sentence in zip(entries, looks, strict=True)]
    return Entries(unique_names(entries), test.faces)


def _answers(source: str, model: Model | None, test: TestSet, *, recalibrated: bool) -> Answers:
    own = recorded_answers(Path(source)) if model is None else answers_of_model(model, test.faces)
    return changed_answers(own, "vector") if recalibrated else own


def _require(ledger: Ledger, answers: Sequence[Answers], changed: Collection[str]) -> None:
    """Check that PrivateTest may be looked at; a new calibration gives new answers."""
    try:
        ledger.require(answers)
    except DataError as error:
        if not changed:
            raise
        names = ", ".join(sorted(changed))
        cause = f"the same calibration for all gives new answers of {names}; compare each with its own"
        raise DataError(f"{error}; {cause}") from error


def _calibration_method(source: str, model: Model | None, faces: FaceSet) -> str:
    """The calibration of a run, or of an exported or recorded one from the file beside it; empty if not known."""
    if model is not None and model.trained is not None:
        is_calibrated = model.trained.provenance.get("data_sha256") == faces.sha256
        return model.trained.recipe.calibration if is_calibrated else "none"
    folder = Path(source) if model is None else model.path.parent
    for name in ("card.json", "metrics.json"):
        try:
            found = load_json(folder / name)["calibration"]
            return Calibration(tuple(found["scale"]), tuple(found["offset"])).method
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""


def _to_recalibrate(methods: Mapping[str, str], faces: FaceSet) -> set[str]:
    """The models whose calibration is replaced: where the known ones differ, and PublicTest can be fitted to."""
    known = {source: method for source, method in methods.items() if method}
    if len(set(known.values())) < 2 or not len(faces.split(Split.PUBLIC_TEST)):
        return set()
    return {source for source, method in known.items() if method != "vector"}


def _recalibrate(entry: ModelEntry, test: TestSet, split: Split | None) -> ModelEntry:
    """The entry with vector scaling of its log-probabilities, fitted on PublicTest."""
    own = public = entry.predictions
    if split != Split.PUBLIC_TEST:
        public = _open(entry.source, entry.model, test, Split.PUBLIC_TEST).predictions
    fitted = fit_vector(_log_probs(public), torch.from_numpy(public.labels))
    probs = fitted(_log_probs(own)).softmax(1).numpy()
    return replace(entry, predictions=replace(own, probs=probs), own=own)


def _log_probs(predictions: Predictions) -> Tensor:
    return torch.from_numpy(predictions.probs).clamp_min(torch.finfo(torch.float32).tiny).log()


def unique_names(entries: Sequence[ModelEntry]) -> tuple[ModelEntry, ...]:
    """Make the names of models unique.

    Args:
        entries: The models.

    Returns:
        The same models. Equal names get their seed added, and names that are still equal their source.
    """
    for suffix in (lambda c: f"seed {c.seed}" if c.seed else "", lambda c: c.source):
        times = Counter(c.name for c in entries)
        entries = [
            replace(c, name=f"{c.name} ({suffix(c)})") if times[c.name] > 1 and suffix(c) else c for c in entries
        ]
    return tuple(entries)


def _find_runs(name: str) -> list[str]:
    """The runs in a folder of several seeds or recipes; anything else is returned as it is."""
    path = Path(name)
    if not path.is_dir() or _is_recorded(path) or (path / "final.pt").is_file():
        return [name]
    seeds = sorted(path.glob("seed-*"))
    runs = [str(seed) for seed in seeds if _is_recorded(seed) or (seed / "final.pt").is_file()]
    if runs or (runs := recorded_folders(path)):
        return runs
    for folder in (path, *seeds):
        if (folder / "checkpoint.pt").is_file():
            raise DataError(f"{folder}: the run is not finished; the `mien train` that began it continues it")
        if (folder / "metrics.json").is_file() and not (folder / "model.onnx").is_file():
            raise DataError(f"{folder}: has metrics but no predictions; record the run again")
    return [name]


def _is_recorded(path: Path) -> bool:
    return (path / "predictions.npz").is_file()


def _read_recipe(folder: Path) -> dict[str, Any]:
    read_metrics(folder)  # its errors say what else the folder may be
    try:
        recipe: dict[str, Any] = load_json(folder / "recipe.json")
        class_set(recipe["data"]["classes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'recipe.json'}: cannot be read; record the run again") from error
    return recipe


def _open(source: str, model: Model | None, test: TestSet, split: Split | None) -> ModelEntry:
    return _predict(source, model, test, split) if model else _read_recorded(Path(source), test, split)


def _read_recorded(folder: Path, test: TestSet, split: Split | None) -> ModelEntry:
    if split is None:
        raise DataError(f"{folder}: has predictions of single splits only; choose one split, or name the run itself")
    metrics = read_metrics(folder)
    predictions, _ = load_recorded(folder, test.faces, split)
    file = folder / "model.onnx"
    return ModelEntry(
        metrics["recipe"],
        metrics["recipe"],
        str(metrics["seed"]),
        str(folder),
        "recorded predictions (fp32, calibrated)",
        predictions,
        select(test, predictions.emotions, split),
        metrics.get("parameters"),
        metrics.get("macs"),
        file.stat().st_size if file.is_file() else None,
        _claim(metrics["recipe"], metrics.get("claim", {})),
        recorded_recipe=_read_recipe(folder),
        learned_from=metrics["data_sha256"],
    )


def _predict(source: str, model: Model, test: TestSet, split: Split | None) -> ModelEntry:
    model = calibrated(model, test.faces)
    about, facts = model.about, _facts(model)
    selection = select(test, model.emotions, split or ALL)
    return ModelEntry(
        model.name,
        about.get("recipe", model.name),
        about.get("seed", str(facts.get("seed", ""))),
        source,
        ", ".join(filter(None, (about.get("kind", ""), about.get("precision", "")))),
        predict_selection(model, selection),
        selection,
        facts.get("parameters"),
        facts.get("macs"),
        facts.get("int8_bytes"),
        facts.get("claim", {}),
        model,
        learned_from=about.get("data_sha256", ""),
    )


def _facts(model: Model) -> dict[str, Any]:
    """Size, cost and claim of a model: counted in the net of a run, else read from the files beside it."""
    if model.trained is not None:
        net, recipe = model.trained.net, model.trained.recipe
        claim = _claim(recipe.name, asdict(recipe.claim))
        return {"parameters": count_parameters(net), "macs": count_macs(net, recipe.data.size), "claim": claim}
    facts: dict[str, Any] = {}
    for name in ("card.json", "metrics.json"):
        try:
            content = load_json(model.path.parent / name)
            facts |= {key: content[key] for key in ("parameters", "macs", "claim", "seed") if key in content}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            continue  # not a file of mien
    precision, int8 = model.about.get("precision"), model.path.parent / PRECISIONS["int8"]
    if precision == "int8":
        facts["int8_bytes"] = model.path.stat().st_size
    elif precision == "fp32" and int8.is_file() and int8 != model.path and Classifier(int8).name == model.name:
        facts["int8_bytes"] = int8.stat().st_size
    return facts


def _claim(recipe: str, recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    """The claim of the shipped recipe of that name, else the ``recorded`` one of the run."""
    try:
        return asdict(load(recipe).claim)
    except RecipeError:
        return recorded
