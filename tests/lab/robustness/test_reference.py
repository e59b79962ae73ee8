"""The reference model of the mean corruption error."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.robustness.corruptions import choose_corruptions
from mien.lab.robustness.metrics import (
    corruption_error,
)
from mien.lab.robustness.predictions import (
    format_ranges,
    pack_reference,
    parse_ranges,
    read_reference,
    reference_of,
)
from mien.lab.robustness.report import write_models
from mien.lab.robustness.run import RobustnessOptions, evaluate_robustness
from support.brightness_classifier import SETTING, by_brightness, corrupted_predictions, reference_with_errors


def test_ranges_are_parsed_back() -> None:
    for rows in ([3], [3, 4, 5, 9, 11, 12], list(range(50))):
        assert parse_ranges(format_ranges(rows)) == rows
    assert format_ranges([3, 4, 5, 9]) == "3-5,9"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"emotions": ("happy", "sad")}, "other emotions"),
        ({"setting": {**SETTING, "seed": 1}}, "another seed"),
        ({"setting": {**SETTING, "data_sha256": "1"}}, "other data"),
        ({"rows": np.arange(1, 101)}, "other faces"),
        ({"amounts": {"jpeg": (1, 2, 3, 4, 5)}}, "other amounts of jpeg"),
    ],
)
def test_a_reference_of_other_faces_gives_a_reason(change: dict, why: str) -> None:
    one = reference_with_errors("one", {"jpeg": [20] * 5})
    assert why in corruption_error(one, replace(one, **change))["reason"]


def test_a_recorded_reference_can_be_used_for_part_of_its_faces(faces: FaceSet, tmp_path: Path) -> None:
    options = RobustnessOptions(Split.PUBLIC_TEST, 0, choose_corruptions(["gaussian-noise", "mask"]))
    model = by_brightness()
    result = evaluate_robustness({"light": model}, faces, options)
    (file,) = write_models(result, tmp_path)
    recorded = read_reference(file)
    again = corrupted_predictions(model, faces, ("gaussian-noise", "mask"))
    assert pack_reference(recorded) == pack_reference(reference_of(again, options.corruptions, SETTING))
    part = evaluate_robustness({"light": model}, faces, replace(options, faces=35), reference=recorded)
    assert part["models"][0]["corruption_error"]["mce"] == {"value": 1, "interval": [1, 1]}
    file.write_text(file.read_text()[:2000])
    with pytest.raises(DataError, match=r"not a robustness file"):
        read_reference(file)
