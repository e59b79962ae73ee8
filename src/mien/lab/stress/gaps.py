"""The figures of groups of faces, the gaps between groups, and whether chance and mix explain a gap."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.lab.judge.paired import holm
from mien.lab.stress.figures import FIGURES, Floats, Weights, draw_weights, figures_of, interval, weigh, with_interval
from mien.lab.stress.groups import Groups
from mien.lab.stress.read import Read

SMALLEST = 30  # faces; of fewer a figure says little, and the largest of many such gaps is chance
PERMUTATIONS = 2000
ALL = (*FIGURES, "spoilt_accuracy")
_AT_ONCE = 50  # permutations


def judge_groups(read: Read, groups: Groups, *, seed: int = 0) -> dict[str, Any]:
    """By division: the figures of its groups and the gaps between them.

    ``spoilt_accuracy`` is the mean accuracy under all spoilings and strengths. A gap is the largest value of a group
    less the smallest, its interval a bootstrap of the difference between these two. ``p`` comes from a permutation
    test: groups are dealt anew among faces of the same emotion, so that neither chance nor the mix of emotions counts
    as a gap; ``by_chance`` is the mean gap then. ``p_corrected`` is for all gaps of the model (Holm, 1979).
    """
    judged = {name: _Division(read, column).said(seed) for name, column in groups.columns.items()}
    gaps = [gap for said in judged.values() for gap in said["gaps"].values()]
    for gap, corrected in zip(gaps, holm([gap["p"] for gap in gaps]), strict=True):
        gap["p_corrected"] = round(corrected, 6)
    return judged


class _Division:
    """One column of the table over the faces that were read."""

    def __init__(self, read: Read, column: Mapping[int, str]) -> None:
        named = np.array([column.get(int(row), "") for row in read.rows])
        self.missing = int((named == "").sum())
        counts = {str(name): int((named == name).sum()) for name in np.unique(named) if name}
        self.small = {name: count for name, count in counts.items() if count < SMALLEST}
        self.names = [name for name in counts if name not in self.small]
        chosen = np.isin(named, self.names)
        self.member = np.stack([named[chosen] == name for name in self.names]) if self.names else np.zeros((0, 0), bool)
        self.probs, self.labels = read.clean[chosen], read.labels[chosen]
        self.by_spoiling = {
            name: np.mean([read.right(probs)[chosen] for probs in five], axis=0) for name, five in read.spoilt.items()
        }
        self.emotions = read.model.emotions

    def said(self, seed: int) -> dict[str, Any]:
        """Figures and gaps as plain values."""
        said: dict[str, Any] = {"missing": self.missing, "small": self.small, "groups": {}, "gaps": {}}
        if not self.names:
            return said
        values = self._figures(self.member.astype(np.uint8))
        weights = draw_weights(len(self.labels), seed=seed)
        draws = np.stack([self._figures(weights * member) for member in self.member])  # [G, R, 5]
        for at, name in enumerate(self.names):
            said["groups"][name] = self._group(values[at], draws[at], self.member[at], weights)
        if len(self.names) > 1:
            said["gaps"] = self._gaps(values, draws, seed)
        return said

    def _figures(self, weights: NDArray[Any]) -> Floats:
        """``ALL`` for each row of weights: ``[R, 5]``."""
        spoilt = np.mean(list(self.by_spoiling.values()), axis=0)
        sums = weigh(weights, np.column_stack([np.ones(len(spoilt)), spoilt]))
        return np.column_stack([figures_of(self.probs, self.labels, weights), sums[:, 1] / sums[:, 0]])

    def _group(self, values: Floats, draws: Floats, member: NDArray[np.bool_], weights: Weights) -> dict[str, Any]:
        there = np.unique(self.labels[member])
        own = weights[:, member]
        total = own.sum(1)
        return {
            "n": int(member.sum()),
            "absent": [str(e) for label, e in enumerate(self.emotions) if label not in there],
            **{name: with_interval(values[at], draws[:, at]) for at, name in enumerate(ALL)},
            "by_spoiling": {
                name: with_interval(right[member].mean(), weigh(own, right[member]) / total)
                for name, right in self.by_spoiling.items()
            },
        }

    def _gaps(self, values: Floats, draws: Floats, seed: int) -> dict[str, Any]:
        most, least = values.argmax(0), values.argmin(0)
        found = values.max(0) - values.min(0)
        chance = self._gaps_by_chance(seed)
        return {
            name: {
                "value": round(float(found[at]), 6),
                "interval": interval(draws[most[at], :, at] - draws[least[at], :, at]),
                "largest": self.names[most[at]],
                "smallest": self.names[least[at]],
                "by_chance": round(float(chance[:, at].mean()), 6),
                "p": round(float((1 + (chance[:, at] >= found[at] - 1e-12).sum()) / (1 + len(chance))), 6),
            }
            for at, name in enumerate(ALL)
        }

    def _gaps_by_chance(self, seed: int) -> Floats:
        """The gaps ``[P, 5]`` when groups are dealt anew among the faces of every emotion."""
        generator = np.random.default_rng(seed)
        order = np.argsort(self.labels, kind="stable")
        gaps: list[Floats] = []
        for start in range(0, PERMUTATIONS, _AT_ONCE):
            dealt = [self._dealt(order, generator) for _ in range(min(_AT_ONCE, PERMUTATIONS - start))]
            figures = self._figures(np.concatenate(dealt)).reshape(len(dealt), len(self.names), -1)
            gaps.append(figures.max(1) - figures.min(1))
        return np.concatenate(gaps)

    def _dealt(self, order: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.uint8]:
        """``member`` with its columns dealt anew within each emotion."""
        shuffled = np.lexsort((generator.random(len(order)), self.labels))
        dealt = np.empty(self.member.shape, np.uint8)
        dealt[:, shuffled] = self.member[:, order]
        return dealt


def alarms(judged: Mapping[str, Any], *, level: float = 0.05) -> Sequence[str]:
    """The gaps of ``judge_groups`` that neither chance nor mix explains, in words."""
    return [
        f"{division}, {figure.replace('_', ' ')}: {gap['largest']} to {gap['smallest']}"
        for division, said in judged.items()
        for figure, gap in said["gaps"].items()
        if gap["p_corrected"] <= level
    ]
