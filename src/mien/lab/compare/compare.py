"""The comparison of models on the same faces: common rows, paired tests, disagreement, metrics, latency."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._emotions import Emotion
from mien._errors import DataError
from mien._metrics import HEADLINE
from mien._progress import Progress, no_progress
from mien.lab.compare.entries import Entries, ModelEntry, load_entries
from mien.lab.compare.latency import Latencies, measure_latency
from mien.lab.data import FaceSet, Split
from mien.lab.metrics import check_probabilities, compute_metrics
from mien.lab.predictions import Predictions
from mien.lab.significance import Difference, accuracy_difference, f1_differences, holm, mcnemar


@dataclass(frozen=True, eq=False)
class CommonRows:
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


def common_rows(entries: Sequence[ModelEntry]) -> CommonRows:
    """The faces and classes that all ``entries`` share. Raises ``DataError`` where nothing is left to compare."""
    names = " and ".join(c.name for c in entries) if len(entries) < 4 else f"these {len(entries)} models"
    emotions = tuple(e for e in entries[0].emotions if all(e in c.emotions for c in entries))
    if len(emotions) < 2:
        known = f"{emotions[0]} alone" if emotions else "none"
        raise DataError(f"{names}: the classes that all know are {known}; nothing can be compared")
    rows = _shared_rows([c.predictions for c in entries], emotions)
    if not len(rows):
        raise DataError(f"{names}: no face is answered by all; compare them on the same split of the same set")
    places = [np.searchsorted(c.predictions.rows, rows) for c in entries]
    labels = [_labels(c.predictions, place, emotions) for c, place in zip(entries, places, strict=True)]
    if any(not np.array_equal(labels[0], other) for other in labels[1:]):
        return _agreeing(entries, rows, np.stack(labels), emotions)
    return _of(entries, places, rows, labels[0], emotions)


def _agreeing(
    entries: Sequence[ModelEntry], rows: NDArray[np.int64], labels: NDArray[np.int64], emotions: tuple[Emotion, ...]
) -> CommonRows:
    """A model of FER+ is judged by its votes, others by the labels of FER-2013: faces that both label alike."""
    same = (labels == labels[0]).all(0)
    if not same.any():
        raise DataError("the models are judged by other labels, and no face has the same in all; compare fewer of them")
    places = [np.searchsorted(c.predictions.rows, rows[same]) for c in entries]
    return _of(entries, places, rows[same], labels[0][same], emotions)


def _of(
    entries: Sequence[ModelEntry],
    places: Sequence[NDArray[np.int64]],
    rows: NDArray[np.int64],
    labels: NDArray[np.int64],
    emotions: tuple[Emotion, ...],
) -> CommonRows:
    probs = [_narrowed(c.predictions, place, emotions) for c, place in zip(entries, places, strict=True)]
    narrowed = any(set(c.emotions) != set(emotions) for c in entries)
    clean = entries[0].predictions.clean[places[0]]
    return CommonRows(rows, labels, clean, np.stack(probs), emotions, narrowed)


def _shared_rows(predictions: Sequence[Predictions], emotions: tuple[Emotion, ...]) -> NDArray[np.int64]:
    """Rows, ascending, that all answer and whose label is one of ``emotions`` for all."""
    shared: NDArray[np.int64] | None = None
    for each in predictions:
        known = np.array([emotion in emotions for emotion in each.emotions])
        rows = each.rows[known[each.labels]]
        if (np.diff(each.rows) <= 0).any():
            raise DataError("predictions must be in the order of their rows, each row once; write them again")
        shared = rows if shared is None else np.intersect1d(shared, rows)
    return shared if shared is not None else np.zeros(0, np.int64)


def _labels(predictions: Predictions, place: NDArray[np.int64], emotions: tuple[Emotion, ...]) -> NDArray[np.int64]:
    index = np.array([emotions.index(e) if e in emotions else -1 for e in predictions.emotions])
    return np.asarray(index[predictions.labels[place]], np.int64)


def _narrowed(predictions: Predictions, place: NDArray[np.int64], emotions: tuple[Emotion, ...]) -> NDArray[np.float32]:
    chosen = predictions.probs[place][:, [predictions.emotions.index(e) for e in emotions]].astype(np.float64)
    total = chosen.sum(1, keepdims=True)
    even = np.full_like(chosen, 1 / len(emotions))  # where a model gives all of them nothing
    return np.asarray(np.where(total > 0, chosen / np.where(total > 0, total, 1), even), np.float32)


@dataclass(frozen=True, eq=False)
class Disagreement:
    """Of M models on N common faces; all but ``divergence`` are shares of those faces.

    - ``differ`` ``[M, M]``: two answer differently; ``double_fault`` ``[M, M]``: both are wrong (Giacinto and Roli,
      2001), on the diagonal the error of each
    - ``accuracy`` ``[M]``; ``oracle``: at least one is right; ``all_right``, ``all_wrong``
    - ``majority``: the answer of most is right, ties going to the higher mean probability; ``mean``: that of the mean
    - ``divergence`` ``[N]``: Jensen-Shannon divergence of their probabilities in nats (Lin, 1991), 0 where all agree
    """

    differ: NDArray[np.float64]
    double_fault: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    oracle: float
    all_right: float
    all_wrong: float
    majority: float
    mean: float
    divergence: NDArray[np.float64]


def disagreement(common: CommonRows) -> Disagreement:
    """How the models of ``common`` disagree on its faces."""
    guesses, right = common.guesses, common.right
    wrong, mean = ~right, common.probs.mean(0, dtype=np.float64)
    return Disagreement(
        (guesses[:, None] != guesses[None]).mean(2),
        (wrong[:, None] & wrong[None]).mean(2),
        right.mean(1),
        float(right.any(0).mean()),
        float(right.all(0).mean()),
        float(wrong.all(0).mean()),
        float((_majority(guesses, mean) == common.labels).mean()),
        float((mean.argmax(1) == common.labels).mean()),
        _divergence(common, mean),
    )


def _majority(guesses: NDArray[np.int64], mean: NDArray[np.float64]) -> NDArray[np.int64]:
    votes = np.stack([(guesses == place).sum(0) for place in range(mean.shape[1])], axis=1)
    return np.asarray((votes + mean / 2).argmax(1))  # a mean probability never outweighs a vote


def _divergence(common: CommonRows, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    single = np.stack([_entropy(check_probabilities(probs, common.labels, mean.shape[1])) for probs in common.probs])
    return np.asarray((_entropy(mean) - single.mean(0)).clip(min=0))


def _entropy(probs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(-(probs * np.log(np.maximum(probs, np.finfo(np.float64).tiny))).sum(1))


# Chance of one false alarm among all pairs of a report.
ALPHA = 0.05


# Draws of the bootstrap. Its smallest p is 2 / (draws + 1): with many pairs none could stand the correction otherwise.
RESAMPLES = 10_000


_RESAMPLES_A_PAIR = 400


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Two models by their places, on the ``n`` faces of ``emotions`` that both answer.

    ``accuracy`` and ``macro_f1`` are the first less the second with uncorrected p; ``accuracy_holm`` and ``f1_holm``
    are corrected for all pairs. ``first_alone``, ``second_alone``: faces that only one of them reads rightly.
    """

    first: int
    second: int
    n: int
    emotions: tuple[Emotion, ...]
    first_alone: int
    second_alone: int
    accuracy: Difference
    macro_f1: Difference
    accuracy_holm: float = 1.0
    f1_holm: float = 1.0

    @property
    def accuracy_differs(self) -> bool:
        """Whether the accuracies differ by more than noise."""
        return self.accuracy_holm < ALPHA

    @property
    def f1_differs(self) -> bool:
        """Whether the macro F1 differ by more than noise."""
        return self.f1_holm < ALPHA


