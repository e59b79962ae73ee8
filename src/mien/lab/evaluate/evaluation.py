"""One subject judged on one selection: everything that its files and its page say, worked out once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import DataError, ModelError
from mien.lab.data import FaceSet, Split
from mien.lab.data.datasets import ALL
from mien.lab.data.duplicates import same_pixels
from mien.lab.evaluate.plots import (
    Selective,
    abstention,
    average_precision,
    bins_as_values,
    reliability,
    selective,
    share_interval,
)
from mien.lab.evaluate.subjects import Subject, TestSet, calibrated, learned_from, select
from mien.lab.export.onnx import hires_maps
from mien.lab.inference import TTA, normalise, tta_views
from mien.lab.models import Model
from mien.lab.nets._layers import Net
from mien.lab.predictions import Predictions, Selection, compare_with_votes, load_recorded, resize_faces
from mien.lab.train.run import Trained

_PIECE = 256  # faces read at once: bounds the memory, and tells how far it is


_MAP_PIECE = 32  # as many for maps, whose gradients take more


Report = Callable[[str, int, int], None]


def check_tta(tta: str) -> None:
    """Raises ``DataError`` for a word that names no tta."""
    if tta not in TTA:
        raise DataError(f"--tta is one of {', '.join(TTA)}, not {tta!r}")


def read_faces(model: Model, faces: FaceSet, *, tta: str = "none", report: Report) -> NDArray[np.float32]:
    """Probabilities float32 ``[N, C]``: the mean over the views of each face. ``report`` hears how many are read."""
    probs = np.zeros((len(faces), len(model.emotions)), np.float64)
    for start in range(0, len(faces), _PIECE):
        piece = faces.select(torch.arange(start, min(start + _PIECE, len(faces))))
        seen = tta_views(piece.images.unsqueeze(1), tta)
        for view in seen:
            crops = resize_faces(replace(piece, images=view.squeeze(1)), model.size)
            probs[start : start + len(piece)] += model(np.ascontiguousarray(crops))[0] / len(seen)
        report(f"{model.name} reads", start + len(piece), len(faces))
    return probs.astype(np.float32)


def map_faces(model: Model | None, faces: FaceSet) -> NDArray[np.float32] | None:
    """Maps float32 ``[N, C, h, w]`` of the faces as they are, in logits by place; ``None`` where there are none.

    Of a run they are HiResCAM of its net, which for a pooled linear head is the class activation map.
    """
    if model is None or not len(faces):
        return None
    parts = []
    for start in range(0, len(faces), _MAP_PIECE):
        crops = resize_faces(faces.select(torch.arange(start, min(start + _MAP_PIECE, len(faces)))), model.size)
        maps = _of_net(model.trained, crops) if model.trained else model(np.ascontiguousarray(crops))[1]
        if maps is None:
            return None
        parts.append(maps)
    return np.concatenate(parts)


@torch.no_grad()
def _of_net(trained: Trained, crops: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    net = trained.net
    if not isinstance(net, Net):
        return None
    x = normalise(torch.from_numpy(crops).unsqueeze(1).float() / 255, trained.recipe.data.size)
    try:
        return np.asarray(hires_maps(net.head, net.features(x)).numpy(), np.float32)
    except ModelError:  # a head whose gradient has no closed form here
        return None


# Document 002 reports the first two; the others are the pairs that classifiers of FER-2013 take for each other most.
NAMED = {
    (Emotion.FEAR, Emotion.HAPPY): "named by document 002",
    (Emotion.ANGRY, Emotion.HAPPY): "named by document 002",
    (Emotion.FEAR, Emotion.SURPRISE): "known to be close",
    (Emotion.NEUTRAL, Emotion.SAD): "known to be close",
}


_MOST = 4  # pairs beyond the named ones


@dataclass(frozen=True, slots=True)
class Direction:
    """Faces of ``truth`` that were read as ``told``: ``count`` of the ``support``; ``rate`` is their share."""

    truth: Emotion
    told: Emotion
    count: int
    support: int

    @property
    def rate(self) -> float | None:
        """Share of the faces of ``truth``, ``None`` where there are none."""
        return self.count / self.support if self.support else None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two emotions, how often each is read as the other, the ``rank`` among all pairs by mistakes, and why it shows."""

    there: Direction
    back: Direction
    rank: int
    why: str


