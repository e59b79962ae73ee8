"""Document 003's expansion of the training faces, and the leak where it comes before the split."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")

from mien._errors import RecipeError  # noqa: E402
from mien.lab import recipe as recipes  # noqa: E402
from mien.lab.data import FaceSet, load_fer2013  # noqa: E402
from mien.lab.feed.expand import expand, fifth, transform  # noqa: E402
from mien.lab.feed.rows import training_rows, validation_rows  # noqa: E402
from mien.lab.recipe import Recipe  # noqa: E402
from support.synthetic_faces import cartoon_set  # noqa: E402


def recipe(*overrides: str) -> Recipe:
    return recipes.load("mien-0", ["optimise.batch=4", *overrides])


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set()


def rows_of(faces: FaceSet) -> list[int]:
    return faces.rows.tolist()


def test_an_expansion_adds_made_faces_of_every_class(faces: FaceSet) -> None:
    whole = expand(faces, 0.3, seed=0)
    assert torch.equal(whole.images[: len(faces)], faces.images)
    counts = torch.bincount(faces.labels)
    assert torch.equal(torch.bincount(whole.labels), counts + (0.3 * counts + 1e-9).long())
    made = whole.select(torch.arange(len(faces), len(whole)))
    assert len(set(rows_of(made))) == len(made)  # each of another face
    origin = faces.select(made.rows)
    assert torch.equal(made.labels, origin.labels)
    assert made.votes is not None
    assert torch.equal(made.votes, origin.votes)
    changed = (made.images != origin.images).flatten(1).any(1)
    assert float(changed.float().mean()) > 0.95
    assert torch.equal(expand(faces, 0.3, seed=0).images, whole.images)
    assert not torch.equal(expand(faces, 0.3, seed=1).images, whole.images)


def test_more_than_all_faces_come_again(faces: FaceSet) -> None:
    made = expand(faces, 2.5, seed=0).rows[len(faces) :]
    assert set(torch.bincount(made).tolist()) == {2, 3}


def test_each_made_face_has_exactly_one_of_four_changes() -> None:
    generator = torch.Generator().manual_seed(5)
    ramp = torch.arange(48)[:, None] + 3 * torch.arange(48) + 20  # every pixel is above 0 and no mirror image
    images = ramp.to(torch.uint8).expand(2000, 48, 48).clone()
    made = transform(images, generator)
    mirrored = (made == images.flip(-1)).flatten(1).all(1)
    black = (made == 0).flatten(1).sum(1)
    erased = (black > 0) & ((made == images) | (made == 0)).flatten(1).all(1)
    sides = {round(count**0.5) for count in black[erased].tolist()}
    assert sides == {5, 6, 7, 8, 9, 10}
    assert all(count in (25, 36, 49, 64, 81, 100) for count in black[erased].tolist())
    # A shifted ramp is the ramp plus a constant, away from the edges; a rotated one is not.
    inner = (made.float() - images.float())[:, 8:40, 8:40].flatten(1)
    moved = ~mirrored & ~erased
    shifted = moved & (inner.std(1) < 0.6)
    rotated = moved & ~shifted
    assert inner[shifted].abs().max() <= 4.8 * 4 + 1  # 10 % of 48 pixels, 1 + 3 levels a pixel
    for kind in (mirrored, erased, shifted, rotated):
        assert 400 < int(kind.sum()) < 600


def test_rotation_stays_within_fifteen_degrees() -> None:
    """A bright column on the rim of a dark face moves no further than the tangent of the angle."""
    images = torch.full((3000, 48, 48), 10, dtype=torch.uint8)
    images[:, :, 23:25] = 250
    made = transform(images, torch.Generator().manual_seed(0)).float()
    made = made[(made > 0).flatten(1).all(1)]  # without those that have a black square
    top, bottom = made[:, 2].argmax(1), made[:, 45].argmax(1)
    lean = torch.rad2deg(torch.atan2((top - bottom).float(), torch.tensor(43.0)))
    assert 13 < float(lean.abs().max()) < 17


def test_training_alone_is_expanded(faces: FaceSet) -> None:
    chosen = recipe("data.expand=0.5")
    assert len(training_rows(faces, chosen)) == 196 + 7 * 14
    assert rows_of(validation_rows(faces, chosen)) == list(range(196, 266))
    folded = recipe("data.expand=0.5", "data.folds=4")
    made, held = training_rows(faces, folded), validation_rows(faces, folded)
    assert len(made) == 147 + 7 * 10
    assert not set(rows_of(made)) & set(rows_of(held))


def test_expanded_first_the_halves_share_faces(faces: FaceSet) -> None:
    chosen = recipe("data.expand=0.3", "data.expand_first=true")
    rest, held = training_rows(faces, chosen), validation_rows(faces, chosen)
    whole = 336 + 7 * 14
    assert (len(held), len(rest)) == (87, whole - 87)  # a fifth, rounded up
    both = set(rows_of(rest)) & set(rows_of(held))
    assert both  # that is the leak
    assert {0, 1, 2} == set(rest.usage.tolist()) == set(held.usage.tolist())
    assert torch.bincount(training_rows(faces, recipe(*SHOWN, "data.limit=6")).labels).tolist() == [6] * 7


SHOWN = ("data.expand=0.3", "data.expand_first=true")


@pytest.mark.parametrize("more", ["data.folds=3", "data.expand=0.0", "data.exclude=x.txt"])
def test_expand_first_stands_alone(faces: FaceSet, more: str) -> None:
    with pytest.raises(RecipeError, match="expand_first shows a leak"):
        training_rows(faces, recipe(*SHOWN, more))


def test_document_003_to_the_face(fer2013_parquet: Path) -> None:
    """The support column of its report, from the real set: angry, disgust, fear, happy, sad, surprise, neutral."""
    whole = expand(load_fer2013(fer2013_parquet), 0.3, seed=0)
    held = whole.labels[fifth(whole, seed=0)]
    assert len(whole) == 46_650
    assert torch.bincount(held).tolist() == [1288, 142, 1332, 2337, 1580, 1040, 1611]
    assert len(held) == 9330
