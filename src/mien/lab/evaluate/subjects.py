"""What is evaluated: the models or recorded predictions that a name stands for, and the data sets."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mien._emotions import CLASS_SETS, SEVEN, Emotion, class_set
from mien._errors import DataError
from mien._suggest import suggest
from mien.lab.data import FaceSet, Split
from mien.lab.data.custom import KNOWN, Entry, hold_out, list_folder, list_table
from mien.lab.data.datasets import chosen_split, find_dataset, is_fer2013, load_test_set
from mien.lab.data.faceset import quote
from mien.lab.models import Model, open_model
from mien.lab.predictions import Selection, read_metrics, select_rows
from mien.lab.train.logging import EpochRecord, read_log


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

    @property
    def undivided(self) -> bool:
        """Whether the set has no splits: every face is Training."""
        return bool((self.faces.usage == 0).all())

    def held_out(self) -> "TestSet":
        """Return the set with the faces as PublicTest that a training on it holds out for validation."""
        return replace(self, faces=hold_out(self.faces))


def load_tests(
    paths: Iterable[Path | None], emotions: tuple[Emotion, ...], *, size: int, label_map: Mapping[str, str]
) -> list[TestSet]:
    """Load the data sets to evaluate on.

    Args:
        paths: Files or folders; ``None`` is the one that ``$MIEN_DATA`` names.
        emotions: The classes of the model.
        size: Side of the model's crops in pixels.
        label_map: Label -> name of an emotion, or ``""`` to exclude its faces; used where a set has the label.

    Returns:
        The sets, each with its own name.

    Raises:
        DataError: If a label of the map is in no set, a label of a set has no emotion, or a set cannot be read.
    """
    starts = [find_dataset(path) for path in paths]
    listed = [None if is_fer2013(start) else _entries(start) for start in starts]
    _require_used(label_map, [entries for entries in listed if entries is not None])
    names = _names(
        [Path("FER-2013") if entries is None else start for start, entries in zip(starts, listed, strict=True)]
    )
    return [
        _load(start, name, entries, emotions, size=size, label_map=label_map)
        for start, name, entries in zip(starts, names, listed, strict=True)
    ]


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


def _entries(start: Path) -> list[Entry]:
    try:
        return list((list_folder(start) if start.is_dir() else list_table(start)).entries)
    except OSError as error:
        raise DataError(f"{error.filename or start}: cannot be read ({error.strerror or error})") from error


def _load(
    start: Path,
    name: str,
    entries: list[Entry] | None,
    emotions: tuple[Emotion, ...],
    *,
    size: int,
    label_map: Mapping[str, str],
) -> TestSet:
    if entries is None:
        return TestSet(load_test_set(start, emotions, size=size), name)
    labels = {entry.label.strip().lower() for entry in entries}
    used = {label: target for label, target in label_map.items() if label in labels}
    meaning = _meaning(labels, used, start)
    known = CLASS_SETS["eight"] if Emotion.CONTEMPT in emotions else SEVEN
    excluded: Counter[tuple[Split, str]] = Counter()
    for entry in entries:
        emotion = meaning[entry.label.strip().lower()]
        if emotion is None:
            excluded[entry.split, f"label {entry.label}: excluded by the label map"] += 1
        elif emotion not in known:
            excluded[entry.split, f"{emotion}: not among the model's classes"] += 1
    return TestSet(load_test_set(start, emotions, size=size, labels=used), name, dict(excluded))


def _meaning(labels: Iterable[str], label_map: Mapping[str, str], start: Path) -> dict[str, Emotion | None]:
    meaning: dict[str, Emotion | None] = {}
    for label in sorted(labels):
        word = label_map.get(label, label)
        if word and word not in KNOWN:
            raise DataError(
                f"{start}: {quote(label)} is no emotion that mien knows{suggest(label, KNOWN)}; map the label to an "
                f"emotion ({label}=happy), or to nothing to exclude its faces ({label}=)"
            )
        meaning[label] = KNOWN.get(word)
    return meaning


def _require_used(label_map: Mapping[str, str], listed: list[list[Entry]]) -> None:
    if label_map and not listed:
        raise DataError("the labels of FER-2013 are known; use no label map")
    there = {entry.label.strip().lower() for entries in listed for entry in entries}
    for label in label_map:
        if label not in there:
            raise DataError(
                f"label map: there is no label {quote(label)}{suggest(label, there)}; the labels are "
                f"{', '.join(sorted(there))}"
            )


def _names(starts: Iterable[Path]) -> list[str]:
    """A unique short name for every set: the last part of its path, with a number where it occurs again."""
    names: list[str] = []
    for start in starts:
        stem = start.resolve().stem if start.is_file() else start.resolve().name
        name = "".join(c if c.isalnum() or c in "-_+." else "-" for c in stem) or "data"
        count = sum(other == name or other.rpartition("-")[0] == name for other in names)
        names.append(f"{name}-{count + 1}" if count else name)
    return names


_MODELS = ("final.pt", "model.onnx")
_PREDICTIONS = "predictions.npz"


@dataclass(frozen=True, eq=False)
class Subject:
    """One model, or the recorded predictions of one run.

    Attributes:
        name: Its name.
        emotions: Its classes.
        size: Side of its crops in pixels.
        path: Its file or folder.
        about: What a report says about it, term -> text.
        seed: Seed of its training; empty where it is not known.
        model: The model; ``None`` for recorded predictions.
        history: Records of the training epochs, where there is a log.
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
    """Find what is evaluated.

    Args:
        what: What ``open_model`` accepts; the folder of a recorded run; or the folder of a recipe with several
            ``seed-*`` folders, which stands for all of them.
        precision: Which file of a model is used, ``"int8"`` or ``"fp32"``.

    Returns:
        One subject, or one for each seed. If one seed has only recorded predictions, these are used for all seeds, so
        that their metrics can be compared.

    Raises:
        ModelError: If a model cannot be opened.
        DataError: If a recorded run is damaged, or the seeds have different classes.
    """
    path = Path(what)
    folders = [] if _holds(path, *_MODELS, _PREDICTIONS) else _seeds(path)
    if not folders:
        recorded = _has_predictions_only(path, precision)
        return (_recorded(path) if recorded else _opened(what, precision),)
    recorded = any(_has_predictions_only(folder, precision) for folder in folders)
    subjects = tuple(_recorded(folder) if recorded else _opened(str(folder), precision) for folder in folders)
    for other in subjects[1:]:
        if other.emotions != subjects[0].emotions:
            raise DataError(f"{what}: its seeds have different classes; evaluate them one by one")
    return subjects


