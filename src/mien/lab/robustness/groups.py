"""A table that says of faces which groups they belong to: one row a face, one column a division (sex, age, skin)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._errors import DataError
from mien.lab.data import FaceSet
from mien.lab.data.custom import header, list_folder, list_table
from mien.lab.data.datasets import is_fer2013
from mien.lab.data.faceset import nearest, quote
from mien.lab.data.fer2013 import iterate_rows
from mien.lab.robustness.metrics import (
    FIGURES,
    Floats,
    Weights,
    draw_weights,
    figures_of,
    interval,
    weigh,
    with_interval,
)
from mien.lab.robustness.predictions import Read
from mien.lab.significance import holm

KEYS = ("row", "file")


MOST_GROUPS = 20  # of one column; more of them are names or measurements


@dataclass(frozen=True)
class Groups:
    """``columns``: by division, the group of every row of the data set that has one. ``strange``: unknown rows."""

    source: str
    columns: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    strange: int = 0


def read_groups(path: Path, faces: FaceSet) -> Groups:
    """Read the table at ``path``, parted by comma, semicolon or tab.

    Its column ``row`` holds the row of the data set (``FaceSet.rows``, from 0), or ``file`` the path of a picture of an
    own folder or table as it stands there; every other column is a division, an empty cell no group. Raises
    ``DataError`` naming row and cause.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; --groups names a table with the column row or file, and one a division")
    _require_utf8(path)
    rows = iterate_rows(path, header(path)[1])
    names = next(rows)[1]
    key = _key(path, names)
    known = {int(row) for row in faces.rows}
    files = _files(path, faces) if key == "file" else {}
    columns: dict[str, dict[int, str]] = {name: {} for name in names if name != key}
    seen: set[int] = set()
    strange = 0
    for where, cells in rows:
        row = _row(where, cells[names.index(key)].strip(), files if key == "file" else None)
        if row in seen:
            raise DataError(f"{where}: the face {quote(cells[names.index(key)])} is named twice; leave one row of it")
        seen.add(row)
        strange += row not in known
        for name, cell in zip(names, cells, strict=True):
            if name != key and cell.strip():
                columns[name][row] = cell.strip()
    return _checked(Groups(str(path), columns, strange), seen & known, faces)


def _require_utf8(path: Path) -> None:
    """Other text would be read with marks for what is unknown, and make one group of two."""
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}); save the table as UTF-8") from error


def _key(path: Path, names: list[str]) -> str:
    found = [name for name in KEYS if name in names]
    if not found:
        hint = next((near for name in names if (near := nearest(name, KEYS))), "")
        raise DataError(f"{path}: has neither a column row nor file{hint}; found {', '.join(names[:16]) or 'nothing'}")
    if len(names) != len(set(names)):
        raise DataError(f"{path}: a column is named twice; name every division otherwise")
    if len(names) == 1:
        raise DataError(f"{path}: has the column {found[0]} alone; add one a division, with the group of every face")
    return found[0]


def _row(where: str, text: str, files: Mapping[str, int] | None) -> int:
    if files is None:
        if not text.isdecimal():
            raise DataError(f"{where}: row {quote(text)} is no whole number from 0; rows count those of the data set")
        return int(text)
    if text not in files:
        raise DataError(f"{where}: the data set has no file {quote(text)}{nearest(text, files)}")
    return files[text]


def _files(path: Path, faces: FaceSet) -> dict[str, int]:
    source = Path(faces.source)
    if is_fer2013(source):
        raise DataError(f"{path}: FER-2013 is counted by row, not by file; name the column row")
    listing = list_folder(source) if source.is_dir() else list_table(source)
    return {entry.name: row for row, entry in enumerate(listing.entries)}


def _checked(groups: Groups, found: set[int], faces: FaceSet) -> Groups:
    if not found:
        raise DataError(f"{groups.source}: none of its rows is a row of {faces.source}; rows are counted from 0")
    for name, column in groups.columns.items():
        kinds = len(set(column.values()))
        if kinds > MOST_GROUPS:
            raise DataError(
                f"{groups.source}: column {quote(name)} has {kinds} groups; put measurements into at most "
                f"{MOST_GROUPS} classes, and leave names out"
            )
    return groups


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
