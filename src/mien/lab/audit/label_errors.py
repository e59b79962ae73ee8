"""Likely label errors by confident learning (Northcutt et al., JAIR 2021), as cleanlab implements it.

They need probabilities from nets that were not trained on the faces they predict: ``train_folds`` makes them by
cross-validation, ``predict_unseen`` takes them from a model that was trained on other data, ``read_probabilities`` from
a file. FER+ votes are an independent check of what is found.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from mien._emotions import CLASS_SETS, Emotion, class_set
from mien._errors import DataError, MissingExtraError
from mien._progress import Progress, no_progress
from mien.lab.data import FaceSet, Split, with_classes
from mien.lab.data.selection import validation_rows
from mien.lab.files import load_arrays, save_arrays
from mien.lab.inference import predict
from mien.lab.metrics import check_probabilities, restrict_probabilities
from mien.lab.models import Model, was_trained_on
from mien.lab.predictions import FERPLUS_PROTOCOL, FaceClassifier, predict_selection, select_rows
from mien.lab.recipe import Recipe, dump, fold_recipes
from mien.lab.train.devices import Devices
from mien.lab.train.logging import EpochRecord
from mien.lab.train.loop import fit, ignore_epoch
from mien.lab.train.run import is_finished, load_final

try:
    from cleanlab.filter import find_label_issues  # type: ignore[import-untyped]
    from cleanlab.rank import get_label_quality_scores  # type: ignore[import-untyped]
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "cleanlab", "lab") from error

FOLDS = 5


class TrainingDisplay(Progress, Protocol):
    """Shows one training: its progress, and the record of every epoch."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Take the record of a finished epoch.

        Args:
            record: Its losses and metrics.
        """


WatchFold = Callable[[str], AbstractContextManager[TrainingDisplay]]

_FIRST = 500  # label errors, least likely label first, that are also checked on their own


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Probabilities of M faces from nets that were not trained on them.

    Attributes:
        rows: Rows of the set, int64 ``[M]``.
        probs: Probabilities, float32 ``[M, C]``.
        emotions: The C classes, in the order of ``probs``.
        origin: Where the probabilities come from, for people.
    """

    rows: NDArray[np.int64]
    probs: NDArray[np.float32]
    emotions: tuple[Emotion, ...]
    origin: str


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """The K likely label errors, the least likely label first.

    Attributes:
        index: Indices in the set, int64 ``[K]``.
        suggested: Suggested labels as indices into the set's emotions, int64 ``[K]``.
        quality: Probability of the given label, float64 ``[K]``.
        evaluated: Indices of all faces that were evaluated, int64.
        accuracy: Share of these whose label has the highest probability.
        left_out: Reason -> number of faces that were not evaluated.
        origin: Where the probabilities come from.
    """

    index: NDArray[np.int64]
    suggested: NDArray[np.int64]
    quality: NDArray[np.float64]
    evaluated: NDArray[np.int64]
    accuracy: float
    left_out: Mapping[str, int]
    origin: str


@dataclass(frozen=True, eq=False)
class VoteAgreement:
    """How the labels of a set agree with the majority of FER+ votes, on the M faces that have a majority.

    Attributes:
        index: Indices in the set, int64 ``[M]``.
        majority: The majority as an index into ``emotions``, int64 ``[M]``.
        agree: Whether label and majority are equal, bool ``[M]``.
        table: Counts of label (the set's emotions) x majority (``emotions``), int64 ``[C, 8]``.
        by_split: Split -> number of faces, and of those that agree.
        emotions: The eight emotions that FER+ votes for, in the order of ``Emotion``.
        rule: How a majority is made.
    """

    index: NDArray[np.int64]
    majority: NDArray[np.int64]
    agree: NDArray[np.bool_]
    table: NDArray[np.int64]
    by_split: Mapping[Split, tuple[int, int]]
    emotions: tuple[Emotion, ...] = tuple(Emotion)
    rule: str = FERPLUS_PROTOCOL


@dataclass(frozen=True)
class VoteCheck:
    """How often FER+ votes contradict labels, among faces with a majority; a share of no faces is ``None``.

    Attributes:
        evaluated: Number of faces that were evaluated.
        evaluated_contradicted: Share of these whose label the votes contradict.
        flagged: Number of likely label errors.
        flagged_contradicted: Share of these whose label the votes contradict.
        first: Number of the likeliest label errors that are counted on their own.
        first_contradicted: Share of these whose label the votes contradict.
        suggestion_is_majority: Share of likely label errors whose suggested label is the majority.
    """

    evaluated: int
    evaluated_contradicted: float | None
    flagged: int
    flagged_contradicted: float | None
    first: int
    first_contradicted: float | None
    suggestion_is_majority: float | None


