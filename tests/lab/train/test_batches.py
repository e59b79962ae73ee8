"""Batches: every face once, per-class augmentation strengths, ovals, and mixing last."""

from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric

from mien._errors import RecipeError
from mien.lab.augment import AugmentConfig
from mien.lab.data import FaceSet, Split
from mien.lab.data.weighting import row_weights
from mien.lab.inference import MEAN, STD
from mien.lab.recipe import DataConfig, LossConfig, MinorityConfig, Recipe, TargetConfig, load, minority_augment
from mien.lab.train.batches import Batch, batches, device_part
from mien.lab.train.distillation import Teachers
from support.synthetic_faces import cartoon_set

STILL = AugmentConfig(flip=0)
BATCH = 28


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set().split(Split.TRAINING)


def recipe_of(**sections: object) -> Recipe:
    return Recipe(name="trial", about="", **{"augment": STILL, **sections})


def views_of(faces: FaceSet, recipe: Recipe, *, seed: int = 0) -> list[Batch]:
    fabric = Fabric(accelerator="cpu", devices=1)
    teachers = Teachers(recipe, fabric, faces.emotions)
    target, generator = torch.eye(7)[faces.labels], torch.Generator().manual_seed(seed)
    options = {"row_weights": row_weights(faces, recipe), "batch_size": BATCH, "teachers": teachers}
    return list(batches(faces, target, recipe=recipe, generator=generator, **options))


def pixels(views: list[Batch]) -> torch.Tensor:
    """Everything shown, uint8 ``[N, S, S]``."""
    return ((torch.cat([v.x for v in views])[:, 0] * STD + MEAN) * 255).round().byte()


def labels(views: list[Batch]) -> torch.Tensor:
    return torch.cat([v.target for v in views]).argmax(1)


def test_an_epoch_shows_every_face_once_with_its_label(faces: FaceSet) -> None:
    views = views_of(faces, recipe_of())
    assert [v.x.shape for v in views] == [(BATCH, 1, 48, 48)] * 7
    assert all(v.face_region.shape == (BATCH, 0) for v in views)
    known = {image.numpy().tobytes(): int(label) for image, label in zip(faces.images, faces.labels, strict=True)}
    shown = [image.numpy().tobytes() for image in pixels(views)]
    assert sorted(shown) == sorted(known)
    assert [known[image] for image in shown] == labels(views).tolist()


def test_a_seed_gives_the_same_epoch_again(faces: FaceSet) -> None:
    recipe = recipe_of(augment=AugmentConfig(rotate=20, noise=0.1, mixup=0.2, cutmix=1.0))
    first, again, other = (views_of(faces, recipe, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a.x, b.x) and torch.equal(a.target, b.target) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].x, other[0].x)


def test_only_minority_faces_go_through_the_strengths_of_the_minority(faces: FaceSet) -> None:
    minority = MinorityConfig(classes=("disgust", "fear"), oversample=2, augment={"brightness": 1.0, "shift": 0.3})
    views = views_of(faces, recipe_of(minority=minority))
    originals = {image.numpy().tobytes() for image in faces.images}
    changed = torch.tensor([image.numpy().tobytes() not in originals for image in pixels(views)])
    rare = torch.isin(labels(views), torch.tensor([1, 2]))
    assert torch.equal(changed, rare)
    assert rare.sum() / len(rare) == pytest.approx(4 / 9, abs=0.03)


def test_faces_keep_their_labels_where_the_minority_is_flipped(faces: FaceSet) -> None:
    """Groups are augmented apart and put back: pixels, targets and ovals must still belong together."""
    recipe = recipe_of(
        minority=MinorityConfig(classes=("happy",), augment={"flip": 1.0}), loss=LossConfig(face_region=0.1)
    )
    views = views_of(faces, recipe)
    known = {}
    for image, label in zip(faces.images, faces.labels, strict=True):
        known[(image.flip(-1) if label == 3 else image).numpy().tobytes()] = int(label)
    shown = pixels(views)
    assert [known[image.numpy().tobytes()] for image in shown] == labels(views).tolist()
    ovals = torch.cat([v.face_region for v in views])[:, 0]
    still, mirrored = ovals[labels(views) == 0][0], ovals[labels(views) == 3][0]
    assert torch.equal(mirrored, still.flip(-1))
    assert not torch.equal(mirrored, still)  # it is a little off the centre
    for label, oval in zip(labels(views), ovals, strict=True):
        assert torch.equal(oval, mirrored if label == 3 else still)


def test_a_batch_of_minority_faces_only(faces: FaceSet) -> None:
    recipe = recipe_of(minority=MinorityConfig(classes=faces.emotions, augment={"flip": 1.0}))
    flipped = sorted(image.flip(-1).numpy().tobytes() for image in faces.images)
    assert sorted(image.numpy().tobytes() for image in pixels(views_of(faces, recipe))) == flipped