def find_pairs(confusion: Sequence[Sequence[int]], emotions: tuple[Emotion, ...]) -> list[Pair]:
    """The named pairs, then those with the most mistakes beside them. ``confusion`` counts by truth, then answer."""
    counts = np.asarray(confusion)
    support = counts.sum(1)

    def direction(truth: Emotion, told: Emotion) -> Direction:
        i, j = emotions.index(truth), emotions.index(told)
        return Direction(truth, told, int(counts[i, j]), int(support[i]))

    def mistakes(pair: tuple[Emotion, Emotion]) -> int:
        return direction(*pair).count + direction(*pair[::-1]).count

    ranked = sorted(combinations(emotions, 2), key=lambda pair: -mistakes(pair))
    rank = {frozenset(pair): place for place, pair in enumerate(ranked, start=1)}
    named = [pair for pair in NAMED if set(pair) <= set(emotions)]
    apart = {frozenset(pair) for pair in named}
    top = [pair for pair in ranked if frozenset(pair) not in apart and mistakes(pair)][:_MOST]
    return [
        Pair(
            direction(*pair), direction(*pair[::-1]), rank[frozenset(pair)], NAMED.get(pair, "among the most frequent")
        )
        for pair in [*named, *top]
    ]


def most_confident_mistakes(
    answers: Predictions, faces: FaceSet, direction: Direction, *, most: int = 6
) -> NDArray[np.int64]:
    """Places in ``answers`` of the mistakes of this kind with the highest confidence, exact copies of a face once."""
    truth, told = (answers.emotions.index(e) for e in (direction.truth, direction.told))
    wrong = np.flatnonzero((answers.labels == truth) & (answers.probs.argmax(1) == told))
    wrong = wrong[np.argsort(-answers.probs[wrong, told], kind="stable")]
    if not len(wrong):
        return wrong
    first = np.unique(same_pixels(faces.select(torch.from_numpy(wrong))))
    return wrong[first][:most]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The ``answers`` of ``subject`` for the ``selection`` of ``test``; ``views`` says how each face was looked at."""

    subject: Subject
    test: TestSet
    selection: Selection
    predictions: Predictions
    tta: str = "none"

    @property
    def faces(self) -> FaceSet:
        """The judged faces, in the order of the answers."""
        return self.selection.faces

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Figures of ``all`` rows, and of the ``clean`` ones where there are any."""
        return self.predictions.metrics()

    @cached_property
    def curve(self) -> Selective:
        """Risk against coverage."""
        return selective(self.predictions.probs, self.predictions.labels)

    @cached_property
    def abstention(self) -> dict[str, Any]:
        """The threshold for 90 % precision."""
        return abstention(self.predictions.probs, self.predictions.labels)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Emotions taken for each other."""
        return find_pairs(self.metrics["all"]["confusion"], self.predictions.emotions)

    @cached_property
    def votes(self) -> dict[str, Any] | None:
        """Against the crowd of FER+, where the set has votes."""
        split = self.selection.split
        part = self.test.faces if split == ALL else self.test.faces.split(Split(split))
        return compare_with_votes(self.predictions, self.selection, part)

    @cached_property
    def recall_intervals(self) -> dict[str, list[float]]:
        """Wilson's interval of every emotion that the selection has."""
        found = self.metrics["all"]
        right = np.asarray(found["confusion"]).diagonal()
        pairs = zip(self.predictions.emotions, right, strict=True)
        spans = {str(emotion): share_interval(int(hits), found["support"][str(emotion)]) for emotion, hits in pairs}
        return {name: span for name, span in spans.items() if span is not None}

    def warnings(self) -> list[str]:
        """What a reader must know before believing a figure."""
        told, split = [], self.selection.split
        if learned_from(self.subject, self.test.faces) and split in (ALL, Split.TRAINING):
            told.append(f"The model was trained on this set, and {split} holds faces that it has learned from.")
        elif learned_from(self.subject, self.test.faces) and split == Split.PUBLIC_TEST:
            told.append(
                "PublicTest chose this model (its epoch, and where it is calibrated its temperature): "
                "its figures are a little too good there."
            )
        if self.metrics["all"]["absent"]:
            names = ", ".join(self.metrics["all"]["absent"])
            told.append(
                f"No face of {names}: these classes count neither in the balanced accuracy nor in the macro F1, "
                "but the model can still answer them."
            )
        if "clean" not in self.metrics:
            told.append("No row is clean: the exact pixels of every face stand in an earlier split or row, too.")
        if self.test.faces.note:
            told.append(f"{self.test.name}: {self.test.faces.note}.")
        return told

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values for a JSON file; ``views`` stands there only where each face had several."""
        probs, labels, emotions = self.predictions.probs, self.predictions.labels, self.predictions.emotions
        told: dict[str, Any] = {
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
        }
        if self.tta != "none":
            told["tta"] = self.tta
        return told | {
            **self.metrics,
            "recall_intervals": self.recall_intervals,
            "average_precision": average_precision(probs, labels, emotions),
            "reliability": bins_as_values(reliability(probs, labels)),
            "abstention": self.abstention,
            "pairs": [_pair(pair) for pair in self.pairs],
            **({"ferplus": self.votes} if self.votes else {}),
        }

    def predictions_file(self) -> bytes:
        """The content of ``predictions.npz``: rows, labels, probabilities, clean rows and emotions."""
        stream = BytesIO()
        names = np.array([str(emotion) for emotion in self.predictions.emotions])
        a = self.predictions
        np.savez_compressed(stream, rows=a.rows, labels=a.labels, probs=a.probs, clean=a.clean, emotions=names)
        return stream.getvalue()


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be judged: nothing has been read yet, but everything that could be refused before has been."""

    subject: Subject
    test: TestSet
    selection: Selection
    kept: Predictions | None = None