def find_label_errors(faces: FaceSet, probabilities: OutOfFold) -> LabelErrors:
    """Find the faces whose label the probabilities contradict (``prune_by_noise_rate`` of cleanlab).

    Of each class, as many faces are flagged as the confident joint estimates. Faces without probabilities, and those
    whose label is no class of the probabilities, are left out.

    Args:
        faces: The set.
        probabilities: Probabilities of nets that were not trained on these faces.

    Returns:
        The likely label errors.

    Raises:
        DataError: The probabilities have fewer than two of the set's classes.
    """
    index_of = {row: at for at, row in enumerate(faces.rows.tolist())}
    index = np.array([index_of[row] for row in probabilities.rows.tolist()], np.int64)
    labels = faces.labels.numpy()[index]
    present = {faces.emotions[label] for label in set(labels)}
    classes = [emotion for emotion in probabilities.emotions if emotion in present]
    if len(classes) < 2:
        raise DataError(
            f"{faces.source}: the probabilities have fewer than two of its classes; at least two are needed"
        )
    to_class = np.array([classes.index(emotion) if emotion in classes else -1 for emotion in faces.emotions])
    to_set = np.array([faces.emotions.index(emotion) for emotion in classes])
    known = to_class[labels] >= 0
    columns = [probabilities.emotions.index(emotion) for emotion in classes]
    probs = restrict_probabilities(probabilities.probs[known], columns)  # each face is of one of the set's classes
    given, index = to_class[labels][known], index[known]
    order = find_label_issues(given, probs, return_indices_ranked_by="self_confidence", n_jobs=1)
    quality = get_label_quality_scores(given, probs, method="self_confidence")
    left_out = {
        "without probabilities (not Training, or left out of the folds)": len(faces) - len(probabilities.rows),
        "whose label is no class of the probabilities": int((~known).sum()),
    }
    return LabelErrors(
        index[order],
        to_set[probs.argmax(axis=1)][order],
        quality[order],
        index,
        float((probs.argmax(axis=1) == given).mean()),
        {reason: count for reason, count in left_out.items() if count},
        probabilities.origin,
    )


def train_folds(
    recipe: Recipe,
    faces: FaceSet,
    folder: Path,
    *,
    devices: Devices | None = None,
    provenance: dict[str, Any] | None = None,
    watch: WatchFold | None = None,
) -> OutOfFold:
    """Predict the Training faces by cross-validation: each by a net that was trained on the other folds.

    Finished folds in ``folder`` are not trained again, and an unfinished fold continues from its checkpoint.
    Training rows that the recipe leaves out (duplicates of test faces, other classes) get no probabilities.

    Args:
        recipe: The recipe of each fold.
        faces: The set.
        folder: Holds one run for each fold, ``fold-0`` to ``fold-4``.
        devices: What to train on; ``None`` for the default.
        provenance: Written into each run.
        watch: Opens what shows the training of a fold, given its title; ``None`` shows nothing.

    Returns:
        The probabilities.

    Raises:
        RecipeError: With this recipe a net could be influenced by the faces it predicts.
    """
    rows, probs = [], []
    for fold, chosen in enumerate(fold_recipes(recipe, FOLDS)):
        run = folder / f"fold-{fold}"
        if not is_finished(run, chosen, faces.sha256):
            title = f"{recipe.name}, fold {fold + 1} of {FOLDS}"
            with watch(title) if watch else nullcontext() as shown:
                fit(
                    chosen,
                    faces,
                    run,
                    devices=devices,
                    provenance=provenance,
                    progress=shown or no_progress,
                    on_epoch=shown.on_epoch if shown else ignore_epoch,
                )
        unseen = validation_rows(faces, chosen)
        logits = predict(load_final(run).net, unseen.images, chosen.data.size)
        rows.append(unseen.rows.numpy())
        probs.append(F.softmax(logits, dim=1).numpy())
    epochs = f"{recipe.train.epochs} epochs" if not recipe.phases else f"{len(recipe.phases)} phases"
    origin = f"{FOLDS} folds of {recipe.name} ({epochs}), each evaluated on Training faces it was not trained on"
    return OutOfFold(np.concatenate(rows), np.concatenate(probs), class_set(recipe.data.classes), origin)


def folds_folder(out: Path, recipe: Recipe) -> Path:
    """Return the folder of the folds of a recipe; a changed recipe of the same name has another folder.

    Args:
        out: Folder of the audit.
        recipe: The recipe.

    Returns:
        A folder below ``out``.
    """
    digest = hashlib.sha256(json.dumps(dump(recipe), sort_keys=True).encode()).hexdigest()[:8]
    return out / ".folds" / f"{recipe.name.replace('/', '-')}-{digest}"


def predict_unseen(model: FaceClassifier, faces: FaceSet) -> OutOfFold:
    """Predict Training and PublicTest with a model that was not trained on the set; PrivateTest stays untouched.

    Args:
        model: The model.
        faces: The set.

    Returns:
        The probabilities.

    Raises:
        DataError: The model was trained on these faces, or all of them are PrivateTest.
    """
    if isinstance(model, Model) and was_trained_on(model.about.get("data_sha256", ""), faces):
        raise DataError(
            f"{model.name} has learned from {faces.source} and would repeat its labels; "
            "train folds of a recipe, which predict faces that they have not seen"
        )
    splits = [split for split in (Split.TRAINING, Split.PUBLIC_TEST) if len(faces.split(split))]
    if not splits:
        raise DataError(
            f"{faces.source}: has no Training or PublicTest rows, which alone a model predicts for an audit"
        )
    found = [predict_selection(model, select_rows(faces, model.emotions, split)) for split in splits]
    rows, probs = np.concatenate([each.rows for each in found]), np.concatenate([each.probs for each in found])
    return OutOfFold(rows, probs, model.emotions, f"{model.name}, which has not learned from this set")