def calibrated(model: Model, faces: FaceSet) -> Model:
    """Return the model, calibrated on ``faces`` if it is a run that was trained on them."""
    return model if model.trained is None else open_model(model.path, faces=faces)


def learned_from(subject: Subject, faces: FaceSet) -> bool:
    """Return whether the subject was trained on this data set."""
    return subject.about.get("data_sha256") == faces.sha256


def _seeds(path: Path) -> list[Path]:
    seeds = [entry for entry in path.glob("seed-*") if _holds(entry, *_MODELS, _PREDICTIONS)] if path.is_dir() else []
    return sorted(seeds, key=lambda seed: (len(seed.name), seed.name))


def _holds(path: Path, *names: str) -> bool:
    return any((path / name).is_file() for name in names)


def _has_predictions_only(path: Path, precision: str) -> bool:
    """Whether ``path`` has predictions and no model of this precision; recorded runs have at most an int8 file."""
    wanted = ("final.pt", "model.onnx" if precision == "int8" else "model-fp32.onnx")
    return _holds(path, _PREDICTIONS) and not _holds(path, *wanted)


def _opened(what: str, precision: str) -> Subject:
    model = open_model(what, precision=precision)
    folder = model.path if model.path.is_dir() else model.path.parent
    seed = model.about.get("seed", "")
    return Subject(model.name, model.emotions, model.size, model.path, model.about, seed, model, read_log(folder))


def _recorded(folder: Path) -> Subject:
    content = read_metrics(folder)
    try:
        data = json.loads((folder / "recipe.json").read_text("utf-8"))["data"]
        emotions, size = class_set(data["classes"]), int(data["size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / 'recipe.json'}: cannot be read ({error}); record the run again") from error
    about = {
        "kind": "recorded predictions of a run (fp32, calibrated)",
        "recipe": str(content["recipe"]),
        "seed": str(content["seed"]),
    }
    about |= {key: str(content[key]) for key in ("commit", "data_sha256", "machine") if key in content}
    return Subject(str(content["recipe"]), emotions, size, folder, about, str(content["seed"]), None, read_log(folder))
