"""An exported file against the splits of a data set, through the same code that readers use."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from mien._emotions import Emotion, class_set
from mien._errors import DataError
from mien.infer import Classifier
from mien.lab.data import FaceSet, Split, clean_rows, vote_distribution, with_classes
from mien.lab.metrics import bootstrap_interval, checked, compute_metrics


def resize_faces(faces: FaceSet, size: int) -> NDArray[np.uint8]:
    """The faces as the file takes them: uint8 ``[N, size, size]``, resized (bicubic) where their own size differs."""
    if faces.images.shape[-1] == size:
        return faces.images.numpy()
    images = faces.images.unsqueeze(1).float()
    resized = torch.cat(
        [F.interpolate(part, size=size, mode="bicubic", align_corners=False) for part in torch.split(images, 1024)]
    )
    return resized.round().clamp(0, 255).to(torch.uint8).squeeze(1).numpy()


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of a split: ``rows`` int64 ``[N]`` of the data set, ``probs`` float32 ``[N, C]``.

    ``labels`` int64 ``[N]`` are the truth, ``clean`` bool ``[N]`` the rows whose pixels are no earlier row's.
    """

    rows: NDArray[np.int64]
    probs: NDArray[np.float32]
    labels: NDArray[np.int64]
    clean: NDArray[np.bool_]
    emotions: tuple[Emotion, ...]

    def metrics(self) -> dict[str, Any]:
        """Figures of ``all`` rows and of the ``clean`` ones; the latter only where there are any."""
        found = {"all": compute_metrics(self.probs, self.labels, self.emotions)}
        if self.clean.all():
            found["clean"] = found["all"]
        elif self.clean.any():
            found["clean"] = compute_metrics(self.probs[self.clean], self.labels[self.clean], self.emotions)
        return found


def predict_split(classifier: Classifier, faces: FaceSet, classes: str, split: Split) -> Predictions:
    """Every answer of ``classifier`` on ``split``.

    ``faces`` is the full set of seven classes, from which copies are known; ``classes`` names the classifier's
    class set. Raises ``DataError`` for a classifier of other classes and for an empty split.
    """
    if class_set(classes) != classifier.emotions:
        raise DataError(f"{classifier.name} answers {', '.join(classifier.emotions)}: not the class set {classes!r}")
    chosen = with_classes(faces.split(split), classes)
    if len(chosen) == 0:
        raise DataError(f"{faces.source}: no rows left to judge {classifier.name} on; check the Usage column")
    clean = np.isin(chosen.rows.numpy(), faces.rows[clean_rows(faces, split)].numpy())
    probs, _ = classifier(resize_faces(chosen, classifier.size))
    return Predictions(chosen.rows.numpy(), probs, chosen.labels.numpy(), clean, chosen.emotions)


def evaluate_split(classifier: Classifier, faces: FaceSet, classes: str, split: Split) -> dict[str, Any]:
    """Figures of the file on ``split``: of ``all`` rows, and of the ``clean`` ones. Raises as ``answer``."""
    return predict_split(classifier, faces, classes, split).metrics()


