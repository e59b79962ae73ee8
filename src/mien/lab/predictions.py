"""Predictions of a classifier on labelled faces: selection of rows, recorded predictions, comparison with FER+."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from mien._emotions import Emotion, class_set
from mien._errors import DataError
from mien.infer import Classifier
from mien.lab.data import FaceSet, Split, clean_rows, vote_distribution, with_classes
from mien.lab.files import load_arrays, load_json
from mien.lab.metrics import (
    Floats,
    Ints,
    bootstrap_interval,
    check_probabilities,
    compute_metrics,
    expected_calibration_error,
)

FACE_SIDES = (16, 20, 24, 32)  # pixels to which faces are shrunk, to measure a model on small ones
RIGHT_SHARE = 0.75  # of the answers from a threshold on: what a face must reach not to be unsure


def resize_faces(faces: FaceSet, size: int) -> NDArray[np.uint8]:
    """Resize faces to the input size of a model (bicubic). Faces that have this size are not changed.

    Args:
        faces: N faces.
        size: Side of the result in pixels.

    Returns:
        uint8 ``[N, size, size]``.
    """
    if faces.images.shape[-1] == size:
        return faces.images.numpy()
    images = faces.images.unsqueeze(1).float()
    parts = [F.interpolate(part, size=size, mode="bicubic", align_corners=False) for part in torch.split(images, 1024)]
    return torch.cat(parts).round().clamp(0, 255).to(torch.uint8).squeeze(1).numpy()


@dataclass(frozen=True)
class Predictions:
    """The predictions of a classifier for labelled faces.

    Attributes:
        rows: Row numbers in the data set, int64 ``[N]``.
        probs: Probabilities, float32 ``[N, C]``.
        labels: True classes, int64 ``[N]`` in 0..C-1.
        clean: Whether no earlier row has the same pixels, bool ``[N]``.
        emotions: The C classes.
    """

    rows: NDArray[np.int64]
    probs: NDArray[np.float32]
    labels: NDArray[np.int64]
    clean: NDArray[np.bool_]
    emotions: tuple[Emotion, ...]

    @property
    def accuracy(self) -> float:
        """The share of correct predictions."""
        return float((self.probs.argmax(1) == self.labels).mean())

    def metrics(self) -> dict[str, Any]:
        """Compute the metrics of ``all`` rows and of the ``clean`` ones, if there are any."""
        found = {"all": compute_metrics(self.probs, self.labels, self.emotions)}
        if self.clean.all():
            found["clean"] = found["all"]
        elif self.clean.any():
            found["clean"] = compute_metrics(self.probs[self.clean], self.labels[self.clean], self.emotions)
        return found


def predict_split(classifier: Classifier, faces: FaceSet, classes: str, split: Split) -> Predictions:
    """Predict a split with a classifier of the core.

    Args:
        classifier: An ONNX model that mien exported.
        faces: The whole data set in seven classes, in which copies are searched.
        classes: Name of the class set of the classifier.
        split: The split to predict.

    Returns:
        The predictions for every row of the split that has one of the classes.

    Raises:
        DataError: If the classifier has other classes, or no row is left.
    """
    if class_set(classes) != classifier.emotions:
        raise DataError(f"{classifier.name} predicts {', '.join(classifier.emotions)}, not the class set {classes!r}")
    chosen = with_classes(faces.split(split), classes)
    if len(chosen) == 0:
        raise DataError(f"{faces.source}: no rows left to evaluate {classifier.name} on; check the Usage column")
    clean = np.isin(chosen.rows.numpy(), faces.rows[clean_rows(faces, split)].numpy())
    probs, _ = classifier(resize_faces(chosen, classifier.size))
    return Predictions(chosen.rows.numpy(), probs, chosen.labels.numpy(), clean, chosen.emotions)


class FaceClassifier(Protocol):
    """A model that can be evaluated: a ``Model`` of the lab or a ``Classifier`` of the core."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def emotions(self) -> tuple[Emotion, ...]:
        """Its classes, in the order of its probabilities."""

    @property
    def size(self) -> int:
        """Side of its crops in pixels."""

    def __call__(self, crops: NDArray[np.uint8], /) -> tuple[NDArray[np.float32], Any]:
        """Predict faces.

        Args:
            crops: uint8 ``[N, size, size]``.

        Returns:
            Probabilities float32 ``[N, C]``, and maps.
        """


