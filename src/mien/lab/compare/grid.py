"""A family of recipes as a study: its finished members, what each setting is worth, what each factor does."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from mien._errors import DataError, RecipeError
from mien.lab.compare.compare import Comparison, compare_entries
from mien.lab.compare.contenders import Contender, gather
from mien.lab.compare.effects import Cell, Effect, Setting, effects
from mien.lab.data import Split
from mien.lab.judge.ferplus import against_votes
from mien.lab.recipe import Claim, axes, load, members


@dataclass(frozen=True, eq=False)
class Study:
    """A study of ``family``, whose ``axes`` name their values.

    - ``settings``: places of its contenders in ``comparison``, by setting; those of one setting are its seeds
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
    report: Callable[[str], object] = lambda _: None,
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
    entries = gather([place for places in there.values() for place in places], data, split, report=report)
    short = tuple(replace(c, name=c.name.removeprefix(f"{family}/")) for c in entries.contenders)
    comparison = compare_entries(replace(entries, contenders=short), split, latency=latency, report=report)
    report("effects")
    settings = _places(there)
    own, shared = (effects(grid, cells) for cells in (_own(comparison, settings), _shared(comparison, settings)))
    claim = load(next(iter(named.values()))).claim
    voters = {setting: agreement(comparison, places) for setting, places in settings.items()}
    return Study(family, claim, grid, settings, comparison, voters, tuple(own), tuple(shared), missing)


def finished(name: str, results: Path, runs: Path) -> list[str]:
    """Folders of the seeds of recipe ``name``: kept answers, and finished runs of seeds that have none."""
    kept = {path.parent.name: path.parent for path in sorted((results / name).glob("seed-*/answers.npz"))}
    run = {path.parent.name: path.parent for path in sorted((runs / name).glob("seed-*/final.pt"))}
    return [str(folder) for _, folder in sorted((run | kept).items())]


def _what_to_do(member: str, name: str, runs: Path) -> str:
    begun = any((runs / name).glob("seed-*/checkpoint.pt"))
    return f"{'begun, not finished' if begun else 'not trained'}: mien train {member}"


def _places(there: Mapping[Setting, list[str]]) -> dict[Setting, tuple[int, ...]]:
    """The contenders of every setting: ``gather`` keeps the order of what it is given."""
    settings, at = {}, 0
    for setting, folders in there.items():
        settings[setting] = tuple(range(at, at + len(folders)))
        at += len(folders)
    return settings


def agreement(comparison: Comparison, places: tuple[int, ...]) -> float | None:
    """How often contenders say what most of the ten FER+ voters say, 0..1, on the mean; ``None`` without votes."""
    contenders = [comparison.contenders[place] for place in places]
    said = [against_votes(c.answers, c.selection, comparison.faces) for c in contenders]
    told = [each["majority"]["agreement"] for each in said if each is not None]
    return fmean(told) if told and None not in told else None


def _own(comparison: Comparison, settings: Mapping[Setting, tuple[int, ...]]) -> dict[Setting, Cell]:
    rows = np.unique(np.concatenate([c.answers.rows for c in comparison.contenders]))
    return {s: _own_cell([comparison.contenders[p] for p in places], rows) for s, places in settings.items()}


def _own_cell(contenders: list[Contender], rows: NDArray[np.int64]) -> Cell:
    first, at = contenders[0].answers, np.searchsorted(rows, contenders[0].answers.rows)
    labels = np.full(len(rows), -1, np.int64)
    labels[at] = first.labels
    guesses = np.zeros((len(contenders), len(rows)), np.int64)
    guesses[:, at] = np.stack([c.answers.probs.argmax(1) for c in contenders])
    return Cell(labels, guesses, len(first.emotions))


def _shared(comparison: Comparison, settings: Mapping[Setting, tuple[int, ...]]) -> dict[Setting, Cell]:
    common, guesses = comparison.common, comparison.common.guesses
    return {s: Cell(common.labels, guesses[list(places)], len(common.emotions)) for s, places in settings.items()}
