"""Metrics by group of faces (sex, age, skin type), and the gaps between groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from mien._errors import DataError
from mien._metrics import metric_name
from mien._suggest import suggest
from mien.lab.data import FaceSet
from mien.lab.data.custom import header, list_folder, list_table
from mien.lab.data.datasets import is_fer2013
from mien.lab.data.faceset import quote
from mien.lab.data.fer2013 import iterate_rows
from mien.lab.robustness.metrics import (
    CORRUPTION_METRICS,
    Estimate,
    bootstrap_weights,
    estimate,
    rounded_interval,
    weighted_metrics,
    weighted_sums,
)
from mien.lab.robustness.predictions import CorruptedPredictions
from mien.lab.significance import holm

_Floats = NDArray[np.float64]

GROUP_METRICS = (*CORRUPTION_METRICS, "corrupted_accuracy")
MIN_GROUP_FACES = 30  # metrics of fewer faces mean little, and the largest of many such gaps is chance
GROUP_PERMUTATIONS = 2000
_KEYS = ("row", "file")
_MAX_GROUPS = 20  # per column; a column with more holds names or measurements
_PERMUTATION_BATCH = 50


@dataclass(frozen=True)
class GroupTable:
    """A table of the groups of faces.

    Attributes:
        source: The file.
        columns: By column, the group of every row of the data set that has one.
        unknown_rows: Number of rows of the table that are not in the data set.
    """

    source: str
    columns: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    unknown_rows: int = 0


class GroupMetrics(TypedDict):
    """The metrics of one group.

    Attributes:
        n: Number of its faces.
        absent: Emotions without a face in the group.
        metrics: ``GROUP_METRICS`` by key; ``corrupted_accuracy`` is the mean over all corruptions and severities.
        by_corruption: Accuracy by corruption, mean of the severities.
    """

    n: int
    absent: list[str]
    metrics: dict[str, Estimate]
    by_corruption: dict[str, Estimate]


class GroupGap(TypedDict):
    """The difference between the groups with the largest and the smallest value of a metric.

    Attributes:
        value: The difference.
        interval: Its 95 % bootstrap interval.
        largest: The group with the largest value.
        smallest: The group with the smallest value.
        by_chance: Mean gap of random groups with the same emotions.
        p: p-value of the permutation test.
        p_corrected: p-value after Holm's correction over all gaps of the model.
    """

    value: float
    interval: list[float]
    largest: str
    smallest: str
    by_chance: float
    p: float
    p_corrected: float


class GroupComparison(TypedDict):
    """The groups of one column.

    Attributes:
        missing: Number of faces without a group.
        small: Size of the groups with fewer than ``MIN_GROUP_FACES`` faces, which are not evaluated.
        groups: The metrics of the other groups.
        gaps: The gap of every metric; empty for fewer than two groups.
    """

    missing: int
    small: dict[str, int]
    groups: dict[str, GroupMetrics]
    gaps: dict[str, GroupGap]


def read_groups(path: Path, faces: FaceSet) -> GroupTable:
    """Read a table of groups, separated by comma, semicolon or tab.

    The column ``row`` holds the row of the data set (from 0), or the column ``file`` the path of an image as the
    folder or table of the data set names it. Every other column is a division into groups. An empty cell is no group.

    Args:
        path: The table, UTF-8.
        faces: The data set.

    Returns:
        The groups of all columns.

    Raises:
        DataError: The table is missing or wrong. The message names the row and the cause.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; the table of groups has the column row or file, and one per division")
    _require_utf8(path)
    rows = iterate_rows(path, header(path)[1])
    names = next(rows)[1]
    key = _key(path, names)
    known = {int(row) for row in faces.rows}
    files = _file_rows(path, faces) if key == "file" else None
    columns: dict[str, dict[int, str]] = {name: {} for name in names if name != key}
    seen: set[int] = set()
    for where, cells in rows:
        row = _row(where, cells[names.index(key)].strip(), files)
        if row in seen:
            raise DataError(f"{where}: the face {quote(cells[names.index(key)])} is named twice; remove one row")
        seen.add(row)
        for name, cell in zip(names, cells, strict=True):
            if name != key and cell.strip():
                columns[name][row] = cell.strip()
    if not seen & known:
        raise DataError(f"{path}: none of its rows is a row of {faces.source}; rows are counted from 0")
    _check_sizes(path, columns)
    return GroupTable(str(path), columns, len(seen - known))


