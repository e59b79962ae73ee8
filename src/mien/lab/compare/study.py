"""A family of recipes as a study: its finished members, the effect of every factor, what is confused."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from mien._errors import DataError, RecipeError
from mien._progress import Progress, no_progress
from mien.lab.compare.compare import Comparison, compare_entries
from mien.lab.compare.entries import load_entries
from mien.lab.data import Split
from mien.lab.evaluate.subjects import recipe_of
from mien.lab.ledger import Ledger
from mien.lab.predictions import compare_with_votes
from mien.lab.recipe import Claim, axes, load, members
from mien.lab.recipe.load import training_differences
from mien.lab.significance import difference, one_hot, row_draws

EFFECT_METRICS = ("accuracy", "balanced_accuracy", "macro_f1")
MOST_CONFUSED = 3  # confusions that are reported for each setting

Setting = tuple[str, ...]  # one value of each axis, in the order of the axes


@dataclass(frozen=True, eq=False)
class StudyCell:
    """The S runs of one setting on the N faces of the split.

    Attributes:
        labels: Labels as indices of the classes, int64 ``[N]``; -1 for a face that is not evaluated in this setting.
        predicted: Predicted classes, int64 ``[S, N]``.
        classes: The number of classes.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    classes: int


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of one value of an axis compared with another value.

    Attributes:
        axis: The axis.
        first: The first value.
        second: The second value.
        metric: One of ``EFFECT_METRICS``.
        value: Metric with the first value less that with the second, a mean over matched settings.
        interval: 95 % bootstrap interval of ``value``.
        p: Two-sided p-value.
        matched: Number of matched settings: pairs of settings that differ in this axis only.
        within: For an interaction, another axis and two of its values: ``value`` is the effect within the first of
            them less the effect within the second. ``None`` for a main effect.
    """

    axis: str
    first: str
    second: str
    metric: str
    value: float
    interval: tuple[float, float]
    p: float
    matched: int
    within: tuple[str, str, str] | None = None


def effects(
    axes: Mapping[str, Sequence[str]], cells: Mapping[Setting, StudyCell], *, resamples: int = 4000, seed: int = 0
) -> list[Effect]:
    """Estimate every main effect and every interaction of two axes that the settings allow.

    Args:
        axes: Axis -> its values.
        cells: The runs of every finished setting, all on the same faces.
        resamples: Number of bootstrap draws, of faces and of seeds.
        seed: Seed of the draws.

    Returns:
        The main effects, then the interactions, each in the order of the axes.
    """
    places = {setting: place for place, setting in enumerate(cells)}
    point = _cell_metrics(list(cells.values()), resamples=0, seed=seed)
    drawn = _cell_metrics(list(cells.values()), resamples=resamples, seed=seed)
    found = []
    for axis, first, second, within, matched in _contrasts(axes, places):
        for metric in EFFECT_METRICS if matched else ():
            value = float(_contrast(matched, point[metric])[0])
            tested = difference(value, _contrast(matched, drawn[metric]))
            found.append(Effect(axis, first, second, metric, value, tested.interval, tested.p, len(matched), within))
    return found


def _contrasts(
    axes: Mapping[str, Sequence[str]], places: Mapping[Setting, int]
) -> Iterator[tuple[str, str, str, tuple[str, str, str] | None, list[list[int]]]]:
    """Axis, two of its values, another axis with two values or ``None``, and the matched cells."""
    numbered = list(enumerate(axes.items()))
    for at, (axis, values) in numbered:
        for first, second in combinations(values, 2):
            yield axis, first, second, None, _match(places, [(at, first, second)])
    for (at, (axis, values)), (other_at, (other, others)) in combinations(numbered, 2):
        for (first, second), (one, two) in product(combinations(values, 2), combinations(others, 2)):
            matched = _match(places, [(at, first, second), (other_at, one, two)])
            yield axis, first, second, (other, one, two), matched


def _match(places: Mapping[Setting, int], changes: Sequence[tuple[int, str, str]]) -> list[list[int]]:
    """Cells that differ only in the given axes: two for one change, four for two changes."""
    matched = []
    for setting in places:
        if all(setting[at] == first for at, first, _ in changes):
            corners = [setting]
            for at, _, second in changes:
                corners += [(*corner[:at], second, *corner[at + 1 :]) for corner in corners]
            if all(corner in places for corner in corners):
                matched.append([places[corner] for corner in corners])
    return matched


def _contrast(matched: Sequence[Sequence[int]], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean difference (of two cells) or difference of differences (of four), ``[R]``."""
    total = np.zeros(values.shape[1])
    for corners in matched:
        for sign, place in zip((1, -1, -1, 1), corners, strict=False):
            total += sign / len(matched) * values[place]
    return total


