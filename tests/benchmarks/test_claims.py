"""The demonstrations of docs/explanations/claims.md find leaks between splits and within batches, and no others."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.nn import functional

import claims
import claims_batch
import claims_epoch
import claims_leak
import docs_claims
from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.data.selection import training_rows, validation_rows
from mien.lab.models import open_model
from mien.lab.train.loop import fit
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import tiny

LEAKY = {"expand": 0.3, "expand_first": True, "exclude_leaked": False}


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(350, 140, 70))


def test_relatives_are_recognised(faces: FaceSet) -> None:
    images = faces.images.clone()
    images[9] = images[3]  # a copy of pixels
    made = images.clone()
    made[4] = images[4].flip(-1)
    known = replace(faces, images=images)
    training = known.select(torch.tensor([0, 1, 2, 3, 4]))
    validation = replace(known, images=made).select(torch.tensor([4, 9, 20]))
    kin = claims_leak.relatives(known, training, validation)
    assert kin.same_row.tolist() == [True, False, False]
    assert kin.same_pixels.tolist() == [False, True, False]
    assert kin.made.tolist() == [True, False, False]
    groups = {name: rows.nonzero()[0].tolist() for name, rows in kin.groups().items()}
    assert groups["without"] == groups["untouched, without"] == [2]
    assert groups["untouched, only a copy of its pixels in training"] == [1]
    assert groups["changed, with a relative"] == [0]


def test_a_clean_split_has_no_relatives(faces: FaceSet) -> None:
    recipe = tiny(data={"size": 48})
    kin = claims_leak.relatives(faces, training_rows(faces, recipe), validation_rows(faces, recipe))
    assert not kin.relative.any()


def test_what_learns_by_heart_is_right_on_relatives_alone(faces: FaceSet) -> None:
    """Labels drawn by chance cannot be learned: only a leak lets the nearest training face tell them."""
    generator = torch.Generator().manual_seed(1)
    patches = torch.rand(len(faces), 1, 6, 6, generator=generator) * 255  # each face its own, and coarse
    images = functional.interpolate(patches, size=48, mode="bilinear")[:, 0].to(torch.uint8)
    blind = replace(faces, images=images, labels=torch.randint(7, (len(faces),), generator=generator))
    recipe = tiny(data={"size": 48, **LEAKY})
    training, validation = training_rows(blind, recipe), validation_rows(blind, recipe)
    kin = claims_leak.relatives(blind, training, validation)
    seen, known = (part.images.float() for part in (validation, training))
    distance = torch.minimum(*(torch.cdist(each.flatten(1), known.flatten(1)) for each in (seen, seen.flip(-1))))
    right = (training.labels[distance.argmin(1)] == validation.labels).numpy()
    found = claims_leak.difference(right[kin.relative], right[~kin.relative])
    assert 0.2 < kin.relative.mean() < 0.6
    assert right[~kin.relative].mean() < 0.35
    assert found["points"] > 50
    assert found["interval"][0] > 30
    assert found["p"] < 1e-6


def test_no_difference_where_there_is_none() -> None:
    half = np.arange(1000) % 2 == 0
    found = claims_leak.difference(half, half)
    assert found["points"] == 0
    assert found["interval"][0] < 0 < found["interval"][1]
    assert found["p"] == pytest.approx(1)
    # A normal approximation of the same interval.
    reach = 100 * norm.ppf(0.975) * (2 * 0.25 / 1000) ** 0.5
    assert found["interval"][1] == pytest.approx(reach, rel=0.1)


@pytest.fixture(scope="module")
def runs(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A leaky run, its clean partner, and one with another rate."""
    folder = tmp_path_factory.mktemp("runs")
    leaky, clean = tiny(data=LEAKY), tiny(data={"expand": 0.3})
    recipes = {"leaky": leaky, "clean": clean, "other": replace(clean, seed=1)}
    for name, recipe in recipes.items():
        assert fit(recipe, faces, folder / name, provenance={"data_sha256": faces.sha256})
    return {name: folder / name for name in recipes}


