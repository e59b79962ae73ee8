"""MODEL -> what is evaluated: a model that reads faces, or the kept answers of a run; one for every seed."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mien._emotions import CLASS_SETS, SEVEN, Emotion, class_set
from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.data.custom import KNOWN, hold_out, list_folder, list_table
from mien.lab.data.datasets import chosen_split, is_fer2013, load_test_set, start_of
from mien.lab.data.faceset import nearest, quote
from mien.lab.data.images import Entry
from mien.lab.models import Model, open_model
from mien.lab.predictions import Selection, read_metrics, select_rows
from mien.lab.train.run import read_log


@dataclass(frozen=True, eq=False)
class TestSet:
    """A set to be judged on: its ``faces``, all splits, a short ``name``, and the rows that were never read.

    ``left_out`` counts these by split and reason.
    """

    __test__ = False  # no test of pytest's

    faces: FaceSet
    name: str
    left_out: Mapping[tuple[Split, str], int] = field(default_factory=dict)

    @property
    def undivided(self) -> bool:
        """Whether nobody has parted it: every face is Training."""
        return bool((self.faces.usage == 0).all())

    def held_out(self) -> "TestSet":
        """The same set with the share held out as PublicTest that a training on it validates on."""
        return replace(self, faces=hold_out(self.faces))


def load_tests(
    paths: Iterable[Path | None], emotions: tuple[Emotion, ...], *, size: int, label_map: Mapping[str, str]
) -> list[TestSet]:
    """The sets at ``paths`` (``None``: $MIEN_DATA), labels translated by ``label_map`` where a set has them.

    ``emotions`` and ``size`` are the model's. Raises ``DataError`` for a label that no set has, for one that nobody
    explains, and for whatever ``load_test_set`` refuses.
    """
    starts = [start_of(path) for path in paths]
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
    """The rows to be judged. By default PublicTest, or all of a set that nobody has parted.

    Raises ``DataError`` as ``select_rows``.
    """
    split = chosen_split(wanted, test.faces)
    selection = select_rows(test.faces, emotions, split)
    missing = {reason: count for (part, reason), count in test.left_out.items() if split in (None, part)}
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
    left_out: Counter[tuple[Split, str]] = Counter()
    for entry in entries:
        emotion = meaning[entry.label.strip().lower()]
        if emotion is None:
            left_out[entry.split, f"label {entry.label}: left out by --map"] += 1
        elif emotion not in known:
            left_out[entry.split, f"{emotion}: not among the model's classes"] += 1
    return TestSet(load_test_set(start, emotions, size=size, labels=used), name, dict(left_out))


def _meaning(labels: Iterable[str], label_map: Mapping[str, str], start: Path) -> dict[str, Emotion | None]:
    meaning: dict[str, Emotion | None] = {}
    for label in sorted(labels):
        word = label_map.get(label, label)
        if word and word not in KNOWN:
            raise DataError(
                f"{start}: {quote(label)} is no emotion that mien knows{nearest(label, KNOWN)}; say which it is with "
                f"--map {label}=happy, or leave its faces out with --map {label}="
            )
        meaning[label] = KNOWN.get(word)
    return meaning


def _require_used(label_map: Mapping[str, str], listed: list[list[Entry]]) -> None:
    if label_map and not listed:
        raise DataError("--map: the labels of FER-2013 are known; leave it out")
    there = {entry.label.strip().lower() for entries in listed for entry in entries}
    for label in label_map:
        if label not in there:
            raise DataError(
                f"--map {label}=...: there is no such label{nearest(label, there)}; the labels are "
                f"{', '.join(sorted(there))}"
            )


def _names(starts: Iterable[Path]) -> list[str]:
    """A short name for every set, each its own: the last part of its path, with a number where that comes again."""
    names: list[str] = []
    for start in starts:
        stem = start.resolve().stem if start.is_file() else start.resolve().name
        name = "".join(c if c.isalnum() or c in "-_+." else "-" for c in stem) or "data"
        count = sum(other == name or other.rpartition("-")[0] == name for other in names)
        names.append(f"{name}-{count + 1}" if count else name)
    return names


_MODELS = ("final.pt", "model.onnx")


_ANSWERS = "predictions.npz"


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
