"""The evaluation of one model on one selection of faces: predictions, metrics, confused pairs and warnings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mien._emotions import Emotion
from mien._errors import DataError, ModelError
from mien._progress import Progress, no_progress
from mien.lab.data import FaceSet, Split
from mien.lab.data.datasets import ALL, as_in_training
from mien.lab.data.duplicates import same_pixels
from mien.lab.evaluate.plots import abstention, average_precision, reliability
from mien.lab.evaluate.subjects import Subject, TestSet, calibrated, select
from mien.lab.export.onnx import hires_maps
from mien.lab.inference import normalise, tta_views
from mien.lab.ledger import is_private_test
from mien.lab.metrics import calibration_metrics, class_intervals
from mien.lab.models import Model, was_trained_on
from mien.lab.nets._layers import Net
from mien.lab.predictions import Predictions, Selection, compare_with_votes, load_recorded, resize_faces

_BATCH = 256  # faces predicted at once: bounds the memory
_FREQUENT_PAIRS = 4  # most frequent pairs that are reported besides the named ones
# Document 002 reports the first two; the others are the pairs that classifiers of FER-2013 confuse most.
NAMED_PAIRS = {
    (Emotion.FEAR, Emotion.HAPPY): "named by document 002",
    (Emotion.ANGRY, Emotion.HAPPY): "named by document 002",
    (Emotion.FEAR, Emotion.SURPRISE): "known to be close",
    (Emotion.NEUTRAL, Emotion.SAD): "known to be close",
}


def predict_faces(
    model: Model, faces: FaceSet, *, tta: str = "none", progress: Progress = no_progress
) -> NDArray[np.float32]:
    """Predict faces with test-time augmentation.

    Args:
        model: The model.
        faces: N faces of any size.
        tta: A key of ``mien.lab.inference.TTA``; the probabilities of the views are averaged.
        progress: Called with the number of faces done.

    Returns:
        Probabilities float32 ``[N, C]``.
    """
    probs = np.zeros((len(faces), len(model.emotions)), np.float64)
    for start in range(0, len(faces), _BATCH):
        batch = faces.select(torch.arange(start, min(start + _BATCH, len(faces))))
        views = tta_views(batch.images.unsqueeze(1), tta)
        for view in views:
            crops = resize_faces(replace(batch, images=view.squeeze(1)), model.size)
            probs[start : start + len(batch)] += model(np.ascontiguousarray(crops))[0] / len(views)
        progress(f"{model.name} predicts", start + len(batch), len(faces))
    return probs.astype(np.float32)


@torch.no_grad()
def map_faces(model: Model | None, faces: FaceSet) -> NDArray[np.float32] | None:
    """Compute the maps of faces without augmentation.

    The maps of a run are HiResCAM of its net; for a pooled linear head these are the class activation maps.

    Args:
        model: The model, or ``None`` for recorded predictions.
        faces: N faces of any size, few enough to be computed at once.

    Returns:
        Logits by place, float32 ``[N, C, h, w]``; ``None`` if the model has no maps.
    """
    if model is None:
        return None
    crops = resize_faces(faces, model.size)
    if model.trained is None:
        return model(crops)[1]
    net = model.trained.net
    if not isinstance(net, Net):
        return None
    x = normalise(torch.from_numpy(crops).unsqueeze(1).float() / 255, model.size)
    try:
        return np.asarray(hires_maps(net.head, net.features(x)).numpy(), np.float32)
    except ModelError:  # a head whose gradient has no closed form
        return None


@dataclass(frozen=True, slots=True)
class Direction:
    """Faces of one emotion that were predicted as another.

    Attributes:
        label: The true emotion.
        predicted: The emotion that the model predicted.
        count: Number of such faces.
        support: Number of all faces of ``label``.
    """

    label: Emotion
    predicted: Emotion
    count: int
    support: int

    @property
    def rate(self) -> float | None:
        """``count`` as a share of ``support``; ``None`` without faces."""
        return self.count / self.support if self.support else None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two emotions that are confused with each other.

    Attributes:
        forward: Faces of the first emotion, predicted as the second.
        backward: Faces of the second emotion, predicted as the first.
        rank: Rank among all pairs by the number of mistakes in both directions, from 1.
        reason: Why the pair is reported.
    """

    forward: Direction
    backward: Direction
    rank: int
    reason: str