def test_two_runs_are_held_against_each_other(faces: FaceSet, runs: dict[str, Path]) -> None:
    found = claims_leak.measure(faces, runs["leaky"], runs["clean"])
    leaky, clean = found["leaky"], found["clean"]
    whole = leaky["with a relative"]["n"] + leaky["without"]["n"]
    assert whole == leaky["all"]["n"] == -(-sum(int(1.3 * n) for n in np.bincount(faces.labels)) // 5)
    assert clean["PublicTest, all"]["n"] == 140
    history = [json.loads(line) for line in (runs["clean"] / "log.jsonl").read_text().splitlines()]
    assert clean["PublicTest, all"]["accuracy"] == round(100 * history[-1]["val_accuracy"], 2)
    expected = leaky["all"]["accuracy"] - clean["PublicTest, all"]["accuracy"]
    assert found["differences"]["leaky - clean"]["points"] == pytest.approx(expected, abs=0.011)


@pytest.mark.parametrize(("first", "second"), [("clean", "leaky"), ("leaky", "other")])
def test_runs_that_show_nothing_are_refused(faces: FaceSet, runs: dict[str, Path], first: str, second: str) -> None:
    with pytest.raises(DataError, match="run"):
        claims_leak.measure(faces, runs[first], runs[second])


def test_one_candidate_leaves_no_choice() -> None:
    right = np.random.default_rng(0).random((1, 400)) < 0.6
    choice = claims_epoch.choose(right, 200, splits=200)
    assert (choice.gain == 0).all()
    assert abs(choice.drop.mean()) < 0.01
    # Both halves together are all the faces.
    assert (choice.reported + choice.unseen) / 2 == pytest.approx(right.mean())


def test_the_gain_is_the_largest_of_many_coins() -> None:
    """Candidates that are equally good and guess independently: the gain is the expected largest of K normals."""
    k, n, p, part = 40, 3200, 0.6, 400
    right = np.random.default_rng(1).random((k, n)) < p
    choice = claims_epoch.choose(right, part, splits=400)
    grid = np.linspace(-8, 8, 4001)
    largest = float(np.trapezoid(grid * k * norm.cdf(grid) ** (k - 1) * norm.pdf(grid), grid))
    assert (choice.gain >= 0).all()
    assert choice.gain.mean() == pytest.approx(largest * (p * (1 - p) / part) ** 0.5, rel=0.2)


def test_a_better_candidate_is_found_without_looking() -> None:
    """Where one epoch is far better than all others, either half finds it: nothing to gain."""
    right = np.random.default_rng(2).random((10, 1000)) < 0.3
    right[4] = True
    assert claims_epoch.choose(right, 500, splits=100).gain.max() == 0


def test_the_gain_shrinks_with_the_root_of_the_faces() -> None:
    found = claims_epoch.at_whole({size: 100 / size**0.5 for size in (400, 800, 1600)})
    assert found["exponent"] == pytest.approx(-0.5, abs=1e-3)
    assert found["gain"] == pytest.approx(100 / claims_epoch.WHOLE**0.5, abs=1e-3)


def test_predictions_are_those_of_the_trained_net(faces: FaceSet, tmp_path: Path) -> None:
    recipe = tiny()
    right = claims_epoch.correct_by_epoch(recipe, faces, tmp_path / "kept")
    assert right.shape == (3, 140)
    history: list[dict[str, float]] = []
    fit(recipe, faces, tmp_path / "run", on_epoch=history.append)
    assert right.mean(axis=1) == pytest.approx([record.val_accuracy for record in history])
    kept = (tmp_path / "kept" / "epochs.npz").stat().st_mtime_ns
    assert np.array_equal(claims_epoch.correct_by_epoch(recipe, faces, tmp_path / "kept"), right)
    assert (tmp_path / "kept" / "epochs.npz").stat().st_mtime_ns == kept  # nothing is trained again
    with pytest.raises(DataError, match="another training"):
        claims_epoch.correct_by_epoch(replace(recipe, seed=5), faces, tmp_path / "kept")


def test_summary_of_epochs() -> None:
    right = np.random.default_rng(3).random((3, 12, 400)) < 0.5
    found = claims_epoch.summarize(right)
    assert found["best_epoch_by_last"]["1"]["gain"] == 0
    gains = [found["best_epoch_by_last"][k]["gain"] for k in ("1", "5", "10")]
    assert gains == sorted(gains)
    assert found["best_of_seeds_and_epochs"]["candidates"] == 36
    assert found["best_of_seeds_and_epochs"]["gain"] > gains[-1]


def test_the_command_writes_its_file(
    faces: FaceSet, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "load_set", lambda *_: faces)
    path = tmp_path / "leak.json"
    assert claims.main(["leak", str(runs["leaky"]), str(runs["clean"]), "--json", str(path)]) == 0
    said = json.loads(path.read_text())
    assert said["provenance"]["data_sha256"] == faces.sha256
    assert said["provenance"]["command"].startswith("python benchmarks/claims.py leak ")
    assert str(tmp_path) not in path.read_text()
    assert claims.main(["leak", str(runs["clean"]), str(runs["leaky"])]) == 2


def test_a_figure_that_is_not_there_is_not_claimed(tmp_path: Path) -> None:
    """Without its file a section says which command measures it, and holds no table."""
    for name, part in docs_claims.parts(tmp_path).items():
        assert f"benchmarks/claims.py {name} " in part
        assert "|" not in part


@pytest.fixture(scope="module")
def blobs() -> tuple[torch.Tensor, torch.Tensor]:
    """Features of three classes that overlap: float ``[1500, 8]`` and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(1500) % 3
    return torch.randn(1500, 8, generator=generator) + torch.eye(3, 8)[labels] * 1.5, labels


def test_sorted_batches_leak_through_attention_alone(blobs: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, labels = blobs
    train, test = slice(0, 900), slice(900, 1500)
    found = {
        across: claims_batch.train_heads(
            x[train], labels[train], x[test], labels[test], across=across, by_class=False, seeds=2
        )
        for across in (True, False)
    }
    assert found[True]["sorted_minus_shuffled"]["interval"][0] > 5
    assert found[False]["sorted_minus_shuffled"] == {"mean": 0.0, "interval": [0.0, 0.0]}
    means = {name: row["mean"] for name, row in found[False]["accuracy"].items()}
    assert len(set(means.values())) == 1
    assert found[True]["accuracy"]["sorted"]["mean"] > means["sorted"] + 5


def test_arrangements_hold_every_face_once() -> None:
    truth = torch.randint(7, (300,), generator=torch.Generator().manual_seed(0))
    for name, batches in claims_batch.arrangements(truth, seed=0).items():
        rows = torch.cat(batches)
        assert torch.equal(rows.sort().values, torch.arange(300))
        ordered = bool((truth[rows].diff() >= 0).all())
        assert ordered == (name == "sorted")
        assert len(batches) == (300 if name == "alone" else 5)


def test_training_batches_by_class_hold_one_class() -> None:
    labels = torch.arange(1000) % 3
    generator = torch.Generator().manual_seed(0)
    by_class = claims_batch.training_batches(labels, generator, by_class=True)
    assert all(len(labels[rows].unique()) == 1 for rows in by_class)
    assert len({int(labels[rows][0]) for rows in by_class}) == 3
    assert any(
        len(labels[rows].unique()) == 3 for rows in claims_batch.training_batches(labels, generator, by_class=False)
    )


def test_faces_that_share_a_batch_count_as_one() -> None:
    values = np.repeat([0.0, 1.0], 50)
    single = claims_batch.mean_and_interval(values, np.arange(100))["interval"]
    together = claims_batch.mean_and_interval(values, np.arange(100) // 10)["interval"]
    assert together[1] - together[0] > 2 * (single[1] - single[0])


def test_the_embedded_model_predicts_alike_in_any_batch(faces: FaceSet) -> None:
    found = claims_batch.embedded(open_model("mien-0"), faces.split(Split.PUBLIC_TEST))
    assert found["largest_difference"] == 0
    assert found["predictions_that_differ"] == 0
    assert len(found["accuracy"]) == 3