def test_ovals_have_the_size_that_the_net_sees_and_move_with_the_face(faces: FaceSet) -> None:
    recipe = recipe_of(
        augment=AugmentConfig(flip=0, shift=0.2), loss=LossConfig(face_region=0.1), data=DataConfig(size=64)
    )
    for view in views_of(faces, recipe):
        assert view.face_region.shape == view.x.shape == (BATCH, 1, 64, 64)
        assert set(view.face_region.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(view.face_region[0], view.face_region[1])
    plain = replace(recipe, loss=LossConfig())
    assert all(torch.equal(a.x, b.x) for a, b in zip(views_of(faces, plain), views_of(faces, recipe), strict=True))


def test_mixing_crosses_the_groups(faces: FaceSet) -> None:
    minority = MinorityConfig(classes=("happy",), augment={"rotate": 20})
    views = views_of(faces, recipe_of(augment=AugmentConfig(flip=0, cutmix=1.0), minority=minority))
    targets = torch.cat([v.target for v in views])
    torch.testing.assert_close(targets.sum(1), torch.ones(len(targets)))
    with_happy = targets[(targets[:, 3] > 0) & (targets[:, 3] < 1)]
    assert with_happy[:, [0, 1, 2, 4, 5, 6]].any(0).all()


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_devices_divide_a_batch(world: int) -> None:
    parts = [list(range(12))[device_part(rank, world, 12)] for rank in range(world)]
    assert [i for part in parts for i in part] == list(range(12))
    assert {len(part) for part in parts} == {12 // world}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rotat": 3}, "did you mean 'rotate'"),
        ({"rotate": "much"}, "rotate is of type float"),
        ({"zoom": 2.0}, r"zoom is in \[0, 1\), not 2"),
        ({"padding_mode": "mirror"}, "padding_mode is one of"),
        ({"mixup": 0.3}, "whole batches are mixed"),
    ],
)
def test_wrong_minority_strengths_are_named_when_the_recipe_is_read(changes: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        recipe_of(minority=MinorityConfig(classes=("disgust",), augment=changes))
    assert "minority.augment" in str(caught.value)


def test_a_recipe_file_holds_all_of_document_001(tmp_path) -> None:
    file = tmp_path / "001.toml"
    file.write_text(
        'name = "001"\nabout = ""\n[augment]\nrotate = 35\nshear = 0.4228\nzoom = 0.4\nshift = 0.25\nbrightness = 0.5\n'
        'padding_mode = "zeros"\n[minority]\nclasses = ["disgust"]\noversample = 3\n'
        "[minority.augment]\nshear = 0.4663\n"
    )
    recipe = load(str(file))
    assert minority_augment(recipe) == replace(recipe.augment, shear=0.4663)
    with pytest.raises(RecipeError, match=r"augment.zoom is in \[0, 1\), not 1"):
        load(str(file), ["augment.zoom=1"])


def test_undamaged_teachers_see_faces_before_they_are_damaged(faces: FaceSet, monkeypatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(Teachers, "add_live", lambda _, x, target: (seen.append(x.clone()), target)[1])
    damaged = AugmentConfig(flip=0, noise=0.2, blur_noise_share=1.0)
    recipe = recipe_of(augment=damaged, target=TargetConfig(undamaged_teachers=True))
    shown = pixels(views_of(faces, recipe)).float()
    undamaged = (torch.cat(seen)[:, 0] * 255).round()
    originals = {image.numpy().tobytes() for image in faces.images}
    assert {image.byte().numpy().tobytes() for image in undamaged} <= originals
    assert (shown - undamaged).abs().mean(dim=(1, 2)).median() > 5  # grey levels of noise

    seen.clear()
    shown = pixels(views_of(faces, recipe_of(augment=damaged))).float()
    assert (shown - (torch.cat(seen)[:, 0] * 255).round()).abs().max() <= 1


def test_undamaged_teachers_cannot_be_used_with_strengths_of_the_minority() -> None:
    minority = MinorityConfig(("fear",), augment={"noise": 0.1})
    with pytest.raises(RecipeError, match=r"remove minority\.augment"):
        recipe_of(target=TargetConfig(undamaged_teachers=True), minority=minority)


def test_the_second_view_is_the_same_face_moved_a_little(faces: FaceSet) -> None:
    assert all(v.view.shape == (BATCH, 0) for v in views_of(faces, recipe_of()))
    recipe = recipe_of(loss=LossConfig(consistency=1.0), augment=AugmentConfig(rotate=20, mixup=0.2))
    (one, *_), (again, *_) = views_of(faces, recipe), views_of(faces, recipe)
    assert torch.equal(one.view, again.view)
    assert one.view.shape == one.x.shape
    own = (one.view - one.x).abs().mean()
    assert 0 < own < 0.8 * (one.view.roll(1, 0) - one.x).abs().mean()  # than another face
