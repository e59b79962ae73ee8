"""Labels that are likely wrong: confident learning (Northcutt et al., JAIR 2021) as cleanlab does it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import DataError, MissingExtraError
from mien.lab.audit.folds import Opinion
from mien.lab.audit.votes import Agreement
from mien.lab.data import FaceSet

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