def prepare(subject: Subject, test: TestSet, split: Split | str | None, *, tta: str = "none") -> Task:
    """``subject`` on ``split`` of ``test``. Raises ``DataError`` for rows that cannot be judged, and for kept answers
    that are damaged or about other faces.

    Where nobody has parted the set and the subject has learned from it, it is judged on what its training held out.
    """
    if learned_from(subject, test.faces) and test.undivided and split is None:
        test = test.held_out()
    selection = select(test, subject.emotions, split)
    if subject.model is None and tta != "none":
        raise DataError(f"{subject.path}: holds answers, but no model that could look again; leave --tta out")
    if subject.model is None and selection.split == ALL:
        raise DataError(f"{subject.path}: holds the answers of single splits; name one with --split")
    kept = load_recorded(subject.path, test.faces, Split(selection.split))[0] if subject.model is None else None
    return Task(subject, test, selection, kept)


def evaluate_task(task: Task, *, tta: str = "none", report: Report) -> Evaluation:
    """The answers to ``task``; ``report`` hears what is being done, how far it is and of how much.

    Raises ``ModelError`` for answers that are no probabilities.
    """
    subject, test, selection = task.subject, task.test, task.selection
    if task.kept is not None:
        return Evaluation(subject, test, selection, task.kept)
    assert subject.model is not None  # as ``prepare`` holds
    report(f"{subject.name} opens", 0, 1)
    model = calibrated(subject.model, test.faces)
    subject = replace(subject, model=model, about=model.about)
    probs = read_faces(model, selection.faces, tta=tta, report=report)
    labels = selection.faces.labels.numpy()
    answers = Predictions(selection.faces.rows.numpy(), probs, labels, selection.clean, selection.faces.emotions)
    return Evaluation(subject, test, selection, answers, tta)


def _pair(pair: Pair) -> dict[str, Any]:
    def told(direction: Any) -> Mapping[str, Any]:
        return {
            "truth": str(direction.truth),
            "told": str(direction.told),
            "count": direction.count,
            "support": direction.support,
            "rate": direction.rate,
        }

    return {"why": pair.why, "rank": pair.rank, "there": told(pair.there), "back": told(pair.back)}