class Reader(Protocol):
    """What is examined: a ``Model`` of the lab or a ``Classifier`` of the core."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def emotions(self) -> tuple[Emotion, ...]:
        """Its classes, in the order of its answers."""

    @property
    def size(self) -> int:
        """The side of its crops in pixels."""

    def __call__(self, crops: NDArray[np.uint8], /) -> tuple[NDArray[np.float32], Any]:
        """Crops uint8 ``[N, size, size]`` -> probabilities float32 ``[N, C]``, and maps."""


@dataclass(frozen=True)
class Selection:
    """The faces of a test: ``faces`` labelled in the model's classes, ``clean`` bool ``[N]``, and the ``account``.

    ``split`` names the part ("PublicTest", or "all"); ``total`` is the number of its rows, ``account`` says of those
    that are not judged how many and why; ``protocol`` how the labels came about.
    """

    faces: FaceSet
    clean: NDArray[np.bool_]
    split: str
    total: int
    account: Mapping[str, int] = field(default_factory=dict)
    protocol: str = "the labels of the set"


FERPLUS_PROTOCOL = (
    "FER+ majority (Barsoum et al., 2016): single votes dropped as noise, the top of all ten columns needs more than "
    "half of the rest; no majority, unknown, not a face, and pixels from JPEG are left out"
)


def select_rows(faces: FaceSet, emotions: tuple[Emotion, ...], split: Split | None = None) -> Selection:
    """The rows of ``split`` (``None``: all) that a model of ``emotions`` can be judged on, labelled in its order.

    A model that knows contempt is judged on the FER+ majority where the set has votes, else on the set's labels. Faces
    whose emotion the model does not know are left out and counted. ``faces`` is the whole set: copies in earlier
    splits are known from it. Raises ``DataError`` when no row, or one class alone, is left.
    """
    part = faces.split(split) if split else faces
    name = str(split) if split else "all"
    if not len(part):
        there = ", ".join(s for s in Split if len(faces.split(s)))
        raise DataError(f"{faces.source}: has no rows in {name}; it has {there}; name one with --split, or all")
    account: dict[str, int] = {}
    protocol, chosen = "the labels of the set", part
    if Emotion.CONTEMPT in emotions and faces.votes is not None and Emotion.CONTEMPT not in faces.emotions:
        chosen, protocol = with_classes(part, "eight"), FERPLUS_PROTOCOL
        account = _ferplus_account(part, len(chosen))
    chosen, unknown = _in_order(chosen, emotions)
    account |= unknown
    present = torch.unique(chosen.labels)
    if len(present) < 2:
        left = f"one class alone ({chosen.emotions[int(present[0])]})" if len(present) else "no row"
        raise DataError(f"{faces.source}, {name}: {left} is left for a model of {', '.join(emotions)}")
    clean = np.isin(chosen.rows.numpy(), _clean(faces, split).numpy())
    return Selection(chosen, clean, name, len(part), account, protocol)


def predict_selection(reader: Reader, selection: Selection) -> Predictions:
    """The answers of ``reader`` for the selected rows."""
    faces = selection.faces
    probs, _ = reader(resize_faces(faces, reader.size))
    return Predictions(faces.rows.numpy(), probs, faces.labels.numpy(), selection.clean, faces.emotions)


def _ferplus_account(part: FaceSet, kept: int) -> dict[str, int]:
    jpeg = 0 if part.pixels_from_jpeg is None else int(part.pixels_from_jpeg.sum())
    rest = len(part) - kept - jpeg
    account = {"pixels from JPEG, whose votes may be another picture's": jpeg}
    account["no majority of votes for one emotion"] = rest
    return {reason: count for reason, count in account.items() if count}


def _in_order(faces: FaceSet, emotions: tuple[Emotion, ...]) -> tuple[FaceSet, dict[str, int]]:
    """``faces`` labelled in the order of ``emotions``; those of other emotions are left out, and counted."""
    index = torch.tensor([emotions.index(e) if e in emotions else -1 for e in faces.emotions])
    labels = index[faces.labels]
    counts = {
        f"{emotion}: not among the model's classes": int((faces.labels == place).sum())
        for place, emotion in enumerate(faces.emotions)
        if emotion not in emotions
    }
    chosen = replace(faces, labels=labels, emotions=emotions).select(labels >= 0)
    return chosen, {reason: count for reason, count in counts.items() if count}


def _clean(faces: FaceSet, split: Split | None) -> torch.Tensor:
    masks = [clean_rows(faces, each) for each in ([split] if split else list(Split))]
    return faces.rows[torch.stack(masks).any(dim=0)]


Floats = NDArray[np.floating[Any]]


def compare_with_votes(answers: Predictions, selection: Selection, part: FaceSet) -> dict[str, Any] | None:
    """``majority`` and ``distribution`` for answers to ``selection`` of ``part``; ``None`` for a set without votes.

    ``part`` is the split as it was read, in the seven classes and with its votes.
    """
    if part.votes is None:
        return None
    return {
        "rule": FERPLUS_PROTOCOL,
        "majority": _majority(answers, part),
        "distribution": _distribution(answers, selection.faces),
    }


def distances(probs: Floats, votes: Floats) -> dict[str, NDArray[np.float64]]:
    """Three distances of ``probs`` to ``votes``, both ``[N, C]`` with rows that sum to 1; each is ``[N]``.

    - ``kl``: Kullback-Leibler divergence of the answer from the votes, in nats
    - ``total_variation``: half the sum of absolute differences, 0..1
    - ``log_loss``: cross-entropy of the answer under the votes, in nats; ``kl`` plus the entropy of the votes
    """
    p, v = np.asarray(probs, np.float64), np.asarray(votes, np.float64)
    logs = np.log(p.clip(np.finfo(np.float64).eps, 1))
    surprise = -(v * logs).sum(1)
    entropy = -(v * np.log(np.where(v > 0, v, 1))).sum(1)
    return {"kl": surprise - entropy, "total_variation": np.abs(p - v).sum(1) / 2, "log_loss": surprise}


def _majority(answers: Predictions, part: FaceSet) -> dict[str, Any]:
    """Agreement with the majority, on the judged rows that have one among the model's classes."""
    voted = with_classes(part, "eight")
    winner = dict(zip(voted.rows.tolist(), (voted.emotions[i] for i in voted.labels.tolist()), strict=True))
    own = dict(zip(part.rows.tolist(), (part.emotions[i] for i in part.labels.tolist()), strict=True))
    rows, guess = answers.rows.tolist(), answers.probs.argmax(1).tolist()
    judged = [(row, answers.emotions[place]) for row, place in zip(rows, guess, strict=True) if row in winner]
    shared = [(row, told) for row, told in judged if winner[row] in answers.emotions]
    account = {
        "no majority, or pixels from JPEG": len(rows) - len(judged),
        "majority for an emotion that the model does not know": len(judged) - len(shared),
    }
    right = np.array([told == winner[row] for row, told in shared], np.float64)
    labels = np.array([own[row] == winner[row] for row, _ in shared], np.float64)
    return {
        "n": len(shared),
        "total": len(rows),
        "account": {reason: count for reason, count in account.items() if count},
        "agreement": float(right.mean()) if len(shared) else None,
        "interval": list(bootstrap_interval(right, np.mean)) if len(shared) else None,
        "label_agreement": float(labels.mean()) if len(shared) else None,
    }


