"""Contenders -> everything that a comparison says of them, as one value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from mien._emotions import Emotion
from mien._errors import DataError
from mien.lab.compare.common import Common, common_ground
from mien.lab.compare.contenders import Contender, Entries, gather
from mien.lab.compare.cost import Costs, measure_costs
from mien.lab.compare.disagree import Disagreement, disagreement
from mien.lab.compare.pairs import Pair, compare_pairs
from mien.lab.data import FaceSet, Split
from mien.lab.judge.metrics import figures

# What the table of a comparison shows of each model, as `metrics.figures` names it; True: more is better.
FIGURES = {
    "accuracy": True,
    "balanced_accuracy": True,
    "macro_f1": True,
    "log_loss": False,
    "ece": False,
}


@dataclass(frozen=True, eq=False)
class Comparison:
    """A finished comparison.

    ``figures`` are each contender's own, of ``all`` its faces and the ``clean`` ones; ``common_figures`` those on the
    faces and classes that all share; ``costs`` is ``None`` where nothing was timed.
    """

    contenders: tuple[Contender, ...]
    faces: FaceSet
    split: str
    figures: tuple[dict[str, Any], ...]
    common: Common
    common_figures: tuple[dict[str, Any], ...]
    pairs: tuple[Pair, ...]
    disagreement: Disagreement
    costs: Costs | None

    def pair(self, first: int, second: int) -> tuple[Pair, int]:
        """The pair of two places, and 1 where it is told in that order, -1 where the other way round."""
        pair = next(p for p in self.pairs if {p.first, p.second} == {first, second})
        return pair, 1 if pair.first == first else -1

    def recall(self, place: int) -> dict[Emotion, float]:
        """The recall of every emotion of a model that its own faces have."""
        found = self.figures[place]["all"]
        return {e: found["recall"][e] for e in self.contenders[place].emotions if e not in found["absent"]}

    def warnings(self) -> list[str]:
        """What a reader must know before believing a figure."""
        told, learned = [], [c.name for c in self.contenders if c.learned_from == self.faces.sha256]
        if learned and self.split == Split.PUBLIC_TEST:
            told.append(
                f"PublicTest chose these models (their epoch, and where they are calibrated their temperature): their "
                f"figures are a little too good there: {', '.join(learned)}."
            )
        elif learned and self.split != Split.PRIVATE_TEST:
            told.append(f"These models have learned from faces that judge them here: {', '.join(learned)}.")
        if any("clean" not in each for each in self.figures):
            told.append("No row is clean: the exact pixels of every face stand in an earlier split or row, too.")
        return told


def compare(
    given: Sequence[str],
    data: Path | None,
    split: Split | None,
    *,
    latency: bool = True,
    report: Callable[[str], object] = lambda _: None,
) -> Comparison:
    """Compare what ``given`` names on ``split`` (``None``: all) of the set at ``data``; see ``contenders.gather``.

    ``report`` hears what is done next. Raises ``DataError`` or ``ModelError`` that names what is wrong with which.
    """
    entries = gather(given, data, split, report=report)
    return compare_entries(entries, split, latency=latency, report=report)


def compare_entries(
    entries: Entries,
    split: Split | None,
    *,
    latency: bool = True,
    report: Callable[[str], object] = lambda _: None,
) -> Comparison:
    """As ``compare``, of what has answered already. Raises ``DataError`` for fewer than two."""
    contenders = entries.contenders
    if len(contenders) < 2:
        named = contenders[0].name if contenders else "none"
        raise DataError(f"a comparison needs two models, and there is {named}; name another one")
    report("figures")
    common = common_ground(contenders)
    own = tuple(c.answers.figures() for c in contenders)
    shared = tuple(figures(probs, common.labels, common.emotions) for probs in common.probs)
    report("paired tests")
    pairs, apart = compare_pairs(contenders), disagreement(common)
    costs = measure_costs(contenders, report=report) if latency else None
    name = str(split) if split else "all"
    return Comparison(contenders, entries.faces, name, own, common, shared, pairs, apart, costs)


def over_seeds(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Recipe -> mean, standard deviation and number of its seeds, of every figure; of recipes with several alone."""
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for place, c in enumerate(comparison.contenders):
        if c.seed:
            groups.setdefault((c.recipe, tuple(map(str, c.emotions))), []).append(place)
    found = {}
    for (recipe, _), places in groups.items():
        if len({comparison.contenders[p].seed for p in places}) == len(places) > 1:
            found[recipe] = {"n": len(places), "seeds": [comparison.contenders[p].seed for p in places]}
            found[recipe] |= {key: _spread([comparison.figures[p]["all"][key] for p in places]) for key in FIGURES}
            clean = [f["clean"]["accuracy"] for p in places if "clean" in (f := comparison.figures[p])]
            found[recipe] |= {"clean_accuracy": _spread(clean)} if clean else {}
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": fmean(values), "sd": stdev(values)}