def compare_pairs(entries: Sequence[ModelEntry], *, seed: int = 0) -> tuple[PairedTest, ...]:
    """Paired tests of all pairs, corrected for their number after Holm, each figure for itself."""
    places = list(combinations(range(len(entries)), 2))
    resamples = max(RESAMPLES, _RESAMPLES_A_PAIR * len(places))
    found: dict[tuple[int, int], PairedTest] = {}
    for group in _alike(entries):
        found |= _pairs_of(entries, group, resamples, seed)
    for first, second in places:
        if (first, second) not in found:
            found |= _pairs_of(entries, (first, second), resamples, seed)
    pairs = [found[place] for place in places]
    by_accuracy, by_f1 = holm([p.accuracy.p for p in pairs]), holm([p.macro_f1.p for p in pairs])
    corrected = zip(pairs, by_accuracy, by_f1, strict=True)
    return tuple(replace(pair, accuracy_holm=a, f1_holm=f) for pair, a, f in corrected)


def _alike(entries: Sequence[ModelEntry]) -> list[tuple[int, ...]]:
    """Places of models that answer the same rows in the same classes: one set of draws serves all their pairs."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, c in enumerate(entries):
        key = (frozenset(c.emotions), c.predictions.rows.tobytes(), c.selection.protocol)
        groups.setdefault(key, []).append(place)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _pairs_of(
    entries: Sequence[ModelEntry], group: tuple[int, ...], resamples: int, seed: int
) -> dict[tuple[int, int], PairedTest]:
    common = common_rows([entries[place] for place in group])
    differences = f1_differences(common.labels, common.guesses, len(common.emotions), resamples=resamples, seed=seed)
    return {
        (group[a], group[b]): _pair(common, (a, b), (group[a], group[b]), macro_f1)
        for (a, b), macro_f1 in differences.items()
    }


def _pair(common: CommonRows, inside: tuple[int, int], places: tuple[int, int], macro_f1: Difference) -> PairedTest:
    first, second = (np.asarray(common.right[each]) for each in inside)
    test = mcnemar(first, second)
    accuracy = accuracy_difference(first, second)
    alone = test.first_alone, test.second_alone
    return PairedTest(*places, len(common.rows), common.emotions, *alone, accuracy, macro_f1)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A finished comparison.

    ``metrics`` are each entry's own, of ``all`` its faces and the ``clean`` ones; ``common_metrics`` those on the
    faces and classes that all share; ``latencies`` is ``None`` where nothing was timed.
    """

    entries: tuple[ModelEntry, ...]
    faces: FaceSet
    split: str
    metrics: tuple[dict[str, Any], ...]
    common: CommonRows
    common_metrics: tuple[dict[str, Any], ...]
    pairs: tuple[PairedTest, ...]
    disagreement: Disagreement
    latencies: Latencies | None

    def pair(self, first: int, second: int) -> tuple[PairedTest, int]:
        """The pair of two places, and 1 where it is told in that order, -1 where the other way round."""
        pair = next(p for p in self.pairs if {p.first, p.second} == {first, second})
        return pair, 1 if pair.first == first else -1

    def recall(self, place: int) -> dict[Emotion, float]:
        """The recall of every emotion of a model that its own faces have."""
        found = self.metrics[place]["all"]
        return {e: found["recall"][e] for e in self.entries[place].emotions if e not in found["absent"]}

    def warnings(self) -> list[str]:
        """What a reader must know before believing a figure."""
        told, learned = [], [c.name for c in self.entries if c.learned_from == self.faces.sha256]
        if learned and self.split == Split.PUBLIC_TEST:
            told.append(
                f"PublicTest chose these models (their epoch, and where they are calibrated their temperature): their "
                f"figures are a little too good there: {', '.join(learned)}."
            )
        elif learned and self.split != Split.PRIVATE_TEST:
            told.append(f"These models have learned from faces that judge them here: {', '.join(learned)}.")
        if any("clean" not in each for each in self.metrics):
            told.append("No row is clean: the exact pixels of every face stand in an earlier split or row, too.")
        return told


