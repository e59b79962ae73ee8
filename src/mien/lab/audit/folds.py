"""Out-of-fold probabilities: every Training face read by a net that has learned from neither it nor an exact copy.

Faces of one person, where the set names them, are in one fold as well. Near copies may be in two.
"""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from mien._emotions import Emotion, class_set
from mien._errors import DataError, RecipeError
from mien.lab import checkpoint
from mien.lab.data import FaceSet, Split
from mien.lab.feed.rows import validation_rows
from mien.lab.feed.sets import is_fer2013
from mien.lab.judge.examine import Reader, examine, select_rows
from mien.lab.judge.metrics import checked
from mien.lab.model import Model, open_model
from mien.lab.recipe import Recipe, dump
from mien.lab.train.fit import Devices, fit, predict
from mien.lab.train.history import is_finished
from mien.lab.train.run import load_final

FOLDS = 5

# What watches the training of a fold: its name -> a context that takes the records of ``fit``.
Watching = Callable[[str], AbstractContextManager[Callable[[dict[str, Any]], None]]]


@dataclass(frozen=True, eq=False)
class Opinion:
    """Probabilities ``probs`` float32 ``[M, C]`` of ``rows`` int64 ``[M]``, in the order of ``emotions``.

    ``origin`` says in a sentence where they come from.
    """

    rows: NDArray[np.int64]
    probs: NDArray[np.float32]
    emotions: tuple[Emotion, ...]
    origin: str


def fold_recipes(recipe: Recipe) -> list[Recipe]:
    """``recipe`` once for every fold. Raises ``RecipeError`` where the recipe would let a net see what it is asked.

    The last epoch is kept and no plateau is waited for, so that no fold chooses the weights that judge it.
    """
    if recipe.data.also or recipe.data.expand_first:
        raise RecipeError(
            f"recipe {recipe.name}: an audit learns from its set alone; leave out data.also, expand_first"
        )
    if recipe.target.teach > 0 or recipe.net.weights not in ("", "imagenet"):
        raise RecipeError(
            f"recipe {recipe.name}: its teachers or first weights may have learned from the faces they would be asked "
            "about; take a recipe without target.teach and net.weights"
        )
    if _follows_validation(recipe):
        raise RecipeError(
            f"recipe {recipe.name}: a plateau would let every fold steer the rate of the net that judges it; "
            "take a recipe with another optimise.schedule, or change it with --set"
        )
    data = [replace(recipe.data, folds=FOLDS, fold=fold) for fold in range(FOLDS)]
    return [replace(recipe, data=one, keep="last") for one in data]


def folds_folder(out: Path, recipe: Recipe) -> Path:
    """Where below ``out`` the folds of this very recipe lie: another one of its name finds another folder."""
    digest = hashlib.sha256(json.dumps(dump(recipe), sort_keys=True).encode()).hexdigest()[:8]
    return out / ".folds" / f"{recipe.name.replace('/', '-')}-{digest}"


def train_folds(
    recipe: Recipe,
    faces: FaceSet,
    folder: Path,
    *,
    devices: Devices | None = None,
    provenance: dict[str, Any] | None = None,
    watching: Watching = lambda _: nullcontext(lambda _: None),
) -> Opinion:
    """Train the folds of ``recipe`` on the Training faces, or go on where a call before stopped, and ask each its fold.

    Each fold is a run in ``folder``/fold-N. Training rows that the recipe leaves out (copies of test faces, other
    classes) get no opinion. Raises what ``fit`` raises.
    """
    rows, probs = [], []
    for fold, chosen in enumerate(fold_recipes(recipe)):
        run = folder / f"fold-{fold}"
        if not is_finished(run, chosen, faces.sha256):
            with watching(f"{recipe.name}, fold {fold + 1} of {FOLDS}") as report:
                fit(chosen, faces, run, devices=devices, provenance=provenance, report=report)
        asked = validation_rows(faces, chosen)
        logits = predict(load_final(run).net, asked.images, chosen.data.size)
        rows.append(asked.rows.numpy())
        probs.append(F.softmax(logits, dim=1).numpy())
    epochs = f"{recipe.optimise.epochs} epochs" if not recipe.phases else f"{len(recipe.phases)} phases"
    origin = f"{FOLDS} folds of {recipe.name} ({epochs}), each asked about the Training faces it has not learned from"
    return Opinion(np.concatenate(rows), np.concatenate(probs), class_set(recipe.data.classes), origin)


def knows(model: Model, faces: FaceSet) -> bool:
    """Whether ``model`` says that it has learned from ``faces``, or from FER-2013 in another of its forms than this.

    Each form has a hash of its own; the one that mien-0 has learned from is known here.
    """
    learned = model.about.get("data_sha256", "")
    if learned == faces.sha256:
        return True
    return is_fer2013(Path(faces.source)) and learned == open_model("mien-0").about["data_sha256"]


def ask(model: Reader, faces: FaceSet) -> Opinion:
    """What a model that has not learned from ``faces`` says of Training and PublicTest; PrivateTest is not asked."""
    splits = [split for split in (Split.TRAINING, Split.PUBLIC_TEST) if len(faces.split(split))]
    answers = [examine(model, select_rows(faces, model.emotions, split)) for split in splits]
    rows, probs = (np.concatenate([getattr(answer, name) for answer in answers]) for name in ("rows", "probs"))
    return Opinion(rows, probs, model.emotions, f"{model.name}, which has not learned from this set")


def read_opinion(path: Path, faces: FaceSet) -> Opinion:
    """Probabilities from a file: ``rows`` ``[M]`` and ``probs`` ``[M, C]``; ``emotions`` ``[C]`` where not the set's.

    Raises ``DataError`` for a file without them, for rows that ``faces`` does not have or that come twice, and for
    probabilities that are none.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            rows, probs = file["rows"].astype(np.int64), file["probs"].astype(np.float32)
            names = file["emotions"].tolist() if "emotions" in file else [str(emotion) for emotion in faces.emotions]
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, AttributeError) as error:
        raise DataError(
            f"{path}: holds no arrays rows [M] and probs [M, C] ({type(error).__name__}); save them with np.savez"
        ) from error
    emotions = _emotions(names, path)
    if rows.ndim != 1 or len(np.unique(rows)) < len(rows):
        raise DataError(f"{path}: rows are one whole number a face, each once")
    strange = np.setdiff1d(rows, faces.rows.numpy())
    if len(strange):
        raise DataError(f"{path}: {faces.source} has no row {strange[0]}; give the probabilities of this set's rows")
    try:
        probs = checked(probs, np.zeros(len(rows), np.int64), len(emotions)).astype(np.float32)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return Opinion(rows, probs, emotions, f"the probabilities in {path.name}")


def save_opinion(path: Path, opinion: Opinion) -> None:
    """Write what ``read_opinion`` reads. Raises ``OutputError``."""
    content = io.BytesIO()
    names = np.array([str(emotion) for emotion in opinion.emotions])
    np.savez_compressed(content, rows=opinion.rows, probs=opinion.probs, emotions=names)
    checkpoint.save_bytes(path, content.getvalue())


def _follows_validation(recipe: Recipe) -> bool:
    own = recipe.optimise.schedule
    schedules = [phase.optimise.get("schedule", own) for phase in recipe.phases] or [own]
    return "plateau" in schedules


def _emotions(names: Sequence[str], path: Path) -> tuple[Emotion, ...]:
    try:
        return tuple(Emotion(name) for name in names)
    except ValueError as error:
        raise DataError(f"{path}: {error}; emotions are {', '.join(Emotion)}") from error