def read_probabilities(path: Path, faces: FaceSet) -> OutOfFold:
    """Read out-of-fold probabilities from an .npz file.

    Args:
        path: File with the arrays ``rows`` ``[M]`` and ``probs`` ``[M, C]``; the classes are those of the set, or in
            ``emotions`` ``[C]``.
        faces: The set.

    Returns:
        The probabilities.

    Raises:
        DataError: Arrays are missing, rows are unknown or repeated, or values are no probabilities.
    """
    try:
        arrays = load_arrays(path, "save it with np.savez")
        rows, probs = arrays["rows"].astype(np.int64), arrays["probs"].astype(np.float32)
        names = arrays["emotions"].tolist() if "emotions" in arrays else [str(emotion) for emotion in faces.emotions]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: holds no arrays rows [M] and probs [M, C] ({type(error).__name__}); save them with np.savez"
        ) from error
    try:
        emotions = tuple(Emotion(name) for name in names)
    except ValueError as error:
        raise DataError(f"{path}: {error}; emotions are {', '.join(Emotion)}") from error
    if rows.ndim != 1 or len(np.unique(rows)) < len(rows):
        raise DataError(f"{path}: rows must be one whole number for each face, each once")
    unknown = np.setdiff1d(rows, faces.rows.numpy())
    if len(unknown):
        raise DataError(f"{path}: {faces.source} has no row {unknown[0]}; give the probabilities of this set's rows")
    try:
        probs = check_probabilities(probs, np.zeros(len(rows), np.int64), len(emotions)).astype(np.float32)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return OutOfFold(rows, probs, emotions, f"the probabilities in {path.name}")


def save_probabilities(path: Path, probabilities: OutOfFold) -> None:
    """Write a file that ``read_probabilities`` reads.

    Args:
        path: The .npz file.
        probabilities: What to write.

    Raises:
        OutputError: The file cannot be written.
    """
    names = np.array([str(emotion) for emotion in probabilities.emotions])
    save_arrays(path, {"rows": probabilities.rows, "probs": probabilities.probs, "emotions": names})


def vote_agreement(faces: FaceSet) -> VoteAgreement | None:
    """Compare the labels of a set with the majority of its FER+ votes.

    Args:
        faces: The set.

    Returns:
        The agreement; ``None`` for a set without votes, or whose labels are the majority already.
    """
    voted_classes = CLASS_SETS["eight"]
    if faces.votes is None or faces.emotions == voted_classes:
        return None
    voted, emotions = with_classes(faces, "eight"), tuple(Emotion)
    index = np.searchsorted(faces.rows.numpy(), voted.rows.numpy())  # rows of a set are ascending
    labels, usage = faces.labels.numpy()[index], faces.usage.numpy()[index]
    majority = np.array([emotions.index(emotion) for emotion in voted_classes])[voted.labels.numpy()]
    agree = np.array([emotions.index(emotion) for emotion in faces.emotions])[labels] == majority
    table = np.zeros((len(faces.emotions), len(emotions)), np.int64)
    np.add.at(table, (labels, majority), 1)
    by_split = {
        split: (int((usage == place).sum()), int(agree[usage == place].sum()))
        for place, split in enumerate(Split)
        if (usage == place).any()
    }
    return VoteAgreement(index, majority, agree, table, by_split)


def check_with_votes(errors: LabelErrors, agreement: VoteAgreement, faces: FaceSet) -> VoteCheck:
    """Check likely label errors with FER+ votes, which the probabilities do not know.

    Args:
        errors: Likely label errors.
        agreement: The agreement of labels and votes.
        faces: The set.

    Returns:
        How often the votes contradict flagged labels and all labels; faces without a majority do not count.
    """
    to_set = [faces.emotions.index(e) if e in faces.emotions else -1 for e in agreement.emotions]
    columns = agreement.index.tolist(), agreement.agree.tolist(), agreement.majority.tolist()
    votes = {at: (not agree, to_set[majority]) for at, agree, majority in zip(*columns, strict=True)}
    evaluated = [votes[at][0] for at in errors.evaluated.tolist() if at in votes]
    flagged = [votes[at][0] for at in errors.index.tolist() if at in votes]
    suggested = zip(errors.index.tolist(), errors.suggested.tolist(), strict=True)
    same = [votes[at][1] == label for at, label in suggested if at in votes]
    return VoteCheck(
        len(evaluated),
        _share(evaluated),
        len(flagged),
        _share(flagged),
        min(_FIRST, len(flagged)),
        _share(flagged[:_FIRST]),
        _share(same),
    )


def _share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None