def find_pairs(confusion: Sequence[Sequence[int]], emotions: tuple[Emotion, ...]) -> list[Pair]:
    """Find the pairs of emotions that are confused most.

    Args:
        confusion: Counts ``[C, C]`` by label, then prediction.
        emotions: The C classes.

    Returns:
        The pairs of ``NAMED_PAIRS`` whose emotions are among the classes, then the most frequent others.
    """
    counts = np.asarray(confusion)
    support = counts.sum(1)

    def direction(label: Emotion, predicted: Emotion) -> Direction:
        i, j = emotions.index(label), emotions.index(predicted)
        return Direction(label, predicted, int(counts[i, j]), int(support[i]))

    def mistakes(pair: tuple[Emotion, Emotion]) -> int:
        return direction(*pair).count + direction(*pair[::-1]).count

    ranked = sorted(combinations(emotions, 2), key=lambda pair: -mistakes(pair))
    ranks = {frozenset(pair): rank for rank, pair in enumerate(ranked, start=1)}
    named = [pair for pair in NAMED_PAIRS if set(pair) <= set(emotions)]
    others = [pair for pair in ranked if pair not in named and pair[::-1] not in named and mistakes(pair)]
    found = []
    for pair in named + others[:_FREQUENT_PAIRS]:
        reason = NAMED_PAIRS.get(pair, "among the most frequent")
        found.append(Pair(direction(*pair), direction(*pair[::-1]), ranks[frozenset(pair)], reason))
    return found


