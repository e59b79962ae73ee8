"""The reference model of the mean corruption error: predicted in the same run, or read from a robustness file."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._errors import DataError
from mien.lab.robustness.corruptions import Corruption
from mien.lab.robustness.predictions import CorruptedPredictions

_Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CorruptionReference:
    """Which predictions of a model are correct, face by face.

    Attributes:
        name: Name of the model.
        emotions: Its emotions.
        setting: What determines the corrupted pixels: ``data_sha256``, ``side`` and ``seed``.
        rows: Rows of the data set in ascending order, int64 ``[N]``.
        clean: Correct on the clean face, bool ``[N]``.
        corrupted: By corruption, correct at the severities 1 to 5, bool ``[5, N]``.
        amounts: By corruption, the amounts of the severities.
    """

    name: str
    emotions: tuple[str, ...]
    setting: Mapping[str, Any]
    rows: NDArray[np.int64]
    clean: _Bools
    corrupted: Mapping[str, _Bools]
    amounts: Mapping[str, Sequence[float]]

    def mismatch(self, other: "CorruptionReference") -> str:
        """Return why another model cannot be compared with this one.

        Args:
            other: The other model.

        Returns:
            The reason; empty where it can be compared.
        """
        if sorted(self.emotions) != sorted(other.emotions):
            return f"{self.name} has other emotions"
        return self.pixel_mismatch(other.setting, other.rows, other.amounts)

    def pixel_mismatch(
        self, setting: Mapping[str, Any], rows: NDArray[np.int64], amounts: Mapping[str, Sequence[float]]
    ) -> str:
        """Return why these predictions are of other pixels.

        Args:
            setting: ``data_sha256``, ``side`` and ``seed`` of the test.
            rows: Rows of the data set that are needed.
            amounts: By corruption, the amounts of the severities.

        Returns:
            The reason; empty where all pixels are the same.
        """
        for key, text in (("data_sha256", "other data"), ("side", "faces of another size"), ("seed", "another seed")):
            if self.setting[key] != setting[key]:
                return f"{self.name} was tested on {text}"
        if not np.isin(rows, self.rows).all():
            return f"{self.name} was tested on other faces"
        for name, wanted in amounts.items():
            if list(self.amounts.get(name, ())) != list(wanted):
                return f"{self.name} was tested with other amounts of {name}"
        return ""

    def at(self, rows: NDArray[np.int64]) -> "CorruptionReference":
        """Return the same for fewer rows.

        Args:
            rows: Rows of the data set; all of them are in ``self.rows``.

        Returns:
            The reference for ``rows``, in their order.
        """
        place = np.searchsorted(self.rows, rows)
        corrupted = {name: correct[:, place] for name, correct in self.corrupted.items()}
        return replace(self, rows=rows, clean=self.clean[place], corrupted=corrupted)


def reference_of(
    predictions: CorruptedPredictions, corruptions: Sequence[Corruption], setting: Mapping[str, Any]
) -> CorruptionReference:
    """Return which predictions of a model are correct.

    Args:
        predictions: The predictions of the model.
        corruptions: The corruptions that were applied.
        setting: ``data_sha256``, ``side`` and ``seed`` of the test.

    Returns:
        The model as a reference.
    """
    corrupted = {
        c.name: np.stack([predictions.correct(probs) for probs in predictions.corrupted[c.name]]) for c in corruptions
    }
    return CorruptionReference(
        predictions.name,
        tuple(str(emotion) for emotion in predictions.model.emotions),
        setting,
        predictions.rows,
        predictions.correct(predictions.clean),
        corrupted,
        {c.name: c.amounts for c in corruptions},
    )


def pack_reference(reference: CorruptionReference) -> dict[str, Any]:
    """Encode rows and correct predictions as text for a JSON file, one bit per face.

    Args:
        reference: What to encode.

    Returns:
        ``rows`` as ranges, ``clean`` and every corruption in base64.
    """
    return {
        "rows": format_ranges(reference.rows.tolist()),
        "clean": _to_base64(reference.clean),
        **{name: [_to_base64(each) for each in correct] for name, correct in reference.corrupted.items()},
    }


def read_reference(path: Path) -> CorruptionReference:
    """Read the first model of a robustness file.

    Args:
        path: A ``stress.json``, or the file of one model.

    Returns:
        The model as a reference.

    Raises:
        DataError: The file is missing, damaged or of another kind.
    """
    try:
        result = json.loads(path.read_text("utf-8"))
        model, correct = result["models"][0], dict(result["models"][0]["correct"])
        rows = np.array(parse_ranges(correct.pop("rows")), np.int64)
        clean = _from_base64(correct.pop("clean"), len(rows))
        corrupted = {name: np.stack([_from_base64(text, len(rows)) for text in each]) for name, each in correct.items()}
        amounts = {each["name"]: each["amounts"] for each in result["corruptions"]}
        emotions = tuple(model["emotions"])
        return CorruptionReference(model["name"], emotions, result["setting"], rows, clean, corrupted, amounts)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise DataError(f"{path}: not a robustness file ({kind}); write one with run_robustness") from error


def format_ranges(rows: Sequence[int]) -> str:
    """Format ascending numbers as ranges.

    Args:
        rows: Numbers in ascending order.

    Returns:
        For example ``3-5,9``.

    Example:
        >>> format_ranges([3, 4, 5, 9])
        '3-5,9'
    """
    runs = np.split(np.asarray(rows), np.flatnonzero(np.diff(rows) != 1) + 1)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def parse_ranges(text: str) -> list[int]:
    """Parse the text of ``format_ranges``.

    Args:
        text: For example ``3-5,9``.

    Returns:
        The numbers.

    Raises:
        ValueError: The text has another form.
    """
    rows: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition("-")
        rows += range(int(low), int(high or low) + 1)
    return rows


def _to_base64(correct: _Bools) -> str:
    return base64.b64encode(np.packbits(correct).tobytes()).decode("ascii")


def _from_base64(text: str, count: int) -> _Bools:
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text, validate=True), np.uint8))
    if not count <= len(bits) < count + 8:
        raise ValueError(f"{len(bits)} bits for {count} faces")
    return bits[:count].astype(np.bool_)