@dataclass(frozen=True)
class Selection:
    """The rows that a model is evaluated on.

    Attributes:
        faces: The rows, labelled in the classes of the model.
        clean: Whether no earlier row has the same pixels, bool ``[N]``.
        split: Name of the split, or ``"all"``.
        total: Number of rows of the split.
        account: Reason -> number of rows that are not evaluated.
        protocol: Where the labels come from.
    """

    faces: FaceSet
    clean: NDArray[np.bool_]
    split: str
    total: int
    account: Mapping[str, int] = field(default_factory=dict)
    protocol: str = "the labels of the set"


def shrink_faces(faces: FaceSet, side: int, size: int) -> NDArray[np.uint8]:
    """Return faces as a reader cuts them from an image in which they are small.

    Args:
        faces: N faces.
        side: Side of a face in that image, in pixels (area average).
        size: Side of the crops in pixels (bilinear, as ``mien.extract`` enlarges faces).

    Returns:
        uint8 ``[N, size, size]``.
    """
    down = (Image.fromarray(image).resize((side, side), Image.Resampling.BOX) for image in faces.images.numpy())
    small = torch.from_numpy(np.stack([np.asarray(image) for image in down]))[:, None].float()
    crops = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
    return (crops + 0.5).floor().to(torch.uint8).squeeze(1).numpy()


def confidence_for(probs: Floats, labels: Ints, share: float = RIGHT_SHARE) -> float:
    """Return the confidence from which on a share of the answers is right.

    Args:
        probs: ``[N, C]``.
        labels: True classes ``[N]``.
        share: The share of right answers, 0..1.

    Returns:
        The lowest such confidence, in steps of 0.0001; 0 if all answers together reach the share, 1 if those of no
        confidence do.

    Example:
        >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
        >>> confidence_for(probs, np.array([0, 0, 1, 1]), 0.6)
        0.7
    """
    steps, right = np.floor(1e4 * probs.max(1).astype(np.float64)), probs.argmax(1) == labels
    order = np.argsort(-steps, kind="stable")
    ends = np.flatnonzero(np.diff(steps[order], append=-1))  # a threshold takes all answers of its confidence
    reached = ends[np.cumsum(right[order])[ends] >= share * (ends + 1)]
    if not len(reached):
        return 1.0
    last = int(reached[-1])
    return 0.0 if last == len(order) - 1 else float(steps[order[last]] / 1e4)


def measure_by_size(model: FaceClassifier, selection: Selection) -> dict[str, dict[str, float]]:
    """Measure a model on faces that are shrunk to ``FACE_SIDES``, and on the faces as they are.

    Args:
        model: The model.
        selection: What ``select_rows`` returned for the classes of the model.

    Returns:
        Side of the faces in pixels -> ``accuracy``, ``ece`` (debiased) and ``unsure_below``, what ``confidence_for``
        returns. The last side is that of the faces as they are.
    """
    faces, labels = selection.faces, selection.faces.labels.numpy()
    own = int(faces.images.shape[-1])
    found = {}
    for side in (*(side for side in FACE_SIDES if side < own), own):
        crops = resize_faces(faces, model.size) if side == own else shrink_faces(faces, side, model.size)
        probs, _ = model(crops)
        found[str(side)] = {
            "accuracy": float((probs.argmax(1) == labels).mean()),
            "ece": expected_calibration_error(probs, labels),
            "unsure_below": confidence_for(probs, labels),
        }
    return found


FERPLUS_PROTOCOL = (
    "FER+ majority (Barsoum et al., 2016): single votes dropped as noise, the top of all ten columns needs more than "
    "half of the rest; no majority, unknown, not a face, and pixels from JPEG are left out"
)


