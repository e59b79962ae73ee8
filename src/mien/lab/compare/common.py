"""The common ground of models: the faces that all answer, and the classes that all know.

Models of other class sets are asked the same question: of the faces whose label every one of them knows, which of the
common classes is it? The probabilities of the others are left out and the rest is made to sum to 1 again; else a model
that knows more would lose by answers that the smaller one cannot give.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import DataError
from mien.lab.compare.contenders import Contender
from mien.lab.judge.judge import Answers


@dataclass(frozen=True, eq=False)
class Common:
    """``rows`` int64 ``[N]`` of the set with their ``labels`` ``[N]`` in ``emotions``, and ``probs`` ``[M, N, C]``.

    ``clean`` bool ``[N]``: rows whose pixels are no earlier row's; ``narrowed``: of any model, classes were left out.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    clean: NDArray[np.bool_]
    probs: NDArray[np.float32]
    emotions: tuple[Emotion, ...]
    narrowed: bool

    @property
    def guesses(self) -> NDArray[np.int64]:
        """The likeliest class of every model for every row, ``[M, N]``."""
        return np.asarray(self.probs.argmax(2))

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether it is the label, ``[M, N]``."""
        return np.asarray(self.guesses == self.labels)


def common_ground(contenders: Sequence[Contender]) -> Common:
    """The faces and classes that all ``contenders`` share. Raises ``DataError`` where nothing is left to compare."""
    names = " and ".join(c.name for c in contenders) if len(contenders) < 4 else f"these {len(contenders)} models"
    emotions = tuple(e for e in contenders[0].emotions if all(e in c.emotions for c in contenders))
    if len(emotions) < 2:
        known = f"{emotions[0]} alone" if emotions else "none"
        raise DataError(f"{names}: the classes that all know are {known}; nothing can be compared")
    rows = _shared_rows([c.answers for c in contenders], emotions)
    if not len(rows):
        raise DataError(f"{names}: no face is answered by all; compare them on the same split of the same set")
    places = [np.searchsorted(c.answers.rows, rows) for c in contenders]
    labels = [_labels(c.answers, place, emotions) for c, place in zip(contenders, places, strict=True)]
    if any(not np.array_equal(labels[0], other) for other in labels[1:]):
        return _agreeing(contenders, rows, np.stack(labels), emotions)
    return _of(contenders, places, rows, labels[0], emotions)


def _agreeing(
    contenders: Sequence[Contender], rows: NDArray[np.int64], labels: NDArray[np.int64], emotions: tuple[Emotion, ...]
) -> Common:
    """A model of FER+ is judged by its votes, others by the labels of FER-2013: faces that both label alike."""
    same = (labels == labels[0]).all(0)
    if not same.any():
        raise DataError("the models are judged by other labels, and no face has the same in all; compare fewer of them")
    places = [np.searchsorted(c.answers.rows, rows[same]) for c in contenders]
    return _of(contenders, places, rows[same], labels[0][same], emotions)


def _of(
    contenders: Sequence[Contender],
    places: Sequence[NDArray[np.int64]],
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    emotions: tuple[Emotion, ...],
) -> Common:
    probs = [_narrowed(c.answers, place, emotions) for c, place in zip(contenders, places, strict=True)]
    narrowed = any(set(c.emotions) != set(emotions) for c in contenders)
    clean = contenders[0].answers.clean[places[0]]
    return Common(rows, labels, clean, np.stack(probs), emotions, narrowed)


def _shared_rows(answers: Sequence[Answers], emotions: tuple[Emotion, ...]) -> NDArray[np.int64]:
    """Rows, ascending, that all answer and whose label is one of ``emotions`` for all."""
    shared: NDArray[np.int64] | None = None
    for each in answers:
        known = np.array([emotion in emotions for emotion in each.emotions])
        rows = each.rows[known[each.labels]]
        if (np.diff(each.rows) <= 0).any():
            raise DataError("answers must stand in the order of their rows, each once; write them again")
        shared = rows if shared is None else np.intersect1d(shared, rows)
    return shared if shared is not None else np.zeros(0, np.int64)


def _labels(answers: Answers, place: NDArray[np.int64], emotions: tuple[Emotion, ...]) -> NDArray[np.int64]:
    index = np.array([emotions.index(e) if e in emotions else -1 for e in answers.emotions])
    return np.asarray(index[answers.labels[place]], np.int64)


def _narrowed(answers: Answers, place: NDArray[np.int64], emotions: tuple[Emotion, ...]) -> NDArray[np.float32]:
    chosen = answers.probs[place][:, [answers.emotions.index(e) for e in emotions]].astype(np.float64)
    total = chosen.sum(1, keepdims=True)
    even = np.full_like(chosen, 1 / len(emotions))  # where a model gives all of them nothing
    return np.asarray(np.where(total > 0, chosen / np.where(total > 0, total, 1), even), np.float32)