def compare(
    given: Sequence[str],
    data: Path | None,
    split: Split | None,
    *,
    latency: bool = True,
    progress: Progress = no_progress,
) -> Comparison:
    """Compare what ``given`` names on ``split`` (``None``: all) of the set at ``data``; see ``entries.load_entries``.

    ``progress`` is called before each step. Raises ``DataError`` or ``ModelError`` that names what is wrong with which.
    """
    entries = load_entries(given, data, split, progress=progress)
    return compare_entries(entries, split, latency=latency, progress=progress)


def compare_entries(
    entries: Entries,
    split: Split | None,
    *,
    latency: bool = True,
    progress: Progress = no_progress,
) -> Comparison:
    """As ``compare``, of what has answered already. Raises ``DataError`` for fewer than two."""
    models = entries.entries
    if len(models) < 2:
        named = models[0].name if models else "none"
        raise DataError(f"a comparison needs two models, and there is {named}; name another one")
    progress("figures")
    common = common_rows(models)
    own = tuple(c.predictions.metrics() for c in models)
    shared = tuple(compute_metrics(probs, common.labels, common.emotions) for probs in common.probs)
    progress("paired tests")
    pairs, apart = compare_pairs(models), disagreement(common)
    latencies = measure_latency(models, progress=progress) if latency else None
    name = str(split) if split else "all"
    return Comparison(models, entries.faces, name, own, common, shared, pairs, apart, latencies)


def over_seeds(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Recipe -> mean, standard deviation and number of its seeds, of every figure; of recipes with several alone."""
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for place, c in enumerate(comparison.entries):
        if c.seed:
            groups.setdefault((c.recipe, tuple(map(str, c.emotions))), []).append(place)
    found = {}
    for (recipe, _), places in groups.items():
        if len({comparison.entries[p].seed for p in places}) == len(places) > 1:
            found[recipe] = {"n": len(places), "seeds": [comparison.entries[p].seed for p in places]}
            found[recipe] |= {key: _spread([comparison.metrics[p]["all"][key] for p in places]) for key in HEADLINE}
            clean = [f["clean"]["accuracy"] for p in places if "clean" in (f := comparison.metrics[p])]
            found[recipe] |= {"clean_accuracy": _spread(clean)} if clean else {}
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": fmean(values), "sd": stdev(values)}
