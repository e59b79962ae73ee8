"""One subject judged on one selection: everything that its files and its page say, worked out once."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np

from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.evaluate.answer import Report, read_faces
from mien.lab.evaluate.curves import (
    Selective,
    abstention,
    average_precision,
    bins_as_values,
    reliability,
    selective,
    share_interval,
)
from mien.lab.evaluate.pairs import Pair, find_pairs
from mien.lab.evaluate.sets import TestSet, select
from mien.lab.evaluate.subject import Subject, calibrated, learned_from
from mien.lab.feed.asked import ALL
from mien.lab.judge.examine import Selection
from mien.lab.judge.ferplus import against_votes
from mien.lab.judge.judge import Answers
from mien.lab.judge.recorded import recorded


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The ``answers`` of ``subject`` for the ``selection`` of ``test``; ``views`` says how each face was looked at."""

    subject: Subject
    test: TestSet
    selection: Selection
    answers: Answers
    views: str = "one"

    @property
    def faces(self) -> FaceSet:
        """The judged faces, in the order of the answers."""
        return self.selection.faces

    @cached_property
    def judged(self) -> dict[str, Any]:
        """Figures of ``all`` rows, and of the ``clean`` ones where there are any."""
        return self.answers.figures()

    @cached_property
    def curve(self) -> Selective:
        """Risk against coverage."""
        return selective(self.answers.probs, self.answers.labels)

    @cached_property
    def abstention(self) -> dict[str, Any]:
        """The threshold for 90 % precision."""
        return abstention(self.answers.probs, self.answers.labels)

    @cached_property
    def pairs(self) -> list[Pair]:
        """Emotions taken for each other."""
        return find_pairs(self.judged["all"]["confusion"], self.answers.emotions)

    @cached_property
    def votes(self) -> dict[str, Any] | None:
        """Against the crowd of FER+, where the set has votes."""
        split = self.selection.split
        part = self.test.faces if split == ALL else self.test.faces.split(Split(split))
        return against_votes(self.answers, self.selection, part)

    @cached_property
    def recall_intervals(self) -> dict[str, list[float]]:
        """Wilson's interval of every emotion that the selection has."""
        found = self.judged["all"]
        right = np.asarray(found["confusion"]).diagonal()
        pairs = zip(self.answers.emotions, right, strict=True)
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
        if self.judged["all"]["absent"]:
            names = ", ".join(self.judged["all"]["absent"])
            told.append(
                f"No face of {names}: these classes count neither in the balanced accuracy nor in the macro F1, "
                "but the model can still answer them."
            )
        if "clean" not in self.judged:
            told.append("No row is clean: the exact pixels of every face stand in an earlier split or row, too.")
        if self.test.faces.note:
            told.append(f"{self.test.name}: {self.test.faces.note}.")
        return told

    def metrics(self) -> dict[str, Any]:
        """Everything as plain values for a JSON file; ``views`` stands there only where each face had several."""
        probs, labels, emotions = self.answers.probs, self.answers.labels, self.answers.emotions
        told: dict[str, Any] = {
            "model": self.subject.name,
            "about": dict(self.subject.about),
            "seed": self.subject.seed,
            "emotions": [str(emotion) for emotion in emotions],
            "data": self.test.name,
            "data_sha256": self.test.faces.sha256,
            "split": self.selection.split,
            "total": self.selection.total,
            "judged": len(labels),
            "left_out": dict(self.selection.account),
            "protocol": self.selection.protocol,
            "warnings": self.warnings(),
        }
        if self.views != "one":
            told["views"] = self.views
        return told | {
            **self.judged,
            "recall_intervals": self.recall_intervals,
            "average_precision": average_precision(probs, labels, emotions),
            "reliability": bins_as_values(reliability(probs, labels)),
            "abstention": self.abstention,
            "pairs": [_pair(pair) for pair in self.pairs],
            **({"ferplus": self.votes} if self.votes else {}),
        }

    def answers_file(self) -> bytes:
        """The content of ``answers.npz``: rows, labels, probabilities, clean rows and the emotions' names; no face."""
        stream = BytesIO()
        names = np.array([str(emotion) for emotion in self.answers.emotions])
        a = self.answers
        np.savez_compressed(stream, rows=a.rows, labels=a.labels, probs=a.probs, clean=a.clean, emotions=names)
        return stream.getvalue()


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be judged: nothing has been read yet, but everything that could be refused before has been."""

    subject: Subject
    test: TestSet
    selection: Selection
    kept: Answers | None = None


def prepare(subject: Subject, test: TestSet, split: Split | str | None, *, views: str = "one") -> Task:
    """``subject`` on ``split`` of ``test``. Raises ``DataError`` for rows that cannot be judged, and for kept answers
    that are damaged or about other faces.

    Where nobody has parted the set and the subject has learned from it, it is judged on what its training held out.
    """
    if learned_from(subject, test.faces) and test.undivided and split is None:
        test = test.held_out()
    selection = select(test, subject.emotions, split)
    if subject.model is None and views != "one":
        raise DataError(f"{subject.path}: holds answers, but no model that could look again; leave --views out")
    if subject.model is None and selection.split == ALL:
        raise DataError(f"{subject.path}: holds the answers of single splits; name one with --split")
    kept = recorded(subject.path, test.faces, Split(selection.split))[0] if subject.model is None else None
    return Task(subject, test, selection, kept)


def judge(task: Task, *, views: str = "one", report: Report) -> Evaluation:
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
    probs = read_faces(model, selection.faces, views=views, report=report)
    labels = selection.faces.labels.numpy()
    answers = Answers(selection.faces.rows.numpy(), probs, labels, selection.clean, selection.faces.emotions)
    return Evaluation(subject, test, selection, answers, views)


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
