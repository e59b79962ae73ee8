"""A family of recipes as a study: its finished members, what each setting is worth, what each factor does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from mien._errors import DataError, RecipeError
from mien._progress import Progress, no_progress
from mien.lab.compare.compare import Comparison, compare_entries
from mien.lab.compare.entries import ModelEntry, load_entries
from mien.lab.data import Split
from mien.lab.predictions import compare_with_votes
from mien.lab.recipe import Claim, axes, load, members
from mien.lab.significance import difference, one_hot, row_draws

EFFECT_RESAMPLES = 4000


EFFECT_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")


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
    axes: Mapping[str, Sequence[str]],
    cells: Mapping[Setting, Cell],
    *,
    resamples: int = EFFECT_RESAMPLES,
    seed: int = 0,
) -> list[Effect]:
    """Every main effect and every interaction of two axes that the ``cells`` allow, in the order of the axes."""
    settings = list(cells)
    point = _figures([cells[s] for s in settings], resamples=0, seed=seed)
    drawn = _figures([cells[s] for s in settings], resamples=resamples, seed=seed)
    places = {setting: place for place, setting in enumerate(settings)}
    found = []
    for contrast in [*_main(axes, places), *_interactions(axes, places)]:
        for figure in EFFECT_METRICS:
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
    found: dict[str, list[NDArray[np.float64]]] = {figure: [] for figure in EFFECT_METRICS}
    for weights in pieces:
        each = [_cell_figures(cell, weights, generator if resamples else None) for cell in cells]
        for figure in EFFECT_METRICS:
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
    stacked = {figure: np.stack([run[figure] for run in runs], axis=1) for figure in EFFECT_METRICS}
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


@dataclass(frozen=True, eq=False)
class Study:
    """A study of ``family``, whose ``axes`` name their values.

    - ``settings``: places of its entries in ``comparison``, by setting; those of one setting are its seeds
    - ``voters``: by setting, how often it says what most of the ten FER+ voters say of a face, 0..1, a mean over seeds;
      ``None`` for a set without votes
    - ``own``: effects on each setting's own classes and faces; ``shared``: on the faces and classes that all share
    - ``missing``: member -> what is to be done about it
    """

    family: str
    claim: Claim
    axes: Mapping[str, tuple[str, ...]]
    settings: Mapping[Setting, tuple[int, ...]]
    comparison: Comparison
    voters: Mapping[Setting, float | None]
    own: tuple[Effect, ...]
    shared: tuple[Effect, ...]
    missing: Mapping[str, str]


def study(
    family: str,
    data: Path | None,
    split: Split | None,
    *,
    latency: bool = False,
    results: Path = Path("results"),
    runs: Path = Path("runs"),
    progress: Progress = no_progress,
) -> Study:
    """The study of what is finished of ``family`` under ``results``, where answers are kept, or ``runs``.

    Raises ``RecipeError`` for a recipe that is unknown or no family, ``DataError`` for fewer than two settings.
    """
    grid = axes(family)
    if not grid:
        raise RecipeError(f"recipe {family} is no family: it has no grid to compare; name runs instead")
    named = dict(zip(product(*grid.values()), members(family), strict=True))
    found = {setting: finished(load(member).name, results, runs) for setting, member in named.items()}
    missing = {
        named[setting]: _what_to_do(named[setting], load(named[setting]).name, runs)
        for setting, places in found.items()
        if not places
    }
    there = {setting: places for setting, places in found.items() if places}
    if len(there) < 2:
        left, next_one = f"only {named[next(iter(there))]}" if there else "none", next(iter(missing))
        raise DataError(
            f"{family}: of its {len(named)} members {left} is finished; a study needs two: mien train {next_one}"
        )
    entries = load_entries([place for places in there.values() for place in places], data, split, progress=progress)
    short = tuple(replace(c, name=c.name.removeprefix(f"{family}/")) for c in entries.entries)
    comparison = compare_entries(replace(entries, entries=short), split, latency=latency, progress=progress)
    progress("effects")
    settings = _places(there)
    own, shared = (effects(grid, cells) for cells in (_own(comparison, settings), _shared(comparison, settings)))
    claim = load(next(iter(named.values()))).claim
    voters = {setting: voter_agreement(comparison, places) for setting, places in settings.items()}
    return Study(family, claim, grid, settings, comparison, voters, tuple(own), tuple(shared), missing)


def finished(name: str, results: Path, runs: Path) -> list[str]:
    """Folders of the seeds of recipe ``name``: kept answers, and finished runs of seeds that have none."""
    kept = {path.parent.name: path.parent for path in sorted((results / name).glob("seed-*/predictions.npz"))}
    run = {path.parent.name: path.parent for path in sorted((runs / name).glob("seed-*/final.pt"))}
    return [str(folder) for _, folder in sorted((run | kept).items())]


def _what_to_do(member: str, name: str, runs: Path) -> str:
    begun = any((runs / name).glob("seed-*/checkpoint.pt"))
    return f"{'begun, not finished' if begun else 'not trained'}: mien train {member}"


def _places(there: Mapping[Setting, list[str]]) -> dict[Setting, tuple[int, ...]]:
    """The entries of every setting: ``load_entries`` keeps the order of what it is given."""
    settings, at = {}, 0
    for setting, folders in there.items():
        settings[setting] = tuple(range(at, at + len(folders)))
        at += len(folders)
    return settings


def voter_agreement(comparison: Comparison, places: tuple[int, ...]) -> float | None:
    """How often entries say what most of the ten FER+ voters say, 0..1, on the mean; ``None`` without votes."""
    entries = [comparison.entries[place] for place in places]
    said = [compare_with_votes(c.predictions, c.selection, comparison.faces) for c in entries]
    told = [each["majority"]["agreement"] for each in said if each is not None]
    return fmean(told) if told and None not in told else None


def _own(comparison: Comparison, settings: Mapping[Setting, tuple[int, ...]]) -> dict[Setting, Cell]:
    rows = np.unique(np.concatenate([c.predictions.rows for c in comparison.entries]))
    return {s: _own_cell([comparison.entries[p] for p in places], rows) for s, places in settings.items()}


def _own_cell(entries: list[ModelEntry], rows: NDArray[np.int64]) -> Cell:
    first, at = entries[0].predictions, np.searchsorted(rows, entries[0].predictions.rows)
    labels = np.full(len(rows), -1, np.int64)
    labels[at] = first.labels
    guesses = np.zeros((len(entries), len(rows)), np.int64)
    guesses[:, at] = np.stack([c.predictions.probs.argmax(1) for c in entries])
    return Cell(labels, guesses, len(first.emotions))


def _shared(comparison: Comparison, settings: Mapping[Setting, tuple[int, ...]]) -> dict[Setting, Cell]:
    common, guesses = comparison.common, comparison.common.guesses
    return {s: Cell(common.labels, guesses[list(places)], len(common.emotions)) for s, places in settings.items()}
