"""The model that mean corruption is relative to: read beside the others, or known from a kept ``stress.json``."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._errors import DataError
from mien.lab.robustness.corruptions import Spoiling
from mien.lab.robustness.predictions import Read, from_ranges, to_ranges

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Reference:
    """Which faces a model reads rightly, face by face, so that any part of them can be compared in pairs.

    ``rows`` int64 ``[N]`` of the data set; ``clean`` bool ``[N]``; ``spoilt`` bool ``[5, N]`` by spoiling; ``amounts``
    what its strengths were. ``setting`` is what must be equal for the pixels to be: data, split, side, seed.
    """

    name: str
    emotions: tuple[str, ...]
    setting: Mapping[str, Any]
    rows: NDArray[np.int64]
    clean: Bools
    spoilt: Mapping[str, Bools]
    amounts: Mapping[str, Sequence[float]]

    def unfit(self, other: "Reference") -> str:
        """Why ``other`` cannot be held against this one; empty where it can."""
        if sorted(self.emotions) != sorted(other.emotions):
            return f"{self.name} tells other emotions apart"
        return self.differs(other.setting, other.rows, other.amounts)

    def differs(
        self, setting: Mapping[str, Any], rows: NDArray[np.int64], amounts: Mapping[str, Sequence[float]]
    ) -> str:
        """Why these answers are of other pixels than the ``rows`` so spoilt; empty where they are not."""
        for key, text in (("data_sha256", "other data"), ("side", "faces of another size"), ("seed", "another seed")):
            if self.setting[key] != setting[key]:
                return f"{self.name} was read on {text}"
        if not np.isin(rows, self.rows).all():
            return f"{self.name} was read on other faces"
        for name, wanted in amounts.items():
            if list(self.amounts.get(name, ())) != list(wanted):
                return f"{self.name} was read with other strengths of {name}"
        return ""

    def at(self, rows: NDArray[np.int64]) -> "Reference":
        """The same for ``rows`` alone, in their order."""
        place = np.searchsorted(self.rows, rows)
        spoilt = {name: right[:, place] for name, right in self.spoilt.items()}
        return Reference(self.name, self.emotions, self.setting, rows, self.clean[place], spoilt, self.amounts)


def reference_of(read: Read, spoilings: Sequence[Spoiling], setting: Mapping[str, Any]) -> Reference:
    """The right answers of a model that has just been read."""
    spoilt = {s.name: np.stack([read.right(probs) for probs in read.spoilt[s.name]]) for s in spoilings}
    amounts = {s.name: s.amounts for s in spoilings}
    emotions = tuple(str(emotion) for emotion in read.model.emotions)
    return Reference(read.name, emotions, setting, read.rows, read.right(read.clean), spoilt, amounts)


def pack(reference: Reference) -> dict[str, Any]:
    """Rows and right answers as text, for a JSON file: a bit a face."""
    return {
        "rows": to_ranges(reference.rows.tolist()),
        "clean": _to_text(reference.clean),
        **{name: [_to_text(each) for each in right] for name, right in reference.spoilt.items()},
    }


def read_reference(path: Path) -> Reference:
    """The first model of a ``stress.json``. Raises ``DataError`` for another or a damaged file."""
    try:
        said = json.loads(path.read_text("utf-8"))
        model, setting = said["models"][0], said["setting"]
        right = dict(model["right"])
        rows = np.array(from_ranges(right.pop("rows")), np.int64)
        clean = _from_text(right.pop("clean"), len(rows))
        spoilt = {name: np.stack([_from_text(text, len(rows)) for text in five]) for name, five in right.items()}
        amounts = {each["name"]: each["amounts"] for each in said["spoilings"]}
        return Reference(model["name"], tuple(model["emotions"]), setting, rows, clean, spoilt, amounts)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise DataError(f"{path}: is no stress.json ({kind}); `mien stress MODEL` writes one") from error


def _to_text(right: Bools) -> str:
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def _from_text(text: str, count: int) -> Bools:
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text, validate=True), np.uint8))
    if not count <= len(bits) < count + 8:
        raise ValueError(f"{len(bits)} answers for {count} faces")
    return bits[:count].astype(np.bool_)
