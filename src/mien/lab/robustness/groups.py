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
from mien.lab.data.custom import list_images
from mien.lab.data.datasets import is_fer2013
from mien.lab.data.faceset import quote
from mien.lab.data.tables import iterate_rows
from mien.lab.robustness.metrics import (
    CORRUPTION_METRICS,
    Estimate,
    bootstrap_weights,
    estimate,
    metric_estimate,
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
        largest: The group with the largest value.
        smallest: The group with the smallest value.
        by_chance: Mean gap of random groups with the same emotions.
        p: p-value of the permutation test.
        p_corrected: p-value after Holm's correction over all gaps of the model.
    """

    value: float
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

    The column ``row`` holds the row of the data set (from 0). Instead, the column ``file`` can hold the path of an
    image as the folder or table of the data set names it. Every other column is a division into groups. A face with an
    empty cell is in no group.

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
    try:  # other encodings would be read with replacement characters, which can merge two groups
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}); save the table as UTF-8") from error
    rows = iterate_rows(path)
    names = next(rows)[1]
    key = _key_column(path, names)
    files = None
    if key == "file":
        source = Path(faces.source)
        if is_fer2013(source):
            raise DataError(f"{path}: FER-2013 has rows, not files; name the column row")
        files = {entry.name: row for row, entry in enumerate(list_images(source).entries)}
    columns: dict[str, dict[int, str]] = {name: {} for name in names if name != key}
    seen: set[int] = set()
    for where, cells in rows:
        face = cells[names.index(key)]
        row = _row(where, face.strip(), files)
        if row in seen:
            raise DataError(f"{where}: the face {quote(face)} is named twice; remove one row")
        seen.add(row)
        for name, cell in zip(names, cells, strict=True):
            if name != key and cell.strip():
                columns[name][row] = cell.strip()
    if not seen:
        raise DataError(f"{path}: has a header and no rows; add a row for every face")
    unknown = seen - set(faces.rows.tolist())
    if unknown == seen:
        raise DataError(f"{path}: none of its rows is a row of {faces.source}; rows are counted from 0")
    for name, column in columns.items():
        if (count := len(set(column.values()))) > _MAX_GROUPS:
            hint = f"sort measurements into at most {_MAX_GROUPS} classes, and remove columns of names"
            raise DataError(f"{path}: column {quote(name)} has {count} groups; {hint}")
    return GroupTable(str(path), columns, len(unknown))


def _key_column(path: Path, names: list[str]) -> str:
    key = next((name for name in _KEYS if name in names), None)
    if key is None:
        hint = next((near for name in names if (near := suggest(name, _KEYS))), "")
        listed = ", ".join(names[:16]) or "none"
        raise DataError(f"{path}: has neither the column row nor file; its columns are {listed}{hint}")
    if len(names) != len(set(names)):
        raise DataError(f"{path}: a column is named twice; give every column its own name")
    if len(names) == 1:
        raise DataError(f"{path}: has only the column {key}; add a column with the group of every face")
    return key


def _row(where: str, text: str, files: Mapping[str, int] | None) -> int:
    if files is None:
        if not text.isdecimal():
            raise DataError(f"{where}: row {quote(text)} is not a whole number; rows of the data set count from 0")
        return int(text)
    if text not in files:
        raise DataError(f"{where}: the data set has no file {quote(text)}{suggest(text, files)}")
    return files[text]


def compare_groups(
    predictions: CorruptedPredictions, groups: GroupTable, *, seed: int = 0
) -> dict[str, GroupComparison]:
    """Compare the groups of every column.

    A gap has no interval: the two groups are chosen because they differ most. The permutation test exchanges
    groups among faces of the same emotion. A significant gap is therefore neither chance nor an effect of different
    emotions. p-values are corrected for all gaps of the model (Holm, 1979).

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
    """The predicted faces that are in a group of one column; groups below ``MIN_GROUP_FACES`` are left out."""

    def __init__(self, predictions: CorruptedPredictions, column: Mapping[int, str]) -> None:
        named = np.array([column.get(int(row), "") for row in predictions.rows])
        sizes = {str(name): int((named == name).sum()) for name in np.unique(named) if name}
        self._missing = int((named == "").sum())
        self._small = {name: size for name, size in sizes.items() if size < MIN_GROUP_FACES}
        self._names = [name for name in sizes if name not in self._small]
        chosen = np.isin(named, self._names)
        self._members = np.array([named[chosen] == name for name in self._names], np.bool_)  # [G, N]
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
        for at, (name, member) in enumerate(zip(self._names, self._members, strict=True)):
            present, own = np.unique(self._labels[member]), weights[:, member]
            result["groups"][name] = {
                "n": int(member.sum()),
                "absent": [str(e) for label, e in enumerate(self._emotions) if label not in present],
                "metrics": {
                    key: metric_estimate(key, values[at, k], draws[at, :, k]) for k, key in enumerate(GROUP_METRICS)
                },
                "by_corruption": {
                    corruption: estimate(correct[member].mean(), weighted_sums(own, correct[member]) / own.sum(1))
                    for corruption, correct in self._correct.items()
                },
            }
        if len(self._names) > 1:
            result["gaps"] = self._gaps(values, seed)
        return result

    def _metrics(self, weights: NDArray[Any]) -> _Floats:
        """``GROUP_METRICS`` for each row of weights: ``[R, 5]``."""
        corrupted = np.mean(list(self._correct.values()), axis=0)
        sums = weighted_sums(weights, np.column_stack([np.ones(len(corrupted)), corrupted]))
        return np.column_stack([weighted_metrics(self._probs, self._labels, weights), sums[:, 1] / sums[:, 0]])

    def _gaps(self, values: _Floats, seed: int) -> dict[str, GroupGap]:
        random_gaps = self._random_gaps(seed)
        gaps: dict[str, GroupGap] = {}
        for at, key in enumerate(GROUP_METRICS):
            most, least = values[:, at].argmax(), values[:, at].argmin()
            gap, chance = float(values[most, at] - values[least, at]), random_gaps[:, at]
            p = round(float((1 + (chance >= gap - 1e-12).sum()) / (1 + len(chance))), 6)
            gaps[key] = {
                "value": round(gap, 6),
                "largest": self._names[most],
                "smallest": self._names[least],
                "by_chance": round(float(chance.mean()), 6),
                "p": p,
                "p_corrected": p,  # until all gaps are known
            }
        return gaps

    def _random_gaps(self, seed: int) -> _Floats:
        """The gaps ``[P, 5]`` of groups that are permuted among the faces of every emotion."""
        generator = np.random.default_rng(seed)
        order = np.argsort(self._labels, kind="stable")
        gaps: list[_Floats] = []
        for start in range(0, GROUP_PERMUTATIONS, _PERMUTATION_BATCH):
            permuted = np.empty((min(_PERMUTATION_BATCH, GROUP_PERMUTATIONS - start), *self._members.shape), np.uint8)
            for members in permuted:
                shuffled = np.lexsort((generator.random(len(order)), self._labels))
                members[:, shuffled] = self._members[:, order]
            metrics = self._metrics(permuted.reshape(-1, len(order))).reshape(*permuted.shape[:2], -1)
            gaps.append(metrics.max(1) - metrics.min(1))
        return np.concatenate(gaps)


def significant_gaps(compared: Mapping[str, GroupComparison]) -> Sequence[str]:
    """List the gaps that neither chance nor different emotions explain: their corrected p-value is at most 0.05.

    Args:
        compared: The result of ``compare_groups``.

    Returns:
        One line per gap, such as ``age, accuracy: old to young``.
    """
    return [
        f"{column}, {metric_name(key)}: {gap['largest']} to {gap['smallest']}"
        for column, comparison in compared.items()
        for key, gap in comparison["gaps"].items()
        if gap["p_corrected"] <= 0.05
    ]