def select_rows(faces: FaceSet, emotions: tuple[Emotion, ...], split: Split | None = None) -> Selection:
    """Select the rows that a model can be evaluated on, labelled in the order of its classes.

    A model with the class contempt is evaluated on the FER+ majority if the data set has votes, else on the labels of
    the data set. Faces of an emotion that the model does not know are excluded and counted.

    Args:
        faces: The whole data set, in which copies are searched.
        emotions: The classes of the model.
        split: The split, or ``None`` for all rows.

    Returns:
        The selection.

    Raises:
        DataError: If no row, or only one class, is left.
    """
    part = faces.split(split) if split else faces
    name = str(split) if split else "all"
    if not len(part):
        there = ", ".join(s for s in Split if len(faces.split(s)))
        raise DataError(f"{faces.source}: has no rows in {name}; it has {there}; choose one of these, or all")
    account: dict[str, int] = {}
    protocol, chosen = Selection.protocol, part
    if Emotion.CONTEMPT in emotions and faces.votes is not None and Emotion.CONTEMPT not in faces.emotions:
        chosen, protocol = with_classes(part, "eight"), FERPLUS_PROTOCOL
        jpeg = 0 if part.pixels_from_jpeg is None else int(part.pixels_from_jpeg.sum())
        account["pixels from JPEG, whose votes may be those of another image"] = jpeg
        account["no majority of votes for one emotion"] = len(part) - len(chosen) - jpeg
    for place, emotion in enumerate(chosen.emotions):
        if emotion not in emotions:
            account[f"{emotion}: not among the model's classes"] = int((chosen.labels == place).sum())
    index = torch.tensor([emotions.index(e) if e in emotions else -1 for e in chosen.emotions])
    labels = index[chosen.labels]
    chosen = replace(chosen, labels=labels, emotions=emotions).select(labels >= 0)
    present = torch.unique(chosen.labels)
    if len(present) < 2:
        left = f"one class alone ({emotions[int(present[0])]})" if len(present) else "no row"
        cause = f"{left} is left for a model of {', '.join(emotions)}"
        raise DataError(f"{faces.source}, {name}: {cause}; add faces of two or more of these")
    masks = [clean_rows(faces, each) for each in ([split] if split else list(Split))]
    clean = np.isin(chosen.rows.numpy(), faces.rows[torch.stack(masks).any(dim=0)].numpy())
    account = {reason: count for reason, count in account.items() if count}
    return Selection(chosen, clean, name, len(part), account, protocol)


def predict_selection(model: FaceClassifier, selection: Selection) -> Predictions:
    """Predict the selected rows.

    Args:
        model: The model.
        selection: What ``select_rows`` returned for the classes of the model.

    Returns:
        One prediction for every selected row.
    """
    faces = selection.faces
    probs, _ = model(resize_faces(faces, model.size))
    return Predictions(faces.rows.numpy(), probs, faces.labels.numpy(), selection.clean, faces.emotions)


def compare_with_votes(predictions: Predictions, selection: Selection, part: FaceSet) -> dict[str, Any] | None:
    """Compare predictions with the votes of FER+.

    Args:
        predictions: The predictions for ``selection``.
        selection: The evaluated rows.
        part: The whole split, in seven classes and with its votes.

    Returns:
        Plain values: the ``rule`` of the majority, the agreement with the ``majority``, and the distances to the
        ``distribution`` of all votes. ``None`` for a set without votes.
    """
    if part.votes is None:
        return None
    return {
        "rule": FERPLUS_PROTOCOL,
        "majority": _majority(predictions, part),
        "distribution": _distribution(predictions, selection.faces),
    }


def vote_distances(probs: Floats, votes: Floats) -> dict[str, NDArray[np.float64]]:
    """Compute three distances between probabilities and vote shares.

    Args:
        probs: ``[N, C]``; every row sums to 1.
        votes: Shares of the votes, ``[N, C]``; every row sums to 1.

    Returns:
        Each ``[N]``: ``kl``, the Kullback-Leibler divergence in nats; ``total_variation``, half the sum of absolute
        differences, 0..1; ``log_loss``, the cross-entropy under the votes in nats, which is ``kl`` plus their entropy.
    """
    p, v = np.asarray(probs, np.float64), np.asarray(votes, np.float64)
    logs = np.log(p.clip(np.finfo(np.float64).eps, 1))
    cross_entropy = -(v * logs).sum(1)
    entropy = -(v * np.log(np.where(v > 0, v, 1))).sum(1)
    return {"kl": cross_entropy - entropy, "total_variation": np.abs(p - v).sum(1) / 2, "log_loss": cross_entropy}


