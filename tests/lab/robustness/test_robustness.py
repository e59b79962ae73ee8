"""Robustness: corrupted and clean pairs, metrics as in the paper, groups, files, reports and tables of the docs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mien._emotions import SEVEN
from mien._errors import DataError
from mien._format import percent
from mien.lab.data import FaceSet, Split
from mien.lab.metrics import bootstrap_metrics, compute_metrics
from mien.lab.models import Model, open_model
from mien.lab.robustness.corruptions import CORRUPTIONS, choose_corruptions
from mien.lab.robustness.groups import GroupTable, compare_groups, read_groups, significant_gaps
from mien.lab.robustness.metrics import (
    CORRUPTION_METRICS,
    bootstrap_weights,
    corruption_error,
    corruption_metrics,
    metric_values,
    weighted_metrics,
)
from mien.lab.robustness.predictions import predict_corrupted, sample_faces, select_sample
from mien.lab.robustness.reference import (
    CorruptionReference,
    format_ranges,
    pack_reference,
    parse_ranges,
    read_reference,
    reference_of,
)
from mien.lab.robustness.report import robustness_page, write_models, write_robustness_json
from mien.lab.robustness.run import RobustnessOptions, evaluate_robustness, name_models
from support.brightness_classifier import BY_NAME, by_brightness, corrupted_predictions
from support.paths import ROOT
from support.synthetic_faces import cartoon_set

SETTING = {"data_sha256": "0" * 64, "side": 48, "seed": 0}


def test_metrics_and_intervals_equal_those_of_the_evaluation() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 7, 400)
    probs = generator.dirichlet(np.ones(7) * 0.4, 400)
    expected, intervals = (
        compute_metrics(probs, labels, SEVEN, resamples=20),
        bootstrap_metrics(probs, labels, resamples=1000),
    )
    assert metric_values(probs, labels) == pytest.approx([expected[name] for name in CORRUPTION_METRICS])
    draws = weighted_metrics(probs, labels, bootstrap_weights(400))
    for at, name in enumerate(CORRUPTION_METRICS):  # the same draws of the same seed, so the same intervals
        assert np.percentile(draws[:, at], [2.5, 97.5]) == pytest.approx(intervals[name])


def test_a_sample_is_stratified_and_part_of_a_larger_sample() -> None:
    faces = cartoon_set()
    few, more = (sample_faces(faces, Split.PUBLIC_TEST, count, seed=0) for count in (14, 35))
    assert torch.bincount(few.labels).tolist() == [2] * 7
    assert set(few.rows.tolist()) < set(more.rows.tolist())
    assert len(sample_faces(faces, Split.PUBLIC_TEST, 0, seed=0)) == 70
    assert few.rows.tolist() != sample_faces(faces, Split.PUBLIC_TEST, 14, seed=1).rows.tolist()


def test_ranges_come_back() -> None:
    for rows in ([3], [3, 4, 5, 9, 11, 12], list(range(50))):
        assert parse_ranges(format_ranges(rows)) == rows
    assert format_ranges([3, 4, 5, 9]) == "3-5,9"


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(70, 210, 0))


def test_predictions_do_not_depend_on_the_batch_size(faces: FaceSet) -> None:
    model = open_model("mien-0")
    few = faces.select(torch.arange(60, 90))
    one, many = (corrupted_predictions(model, few, ("shot-noise", "rotation"), batch_size=size) for size in (1, 64))
    assert np.array_equal(one.clean, many.clean)
    for name in one.corrupted:
        assert np.array_equal(np.stack(one.corrupted[name]), np.stack(many.corrupted[name]))


def test_models_of_other_classes_see_the_same_pixels(faces: FaceSet) -> None:
    seen: dict[str, list[NDArray[np.uint8]]] = {"a": [], "b": []}

    def watching(name: str, emotions: tuple) -> Model:
        plain = by_brightness(name, emotions)
        return replace(plain, answer=lambda crops: (seen[name].append(crops), plain.answer(crops))[1])

    models = {"a": watching("a", SEVEN), "b": watching("b", SEVEN[:3])}
    sample = sample_faces(faces, Split.PUBLIC_TEST, 70, seed=0)
    selections = {n: select_sample(faces, sample, m.emotions, Split.PUBLIC_TEST) for n, m in models.items()}
    predict_corrupted(models, selections, sample, choose_corruptions(["gaussian-noise"]), seed=0)
    known = np.isin(selections["a"].faces.rows, selections["b"].faces.rows)
    assert 0 < known.sum() < 70
    for all_seven, three in zip(seen["a"], seen["b"], strict=True):
        assert np.array_equal(all_seven[known], three)
    assert selections["b"].account["not in the sample"] == 60
    assert sum(selections["b"].account.values()) + len(selections["b"].faces) == 210


def test_corrupted_and_clean_faces_are_compared_in_pairs(faces: FaceSet) -> None:
    corruptions = choose_corruptions(["gaussian-noise", "cover-mouth"])
    result = corruption_metrics(corrupted_predictions(by_brightness(), faces), corruptions)
    clean, worst = result["clean"]["metrics"], result["corrupted"]["cover-mouth"][4]["metrics"]
    assert worst["accuracy"]["value"] < clean["accuracy"]["value"] - 0.2
    low, high = worst["accuracy"]["difference_interval"]
    assert low < worst["accuracy"]["difference"] < high < 0
    accuracies = [each["metrics"]["accuracy"]["value"] for each in result["corrupted"]["cover-mouth"]]
    mean = result["by_corruption"]["cover-mouth"]["metrics"]["accuracy"]["value"]
    assert mean == pytest.approx(np.mean(accuracies), abs=1e-5)
    rates = [each["flip_rate"] for each in result["corrupted"]["cover-mouth"]]
    assert rates[4] > rates[0]


def reference(name: str, wrong: dict[str, list[int]], clean: int = 10, count: int = 100) -> CorruptionReference:
    """A model that makes as many mistakes, the first faces being the wrong ones."""
    rows = np.arange(count)
    corrupted = {key: np.stack([rows >= number for number in five]) for key, five in wrong.items()}
    amounts = {key: BY_NAME[key].amounts for key in wrong}
    return CorruptionReference(name, tuple(map(str, SEVEN)), SETTING, rows, rows >= clean, corrupted, amounts)


def test_mean_corruption_is_the_papers_sum_of_errors() -> None:
    one = reference("one", {"jpeg": [20, 30, 40, 50, 60], "mask": [10, 20, 30, 40, 50]}, clean=20)
    two = reference("two", {"jpeg": [20, 20, 20, 20, 20], "mask": [15, 15, 15, 15, 15]}, clean=10)
    result = corruption_error(one, two)
    assert result["by_corruption"]["jpeg"]["ce"]["value"] == pytest.approx(200 / 100)
    assert result["mce"]["value"] == pytest.approx((200 / 100 + 150 / 75) / 2)
    assert result["relative_mce"]["value"] == pytest.approx(((200 - 100) / (100 - 50) + (150 - 100) / (75 - 50)) / 2)
    low, high = result["mce"]["interval"]
    assert low < result["mce"]["value"] < high
    assert corruption_error(two, two)["mce"] == {"value": 1, "interval": [1, 1]}


def test_a_ratio_to_nothing_is_excluded_and_named() -> None:
    two = reference("two", {"jpeg": [0] * 5, "mask": [10] * 5}, clean=10)
    result = corruption_error(reference("one", {"jpeg": [20] * 5, "mask": [20] * 5}), two)
    assert result["excluded"] == {"mce": ["jpeg"], "relative_mce": ["jpeg", "mask"]}
    assert result["by_corruption"]["jpeg"]["ce"] is None
    assert result["relative_mce"] is None
    assert result["mce"]["value"] == pytest.approx(2)


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
def test_a_reference_that_does_not_fit_gives_a_reason(change: dict, why: str) -> None:
    one = reference("one", {"jpeg": [20] * 5})
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


def test_files_and_report_agree_with_the_result(faces: FaceSet, tmp_path: Path) -> None:
    halves = {row: "even" if row % 2 == 0 else "odd" for row in faces.rows.tolist()}
    models = {"light": by_brightness("light"), "<b>": by_brightness("<b>", SEVEN[:3])}
    options = RobustnessOptions(Split.PUBLIC_TEST, 0, choose_corruptions(["jpeg", "glasses"]))
    result = evaluate_robustness(models, faces, options, groups=GroupTable("h.csv", {"half": halves}, 2))
    write_robustness_json(result, tmp_path / "stress.json")
    assert json.loads((tmp_path / "stress.json").read_text()) == json.loads(json.dumps(result))
    files = {path.name: json.loads(path.read_text()) for path in write_models(result, tmp_path / "recorded")}
    assert set(files) == {"light.json", "groups-light.json", "b.json", "groups-b.json"}
    assert "groups" not in files["light.json"]["models"][0]
    assert files["groups-light.json"]["models"][0]["groups"] == json.loads(json.dumps(result["models"][0]["groups"]))
    text = robustness_page(result)
    accuracy = percent(result["models"][0]["clean"]["metrics"]["accuracy"]["value"])
    for each in (accuracy, "2 rows of h.csv are not in the data set"):
        assert each in text
    assert "no mean corruption error; light has other emotions" in text
    assert "<b>" not in text
    assert "&lt;b&gt;" in text
    assert "keep it on this computer" not in text.lower()
    assert text.count("<svg") == 2 + 2 * 2


def test_two_models_of_one_name_are_named_by_their_arguments() -> None:
    models = [by_brightness("x"), by_brightness("x"), by_brightness("y")]
    assert list(name_models(["runs/x", "x.onnx", "y"], models)) == ["runs/x", "x.onnx", "y"]
    with pytest.raises(DataError, match="named twice"):
        name_models(["x", "x"], models[:2])


def test_recorded_metrics_agree_with_recorded_predictions() -> None:
    files = sorted(path for path in (ROOT / "results" / "stress").glob("*.json") if not path.stem.startswith("groups"))
    assert (ROOT / "results" / "stress" / "mien-0.json") in files
    for file in files:
        result = json.loads(file.read_text())
        model, recorded = result["models"][0], read_reference(file)
        assert recorded.clean.mean() == pytest.approx(model["clean"]["metrics"]["accuracy"]["value"], abs=1e-6)
        for name, conditions in model["corrupted"].items():
            assert recorded.corrupted[name].mean(axis=1) == pytest.approx(
                [c["metrics"]["accuracy"]["value"] for c in conditions], abs=1e-6
            )
        amounts = {each["name"]: tuple(each["amounts"]) for each in result["corruptions"]}
        assert amounts == {corruption.name: corruption.amounts for corruption in CORRUPTIONS}


def test_groups_of_chance_have_no_gap_and_real_ones_have(faces: FaceSet) -> None:
    answers = corrupted_predictions(by_brightness(dark=62.0), faces)
    generator = np.random.default_rng(5)
    rows = faces.rows.tolist()
    top = faces.images[:, :4].float().mean(dim=(1, 2))
    columns = {
        "coin": {row: str(generator.choice(["a", "b", "c"])) for row in rows},
        "background": {row: "dark" if value < 62 else "light" for row, value in zip(rows, top.tolist(), strict=True)},
    }
    result = compare_groups(answers, GroupTable("x", columns))
    assert all(gap["p_corrected"] > 0.05 for gap in result["coin"]["gaps"].values())
    gap = result["background"]["gaps"]["accuracy"]
    assert (gap["largest"], gap["smallest"]) == ("light", "dark")
    assert gap["p_corrected"] < 0.05
    low, high = gap["interval"]
    assert 0 < low < gap["value"] < high
    assert any(gap.startswith("background, accuracy") for gap in significant_gaps(result))
    assert sum(group["n"] for group in result["coin"]["groups"].values()) == 210


def test_the_mix_of_emotions_is_no_gap(faces: FaceSet) -> None:
    """Two groups of other emotions: their accuracies differ, but only as the emotions' own do."""
    plain = by_brightness()
    hard = replace(plain, answer=lambda crops: (plain.answer(crops)[0] * [1, 1, 1, 0, 0, 0, 0], None))

    def answer(crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], None]:
        probs = hard.answer(crops)[0] + 1e-9
        return (probs / probs.sum(1, keepdims=True)).astype(np.float32), None

    labels = zip(faces.rows.tolist(), faces.labels, strict=True)
    few_or_many = {row: "few" if label < 3 else "many" for row, label in labels}
    generator = np.random.default_rng(0)  # not all of an emotion are in one group, or nothing could be permuted
    mixed = {row: group if generator.random() < 0.8 else "few" for row, group in few_or_many.items()}
    predictions = corrupted_predictions(replace(plain, answer=answer), faces)
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
def test_a_wrong_table_of_groups_is_one_clear_line(text: str, says: str, faces: FaceSet, tmp_path: Path) -> None:
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


def test_rows_of_no_face_and_empty_cells_are_counted(faces: FaceSet, tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("row;Sex;age\n1;f;\n2;;old\n99999;m;old\n")
    groups = read_groups(tmp_path / "groups.csv", faces)
    assert groups.columns == {"sex": {1: "f", 99999: "m"}, "age": {2: "old", 99999: "old"}}
    assert groups.unknown_rows == 1
