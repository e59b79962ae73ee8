"""Comparisons: common rows, paired tests, disagreement, seeds, claims, latency, files, effects of settings."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from mien._emotions import SEVEN, Emotion, class_set
from mien._errors import DataError
from mien._metrics import compare_with_claim
from mien.lab.compare import Comparison, write_comparison
from mien.lab.compare.compare import (
    claimed_metrics,
    common_rows,
    compare_entries,
    compare_pairs,
    disagreement,
    over_seeds,
)
from mien.lab.compare.entries import Entries, ModelEntry, unique_names
from mien.lab.compare.latency import measure_latency
from mien.lab.compare.plots import ModelPoint, front
from mien.lab.compare.report import describe_differences
from mien.lab.compare.study import StudyCell, compare_family, effects, voter_agreement
from mien.lab.data import FaceSet, Split
from mien.lab.predictions import Predictions, compare_with_votes, select_rows
from mien.lab.recipe import dump, load
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import tiny


def entry(faces: FaceSet, name: str, right: float, *, classes: str = "seven", seed: int = 0, **more: Any) -> ModelEntry:
    """Predictions for PublicTest: the label on a share ``right`` of the faces, else a random class."""
    emotions = class_set(classes)
    selection = select_rows(faces, emotions, Split.PUBLIC_TEST)
    labels = selection.faces.labels.numpy()
    generator = np.random.default_rng(sum(map(ord, name)) + seed)
    random = generator.integers(0, len(emotions), len(labels))
    predicted = np.where(generator.random(len(labels)) < right, labels, random)
    probs = np.full((len(labels), len(emotions)), 0.3 / len(emotions), np.float32)
    probs[np.arange(len(labels)), predicted] += 0.7
    predictions = Predictions(selection.faces.rows.numpy(), probs, labels, selection.clean, selection.faces.emotions)
    return ModelEntry(name, name, str(seed), f"results/{name}/seed-{seed}", "recorded", predictions, selection, **more)


def four_compared(faces: FaceSet) -> Comparison:
    """A poor model with a published claim, a good one, an equally good one, and one with six classes."""
    claim = {"document": "004", "variant": "faithful", "split": "test", "metrics": {"accuracy": 0.5, "recall.sad": 0.4}}
    entries = (
        entry(faces, "poor", 0.3, claim=claim, parameters=1000),
        entry(faces, "good", 0.9, parameters=5_000_000, macs=2_000_000),
        entry(faces, "as-good", 0.9),
        entry(faces, "six", 0.6, classes="six-no-neutral"),
    )
    return compare_entries(Entries(entries, faces), Split.PUBLIC_TEST, latency=False)


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(70, 350, 0))


@pytest.fixture(scope="module")
def comparison(faces: FaceSet) -> Comparison:
    return four_compared(faces)


def test_models_of_other_classes_are_compared_on_the_common_classes(faces: FaceSet) -> None:
    seven, three = entry(faces, "a", 0.5), entry(faces, "b", 0.5, classes="three")
    common = common_rows([seven, three])
    assert common.emotions == (Emotion.ANGRY, Emotion.FEAR, Emotion.HAPPY)
    assert common.narrowed
    assert len(common.rows) == 150
    assert common.probs.sum(2) == pytest.approx(1, abs=1e-6)
    of_rows = {
        int(row): int(label) for row, label in zip(seven.predictions.rows, seven.predictions.labels, strict=True)
    }
    for row, label in zip(common.rows.tolist(), common.labels, strict=True):
        assert SEVEN[of_rows[row]] == common.emotions[label]
    at = np.searchsorted(seven.predictions.rows, common.rows)
    best = seven.predictions.probs[at][:, [0, 2, 3]].argmax(1)
    assert (common.predicted[0] == best).all()


def test_without_probability_of_the_common_classes_they_are_uniform(faces: FaceSet) -> None:
    seven, three = entry(faces, "a", 0.5), entry(faces, "b", 0.5, classes="three")
    probs = np.zeros_like(seven.predictions.probs)
    probs[:, 6] = 1
    common = common_rows([replace(seven, predictions=replace(seven.predictions, probs=probs)), three])
    assert common.probs[0] == pytest.approx(1 / 3)


def test_nothing_in_common_is_an_error(faces: FaceSet) -> None:
    one, two = entry(faces, "a", 0.5, classes="angry, sad"), entry(faces, "b", 0.5, classes="happy, fear")
    with pytest.raises(DataError, match="a and b: the classes that all know are none"):
        common_rows([one, two])
    a = entry(faces, "a", 0.5)
    others = replace(a, name="c", predictions=replace(a.predictions, rows=a.predictions.rows + 10_000))
    with pytest.raises(DataError, match="a and c: no face is predicted by all"):
        common_rows([a, others])


def test_faces_that_are_labelled_otherwise_do_not_count(faces: FaceSet) -> None:
    a = entry(faces, "a", 0.5)
    labels = a.predictions.labels.copy()
    labels[:40] = (labels[:40] + 1) % 7
    common = common_rows([a, replace(a, name="b", predictions=replace(a.predictions, labels=labels))])
    assert len(common.rows) == len(labels) - 40


def test_significant_differences_and_noise(comparison: Comparison) -> None:
    value, accuracy_differs = comparison.difference(1, 0, "accuracy")
    assert accuracy_differs
    assert comparison.difference(1, 0, "macro_f1")[1]
    assert value > 0.3
    assert comparison.difference(0, 1, "accuracy")[0] == -value
    assert not comparison.difference(1, 2, "accuracy")[1]
    assert not comparison.difference(1, 2, "macro_f1")[1]
    sentence = describe_differences(comparison, "accuracy")[0]
    assert "poor by" in sentence
    assert "no significant difference from" in sentence


def test_pairs_in_a_group_have_the_results_of_pairs_tested_alone(faces: FaceSet) -> None:
    """Models of the same classes share the draws of the bootstrap."""
    three = [entry(faces, name, share) for name, share in (("a", 0.4), ("b", 0.5), ("c", 0.8))]
    alone = compare_pairs(three[:2])[0]
    together = compare_pairs(three)[0]
    assert together.accuracy == alone.accuracy
    assert together.macro_f1 == alone.macro_f1
    assert together.accuracy_holm >= alone.accuracy_holm


def test_disagreement_is_counted_face_by_face(comparison: Comparison) -> None:
    d, correct, predicted = comparison.disagreement, comparison.common.correct, comparison.common.predicted
    assert d.oracle == pytest.approx(np.mean([any(column) for column in correct.T]))
    assert d.all_right + d.all_wrong <= 1
    assert d.differ[0, 1] == pytest.approx(np.mean(predicted[0] != predicted[1]))
    assert d.double_fault[0, 0] == pytest.approx(1 - d.accuracy[0])


def test_the_divergence_of_two_is_that_of_scipy(faces: FaceSet) -> None:
    common = common_rows([entry(faces, "a", 0.3), entry(faces, "b", 0.6)])
    expected = [jensenshannon(*pair) ** 2 for pair in common.probs.swapaxes(0, 1).astype(float)]
    assert disagreement(common).divergence == pytest.approx(np.array(expected), abs=1e-6)


def test_a_majority_outvotes_and_a_tie_goes_to_the_surer(faces: FaceSet) -> None:
    a = entry(faces, "a", 1.0)
    label, other = a.predictions.labels, (a.predictions.labels + 1) % 7

    def sure(places: np.ndarray, share: float) -> ModelEntry:
        probs = np.full((len(places), 7), (1 - share) / 7, np.float32)
        probs[np.arange(len(places)), places] += share
        return replace(a, predictions=replace(a.predictions, probs=probs))

    assert disagreement(common_rows([sure(label, 0.3), sure(label, 0.3), sure(other, 0.99)])).majority == 1
    assert disagreement(common_rows([sure(label, 0.9), sure(other, 0.5)])).majority == 1
    assert disagreement(common_rows([sure(label, 0.5), sure(other, 0.9)])).majority == 0


def test_one_model_is_no_comparison(faces: FaceSet) -> None:
    with pytest.raises(DataError, match="needs two models, and there is a;"):
        compare_entries(Entries((entry(faces, "a", 0.5),), faces), Split.PUBLIC_TEST, latency=False)


def test_names_are_made_unique(faces: FaceSet) -> None:
    seeds = [entry(faces, "a", 0.5, seed=seed) for seed in (0, 1)]
    assert [c.name for c in unique_names(seeds)] == ["a (seed 0)", "a (seed 1)"]
    twice = [entry(faces, "a", 0.5), replace(entry(faces, "a", 0.5), source="runs/a")]
    assert len({c.name for c in unique_names(twice)}) == 2


def test_seeds_of_a_recipe_become_mean_and_deviation(faces: FaceSet) -> None:
    seeds = unique_names([entry(faces, "a", 0.5, seed=seed) for seed in (0, 1, 2)])
    found = over_seeds(compare_entries(Entries(seeds, faces), Split.PUBLIC_TEST, latency=False))
    values = [c.predictions.metrics()["all"]["accuracy"] for c in seeds]
    assert found["a"]["n"] == 3
    assert found["a"]["accuracy"] == {
        "mean": pytest.approx(np.mean(values)),
        "sd": pytest.approx(np.std(values, ddof=1)),
    }


def written(folder: Path, recipe: str, *changes: str) -> str:
    """A folder of recorded results that holds nothing but its recipe."""
    folder.mkdir(parents=True)
    (folder / "predictions.npz").touch()
    (folder / "recipe.json").write_text(json.dumps(dump(load(recipe, changes))))
    return str(folder)


def test_runs_of_different_settings_are_not_averaged(faces: FaceSet, tmp_path: Path) -> None:
    seeds = [entry(faces, "conv4", 0.5, seed=seed) for seed in range(4)]
    for seed, epochs in enumerate((5, 5, 9, 9)):
        source = written(tmp_path / f"seed-{seed}", "conv4", f"seed={seed}", f"train.epochs={epochs}")
        seeds[seed] = replace(seeds[seed], source=source)
    found = compare_entries(Entries(unique_names(seeds), faces), Split.PUBLIC_TEST, latency=False)
    assert [each["seeds"] for each in over_seeds(found).values()] == [["0", "1"], ["2", "3"]]
    assert "conv4: the runs are of 2 different trainings, whose metrics are not averaged." in found.warnings()


def test_a_study_refuses_a_run_that_is_not_of_its_member(tmp_path: Path) -> None:
    for member in ("votes/all", "votes/half"):
        written(tmp_path / "results" / member / "seed-1", member, "seed=1", "train.epochs=2")
    folders = {"results": tmp_path / "results", "runs": tmp_path / "runs"}
    with pytest.raises(DataError, match=r"seed-1: was not trained as votes/\w+ \(other train.epochs\); move it"):
        compare_family("votes", None, Split.PUBLIC_TEST, **folders)


def test_the_pareto_front() -> None:
    models = (("a", 1, 0.5), ("b", 2, 0.4), ("c", 3, 0.7), ("d", 3, 0.6))
    points = [ModelPoint(name, cost, accuracy, (accuracy, accuracy)) for name, cost, accuracy in models]
    assert [p.name for p in front(points)] == ["a", "c"]


PLAIN = {"command": "mien compare", "commit": "c"}


def test_claimed_metrics_are_paired_with_the_measured_ones(comparison: Comparison) -> None:
    measured = comparison.metrics[0]["all"]
    rows = claimed_metrics(comparison.entries[0].claim, [measured])
    assert [(each.key, each.claimed, each.value) for each in rows] == [
        ("accuracy", 0.5, measured["accuracy"]),
        ("recall.sad", 0.4, measured["recall"]["sad"]),
    ]
    assert all(each.interval[0] < each.value < each.interval[1] for each in rows)


def test_a_claimed_confusion_is_the_share_of_the_label(comparison: Comparison) -> None:
    measured = comparison.metrics[0]["all"]
    counts = dict(zip(measured["recall"], measured["confusion"][list(measured["recall"]).index("sad")], strict=True))
    claim = {"metrics": {"confusion.sad.fear": 1.0, "confusion.sad.contempt": 0.2, "recall.contempt": 0.3}}
    (found,) = claimed_metrics(claim, [measured, measured])  # contempt is no class of the model
    assert found.value == pytest.approx(counts["fear"] / sum(counts.values()))
    assert found.verdict == "better"  # fewer confusions are better


@pytest.mark.parametrize("key", ["specificity.sad", "support.sad", "confusion.sad", "recall.sad.fear", "auc", "n"])
def test_what_is_claimed_and_not_measured_is_left_out(comparison: Comparison, key: str) -> None:
    assert claimed_metrics({"metrics": {key: 0.5}}, [comparison.metrics[0]["all"]]) == []


@pytest.mark.parametrize(
    ("key", "claimed", "edges", "verdict"),
    [
        ("accuracy", 0.5, (0.5, 0.6), "better"),
        ("accuracy", 0.5, (0.49, 0.6), "within noise"),
        ("recall.sad", 0.5, (0.3, 0.49), "worse"),
        ("log_loss", 1.0, (0.9, 1.0), "better"),
        ("log_loss", 1.0, (1.01, 1.2), "worse"),
        ("confusion.fear.surprise", 0.26, (0.2, 0.3), "within noise"),
    ],
)
def test_a_verdict_needs_the_whole_interval(key: str, claimed: float, edges: tuple[float, float], verdict: str) -> None:
    assert compare_with_claim(key, claimed, edges) == verdict


def test_the_graph_that_the_recipe_exports_is_timed(faces: FaceSet) -> None:
    recipe = dump(tiny())
    entries = [entry(faces, "a", 0.5, recorded_recipe=recipe), entry(faces, "b", 0.5, recorded_recipe=recipe, seed=1)]
    latencies = measure_latency(entries, seconds=0, rounds=2)
    assert latencies.each[0] is latencies.each[1]
    timing = latencies.each[0].timings["fp32", 64]
    assert 0 < timing.ms <= timing.median <= timing.slowest
    assert latencies.each[0].bytes["int8"] > 0
    assert latencies.setting["threads"] == "1"


def test_a_graph_that_cannot_be_exported_has_a_reason(faces: FaceSet) -> None:
    recipe = dump(tiny()) | {"net": {"name": "lenet", "options": {"size": 32}, "weights": ""}}  # of faces of 16 pixels
    latencies = measure_latency([entry(faces, "a", 0.5, recorded_recipe=recipe)], seconds=0, rounds=1)
    assert latencies.each[0].timings == {}
    assert latencies.each[0].reason.startswith("cannot be exported (")


def test_a_published_metric_has_the_unit_of_ours(faces: FaceSet, tmp_path: Path) -> None:
    metrics = {"f1.sad": 0.43, "weighted_f1": 0.61, "macro_precision": 0.72, "log_loss": 1.25}
    claim = {"document": "003", "variant": "tuned", "split": "test", "metrics": metrics}
    entries = (entry(faces, "a", 0.5, claim=claim), entry(faces, "b", 0.5))
    write_comparison(compare_entries(Entries(entries, faces), Split.PUBLIC_TEST, latency=False), tmp_path, PLAIN)
    page = (tmp_path / "report.html").read_text()
    for text in ("43.0 %", "61.0 %", "72.0 %", ">1.250<", "F1 of sad", "weighted F1"):
        assert text in page
    assert ">0.430<" not in page


def test_an_emotion_without_a_face_has_no_recall(faces: FaceSet, tmp_path: Path) -> None:
    few = faces.select(faces.labels != SEVEN.index(Emotion.DISGUST))
    entries = (entry(few, "a", 0.5), entry(few, "b", 0.9))
    found = compare_entries(Entries(entries, few), Split.PUBLIC_TEST, latency=False)
    assert set(found.recall(0)) == set(SEVEN) - {Emotion.DISGUST}
    write_comparison(found, tmp_path, PLAIN)
    table = (tmp_path / "report.html").read_text().partition("Recall in per cent")[2].partition("</table>")[0]
    assert table.count("–") == 2


def test_a_set_of_copies_has_no_clean_metrics(tmp_path: Path) -> None:
    once = cartoon_set(per_split=(70, 0, 0))
    usage = torch.cat([once.usage, once.usage + 1])
    twice = replace(
        once,
        images=once.images.repeat(2, 1, 1),
        labels=once.labels.repeat(2),
        usage=usage,
        rows=torch.arange(140),
        votes=None,
        pixels_from_jpeg=None,
    )
    entries = (entry(twice, "a", 0.5), entry(twice, "b", 0.9))
    found = compare_entries(Entries(entries, twice), Split.PUBLIC_TEST, latency=False)
    assert all("clean" not in metrics for metrics in found.metrics)
    assert any("No row is clean" in warning for warning in found.warnings())
    write_comparison(found, tmp_path, PLAIN)
    rows = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert {row["clean_accuracy"] for row in rows} == {""}


def test_a_warning_names_models_that_learned_from_the_set(faces: FaceSet) -> None:
    entries = (entry(faces, "a", 0.5, learned_from=faces.sha256), entry(faces, "b", 0.9))
    found = compare_entries(Entries(entries, faces), Split.PUBLIC_TEST, latency=False)
    assert found.warnings() == [w for w in found.warnings() if "PublicTest chose" in w and w.endswith(": a.")] != []
    assert "have learned from" in replace(found, split="Training").warnings()[0]
    assert "have learned from" in replace(found, split="all").warnings()[0]
    assert replace(found, split="PrivateTest").warnings() == []


def test_files_hold_everything_and_only_the_page_holds_faces(comparison: Comparison, tmp_path: Path) -> None:
    write_comparison(comparison, tmp_path, PLAIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.json", "report.html", "table.csv"]
    values = json.loads((tmp_path / "comparison.json").read_text())
    assert [m["name"] for m in values["models"]] == ["poor", "good", "as-good", "six"]
    assert len(values["pairs"]) == 6
    assert values["common"]["narrowed"] is True
    assert values["models"][3]["left_out"] == {"neutral: not among the model's classes": 50}
    assert values["provenance"] == PLAIN
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert {row["model"] for row in rows} == {"poor", "good", "as-good", "six"}
    good = next(row for row in rows if row["model"] == "good")
    assert float(good["accuracy"]) == pytest.approx(comparison.metrics[1]["all"]["accuracy"])
    page = (tmp_path / "report.html").read_text()
    for text in ("Which differences are noise", "noise", "Published metrics", "do not publish", "Nothing was timed"):
        assert text in page
    assert 'src="http' not in page
    assert "url(http" not in page
    assert "data:image" not in (tmp_path / "comparison.json").read_text()


def test_names_are_escaped(faces: FaceSet, tmp_path: Path) -> None:
    entries = tuple(entry(faces, name, 0.5) for name in ("<b>a</b>", "b & c"))
    found = compare_entries(Entries(entries, faces), Split.PUBLIC_TEST, latency=False)
    write_comparison(found, tmp_path, PLAIN)
    assert "<b>a</b>" not in (tmp_path / "report.html").read_text()


AXES = {"net": ("a", "b", "c"), "optimiser": ("sgd", "adam")}


def grid_cells(shares: dict[tuple[str, str], float], *, seeds: int = 1) -> dict[tuple[str, ...], StudyCell]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 4000)
    cells: dict[tuple[str, ...], StudyCell] = {}
    for setting, share in shares.items():
        wrong = generator.random((seeds, 4000)) > share
        cells[setting] = StudyCell(labels, np.where(wrong, (labels + 1) % 3, labels), 3)
    return cells


def test_agreement_with_voters_is_a_mean_over_seeds(comparison: Comparison, faces: FaceSet) -> None:
    entries = comparison.entries
    majority = [compare_with_votes(c.predictions, c.selection, faces) for c in entries]
    shares = [votes["majority"]["agreement"] for votes in majority if votes]
    assert voter_agreement(comparison, (1,)) == shares[1] > shares[0]
    assert voter_agreement(comparison, (0, 1)) == pytest.approx((shares[0] + shares[1]) / 2)
    without_votes = replace(comparison, faces=replace(faces, votes=None))
    assert voter_agreement(without_votes, (0, 1)) is None


def test_effects_are_those_of_the_simulated_runs() -> None:
    shares = {("a", "sgd"): 0.5, ("a", "adam"): 0.6, ("b", "sgd"): 0.7, ("b", "adam"): 0.9}
    found = {
        (e.axis, e.first, e.second, e.within): e
        for e in effects(AXES, grid_cells(shares), resamples=400)
        if e.metric == "accuracy"
    }
    net, optimiser = found["net", "a", "b", None], found["optimiser", "sgd", "adam", None]
    assert net.value == pytest.approx(-0.25, abs=0.02)
    assert optimiser.value == pytest.approx(-0.15, abs=0.02)
    assert net.matched == optimiser.matched == 2
    assert net.interval[1] < 0
    crossed = found["net", "a", "b", ("optimiser", "sgd", "adam")]
    assert crossed.value == pytest.approx((0.5 - 0.7) - (0.6 - 0.9), abs=0.03)
    assert crossed.matched == 1
    assert not any("c" in key[1:3] for key in found)


def test_a_grid_with_a_missing_setting_compares_matched_settings_only() -> None:
    """The missing setting has the better optimiser: plain means would attribute the difference to the net."""
    shares = {("a", "sgd"): 0.5, ("b", "sgd"): 0.5, ("b", "adam"): 0.9}
    net = next(e for e in effects(AXES, grid_cells(shares), resamples=200) if e.axis == "net")
    assert net.matched == 1
    assert net.value == pytest.approx(0, abs=0.03)
    assert net.interval[0] < 0 < net.interval[1]


def test_seeds_that_differ_widen_the_interval() -> None:
    cells = grid_cells({("a", "sgd"): 0.7, ("b", "sgd"): 0.7}, seeds=2)
    labels = cells["a", "sgd"].labels
    half_wrong = np.where(np.arange(4000) % 5 < 2, labels, (labels + 1) % 3)
    different = {
        **cells,
        ("a", "sgd"): replace(cells["a", "sgd"], predicted=np.stack([labels, half_wrong])),
    }
    widths = [
        e.interval[1] - e.interval[0]
        for each in (cells, different)
        for e in effects(AXES, each, resamples=400)
        if e.axis == "net" and e.metric == "accuracy"
    ]
    assert widths[1] > 3 * widths[0]


def test_faces_that_are_not_evaluated_in_a_setting_do_not_count() -> None:
    cells = grid_cells({("a", "sgd"): 1.0, ("b", "sgd"): 0.0})
    labels = cells["a", "sgd"].labels.copy()
    labels[::2] = -1
    cells["b", "sgd"] = replace(cells["b", "sgd"], labels=labels)
    net = effects(AXES, cells, resamples=100)[0]
    assert net.value == pytest.approx(1)
