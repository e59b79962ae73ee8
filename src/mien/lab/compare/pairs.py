"""Every model against every other: which differences are more than noise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from mien._emotions import Emotion
from mien.lab.compare.common import Common, common_ground
from mien.lab.compare.contenders import Contender
from mien.lab.judge.paired import Difference, accuracy_difference, f1_differences, holm, mcnemar

# Chance of one false alarm among all pairs of a report.
ALPHA = 0.05
# Draws of the bootstrap. Its smallest p is 2 / (draws + 1): with many pairs none could stand the correction otherwise.
RESAMPLES = 10_000
_RESAMPLES_A_PAIR = 400


@dataclass(frozen=True, slots=True)
class Pair:
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


def compare_pairs(contenders: Sequence[Contender], *, seed: int = 0) -> tuple[Pair, ...]:
    """Paired tests of all pairs, corrected for their number after Holm, each figure for itself."""
    places = list(combinations(range(len(contenders)), 2))
    resamples = max(RESAMPLES, _RESAMPLES_A_PAIR * len(places))
    found: dict[tuple[int, int], Pair] = {}
    for group in _alike(contenders):
        found |= _pairs_of(contenders, group, resamples, seed)
    for first, second in places:
        if (first, second) not in found:
            found |= _pairs_of(contenders, (first, second), resamples, seed)
    pairs = [found[place] for place in places]
    by_accuracy, by_f1 = holm([p.accuracy.p for p in pairs]), holm([p.macro_f1.p for p in pairs])
    corrected = zip(pairs, by_accuracy, by_f1, strict=True)
    return tuple(replace(pair, accuracy_holm=a, f1_holm=f) for pair, a, f in corrected)


def _alike(contenders: Sequence[Contender]) -> list[tuple[int, ...]]:
    """Places of models that answer the same rows in the same classes: one set of draws serves all their pairs."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, c in enumerate(contenders):
        key = (frozenset(c.emotions), c.answers.rows.tobytes(), c.selection.protocol)
        groups.setdefault(key, []).append(place)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _pairs_of(
    contenders: Sequence[Contender], group: tuple[int, ...], resamples: int, seed: int
) -> dict[tuple[int, int], Pair]:
    common = common_ground([contenders[place] for place in group])
    differences = f1_differences(common.labels, common.guesses, len(common.emotions), resamples=resamples, seed=seed)
    return {
        (group[a], group[b]): _pair(common, (a, b), (group[a], group[b]), macro_f1)
        for (a, b), macro_f1 in differences.items()
    }


def _pair(common: Common, inside: tuple[int, int], places: tuple[int, int], macro_f1: Difference) -> Pair:
    first, second = (np.asarray(common.right[each]) for each in inside)
    test = mcnemar(first, second)
    accuracy = accuracy_difference(first, second)
    alone = test.first_alone, test.second_alone
    return Pair(*places, len(common.rows), common.emotions, *alone, accuracy, macro_f1)