def _require_utf8(path: Path) -> None:
    """Other encodings would be read with replacement characters, which can merge two groups."""
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}); save the table as UTF-8") from error


def _key(path: Path, names: list[str]) -> str:
    found = [name for name in _KEYS if name in names]
    if not found:
        hint = next((near for name in names if (near := suggest(name, _KEYS))), "")
        listed = ", ".join(names[:16]) or "none"
        raise DataError(f"{path}: has neither the column row nor file; its columns are {listed}{hint}")
    if len(names) != len(set(names)):
        raise DataError(f"{path}: a column is named twice; give every column its own name")
    if len(names) == 1:
        raise DataError(f"{path}: has only the column {found[0]}; add a column with the group of every face")
    return found[0]


def _row(where: str, text: str, files: Mapping[str, int] | None) -> int:
    if files is None:
        if not text.isdecimal():
            raise DataError(f"{where}: row {quote(text)} is not a whole number; rows of the data set count from 0")
        return int(text)
    if text not in files:
        raise DataError(f"{where}: the data set has no file {quote(text)}{suggest(text, files)}")
    return files[text]


def _file_rows(path: Path, faces: FaceSet) -> dict[str, int]:
    source = Path(faces.source)
    if is_fer2013(source):
        raise DataError(f"{path}: FER-2013 has rows, not files; name the column row")
    listing = list_folder(source) if source.is_dir() else list_table(source)
    return {entry.name: row for row, entry in enumerate(listing.entries)}


def _check_sizes(path: Path, columns: Mapping[str, Mapping[int, str]]) -> None:
    for name, column in columns.items():
        count = len(set(column.values()))
        if count > _MAX_GROUPS:
            raise DataError(
                f"{path}: column {quote(name)} has {count} groups; sort measurements into at most {_MAX_GROUPS} "
                "classes, and remove columns of names"
            )


def compare_groups(
    predictions: CorruptedPredictions, groups: GroupTable, *, seed: int = 0
) -> dict[str, GroupComparison]:
    """Compare the groups of every column.

    The interval of a gap is a bootstrap of the difference between its two groups. The permutation test exchanges
    groups among faces of the same emotion, so that a gap is neither chance nor the effect of different emotions.
    p-values are corrected for all gaps of the model (Holm, 1979).

    Args:
        predictions: The predictions of one model.
        groups: The groups.
        seed: Seed of bootstrap and permutations.

    Returns:
        By column, the metrics of its groups and the gaps between them.
    """
    compared = {name: _Column(predictions, column).compare(seed) for name, column in groups.columns.items()}
    gaps = [gap for comparison in compared.values() for gap in comparison["gaps"].values()]
    for gap, corrected in zip(gaps, holm([gap["p"] for gap in gaps]), strict=True):
        gap["p_corrected"] = round(corrected, 6)
    return compared