def _distribution(answers: Predictions, faces: FaceSet) -> dict[str, Any]:
    """Distances to the votes for the model's classes, on the judged rows that have any."""
    votes = vote_distribution(faces).numpy()
    usable = votes.sum(1) > 0
    told: dict[str, Any] = {"n": int(usable.sum()), "total": len(usable)}
    if not usable.any():
        return told
    chosen = votes[usable].astype(np.float64)
    rest = chosen / chosen.sum(1, keepdims=True)
    for name, values in distances(answers.probs[usable], rest).items():
        told[name] = float(values.mean())
        told[f"{name}_interval"] = list(bootstrap_interval(values, np.mean))
    told["vote_entropy"] = told["log_loss"] - told["kl"]
    return told


def read_metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a folder of results/. Raises ``DataError`` where there is none, or half of one."""
    path = folder / "metrics.json"
    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); write it with `mien record`") from error
    if isinstance(said, dict) and {"model", "about"} <= said.keys():
        raise DataError(f"{folder}: is a report of `mien evaluate`, no run; name the model that it is about")
    if not isinstance(said, dict) or not {"recipe", "seed", "metrics", "data_sha256"} <= said.keys():
        raise DataError(f"{path}: holds no figures of a run; write it again with `mien record`")
    return said


def load_recorded(folder: Path, faces: FaceSet, split: Split) -> tuple[Predictions, Selection]:
    """The kept answers (fp32, calibrated) for ``split`` of ``faces``, and the selection that they answer.

    Raises ``DataError`` for answers about other faces, for a split that was not judged, and for a damaged file.
    """
    said, path = read_metrics(folder), folder / "predictions.npz"
    # A run that further sets were mixed into has a hash of all; it is judged on one of them.
    if said.get("evaluation_sha256", said["data_sha256"]) != (faces.evaluation_sha256 or faces.sha256):
        raise DataError(f"{folder}: its answers are about other faces than {faces.source}; name those with --data")
    name = split.removesuffix("Test").lower()
    try:
        classes = json.loads((folder / "recipe.json").read_text("utf-8"))["data"]["classes"]
        with np.load(path, allow_pickle=False) as file:
            if f"{name}_rows" not in file:
                raise DataError(f"{folder}: {split} was not judged; `mien record RUN --final` judges PrivateTest")
            rows, probs = file[f"{name}_rows"], file[f"{name}_probs"].astype(np.float32)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: no such file; write it with `mien record`") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}); write it again with `mien record`") from error
    selection = select_rows(faces, class_set(classes), split)
    if not np.array_equal(rows, selection.faces.rows.numpy()):
        raise DataError(f"{path}: answers other rows of {split} than are judged now; write it again with `mien record`")
    emotions, labels = selection.faces.emotions, selection.faces.labels.numpy()
    try:
        probs = checked(probs, labels, len(emotions)).astype(np.float32)
    except DataError as error:
        raise DataError(f"{path}: {error}; write it again with `mien record`") from error
    return Predictions(rows, probs, labels, selection.clean, emotions), selection
