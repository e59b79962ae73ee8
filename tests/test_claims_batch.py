"""What batches give away: faces sorted by class leak through attention over a batch, and through nothing else."""

import numpy as np
import pytest
import torch

import claims_batch
from mien.lab.data import FaceSet, Split
from mien.lab.model import open_model
from support.synthetic_faces import cartoon_set


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(350, 140, 70))


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
        across: claims_batch.figures(
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
    single = claims_batch.told(values, np.arange(100))["interval"]
    together = claims_batch.told(values, np.arange(100) // 10)["interval"]
    assert together[1] - together[0] > 2 * (single[1] - single[0])


def test_the_shipped_model_answers_alike_in_any_batch(faces: FaceSet) -> None:
    found = claims_batch.shipped(open_model("mien-0"), faces.split(Split.PUBLIC_TEST))
    assert found["largest_difference"] == 0
    assert found["answers_that_differ"] == 0
    assert len(found["accuracy"]) == 3