class _Column:
    """One column of the table, for the faces that were predicted."""

    def __init__(self, predictions: CorruptedPredictions, column: Mapping[int, str]) -> None:
        named = np.array([column.get(int(row), "") for row in predictions.rows])
        self._missing = int((named == "").sum())
        counts = {str(name): int((named == name).sum()) for name in np.unique(named) if name}
        self._small = {name: count for name, count in counts.items() if count < MIN_GROUP_FACES}
        self._names = [name for name in counts if name not in self._small]
        chosen = np.isin(named, self._names)
        members = [named[chosen] == name for name in self._names]
        self._members = np.stack(members) if members else np.zeros((0, 0), bool)
        self._probs, self._labels = predictions.clean[chosen], predictions.labels[chosen]
        self._correct = {
            name: np.mean([predictions.correct(probs)[chosen] for probs in each], axis=0)
            for name, each in predictions.corrupted.items()
        }
        self._emotions = predictions.model.emotions

    def compare(self, seed: int) -> GroupComparison:
        result: GroupComparison = {"missing": self._missing, "small": self._small, "groups": {}, "gaps": {}}
        if not self._names:
            return result
        values = self._metrics(self._members.astype(np.uint8))
        weights = bootstrap_weights(len(self._labels), seed=seed)
        draws = np.stack([self._metrics(weights * member) for member in self._members])  # [G, R, 5]
        for at, name in enumerate(self._names):
            result["groups"][name] = self._group(values[at], draws[at], self._members[at], weights)
        if len(self._names) > 1:
            result["gaps"] = self._gaps(values, draws, seed)
        return result

    def _metrics(self, weights: NDArray[Any]) -> _Floats:
        """``GROUP_METRICS`` for each row of weights: ``[R, 5]``."""
        corrupted = np.mean(list(self._correct.values()), axis=0)
        sums = weighted_sums(weights, np.column_stack([np.ones(len(corrupted)), corrupted]))
        return np.column_stack([weighted_metrics(self._probs, self._labels, weights), sums[:, 1] / sums[:, 0]])

    def _group(self, values: _Floats, draws: _Floats, member: NDArray[np.bool_], weights: NDArray[Any]) -> GroupMetrics:
        present = np.unique(self._labels[member])
        own = weights[:, member]
        total = own.sum(1)
        return {
            "n": int(member.sum()),
            "absent": [str(e) for label, e in enumerate(self._emotions) if label not in present],
            "metrics": {key: estimate(values[at], draws[:, at]) for at, key in enumerate(GROUP_METRICS)},
            "by_corruption": {
                name: estimate(correct[member].mean(), weighted_sums(own, correct[member]) / total)
                for name, correct in self._correct.items()
            },
        }

    def _gaps(self, values: _Floats, draws: _Floats, seed: int) -> dict[str, GroupGap]:
        most, least = values.argmax(0), values.argmin(0)
        gaps = values.max(0) - values.min(0)
        chance = self._random_gaps(seed)
        return {
            key: {
                "value": round(float(gaps[at]), 6),
                "interval": rounded_interval(draws[most[at], :, at] - draws[least[at], :, at]),
                "largest": self._names[most[at]],
                "smallest": self._names[least[at]],
                "by_chance": round(float(chance[:, at].mean()), 6),
                "p": (p := round(float((1 + (chance[:, at] >= gaps[at] - 1e-12).sum()) / (1 + len(chance))), 6)),
                "p_corrected": p,  # until all gaps are known
            }
            for at, key in enumerate(GROUP_METRICS)
        }

    def _random_gaps(self, seed: int) -> _Floats:
        """The gaps ``[P, 5]`` of groups that are permuted among the faces of every emotion."""
        generator = np.random.default_rng(seed)
        order = np.argsort(self._labels, kind="stable")
        gaps: list[_Floats] = []
        for start in range(0, GROUP_PERMUTATIONS, _PERMUTATION_BATCH):
            count = min(_PERMUTATION_BATCH, GROUP_PERMUTATIONS - start)
            permuted = [self._permute(order, generator) for _ in range(count)]
            metrics = self._metrics(np.concatenate(permuted)).reshape(count, len(self._names), -1)
            gaps.append(metrics.max(1) - metrics.min(1))
        return np.concatenate(gaps)

    def _permute(self, order: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.uint8]:
        """``_members`` with its columns permuted within each emotion."""
        shuffled = np.lexsort((generator.random(len(order)), self._labels))
        permuted = np.empty(self._members.shape, np.uint8)
        permuted[:, shuffled] = self._members[:, order]
        return permuted


def significant_gaps(compared: Mapping[str, GroupComparison], *, level: float = 0.05) -> Sequence[str]:
    """List the gaps that neither chance nor different emotions explain.

    Args:
        compared: The result of ``compare_groups``.
        level: Largest corrected p-value.

    Returns:
        One line per gap, such as ``age, accuracy: old to young``.
    """
    return [
        f"{column}, {metric_name(key)}: {gap['largest']} to {gap['smallest']}"
        for column, comparison in compared.items()
        for key, gap in comparison["gaps"].items()
        if gap["p_corrected"] <= level
    ]
