"""Main effects and interactions of a grid of trainings, with bootstrap intervals over faces and over seeds.

An effect is a mean difference between settings that are equal in everything else: only matched cells count, so that a
grid with holes is compared fairly on what is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mien.lab.judge.paired import difference, one_hot, row_draws

RESAMPLES = 4000
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1")

Setting = tuple[str, ...]  # one value of each axis, in the order of the axes


@dataclass(frozen=True, eq=False)
class Cell:
    """The runs of one setting on the N faces of the split: ``labels`` int64 ``[N]`` and ``guesses`` ``[S, N]``.

    Both count in ``classes`` classes; -1 is the label of a face that this setting is not judged on.
    """

    labels: NDArray[np.int64]
    guesses: NDArray[np.int64]
    classes: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What ``first`` brings over ``second`` in ``figure``: the mean over ``matched`` pairs of cells, 95 % interval, p.

    Of an interaction, ``within`` names the two values of another axis: the effect in the first less that in the second.
    """

    axis: str
    first: str
    second: str
    figure: str
    value: float
    interval: tuple[float, float]
    p: float
    matched: int
    within: tuple[str, str, str] | None = None


def effects(
    axes: Mapping[str, Sequence[str]], cells: Mapping[Setting, Cell], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Effect]:
    """Every main effect and every interaction of two axes that the ``cells`` allow, in the order of the axes."""
    settings = list(cells)
    point = _figures([cells[s] for s in settings], resamples=0, seed=seed)
    drawn = _figures([cells[s] for s in settings], resamples=resamples, seed=seed)
    places = {setting: place for place, setting in enumerate(settings)}
    found = []
    for contrast in [*_main(axes, places), *_interactions(axes, places)]:
        for figure in FIGURES:
            value = float(_apply(contrast.weights, point[figure])[0])
            tested = difference(value, _apply(contrast.weights, drawn[figure]))
            found.append(
                Effect(
                    contrast.axis,
                    contrast.first,
                    contrast.second,
                    figure,
                    value,
                    tested.interval,
                    tested.p,
                    contrast.matched,
                    contrast.within,
                )
            )
    return found


@dataclass(frozen=True)
class _Contrast:
    """A weighted sum of cells, by their places."""

    axis: str
    first: str
    second: str
    weights: Mapping[int, float]
    matched: int
    within: tuple[str, str, str] | None = None


def _apply(weights: Mapping[int, float], figures: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros(figures.shape[1])
    for place, weight in weights.items():
        total += weight * figures[place]
    return total


def _main(axes: Mapping[str, Sequence[str]], places: Mapping[Setting, int]) -> list[_Contrast]:
    found = []
    for at, (axis, values) in enumerate(axes.items()):
        for first, second in combinations(values, 2):
            pairs = _matched(places, at, first, second)
            if pairs:
                weights = _add([{a: 1 / len(pairs), b: -1 / len(pairs)} for a, b in pairs])
                found.append(_Contrast(axis, first, second, weights, len(pairs)))
    return found


def _interactions(axes: Mapping[str, Sequence[str]], places: Mapping[Setting, int]) -> list[_Contrast]:
    found, named = [], list(axes.items())
    for (at, (axis, values)), (other_at, (other, others)) in combinations(enumerate(named), 2):
        for first, second in combinations(values, 2):
            for one, two in combinations(others, 2):
                squares = _squares(places, (at, first, second), (other_at, one, two))
                if squares:
                    share = 1 / len(squares)
                    weights = _add([{a: share, b: -share, c: -share, d: share} for a, b, c, d in squares])
                    found.append(_Contrast(axis, first, second, weights, len(squares), (other, one, two)))
    return found


def _add(parts: Sequence[Mapping[int, float]]) -> dict[int, float]:
    total: dict[int, float] = {}
    for part in parts:
        for place, weight in part.items():
            total[place] = total.get(place, 0.0) + weight
    return total


def _matched(places: Mapping[Setting, int], at: int, first: str, second: str) -> list[tuple[int, int]]:
    """Places of cells that differ in one axis alone."""
    twins = ((s, _with(s, at, second)) for s in places if s[at] == first)
    return [(places[s], places[twin]) for s, twin in twins if twin in places]


def _squares(
    places: Mapping[Setting, int], rows: tuple[int, str, str], others: tuple[int, str, str]
) -> list[tuple[int, int, int, int]]:
    """Places of four cells: (first, one), (second, one), (first, two), (second, two), all else equal."""
    (at, first, second), (other_at, one, two) = rows, others
    found = []
    for setting in places:
        if setting[at] == first and setting[other_at] == one:
            corners = (setting, _with(setting, at, second), _with(setting, other_at, two))
            four = (*corners, _with(corners[1], other_at, two))
            if all(corner in places for corner in four):
                found.append((places[four[0]], places[four[1]], places[four[2]], places[four[3]]))
    return found


def _with(setting: Setting, at: int, value: str) -> Setting:
    return (*setting[:at], value, *setting[at + 1 :])


def _figures(cells: Sequence[Cell], *, resamples: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """Each figure of each cell, its mean over seeds, ``[cells, R]``: under draws of the faces and of the seeds.

    ``resamples`` 0: once, on the faces and seeds as they are.
    """
    rows = len(cells[0].labels)
    generator = np.random.default_rng((seed, 1))
    pieces = row_draws(rows, resamples=resamples, seed=seed) if resamples else [np.ones((1, rows), np.float32)]
    found: dict[str, list[NDArray[np.float64]]] = {figure: [] for figure in FIGURES}
    for weights in pieces:
        each = [_cell_figures(cell, weights, generator if resamples else None) for cell in cells]
        for figure in FIGURES:
            found[figure].append(np.stack([values[figure] for values in each]))
    return {figure: np.concatenate(parts, axis=1) for figure, parts in found.items()}


def _cell_figures(
    cell: Cell, weights: NDArray[np.float32], generator: np.random.Generator | None
) -> dict[str, NDArray[np.float64]]:
    """Mean over the seeds, which are drawn with replacement, too, where there is a ``generator``."""
    runs = [_run_figures(cell.labels, guess, cell.classes, weights) for guess in cell.guesses]
    draws, seeds = len(weights), len(runs)
    chosen = np.tile(np.arange(seeds), (draws, 1))
    if generator is not None and seeds > 1:
        chosen = generator.integers(0, seeds, (draws, seeds))
    stacked = {figure: np.stack([run[figure] for run in runs], axis=1) for figure in FIGURES}
    return {figure: np.take_along_axis(values, chosen, axis=1).mean(1) for figure, values in stacked.items()}


def _run_figures(
    labels: NDArray[np.int64], guess: NDArray[np.int64], classes: int, weights: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    truth = one_hot(labels, classes)
    told = one_hot(np.where(labels < 0, -1, guess), classes)
    support, right, claimed = weights @ truth, weights @ (truth * told), weights @ told
    present = support > 0
    f1 = np.where(present, 2 * right / np.maximum(support + claimed, 1), 0)
    return {
        "accuracy": right.sum(1, dtype=np.float64) / np.maximum(support.sum(1, dtype=np.float64), 1),
        "balanced_accuracy": (right / np.maximum(support, 1)).sum(1, dtype=np.float64) / np.maximum(present.sum(1), 1),
        "macro_f1": f1.sum(1, dtype=np.float64) / np.maximum(present.sum(1), 1),
    }