def _cell_metrics(cells: Sequence[StudyCell], *, resamples: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """Each metric of each cell, ``[cells, R]``, for draws of the faces and seeds; R is 1 without ``resamples``."""
    rows = len(cells[0].labels)
    generator = np.random.default_rng((seed, 1)) if resamples else None
    pieces = row_draws(rows, resamples=resamples, seed=seed) if resamples else [np.ones((1, rows), np.float32)]
    found: dict[str, list[NDArray[np.float64]]] = {metric: [] for metric in EFFECT_METRICS}
    for weights in pieces:
        each = [_mean_over_seeds(cell, weights, generator) for cell in cells]
        for metric in EFFECT_METRICS:
            found[metric].append(np.stack([values[metric] for values in each]))
    return {metric: np.concatenate(parts, axis=1) for metric, parts in found.items()}


def _mean_over_seeds(
    cell: StudyCell, weights: NDArray[np.float32], generator: np.random.Generator | None
) -> dict[str, NDArray[np.float64]]:
    """Means over the seeds, which a ``generator`` draws with replacement."""
    runs = [_run_metrics(cell.labels, predicted, cell.classes, weights) for predicted in cell.predicted]
    draws, seeds = len(weights), len(runs)
    chosen = np.tile(np.arange(seeds), (draws, 1))
    if generator is not None and seeds > 1:
        chosen = generator.integers(0, seeds, (draws, seeds))
    stacked = {metric: np.stack([run[metric] for run in runs], axis=1) for metric in EFFECT_METRICS}
    return {metric: np.take_along_axis(values, chosen, axis=1).mean(1) for metric, values in stacked.items()}


def _run_metrics(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int, weights: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    true, claimed = one_hot(labels, classes), one_hot(np.where(labels < 0, -1, predicted), classes)
    support, correct, claims = weights @ true, weights @ (true * claimed), weights @ claimed
    present = support > 0
    f1 = np.where(present, 2 * correct / np.maximum(support + claims, 1), 0)
    recall = correct / np.maximum(support, 1)
    return {
        "accuracy": correct.sum(1, dtype=np.float64) / np.maximum(support.sum(1, dtype=np.float64), 1),
        "balanced_accuracy": recall.sum(1, dtype=np.float64) / np.maximum(present.sum(1), 1),
        "macro_f1": f1.sum(1, dtype=np.float64) / np.maximum(present.sum(1), 1),
    }


@dataclass(frozen=True, eq=False)
class Study(Comparison):
    """The comparison of the finished members of a family of recipes.

    Attributes:
        family: Name of the family.
        claim: What its document claims.
        axes: Axis -> its values.
        settings: Finished setting -> indices of its entries, one for each seed.
        voters: Setting -> agreement with the majority of FER+ votes, 0..1, a mean over seeds; ``None`` without votes.
        own: Effects on the classes and faces of each setting.
        shared: Effects on the classes and faces that all settings share.
        missing: Unfinished member -> what to do about it.
    """

    family: str
    claim: Claim
    axes: Mapping[str, tuple[str, ...]]
    settings: Mapping[Setting, tuple[int, ...]]
    voters: Mapping[Setting, float | None]
    own: tuple[Effect, ...]
    shared: tuple[Effect, ...]
    missing: Mapping[str, str]


def compare_family(
    family: str,
    data: Path | None,
    split: Split | None,
    *,
    results: Path,
    runs: Path,
    latency: bool = False,
    own_calibration: bool = False,
    ledger: Ledger | None = None,
    skip_unreadable: bool = False,
    progress: Progress = no_progress,
) -> Study:
    """Compare the finished members of a family of recipes.

    Args:
        family: Name of the family.
        data: The data set; ``None`` is the one that ``$MIEN_DATA`` names.
        split: The split; ``None`` is all faces.
        results: Folder of recorded predictions, such as ``results/``.
        runs: Folder of runs, used for seeds without recorded predictions.
        latency: Whether to measure the latency of every member.
        own_calibration: Whether every member keeps its own calibration; see ``load_entries``.
        ledger: Where a look at PrivateTest is written; ``None``: in ``default_ledger()``.
        skip_unreadable: Whether images that cannot be read are left out and counted.
        progress: Called before each step.

    Returns:
        The study.

    Raises:
        RecipeError: If the recipe is unknown or no family.
        DataError: If fewer than two settings are finished, or predictions or the data set cannot be read.

    Example:
        >>> from mien.lab.compare import compare_family, summarize_comparison
        >>> folders = {"results": Path("results"), "runs": Path("runs")}
        >>> study = compare_family("votes", None, Split.PUBLIC_TEST, **folders)  # doctest: +SKIP
        >>> print(*summarize_comparison(study), sep="\\n")  # doctest: +SKIP
    """
    grid = axes(family)
    if not grid:
        raise RecipeError(f"recipe {family} is no family: it has no grid to compare; name runs instead")
    named = dict(zip(product(*grid.values()), members(family), strict=True))
    folders, missing = {}, {}
    for setting, member in named.items():
        name = load(member).name
        if found := finished(name, results, runs):
            folders[setting] = found
        else:
            begun = any((runs / name).glob("seed-*/checkpoint.pt"))
            missing[member] = f"{'begun, not finished' if begun else 'not trained'}: mien train {member}"
    if len(folders) < 2:
        there = f"only {named[next(iter(folders))]}" if folders else "none"
        raise DataError(
            f"{family}: of its {len(named)} members {there} is finished; a study needs two: "
            f"mien train {next(iter(missing))}"
        )
    for setting, seeds in folders.items():
        _require_member(named[setting], seeds)
    sources = [source for seeds in folders.values() for source in seeds]
    entries = load_entries(
        sources,
        data,
        split,
        own_calibration=own_calibration,
        ledger=ledger,
        skip_unreadable=skip_unreadable,
        progress=progress,
    )
    short = tuple(replace(c, name=c.name.removeprefix(f"{family}/")) for c in entries.entries)
    comparison = compare_entries(replace(entries, entries=short), split, latency=latency, progress=progress)
    progress("effects")
    common, predicted, classes = comparison.common, comparison.common.predicted, len(comparison.common.emotions)
    settings, shared, start = {}, {}, 0
    for setting, seeds in folders.items():
        settings[setting] = tuple(range(start, start + len(seeds)))
        shared[setting] = StudyCell(common.labels, predicted[start : start + len(seeds)], classes)
        start += len(seeds)
    return Study(
        **vars(comparison),
        family=family,
        claim=load(next(iter(named.values()))).claim,
        axes=grid,
        settings=settings,
        voters={setting: voter_agreement(comparison, places) for setting, places in settings.items()},
        own=tuple(effects(grid, _own_cells(comparison, settings))),
        shared=tuple(effects(grid, shared)),
        missing=missing,
    )


def _require_member(member: str, sources: Sequence[str]) -> None:
    """Check that runs were trained as the member of the family that they stand for."""
    for source in sources:
        recipe = recipe_of(Path(source))
        changed = ", ".join(training_differences(recipe, load(member))) if recipe else ""
        if changed:
            raise DataError(f"{source}: was not trained as {member} (other {changed}); move it out of this folder")


def finished(name: str, results: Path, runs: Path) -> list[str]:
    """Find the finished seeds of a recipe.

    Args:
        name: Name of the recipe.
        results: Folder of recorded predictions.
        runs: Folder of runs.

    Returns:
        One folder for each seed: its recorded predictions, else its finished run.
    """
    seeds = {path.parent.name: str(path.parent) for path in (runs / name).glob("seed-*/final.pt")}
    seeds |= {path.parent.name: str(path.parent) for path in (results / name).glob("seed-*/predictions.npz")}
    return [folder for _, folder in sorted(seeds.items())]


def voter_agreement(comparison: Comparison, places: Sequence[int]) -> float | None:
    """Compare predictions with the majority of FER+ votes.

    Args:
        comparison: The comparison.
        places: Indices of the entries.

    Returns:
        Their mean agreement with the majority, 0..1; ``None`` for a set without votes.
    """
    shares = []
    for entry in (comparison.entries[place] for place in places):
        found = compare_with_votes(entry.predictions, entry.selection, comparison.faces)
        if found is None or found["majority"]["agreement"] is None:
            return None
        shares.append(found["majority"]["agreement"])
    return fmean(shares)


def confusions(comparison: Comparison, places: Sequence[int]) -> list[tuple[str, str, float]]:
    """Rank the confusions of two emotions.

    Args:
        comparison: The comparison.
        places: Indices of entries of the same classes, such as the seeds of a setting.

    Returns:
        Label, predicted emotion and the share of the faces with this label, the most frequent first; means over
        ``places``.
    """
    emotions = comparison.entries[places[0]].emotions
    counts = np.array([comparison.metrics[place]["all"]["confusion"] for place in places], np.float64)
    rates = (counts / np.maximum(counts.sum(2, keepdims=True), 1)).mean(0)
    pairs = [
        (str(label), str(predicted), float(rates[y, x]))
        for y, label in enumerate(emotions)
        for x, predicted in enumerate(emotions)
        if x != y
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def _own_cells(comparison: Comparison, settings: Mapping[Setting, tuple[int, ...]]) -> dict[Setting, StudyCell]:
    """The runs of each setting on its own classes and faces."""
    rows = np.unique(np.concatenate([c.predictions.rows for c in comparison.entries]))
    cells = {}
    for setting, places in settings.items():
        runs = [comparison.entries[place].predictions for place in places]
        at = np.searchsorted(rows, runs[0].rows)
        labels, predicted = np.full(len(rows), -1, np.int64), np.zeros((len(runs), len(rows)), np.int64)
        labels[at] = runs[0].labels
        predicted[:, at] = np.stack([run.probs.argmax(1) for run in runs])
        cells[setting] = StudyCell(labels, predicted, len(runs[0].emotions))
    return cells
