"""Groups of faces: gaps, chance, and errors in the table."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.robustness.groups import GroupTable, compare_groups, read_groups, significant_gaps
from support.brightness_classifier import by_brightness, corrupted_predictions
from support.paths import ROOT


def test_random_groups_have_no_gap_and_real_groups_have_one(faces: FaceSet) -> None:
    predictions = corrupted_predictions(by_brightness(dark=62.0), faces)
    generator = np.random.default_rng(5)
    rows = faces.rows.tolist()
    top = faces.images[:, :4].float().mean(dim=(1, 2))
    columns = {
        "coin": {row: str(generator.choice(["a", "b", "c"])) for row in rows},
        "background": {row: "dark" if value < 62 else "light" for row, value in zip(rows, top.tolist(), strict=True)},
    }
    result = compare_groups(predictions, GroupTable("x", columns))
    assert all(gap["p_corrected"] > 0.05 for gap in result["coin"]["gaps"].values())
    gap = result["background"]["gaps"]["accuracy"]
    assert (gap["largest"], gap["smallest"]) == ("light", "dark")
    assert gap["p_corrected"] < 0.05
    assert gap["value"] > gap["by_chance"] > 0
    assert any(gap.startswith("background, accuracy") for gap in significant_gaps(result))
    assert sum(group["n"] for group in result["coin"]["groups"].values()) == 210


def test_different_emotions_are_no_gap(faces: FaceSet) -> None:
    """Two groups with different emotions: their accuracies differ only as those of the emotions do."""
    plain = by_brightness()
    hard = replace(plain, predict=lambda crops: (plain.predict(crops)[0] * [1, 1, 1, 0, 0, 0, 0], None))

    def answer(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], None]:
        probs = hard.predict(crops)[0] + 1e-9
        return (probs / probs.sum(1, keepdims=True)).astype(np.float32), None

    labels = zip(faces.rows.tolist(), faces.labels, strict=True)
    few_or_many = {row: "few" if label < 3 else "many" for row, label in labels}
    generator = np.random.default_rng(0)  # not all of an emotion are in one group, or nothing could be permuted
    mixed = {row: group if generator.random() < 0.8 else "few" for row, group in few_or_many.items()}
    predictions = corrupted_predictions(replace(plain, predict=answer), faces)
    gap = compare_groups(predictions, GroupTable("x", {"mix": mixed}))["mix"]["gaps"]
    assert gap["accuracy"]["value"] > 0.2
    assert gap["accuracy"]["p"] > 0.05
    assert gap["accuracy"]["by_chance"] == pytest.approx(gap["accuracy"]["value"], abs=0.1)


def test_small_groups_and_missing_faces_are_counted_and_not_evaluated(faces: FaceSet) -> None:
    rows = faces.split(Split.PUBLIC_TEST).rows.tolist()
    column = {row: "few" if at < 10 else "many" for at, row in enumerate(rows[:150])}
    result = compare_groups(corrupted_predictions(by_brightness(), faces), GroupTable("x", {"kind": column}))["kind"]
    assert (result["small"], result["missing"], result["gaps"]) == ({"few": 10}, 60, {})
    assert list(result["groups"]) == ["many"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rwo,sex\n1,f\n", "neither the column row nor file; .* did you mean 'row'"),
        ("row,sex\n", "has a header and no rows"),
        ("row\n1\n", "has only the column row"),
        ("row,sex,sex\n1,f,f\n", "named twice"),
        ("row,sex\n1,f\n1,m\n", "row 1 .line 3.: the face '1' is named twice"),
        ("row,sex\nx,f\n", "row 'x' is not a whole number"),
        ("row,sex\n1,f,f\n", "3 fields instead of 2"),
        ("row,sex\n99999,f\n", "none of its rows"),
        ("row,age\n" + "".join(f"{row},{row}\n" for row in range(30)), "30 groups"),
        ("file,sex\na.png,f\n", "has rows, not files"),
    ],
)
def test_a_wrong_table_of_groups_is_one_message(text: str, says: str, faces: FaceSet, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text(text)
    faces = replace(faces, source=str(ROOT / "fer2013.parquet"))
    if "rows, not" in says:
        (tmp_path / "fer2013.parquet").touch()
        faces = replace(faces, source=str(tmp_path / "fer2013.parquet"))
    with pytest.raises(DataError, match=says):
        read_groups(tmp_path / "groups.csv", faces)


def test_groups_that_are_not_utf8_are_refused(faces: FaceSet, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_bytes("row,sex\n1,fémin\n2,fèmin\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"is not UTF-8 .byte 11.; save the table as UTF-8"):
        read_groups(tmp_path / "groups.csv", faces)


def test_unknown_rows_and_empty_cells_are_counted(faces: FaceSet, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("row;Sex;age\n1;f;\n2;;old\n99999;m;old\n")
    groups = read_groups(tmp_path / "groups.csv", faces)
    assert groups.columns == {"sex": {1: "f", 99999: "m"}, "age": {2: "old", 99999: "old"}}
    assert groups.unknown_rows == 1
