"""Inputs of an evaluation: the models or recorded predictions that a name refers to, and the data sets."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path

from mien._emotions import CLASS_SETS, SEVEN, Emotion, class_set
from mien._errors import DataError, MienError
from mien._suggest import suggest
from mien.lab.data import FaceSet, Split
from mien.lab.data.custom import Listing, list_images
from mien.lab.data.datasets import chosen_split, find_dataset, is_fer2013, load_test_set
from mien.lab.data.faceset import EMOTION_NAMES, quote
from mien.lab.data.fer2013 import OFFICIAL_NAME, official_difference
from mien.lab.files import FINAL_KINDS, load_json, load_state
from mien.lab.ledger import Answers, changed_answers, recorded_answers
from mien.lab.models import Model, answers_of_model, open_model
from mien.lab.predictions import Selection, read_metrics, select_rows
from mien.lab.recipe import Recipe, parse
from mien.lab.recipe.load import training_differences
from mien.lab.train.logging import EpochRecord, read_log

_PREDICTIONS = "predictions.npz"


@dataclass(frozen=True, eq=False)
class TestSet:
    """A data set to evaluate on.

    Attributes:
        faces: The faces of all splits.
        name: A short name.
        excluded: (split, reason) -> number of rows that were not read.
    """

    __test__ = False  # pytest must not collect this class

    faces: FaceSet
    name: str
    excluded: Mapping[tuple[Split, str], int] = field(default_factory=dict)


def load_tests(
    paths: Iterable[Path | None],
    emotions: tuple[Emotion, ...],
    *,
    size: int,
    label_map: Mapping[str, str],
    skip_unreadable: bool = False,
) -> list[TestSet]:
    """Load the data sets to evaluate on.

    Args:
        paths: Files or folders; ``None`` is the one that ``$MIEN_DATA`` names.
        emotions: The classes of the model.
        size: Side of the model's crops in pixels.
        label_map: Label -> name of an emotion, or ``""`` to exclude its faces; used where a set has the label.
        skip_unreadable: Whether images that cannot be read are left out, which the note of the set counts.

    Returns:
        The sets, each with its own name.

    Raises:
        DataError: If a label of the map is in no set, a label of a set has no emotion, or a set cannot be read.
    """
    starts = [find_dataset(path) for path in paths]
    listed = [None if is_fer2013(start) else list_images(start) for start in starts]
    known = {entry.label.strip().lower() for listing in listed if listing for entry in listing.entries}
    if label_map and not any(listed):
        raise DataError("the labels of FER-2013 are known; use no label map")
    for label in label_map:
        if label not in known:
            raise DataError(
                f"label map: there is no label {quote(label)}{suggest(label, known)}; the labels are "
                f"{', '.join(sorted(known))}"
            )
    sets: dict[str, TestSet] = {}
    for start, listing in zip(starts, listed, strict=True):
        excluded, used = _read_labels(start, listing or Listing(()), emotions, label_map)
        faces = load_test_set(start, emotions, size=size, labels=used, skip_unreadable=skip_unreadable)
        name = _unique_name(start if official_difference(faces) else Path(OFFICIAL_NAME), sets)
        sets[name] = TestSet(faces, name, excluded)
    return list(sets.values())


def select(test: TestSet, emotions: tuple[Emotion, ...], wanted: Split | str | None) -> Selection:
    """Select the rows to evaluate.

    Args:
        test: The data set.
        emotions: The classes of the model.
        wanted: A split, ``"all"``, or ``None`` for PublicTest, or for all rows of a set without splits.

    Returns:
        The selection; its account includes the rows that were not read.

    Raises:
        DataError: If no row, or only one class, is left.
    """
    split = chosen_split(wanted, test.faces)
    selection = select_rows(test.faces, emotions, split)
    missing = {reason: count for (part, reason), count in test.excluded.items() if split in (None, part)}
    account = Counter(missing) + Counter(selection.account)
    return replace(selection, account=dict(account), total=selection.total + sum(missing.values()))


def _read_labels(
    start: Path, listing: Listing, emotions: tuple[Emotion, ...], label_map: Mapping[str, str]
) -> tuple[dict[tuple[Split, str], int], dict[str, str]]:
    """The number of excluded rows by split and reason, and the part of the label map that applies to this set."""
    names = listing.names
    labels = sorted({entry.label.strip().lower() for entry in listing.entries})
    words = {label: label_map.get(label, label) for label in labels}
    for label, word in words.items():
        if word and word not in names:
            raise DataError(
                f"{start}: {quote(label)} is no emotion that mien knows{suggest(label, EMOTION_NAMES)}; map the label "
                f"to an emotion ({label}=happy), or to nothing to exclude its faces ({label}=)"
            )
    known = CLASS_SETS["eight"] if Emotion.CONTEMPT in emotions else SEVEN
    excluded: Counter[tuple[Split, str]] = Counter()
    for entry in listing.entries:
        word = words[entry.label.strip().lower()]
        if not word:
            excluded[entry.split, f"label {entry.label}: excluded by the label map"] += 1
        elif names[word] not in known:
            excluded[entry.split, f"{names[word]}: not among the model's classes"] += 1
    return dict(excluded), {label: target for label, target in label_map.items() if label in words}


def _unique_name(start: Path, taken: Iterable[str]) -> str:
    """The last part of a path, with a number if this name is taken: a folder, which may have no other case."""
    stem = start.resolve().stem if start.is_file() else start.resolve().name
    name = "".join(c if c.isalnum() or c in "-_+." else "-" for c in stem) or "data"
    known, numbered = {other.casefold() for other in taken}, (f"{name}-{number}" for number in count(2))
    return next(each for each in chain([name], numbered) if each.casefold() not in known)


@dataclass(frozen=True, eq=False)
class Subject:
    """One model, or the recorded predictions of one run, to be evaluated.

    Attributes:
        name: Its name.
        emotions: Its classes.
        size: Side of its crops in pixels.
        path: Its file or folder.
        about: What a report says about it, term -> text.
        seed: Seed of its training; empty if unknown.
        model: The model; ``None`` for recorded predictions.
        history: Records of the training epochs; empty without a log.
    """

    name: str
    emotions: tuple[Emotion, ...]
    size: int
    path: Path
    about: Mapping[str, str]
    seed: str = ""
    model: Model | None = None
    history: list[EpochRecord] = field(default_factory=list)


def find_subjects(what: str, *, precision: str = "int8") -> tuple[Subject, ...]:
    """Open the models, or the recorded predictions, that a name refers to.

    Args:
        what: What ``open_model`` accepts; the folder of a recorded run; or the folder of a recipe with several
            ``seed-*`` folders, for all of them.
        precision: Which file of a model is used, ``"int8"`` or ``"fp32"``.

    Returns:
        One subject, or one for each seed. If one seed has only recorded predictions, these are used for all seeds, so
        that their metrics can be compared.

    Raises:
        ModelError: If a model cannot be opened.
        DataError: If a recorded run is damaged, or the seeds have different classes or are of different trainings.
    """
    path = Path(what)
    runs = [] if _is_run(path) else [seed for seed in path.glob("seed-*") if _is_run(seed)]
    folders = sorted(runs, key=lambda seed: (len(seed.name), seed.name))
    if not folders:
        return (_recorded(path) if _has_predictions_only(path, precision) else _opened(what, precision),)
    recorded = any(_has_predictions_only(folder, precision) for folder in folders)
    subjects = [_recorded(folder) if recorded else _opened(str(folder), precision) for folder in folders]
    for place, folder in enumerate(folders):  # an exported file does not name its seed
        seed = subjects[place].seed or folder.name.removeprefix("seed-")
        subjects[place] = replace(subjects[place], seed=seed)
    _require_seeds(what, subjects)
    return tuple(subjects)


def _require_seeds(what: str, subjects: Sequence[Subject]) -> None:
    """Check that models differ in nothing but their seed, so that their mean and deviation are those of a training."""
    first, cure = subjects[0], "evaluate them one by one"
    seeds = [subject.seed for subject in subjects]
    repeated = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if repeated is not None:
        raise DataError(f"{what}: two of its runs have the seed {repeated}; {cure}")
    recipe = recipe_of(first.path)
    for other in subjects[1:]:
        if other.emotions != first.emotions:
            raise DataError(f"{what}: its seeds have different classes; {cure}")
        changed = training_differences(own, recipe) if recipe and (own := recipe_of(other.path)) else {}
        if other.name != first.name:  # an exported file has no recipe beside it
            changed["name"] = ""
        if other.about.get("data_sha256") != first.about.get("data_sha256"):
            changed["data set"] = ""
        if changed:
            keys = ", ".join(changed)
            raise DataError(f"{what}: seeds {first.seed} and {other.seed} are different trainings ({keys}); {cure}")


def recipe_of(path: Path) -> Recipe | None:
    """Return the recipe of a run or of recorded results, as it was trained.

    Args:
        path: The folder, or a file in it.

    Returns:
        The recipe; ``None`` for exported files and for results of an older version.
    """
    if not path.exists():  # the name of an embedded model
        return None
    folder = path if path.is_dir() else path.parent
    final = folder / "final.pt"
    try:
        content = load_state(final, FINAL_KINDS)["recipe"] if final.is_file() else load_json(folder / "recipe.json")
        return parse(content, where=str(folder))
    except (OSError, ValueError, TypeError, MienError):
        return None


def calibrated(model: Model, faces: FaceSet) -> Model:
    """Calibrate a run if it was trained on a data set.

    Args:
        model: Any model.
        faces: The data set.

    Returns:
        The model; a run that was trained on these faces is calibrated.
    """
    return model if model.trained is None else open_model(model.path, faces=faces)


def answers_of_subject(subject: Subject, faces: FaceSet, tta: str, *, uncalibrated: bool = False) -> Answers:
    """Return the answers of a subject for PrivateTest, without their accuracy.

    Args:
        subject: The model, or its recorded predictions.
        faces: The data set.
        tta: The test-time augmentation.
        uncalibrated: Whether a run is evaluated without its calibration.

    Returns:
        The answers.
    """
    model = subject.model
    calibrated_on = None if uncalibrated else faces
    answers = recorded_answers(subject.path) if model is None else answers_of_model(model, calibrated_on)
    return changed_answers(answers, tta)


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in ("final.pt", "model.onnx", _PREDICTIONS))


def _has_predictions_only(path: Path, precision: str) -> bool:
    """Whether ``path`` has predictions and no model of this precision; recorded runs have at most an int8 file."""
    models = ("final.pt", "model.onnx" if precision == "int8" else "model-fp32.onnx")
    return (path / _PREDICTIONS).is_file() and not any((path / name).is_file() for name in models)


def _opened(what: str, precision: str) -> Subject:
    model = open_model(what, precision=precision)
    folder = model.path if model.path.is_dir() else model.path.parent
    seed = model.about.get("seed", "")
    return Subject(model.name, model.emotions, model.size, model.path, model.about, seed, model, read_log(folder))


def _recorded(folder: Path) -> Subject:
    content = read_metrics(folder)
    try:
        data = load_json(folder / "recipe.json")["data"]
        emotions, size = class_set(data["classes"]), int(data["size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'recipe.json'}: cannot be read ({error}); record the run again") from error
    recipe, seed = str(content["recipe"]), str(content["seed"])
    about = {"kind": "recorded predictions of a run (fp32, calibrated)", "recipe": recipe, "seed": seed}
    about |= {key: str(content[key]) for key in ("commit", "data_sha256", "machine") if key in content}
    return Subject(recipe, emotions, size, folder, about, seed, None, read_log(folder))