def most_confident_mistakes(
    predictions: Predictions, faces: FaceSet, direction: Direction, *, limit: int = 6
) -> NDArray[np.int64]:
    """Find the mistakes of one kind with the highest confidence.

    Args:
        predictions: The predictions.
        faces: The evaluated faces, in the order of ``predictions``.
        direction: The kind of mistake.
        limit: The largest number of mistakes.

    Returns:
        Indices into ``predictions``, the most confident first; exact copies of a face appear once.
    """
    label, predicted = (predictions.emotions.index(e) for e in (direction.label, direction.predicted))
    wrong = np.flatnonzero((predictions.labels == label) & (predictions.probs.argmax(1) == predicted))
    wrong = wrong[np.argsort(-predictions.probs[wrong, predicted], kind="stable")]
    if not len(wrong):
        return wrong
    first = np.unique(same_pixels(faces.select(torch.from_numpy(wrong))))
    return wrong[first][:limit]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The evaluation of one model on one set; every value is computed once, when it is first needed.

    Attributes:
        subject: What was evaluated.
        test: The data set.
        selection: The evaluated rows of it.
        predictions: The predictions of these rows.
        tta: The test-time augmentation, a key of ``mien.lab.inference.TTA``.
        looks: A sentence on the looks at PrivateTest; empty where there was one at most.
        uncalibrated: Log loss, Brier score and calibration error of a run before its calibration; empty if unknown.
    """

    subject: Subject
    test: TestSet
    selection: Selection
    predictions: Predictions
    tta: str = "none"
    looks: str = ""
    uncalibrated: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Metrics of ``all`` rows and of the ``clean`` ones, if there are any."""
        return self.predictions.metrics()

    @cached_property
    def abstention(self) -> dict[str, Any]:
        """The threshold of confidence for 90 % precision."""
        return abstention(self.predictions.probs, self.predictions.labels)

    @cached_property
    def pairs(self) -> list[Pair]:
        """The pairs of emotions that are confused most."""
        return find_pairs(self.metrics["all"]["confusion"], self.predictions.emotions)

    @cached_property
    def votes(self) -> dict[str, Any] | None:
        """Comparison with the votes of FER+; ``None`` for a data set without votes."""
        split = self.selection.split
        part = self.test.faces if split == ALL else self.test.faces.split(Split(split))
        return compare_with_votes(self.predictions, self.selection, part)

    @cached_property
    def class_intervals(self) -> dict[str, dict[str, list[float]]]:
        """The 95 % intervals of recall, precision and F1 of every emotion that has such a value."""
        return class_intervals(self.metrics["all"]["confusion"], self.predictions.emotions)

    def warnings(self) -> list[str]:
        """Return the limits of the metrics, as sentences for the report."""
        found, split = [], self.selection.split
        trained_on_it = was_trained_on(self.subject.about.get("data_sha256", ""), self.test.faces)
        run = self.subject.model.trained if self.subject.model else None
        leak = run.recipe.data.leak if run else ""
        if trained_on_it and (leak == "data.expand_first" or (leak and split == Split.PUBLIC_TEST)):
            found.append(f"The model has learned from faces of {split} ({leak}): its metrics are no use there.")
        elif trained_on_it and split in (ALL, Split.TRAINING):
            found.append(f"The model was trained on this set, and {split} contains training faces.")
        elif trained_on_it and split == Split.PUBLIC_TEST:
            found.append(
                "PublicTest selected this model (its epoch, and its calibration if it has one): "
                "its metrics are slightly too good there."
            )
        if self.looks:
            found.append(self.looks)
        if self.metrics["all"]["absent"]:
            found.append(
                f"No face of {', '.join(self.metrics['all']['absent'])}: these classes count neither in the balanced "
                "accuracy nor in the macro F1, but the model can still predict them."
            )
        if "clean" not in self.metrics:
            found.append("No row is clean: the exact pixels of every face occur in an earlier split or row, too.")
        if self.test.faces.note:
            found.append(f"{self.test.name}: {self.test.faces.note}.")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values for a JSON file; ``tta`` only if it is not ``"none"``."""
        probs, labels, emotions = self.predictions.probs, self.predictions.labels, self.predictions.emotions
        return {
            "model": self.subject.name,
            "about": dict(self.subject.about),
            "seed": self.subject.seed,
            "emotions": [str(emotion) for emotion in emotions],
            "data": self.test.name,
            "data_sha256": self.test.faces.sha256,
            "split": self.selection.split,
            "total": self.selection.total,
            "evaluated": len(labels),
            "excluded": dict(self.selection.account),
            "protocol": self.selection.protocol,
            "warnings": self.warnings(),
            **({"tta": self.tta} if self.tta != "none" else {}),
            **({"uncalibrated": dict(self.uncalibrated)} if self.uncalibrated else {}),
            **self.metrics,
            "class_intervals": self.class_intervals,
            "average_precision": average_precision(probs, labels, emotions),
            "reliability": [asdict(each) for each in reliability(probs, labels)],
            "abstention": self.abstention,
            "pairs": [_pair_values(pair) for pair in self.pairs],
            **({"ferplus": self.votes} if self.votes else {}),
        }

    def arrays(self) -> dict[str, ArrayLike]:
        """Return the content of ``predictions.npz``: rows, labels, probabilities, clean rows and emotions; no face."""
        p = self.predictions
        names = [str(emotion) for emotion in p.emotions]
        return {"rows": p.rows, "labels": p.labels, "probs": p.probs, "clean": p.clean, "emotions": names}


@dataclass(frozen=True, eq=False)
class Task:
    """An evaluation that has been checked, and has not predicted a face yet.

    Attributes:
        subject: What is evaluated.
        test: The data set.
        selection: The rows to evaluate.
        recorded: Recorded predictions, if there is no model.
    """

    subject: Subject
    test: TestSet
    selection: Selection
    recorded: Predictions | None = None

    @property
    def is_counted(self) -> bool:
        """Whether it is a look at the PrivateTest of FER-2013."""
        return is_private_test(self.test.faces, self.selection.split)


def prepare_evaluation(subject: Subject, test: TestSet, split: Split | str | None, *, tta: str = "none") -> Task:
    """Check everything that an evaluation needs, before it starts.

    A data set without splits is evaluated as a whole. Of a set without PublicTest, a model that was trained on it has
    the faces that were held out for validation.

    Args:
        subject: What is evaluated.
        test: The data set.
        split: The split, ``"all"``, or ``None`` for the default of the set.
        tta: A key of ``mien.lab.inference.TTA``.

    Returns:
        The task.

    Raises:
        DataError: If there are no rows to evaluate, or recorded predictions are damaged or belong to other faces.
    """
    test = replace(test, faces=as_in_training(test.faces, [subject.about.get("data_sha256")]))
    selection = select(test, subject.emotions, split)
    if subject.model is not None:
        return Task(subject, test, selection)
    if tta != "none":
        raise DataError(f"{subject.path}: holds recorded predictions and no model; use no test-time augmentation")
    if selection.split == ALL:
        raise DataError(f"{subject.path}: holds the predictions of single splits; choose one of them")
    return Task(subject, test, selection, load_recorded(subject.path, test.faces, Split(selection.split))[0])


def check_uncalibrated(subject: Subject) -> None:
    """Check that a model can be evaluated without its calibration.

    Args:
        subject: The model, or its recorded predictions.

    Raises:
        ModelError: If it is no run: an exported file and recorded predictions contain the calibration.
    """
    if subject.model is None or subject.model.trained is None:
        raise ModelError(f"{subject.path}: contains its calibration; name the run that it was exported from")


def evaluate_task(
    task: Task, *, tta: str = "none", uncalibrated: bool = False, progress: Progress = no_progress
) -> Evaluation:
    """Predict the faces of a task. A run that is calibrated is also measured before its calibration.

    Args:
        task: The task.
        tta: A key of ``mien.lab.inference.TTA``.
        uncalibrated: Whether a run is not calibrated.
        progress: Called with the number of faces done.

    Returns:
        The evaluation.

    Raises:
        ModelError: If the model does not return probabilities.
    """
    subject, test, selection = task.subject, task.test, task.selection
    if task.recorded is not None:
        return Evaluation(subject, test, selection, task.recorded)
    assert subject.model is not None  # as ``prepare_evaluation`` ensures
    progress(f"opening {subject.name}")
    raw, faces, before = subject.model, selection.faces, {}
    model = raw if uncalibrated else calibrated(raw, test.faces)
    if model.about.get("calibration") != raw.about.get("calibration"):
        before = calibration_metrics(predict_faces(raw, faces, tta=tta, progress=progress), faces.labels.numpy())
    subject = replace(subject, model=model, about=model.about)
    probs = predict_faces(model, faces, tta=tta, progress=progress)
    predictions = Predictions(faces.rows.numpy(), probs, faces.labels.numpy(), selection.clean, faces.emotions)
    return Evaluation(subject, test, selection, predictions, tta, uncalibrated=before)


def _pair_values(pair: Pair) -> dict[str, Any]:
    directions = {"forward": pair.forward, "backward": pair.backward}
    counts = {key: asdict(each) | {"rate": each.rate} for key, each in directions.items()}
    return {"reason": pair.reason, "rank": pair.rank, **counts}