def _majority(predictions: Predictions, part: FaceSet) -> dict[str, Any]:
    """Agreement of predictions and labels with the majority, where it is one of the model's classes."""
    voted = with_classes(part, "eight")
    winner = dict(zip(voted.rows.tolist(), (voted.emotions[i] for i in voted.labels.tolist()), strict=True))
    own = dict(zip(part.rows.tolist(), (part.emotions[i] for i in part.labels.tolist()), strict=True))
    guesses = [predictions.emotions[place] for place in predictions.probs.argmax(1).tolist()]
    rows = predictions.rows.tolist()
    known = [(guess, own[row], winner[row]) for row, guess in zip(rows, guesses, strict=True) if row in winner]
    shared = [each for each in known if each[2] in predictions.emotions]
    account = {
        "no majority, or pixels from JPEG": len(rows) - len(known),
        "majority for an emotion that the model does not know": len(known) - len(shared),
    }
    right = np.array([guess == majority for guess, _, majority in shared], np.float64)
    labels = np.array([label == majority for _, label, majority in shared], np.float64)
    return {
        "n": len(shared),
        "total": len(rows),
        "account": {reason: count for reason, count in account.items() if count},
        "agreement": float(right.mean()) if len(shared) else None,
        "interval": list(bootstrap_interval(right)) if len(shared) else None,
        "label_agreement": float(labels.mean()) if len(shared) else None,
    }


def _distribution(predictions: Predictions, faces: FaceSet) -> dict[str, Any]:
    """Distances to the votes for the model's classes, on the rows that have any."""
    votes = vote_distribution(faces).numpy()
    usable = votes.sum(1) > 0
    found: dict[str, Any] = {"n": int(usable.sum()), "total": len(usable)}
    if not usable.any():
        return found
    chosen = votes[usable].astype(np.float64)
    shares = chosen / chosen.sum(1, keepdims=True)
    for name, values in vote_distances(predictions.probs[usable], shares).items():
        found[name] = float(values.mean())
        found[f"{name}_interval"] = list(bootstrap_interval(values))
    found["vote_entropy"] = found["log_loss"] - found["kl"]
    return found


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read ``metrics.json`` of a recorded run.

    Args:
        folder: The folder that ``record_run`` wrote.

    Returns:
        Its content.

    Raises:
        DataError: If the file is missing, damaged, or the report of an evaluation.
    """
    path = folder / "metrics.json"
    try:
        content = load_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); record the run again") from error
    if isinstance(content, dict) and {"model", "about"} <= content.keys():
        raise DataError(f"{folder}: is the report of an evaluation, not a run; name its model instead")
    if not isinstance(content, dict) or not {"recipe", "seed", "metrics", "data_sha256"} <= content.keys():
        raise DataError(f"{path}: holds no metrics of a run; record the run again")
    return content


def load_recorded(folder: Path, faces: FaceSet, split: Split) -> tuple[Predictions, Selection]:
    """Load the recorded predictions (fp32, calibrated) of a run.

    Args:
        folder: The folder that ``record_run`` wrote.
        faces: The data set that the run was evaluated on.
        split: The split.

    Returns:
        The predictions, and the rows that they belong to.

    Raises:
        DataError: If the run was evaluated on other faces, or not on this split, or a file is damaged.
    """
    recorded, path = read_metrics(folder), folder / "predictions.npz"
    # A run with extra data sets records the hash of all of them, but is evaluated on the main one.
    if recorded.get("evaluation_sha256", recorded["data_sha256"]) != (faces.evaluation_sha256 or faces.sha256):
        raise DataError(f"{folder}: its predictions belong to other faces than {faces.source}; use those of the run")
    name = split.removesuffix("Test").lower()
    try:
        classes = load_json(folder / "recipe.json")["data"]["classes"]
        arrays = load_arrays(path, "record the run again")
        if f"{name}_rows" not in arrays:
            raise DataError(f"{folder}: {split} was not evaluated; record the run as final to evaluate PrivateTest")
        rows, probs = arrays[f"{name}_rows"], arrays[f"{name}_probs"].astype(np.float32)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: no such file; record the run again") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({type(error).__name__}); record the run again") from error
    selection = select_rows(faces, class_set(classes), split)
    if not np.array_equal(rows, selection.faces.rows.numpy()):
        raise DataError(f"{path}: holds other rows of {split} than are evaluated now; record the run again")
    emotions, labels = selection.faces.emotions, selection.faces.labels.numpy()
    try:
        probs = check_probabilities(probs, labels, len(emotions)).astype(np.float32)
    except DataError as error:
        raise DataError(f"{path}: {error}; record the run again") from error
    return Predictions(rows, probs, labels, selection.clean, emotions), selection
