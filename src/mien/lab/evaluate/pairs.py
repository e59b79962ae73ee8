"""Which two emotions a model takes for each other, and the mistakes that it was surest of."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien.lab.data import FaceSet
from mien.lab.data.copies import same_pixels
from mien.lab.judge.judge import Answers

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


def surest_mistakes(answers: Answers, faces: FaceSet, direction: Direction, *, most: int = 6) -> NDArray[np.int64]:
    """Places in ``answers`` of the mistakes of this kind with the highest confidence, exact copies of a face once."""
    truth, told = (answers.emotions.index(e) for e in (direction.truth, direction.told))
    wrong = np.flatnonzero((answers.labels == truth) & (answers.probs.argmax(1) == told))
    wrong = wrong[np.argsort(-answers.probs[wrong, told], kind="stable")]
    if not len(wrong):
        return wrong
    first = np.unique(same_pixels(faces.select(torch.from_numpy(wrong))))
    return wrong[first][:most]
