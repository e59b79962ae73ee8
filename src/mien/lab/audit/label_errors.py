"""Labels that are likely wrong: confident learning (Northcutt et al., JAIR 2021) as cleanlab does it."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from mien._emotions import CLASS_SETS, Emotion, class_set
from mien._errors import DataError, MissingExtraError, RecipeError
from mien.lab.data import FaceSet, Split, with_classes
from mien.lab.data.datasets import is_fer2013
from mien.lab.data.selection import validation_rows
from mien.lab.files import save_bytes
from mien.lab.inference import predict
from mien.lab.metrics import checked
from mien.lab.models import Model, open_model
from mien.lab.predictions import FERPLUS_PROTOCOL, Reader, predict_selection, select_rows
from mien.lab.recipe import Recipe, dump
from mien.lab.train.loop import Devices, fit
from mien.lab.train.run import is_finished, load_final

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
    if recipe.data.extra or recipe.data.expand_first:
        raise RecipeError(
            f"recipe {recipe.name}: an audit learns from its set alone; leave out data.extra, expand_first"
        )
    if recipe.target.distillation > 0 or recipe.net.weights not in ("", "imagenet"):
        raise RecipeError(
            f"recipe {recipe.name}: its teachers or first weights may have learned from the faces they would be asked "
            "about; take a recipe without target.distillation and net.weights"
        )
    if _follows_validation(recipe):
        raise RecipeError(
            f"recipe {recipe.name}: a plateau would let every fold steer the rate of the net that judges it; "
            "take a recipe with another train.schedule, or change it with --set"
        )
    data = [replace(recipe.data, folds=FOLDS, fold=fold) for fold in range(FOLDS)]
    return [replace(recipe, data=one, checkpoint="last") for one in data]


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
    epochs = f"{recipe.train.epochs} epochs" if not recipe.phases else f"{len(recipe.phases)} phases"
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
    answers = [predict_selection(model, select_rows(faces, model.emotions, split)) for split in splits]
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
    save_bytes(path, content.getvalue())


def _follows_validation(recipe: Recipe) -> bool:
    own = recipe.train.schedule
    schedules = [phase.train.get("schedule", own) for phase in recipe.phases] or [own]
    return "plateau" in schedules


def _emotions(names: Sequence[str], path: Path) -> tuple[Emotion, ...]:
    try:
        return tuple(Emotion(name) for name in names)
    except ValueError as error:
        raise DataError(f"{path}: {error}; emotions are {', '.join(Emotion)}") from error


@dataclass(frozen=True, eq=False)
class Agreement:
    """The judged faces: ``places`` int64 ``[M]``, their ``majority`` int64 ``[M]`` as an index into the eight classes.

    ``table`` int64 ``[C, 8]`` counts label against majority, ``agree`` bool ``[M]`` says where they are the same;
    ``by_split`` gives faces and agreeing faces of every split, ``rule`` how a majority is made.
    """

    places: NDArray[np.int64]
    majority: NDArray[np.int64]
    agree: NDArray[np.bool_]
    table: NDArray[np.int64]
    by_split: dict[str, tuple[int, int]]
    classes: tuple[Emotion, ...] = CLASS_SETS["eight"]
    rule: str = FERPLUS_PROTOCOL


def agreement(faces: FaceSet) -> Agreement | None:
    """The agreement of labels and votes, ``None`` for a set without both."""
    eight = CLASS_SETS["eight"]
    if faces.votes is None or faces.emotions == eight:
        return None
    voted = with_classes(faces, "eight")
    places = np.searchsorted(faces.rows.numpy(), voted.rows.numpy())  # rows of a set rise
    majority = voted.labels.numpy()
    labels, usage = faces.labels.numpy()[places], faces.usage.numpy()[places]
    meant = np.array([eight.index(emotion) for emotion in faces.emotions])[labels]
    table = np.zeros((len(faces.emotions), len(eight)), np.int64)
    np.add.at(table, (labels, majority), 1)
    agree = meant == majority
    by_split = {
        str(split): (int((usage == index).sum()), int(agree[usage == index].sum()))
        for index, split in enumerate(Split)
        if (usage == index).any()
    }
    return Agreement(places, majority, agree, table, by_split)


try:
    from cleanlab.filter import find_label_issues  # type: ignore[import-untyped]
    from cleanlab.rank import get_label_quality_scores  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "cleanlab", "lab") from error


_FIRST = 500  # flags, least likely label first: as many as somebody would look through


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """The likely label errors, least likely label first.

    - ``places`` int64 ``[K]`` in the set; ``suggested`` int64 ``[K]``, indices into the set's ``emotions``
    - ``quality`` float64 ``[K]``: the probability of the given label
    - ``judged``: places of all faces that were looked at; ``account``: how many were not, and why
    - ``accuracy``: share of judged faces whose label the probabilities favour
    """

    places: NDArray[np.int64]
    suggested: NDArray[np.int64]
    quality: NDArray[np.float64]
    judged: NDArray[np.int64]
    accuracy: float
    account: Mapping[str, int]
    origin: str


def find_label_errors(faces: FaceSet, opinion: Opinion) -> LabelErrors:
    """The faces whose label the opinion contradicts, as many of each class as the confident joint estimates.

    ``prune_by_noise_rate`` of cleanlab. Faces without an opinion, and those whose label the opinion does not know, are
    left out and counted. Raises ``DataError`` where fewer than two classes are left.
    """
    places = _places(faces, opinion.rows)
    labels = faces.labels.numpy()[places]
    classes = [emotion for emotion in opinion.emotions if emotion in {faces.emotions[label] for label in set(labels)}]
    if len(classes) < 2:
        raise DataError(
            f"{faces.source}: the probabilities know fewer than two of its classes; nothing can be confused"
        )
    index = np.array([classes.index(emotion) if emotion in classes else -1 for emotion in faces.emotions])
    known = index[labels] >= 0
    probs = _among(opinion, classes)[known]
    given, places = index[labels][known], places[known]
    order = find_label_issues(given, probs, return_indices_ranked_by="self_confidence", n_jobs=1)
    quality = get_label_quality_scores(given, probs, method="self_confidence")
    to_set = np.array([faces.emotions.index(emotion) for emotion in classes])
    account = {
        "without an opinion (not Training, or left out of the folds)": len(faces) - len(opinion.rows),
        "whose label the probabilities do not know": int((~known).sum()),
    }
    return LabelErrors(
        places[order],
        to_set[probs.argmax(axis=1)][order],
        quality[order],
        places,
        float((probs.argmax(axis=1) == given).mean()),
        {reason: count for reason, count in account.items() if count},
        opinion.origin,
    )


def against_votes(errors: LabelErrors, agreement: Agreement, faces: FaceSet) -> dict[str, float | int]:
    """An honest check: how often FER+ contradicts the label of a flagged face, against all judged faces.

    ``suggestion_is_majority`` is the share of flagged faces whose suggested label is what the voters say; faces without
    a majority count nowhere.
    """
    contradicted = {int(place): not agree for place, agree in zip(agreement.places, agreement.agree, strict=True)}
    judged = [contradicted[place] for place in errors.judged.tolist() if place in contradicted]
    flagged = [contradicted[place] for place in errors.places.tolist() if place in contradicted]
    majority = dict(zip(agreement.places.tolist(), _majority(agreement, faces), strict=True))
    same = [
        majority[place] == suggested
        for place, suggested in zip(errors.places.tolist(), errors.suggested.tolist(), strict=True)
        if place in majority
    ]
    return {
        "judged": len(judged),
        "judged_contradicted": _share(judged),
        "flagged": len(flagged),
        "flagged_contradicted": _share(flagged),
        "first": min(_FIRST, len(flagged)),
        "first_contradicted": _share(flagged[:_FIRST]),
        "suggestion_is_majority": _share(same),
    }


def _majority(agreement: Agreement, faces: FaceSet) -> list[int]:
    """The majority as an index into the set's emotions, -1 for contempt in a set without."""
    names: dict[Emotion, int] = {emotion: index for index, emotion in enumerate(faces.emotions)}
    return [names.get(agreement.classes[winner], -1) for winner in agreement.majority.tolist()]


def _share(values: list[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _places(faces: FaceSet, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    place = {row: at for at, row in enumerate(faces.rows.tolist())}
    return np.array([place[row] for row in rows.tolist()], np.int64)


def _among(opinion: Opinion, classes: list[Emotion]) -> NDArray[np.float64]:
    """The probabilities among the classes that the set has, which a face must be one of."""
    chosen = opinion.probs[:, [opinion.emotions.index(emotion) for emotion in classes]].astype(np.float64)
    total = chosen.sum(axis=1, keepdims=True)
    return np.where(total > 0, chosen / np.maximum(total, 1e-12), 1 / len(classes))
