"""Sampling: the product of weights, balance and oversampling, and the draws of an epoch."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from mien._emotions import Emotion
from mien._errors import RecipeError
from mien.lab import recipe as recipes
from mien.lab.data import FaceSet
from mien.lab.data.weighting import draw_epoch, epoch_length, row_weights
from mien.lab.recipe import Recipe
from support.synthetic_faces import cartoon_set


def recipe(*overrides: str) -> Recipe:
    return recipes.load("mien-0", list(overrides))


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    """40 angry, 20 disgust, 10 fear, 5 happy, 5 of each of the others."""
    whole = cartoon_set(per_split=(400, 0, 0))
    counts = [40, 20, 10, 5, 5, 5, 5]
    rows = [(whole.labels == label).nonzero().flatten()[:count] for label, count in enumerate(counts)]
    return whole.select(torch.cat(rows))


def totals(faces: FaceSet, weights: torch.Tensor) -> list[float]:
    return [round(float(weights[faces.labels == label].sum()), 3) for label in range(7)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_balance_all_weights_are_one(faces: FaceSet) -> None:
    assert (row_weights(faces, recipe()) == 1).all()


def test_balance(faces: FaceSet) -> None:
    assert totals(faces, row_weights(faces, recipe("data.balance_power=1.0"))) == pytest.approx([90 / 7] * 7, abs=0.01)
    half = totals(faces, row_weights(faces, recipe("data.balance_power=0.5")))
    assert sum(half) == pytest.approx(90, abs=0.01)
    assert half[0] / half[2] == pytest.approx(2, abs=0.01)  # 40 and 10 faces: as the roots of their counts


def test_oversampling_multiplies_balanced_weights(faces: FaceSet) -> None:
    chosen = recipe(
        "data.balance_power=1.0",
        "data.oversample.happy=2.0",
        'minority.classes=["happy","disgust"]',
        "minority.oversample=3.0",
    )
    each = 90 / 7
    assert totals(faces, row_weights(faces, chosen)) == pytest.approx(
        [each, 3 * each, each, 6 * each, *[each] * 3], abs=0.01
    )


def test_weights_of_sets_count_before_classes_are_balanced(faces: FaceSet) -> None:
    mixed = replace(faces, weights=torch.where(faces.labels == 0, 0.5, 1.0))
    assert totals(mixed, row_weights(mixed, recipe())) == [20, 20, 10, 5, 5, 5, 5]
    assert totals(mixed, row_weights(mixed, recipe("data.balance_power=1.0"))) == pytest.approx([10] * 7, abs=0.01)
    assert mixed.weights is not None
    assert float(mixed.weights.max()) == 1  # nothing was changed in place


def test_oversampling_an_emotion_outside_of_the_classes_is_allowed(faces: FaceSet) -> None:
    assert (row_weights(faces, recipe(f"data.oversample.{Emotion.CONTEMPT}=3.0")) == 1).all()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.balance_power=-1.0", r"balance_power is in \[0, 1000\]"),
        ("data.balance_power=nan", "balance_power is a finite number"),
        ("data.oversample.happy=-2.0", r"data.oversample.happy is in \[0, 1000\]"),
        ("data.oversample.happy=inf", "happy is a finite number"),
    ],
)
def test_invalid_numbers(faces: FaceSet, override: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        row_weights(faces, recipe(override))


def test_faces_of_weight_one_are_drawn_once() -> None:
    assert sorted(draw_epoch(torch.ones(50), generator()).tolist()) == list(range(50))
    weights = torch.cat([torch.ones(50), torch.full((37,), 0.3)])
    for seed in range(50):
        drawn = torch.bincount(draw_epoch(weights, generator(seed)), minlength=87)
        assert (drawn[:50] == 1).all()


def test_every_face_is_drawn_as_often_as_its_weight() -> None:
    weights = torch.tensor([2.5, 1.0, 0.25, 3.0, 0.0, 0.05, 1.7] * 20)
    shared = generator()
    epochs = 3000
    drawn = torch.zeros(len(weights))
    for _ in range(epochs):
        counts = torch.bincount(draw_epoch(weights, shared), minlength=len(weights)).float()
        assert (counts >= weights.floor()).all()
        assert (counts <= weights.ceil()).all()
        drawn += counts
    chance = weights - weights.floor()
    deviation = (chance * (1 - chance) / epochs).sqrt().clamp(min=1e-9)
    assert float(((drawn / epochs - weights).abs() / (deviation + 1e-3)).max()) < 4.5


def test_the_order_is_drawn_by_the_generator() -> None:
    weights = torch.full((64,), 1.5)
    first, again, other = (draw_epoch(weights, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    firsts = torch.stack([draw_epoch(weights, generator(seed))[0] for seed in range(400)])
    assert len(firsts.unique()) > 50  # any face may be first


@settings(max_examples=200, deadline=None)
@given(weights=st.lists(st.floats(0, 4, width=32), min_size=1, max_size=40), seed=st.integers(0, 2**31))
def test_an_epoch_has_its_length(weights: list[float], seed: int) -> None:
    column = torch.tensor(weights)
    rows = draw_epoch(column, generator(seed))
    assert len(rows) == epoch_length(column)
    counts = torch.bincount(rows, minlength=len(column))
    assert (counts <= column.ceil() + 1e-6).all()
    assert (counts >= column.floor() - (1 if epoch_length(column) < float(column.sum()) else 0)).all()
