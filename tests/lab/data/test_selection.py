"""Training rows: folds, limits, exclude files, and the expansion of document 003 with its leak."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the lab is not installed")
model_selection = pytest.importorskip("sklearn.model_selection", reason="the lab is not installed")

from mien._errors import DataError, ModelError, RecipeError
from mien.lab import recipe as recipes
from mien.lab.data import FaceSet
from mien.lab.data.duplicates import clusters, divide
from mien.lab.data.selection import expand, fifth, training_rows, transform, validation_name, validation_rows
from mien.lab.recipe import Recipe
from mien.lab.train.devices import Devices
from mien.lab.train.loop import fit
from mien.lab.train.run import load_final
from support.short_runs import ONE_BLOCK
from support.synthetic_faces import cartoon_set


def recipe(*overrides: str) -> Recipe:
    return recipes.load("mien-0", ["train.batch_size=4", *overrides])


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set()


def rows_of(faces: FaceSet) -> list[int]:
    return faces.rows.tolist()


# Folds


def test_folds_are_a_stratified_partition_of_training(faces: FaceSet) -> None:
    parts = []
    for fold in range(4):
        chosen = recipe("data.folds=4", f"data.fold={fold}", f"seed={fold}")
        held, rest = validation_rows(faces, chosen), training_rows(faces, chosen)
        assert torch.bincount(held.labels).tolist() == [7] * 7
        assert not set(rows_of(held)) & set(rows_of(rest))
        assert len(held) + len(rest) == 196
        parts += rows_of(held)
    assert sorted(parts) == list(range(196))


def test_groups_and_copies_stay_in_one_fold(faces: FaceSet) -> None:
    images, groups = faces.images.clone(), torch.arange(len(faces))
    groups[:40] = torch.arange(40) // 8
    images[100] = images[0]  # a copy joins its whole group
    images[101] = images[100]
    linked = replace(faces, images=images, groups=groups)
    for fold in range(3):
        chosen = recipe("data.folds=3", f"data.fold={fold}")
        held, rest = set(rows_of(validation_rows(linked, chosen))), set(rows_of(training_rows(linked, chosen)))
        for together in (*(set(range(8 * g, 8 * g + 8)) for g in range(1, 5)), {*range(8), 100, 101}):
            assert together <= held or together <= rest


def test_clusters_follow_chains() -> None:
    faces = cartoon_set(per_split=(7, 7, 7))
    images = faces.images.clone()
    images[4], images[9] = images[1], images[6]
    groups = torch.tensor([0, 1, 2, 3, 5, 5, 6, *range(10, 24)])
    groups[9], groups[12] = 5, 6
    found = clusters(replace(faces, images=images, groups=groups)).tolist()
    assert [row for row in range(21) if found[row] == found[1]] == [1, 4, 5, 6, 9, 12]
    assert len(set(found)) == 16


def test_parts_are_as_even_as_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    groups = generator.integers(0, 120, 3000)
    labels = (generator.random(3000) ** 2 * 7).astype(np.int64)

    def unevenness(parts: list[np.ndarray]) -> float:
        counts = np.stack([np.bincount(labels[part], minlength=7) for part in parts])
        return float((counts.std(0) / counts.mean(0)).max())

    ours = divide(labels, groups, shares=[0.2] * 5, seed=0)
    theirs = model_selection.StratifiedGroupKFold(5, shuffle=True, random_state=0).split(labels, labels, groups)
    assert unevenness([ours == part for part in range(5)]) <= 1.1 * unevenness([held for _, held in theirs])
    assert all(len(set(ours[groups == group])) == 1 for group in range(120))


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_held_out_shares(share: float) -> None:
    labels = np.repeat(np.arange(3), [200, 40, 8])
    part = divide(labels, np.arange(248), shares=[1 - share, share], seed=1)
    assert np.bincount(labels[part == 1], minlength=3).tolist() == [round(n * share) for n in (200, 40, 8)]


def test_one_large_group_does_not_fill_the_small_part() -> None:
    groups = np.array([0] * 50 + [1] * 30 + list(range(2, 22)))
    part = divide(np.zeros(100, np.int64), groups, shares=[0.85, 0.15], seed=0)
    assert int((part == 1).sum()) == 15


def test_mixed_in_faces_are_never_validated_on_and_never_leak(faces: FaceSet) -> None:
    images = faces.images.clone()
    images[150:196] = images[:46]  # what is mixed in repeats faces of the set
    mixed = replace(faces, images=images, mixed_in=torch.arange(len(faces)) >= 150)
    mixed = mixed.select(mixed.usage == 0)
    seen = []
    for fold in range(3):
        chosen = recipe("data.folds=3", f"data.fold={fold}")
        held, rest = validation_rows(mixed, chosen), training_rows(mixed, chosen)
        assert max(rows_of(held)) < 150
        assert not {i.numpy().tobytes() for i in held.images} & {i.numpy().tobytes() for i in rest.images}
        seen += rows_of(held)
    assert sorted(seen) == list(range(150))


def test_too_many_folds(faces: FaceSet) -> None:
    with pytest.raises(DataError, match="196 groups of Training faces make no 500"):
        training_rows(faces, recipe("data.folds=500"))


# Exclude, classes, share, limit


def test_exclude_files(faces: FaceSet, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("# wrong labels\n0\n 7 # and why\n\n200\n")  # row 200 is PublicTest, and stays there
    chosen = recipe(f"data.exclude={path}")
    assert rows_of(training_rows(faces, chosen)) == [row for row in range(196) if row not in (0, 7)]
    assert len(validation_rows(faces, chosen)) == 70
    path.write_text("3  # a long reason, as an audit gives for each of many rows\n" * 30_000)  # 1.8 MB
    assert rows_of(training_rows(faces, chosen)) == [row for row in range(196) if row != 3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3\nx4\n", "line 2: 'x4' is no row"),
        ("-1\n", "line 1: '-1' is no row"),
        ("9999", "has no row 9999; its rows are"),
    ],
)
def test_bad_exclude_files(faces: FaceSet, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(DataError, match=says):
        training_rows(faces, recipe(f"data.exclude={tmp_path / 'bad.txt'}"))


def test_a_missing_exclude_file(faces: FaceSet, tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(DataError, match=r"data\.exclude cannot be read"):
            training_rows(faces, recipe(f"data.exclude={path}"))


def test_a_limit_a_class(faces: FaceSet) -> None:
    first, again = (training_rows(faces, recipe("data.max_per_class=5")) for _ in range(2))
    other = training_rows(faces, recipe("data.max_per_class=5", "seed=1"))
    larger = training_rows(faces, recipe("data.max_per_class=9"))
    assert torch.bincount(first.labels).tolist() == [5] * 7
    assert rows_of(first) == rows_of(again) != rows_of(other)
    assert set(rows_of(first)) < set(rows_of(larger))
    assert torch.bincount(training_rows(faces, recipe("data.max_per_class=999")).labels).tolist() == [28] * 7


def test_share_then_limit_within_the_classes(faces: FaceSet) -> None:
    chosen = training_rows(faces, recipe("data.fraction=0.5", "data.max_per_class=3", "data.classes=three"))
    assert torch.bincount(chosen.labels).tolist() == [3, 3, 3]
    assert len(training_rows(faces, recipe("data.fraction=0.5"))) == 98


def test_too_few_faces_for_a_batch(faces: FaceSet) -> None:
    with pytest.raises(DataError, match=r"make no batch of 256; lower train\.batch_size"):
        training_rows(faces, recipe("train.batch_size=256"))
    light = replace(faces, weights=torch.full((len(faces),), 0.01))
    with pytest.raises(DataError, match="make no batch of 4"):
        training_rows(light, recipe())


SHOWN = ("data.expand=0.3", "data.expand_first=true")


@pytest.mark.parametrize(
    ("overrides", "name"), [((), "public"), (("data.folds=4",), "fold"), (SHOWN, "leaky")], ids=lambda v: str(v)[:8]
)
def test_the_log_names_its_validation(faces: FaceSet, tmp_path: Path, overrides: tuple[str, ...], name: str) -> None:
    chosen = recipe(*ONE_BLOCK, *overrides, "train.batch_size=28", "train.epochs=1", "train.precision=32-true")
    assert validation_name(chosen) == name
    fit(chosen, faces, tmp_path, devices=Devices("cpu"))
    trained = load_final(tmp_path)
    assert trained.history[0].val_split == name
    assert 0 <= trained.history[0].val_accuracy <= 1
    if name == "leaky":
        from mien.lab.export.release import export_model

        with pytest.raises(ModelError, match="has learned from test faces"):
            export_model(trained, faces, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_an_expansion_adds_copies_of_every_class(faces: FaceSet) -> None:
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


def test_a_share_above_one_uses_faces_again(faces: FaceSet) -> None:
    made = expand(faces, 2.5, seed=0).rows[len(faces) :]
    assert set(torch.bincount(made).tolist()) == {2, 3}


def test_each_copy_has_exactly_one_of_four_changes() -> None:
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
    """A bright column in a dark image leans by at most 15 degrees."""
    images = torch.full((3000, 48, 48), 10, dtype=torch.uint8)
    images[:, :, 23:25] = 250
    made = transform(images, torch.Generator().manual_seed(0)).float()
    made = made[(made > 0).flatten(1).all(1)]  # without those with a black square
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


def test_expanding_first_shares_faces_between_both_parts(faces: FaceSet) -> None:
    chosen = recipe("data.expand=0.3", "data.expand_first=true")
    rest, held = training_rows(faces, chosen), validation_rows(faces, chosen)
    whole = 336 + 7 * 14
    assert (len(held), len(rest)) == (87, whole - 87)  # a fifth, rounded up
    both = set(rows_of(rest)) & set(rows_of(held))
    assert both  # that is the leak
    assert {0, 1, 2} == set(rest.usage.tolist()) == set(held.usage.tolist())
    assert torch.bincount(training_rows(faces, recipe(*SHOWN, "data.max_per_class=6")).labels).tolist() == [6] * 7


@pytest.mark.parametrize("more", ["data.folds=3", "data.expand=0.0", "data.exclude=x.txt"])
def test_expand_first_cannot_be_combined(faces: FaceSet, more: str) -> None:
    with pytest.raises(RecipeError, match="expand_first shows a leak"):
        training_rows(faces, recipe(*SHOWN, more))


def test_the_counts_of_document_003(fer2013_faces: FaceSet) -> None:
    """The support column of its report, from the real set: angry, disgust, fear, happy, sad, surprise, neutral."""
    whole = expand(fer2013_faces, 0.3, seed=0)
    held = whole.labels[fifth(whole, seed=0)]
    assert len(whole) == 46_650
    assert torch.bincount(held).tolist() == [1288, 142, 1332, 2337, 1580, 1040, 1611]
    assert len(held) == 9330
