"""Light, blur, noise, JPEG, erasing and mixing of faces, each by what it promises."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from mien._errors import RecipeError
from mien._framing import FER2013
from mien.lab.augment import Augment, augment, augment_with_oval, check_augment, cutmix, mix, mixup
from mien.lab.augment.jpeg import jpeg
from mien.lab.augment.move import OVAL_AXES, OVAL_CENTRE, draw_moves, oval
from mien.lab.augment.spoil import blur
from support.augmentations import DOCUMENT_001, NOTHING, floats, seeded


@pytest.fixture
def images(draw_face) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(draw_face(48, seed=i))) for i in range(16)])


@pytest.mark.parametrize(
    ("key", "inverse"),
    [
        ("light", lambda y, x: (y / x, 0.6, 1.4)),
        ("brightness", lambda y, x: (y - x, -0.4, 0.4)),
        ("gamma", lambda y, x: (y.log() / x.log(), 1 / 1.4, 1.4)),
    ],
)
def test_light_is_one_number_a_face_within_its_bounds(key: str, inverse) -> None:
    images = torch.randint(110, 150, (200, 12, 12), dtype=torch.uint8, generator=seeded())
    shown = augment(images, replace(NOTHING, **{key: 0.4}), seeded())
    values, low, high = inverse(shown, floats(images))
    assert values.flatten(1).std(1).max() < 1e-3
    assert low - 1e-3 <= values.min() < low + 0.1
    assert high - 0.1 < values.max() <= high + 1e-3


def test_contrast_keeps_the_mean(images: torch.Tensor) -> None:
    images = images // 2 + 64  # so that nothing is cut off at black and white
    shown, x = augment(images, replace(NOTHING, contrast=0.5), seeded()), floats(images)
    torch.testing.assert_close(shown.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=2e-3, rtol=0)
    ratio = shown.std((1, 2, 3)) / x.std((1, 2, 3))
    assert ratio.min() > 1 / 1.51
    assert ratio.max() < 1.51
    assert ratio.std() > 0.1


def test_blur_is_the_gaussian_of_scipy_and_none_for_sigma_0(images: torch.Tensor) -> None:
    x = images.unsqueeze(1).double() / 255
    sigma = torch.linspace(0, 1.2, 16, dtype=torch.float64)
    ours = blur(x, sigma, radius=4)[:, 0]
    assert torch.equal(ours[0], x[0, 0])
    for i in range(1, 16):
        theirs = gaussian_filter(x[i, 0].numpy(), float(sigma[i]), mode="nearest", radius=4)
        np.testing.assert_allclose(ours[i].numpy(), theirs, atol=1e-6)


def test_only_the_share_to_degrade_is_blurred_and_noisy() -> None:
    images = torch.randint(100, 156, (400, 12, 12), dtype=torch.uint8, generator=seeded())
    for strengths in (replace(NOTHING, blur=1.0, degrade=0.3), replace(NOTHING, noise=0.05, degrade=0.3)):
        shown = augment(images, strengths, seeded())
        touched = (shown != floats(images)).flatten(1).any(1).float().mean()
        assert 0.22 < touched < 0.38
    noise = augment(images, replace(NOTHING, noise=0.05), seeded()) - floats(images)
    assert 0.045 < noise.flatten(1).std(1).max() < 0.06
    assert abs(noise.mean()) < 1e-3


@pytest.mark.parametrize("side", [48, 52])
def test_jpeg_is_that_of_pillow(side: int, astronaut: NDArray[np.uint8]) -> None:
    grey = np.array(Image.fromarray(astronaut[20:212, 128:320]).convert("L").resize((side, side)))
    for quality in (5, 10, 30, 49, 50, 75, 95):
        file = io.BytesIO()
        Image.fromarray(grey).save(file, "JPEG", quality=quality)
        theirs = np.asarray(Image.open(file), np.float32)
        ours = jpeg(torch.from_numpy(grey)[None, None] / 255, torch.tensor([float(quality)]))[0, 0].numpy() * 255
        assert np.abs(ours - theirs).mean() < 0.5  # theirs is in integers: a coefficient may round to its other side
        assert (np.abs(ours - theirs) > 2).mean() < 0.1
        assert np.abs(theirs - grey).mean() > 1


def test_only_the_share_to_compress_is_compressed() -> None:
    images = torch.randint(0, 256, (400, 16, 16), dtype=torch.uint8, generator=seeded())
    shown = augment(images, replace(NOTHING, jpeg=0.3, jpeg_quality=(10, 20)), seeded())
    touched = (shown != floats(images)).flatten(1).any(1).float().mean()
    assert 0.22 < touched < 0.38


def test_erasing_takes_the_share_it_says() -> None:
    grey = torch.full((400, 48, 48), 128, dtype=torch.uint8)
    out = augment(grey, Augment(flip=0, erase=0.5, erase_area=(0.1, 0.1)), seeded())[:, 0]
    changed = ((out - 128 / 255).abs() > 1e-3).float()
    assert 0.35 < (changed.mean((1, 2)) > 0).float().mean() < 0.6
    assert changed.mean((1, 2)).max() <= 0.13
    for picture, where in zip(out, changed.bool(), strict=True):
        if where.any():  # one grey, in one full rectangle
            rows, columns = where.any(1), where.any(0)
            assert torch.equal(where, rows[:, None] & columns[None, :])
            assert picture[where].unique().numel() == 1


def test_the_oval_holds_eyes_nose_and_mouth_and_not_the_corners() -> None:
    still = draw_moves(1, NOTHING, seeded())
    mask = oval(still, 96)[0, 0]
    for x, y in (FER2013.right_eye, FER2013.left_eye, FER2013.nose, FER2013.mouth):
        assert mask[int(y * 96), int(x * 96)] == 1
    assert mask[0, 0] == mask[0, -1] == mask[-1, 0] == mask[-1, -1] == 0
    assert abs(mask.mean() - math.pi * OVAL_AXES[0] * OVAL_AXES[1]) < 0.01
    rows, columns = torch.nonzero(mask, as_tuple=True)
    assert abs((columns + 0.5).mean() / 96 - OVAL_CENTRE[0]) < 0.005
    assert abs((rows + 0.5).mean() / 96 - OVAL_CENTRE[1]) < 0.005


@pytest.mark.parametrize("size", [48, 96])
def test_the_oval_goes_where_the_face_goes(size: int) -> None:
    """A picture of the oval itself, augmented as a face, is the mask."""
    still = draw_moves(1, NOTHING, seeded())
    pictures = (oval(still, 48)[:, 0] * 255).byte().repeat(32, 1, 1)
    strengths = replace(DOCUMENT_001, crop=0.5)
    shown, mask = augment_with_oval(pictures, replace(strengths, light=0), seeded(2), size=size)
    shown = functional.interpolate(shown, size=size, mode="bilinear", align_corners=False)
    assert ((shown > 0.5) != (mask > 0.5)).float().mean() < 0.01
    assert torch.equal(
        augment(pictures, strengths, seeded(2)), augment_with_oval(pictures, strengths, seeded(2), size=9)[0]
    )
    assert augment_with_oval(pictures, strengths, seeded(2), size=0)[1].shape == (32, 0)


def test_mixup_mixes_pixels_and_targets_alike() -> None:
    x = torch.eye(8)[:, None, None, :].repeat(1, 1, 2, 1)
    target = torch.eye(8)
    mixed, mixed_target = mixup(x, target, 1.0, seeded())
    torch.testing.assert_close(mixed[:, 0, 0], mixed_target)
    torch.testing.assert_close(mixed_target.sum(1), torch.ones(8))
    assert (mixed_target.argmax(1) == torch.arange(8)).all()
    assert torch.equal(x[:, 0, 0], target)
    same, same_target = mixup(x, target, 0.0, seeded())
    assert same is x
    assert same_target is target


def test_cutmix_takes_one_rectangle_and_the_labels_by_its_area() -> None:
    """Each sample is filled with its own number: the areas, the shape and the other one can be read from the pixels."""
    n = 600
    x = torch.arange(n).float()[:, None, None, None].expand(n, 1, 48, 48).contiguous()
    before, target = x.clone(), torch.eye(n)
    mixed, mixed_target = cutmix(x, target, 1.0, seeded())
    assert torch.equal(x, before)
    foreign = mixed != x
    share = foreign.float().mean((1, 2, 3))
    torch.testing.assert_close(1 - share, mixed_target.diagonal().where(share > 0, torch.ones(())), atol=1e-6, rtol=0)
    for i in range(n):
        rows, columns = foreign[i, 0].any(1), foreign[i, 0].any(0)
        assert torch.equal(foreign[i, 0], rows[:, None] & columns[None, :])
        if share[i] > 0:
            (other,) = mixed[i, 0][foreign[i, 0]].unique().long().tolist()
            assert abs(mixed_target[i, other] - share[i]) < 1e-6
    # alpha 1: a uniform area, but for what the edges cut off (their mean: 0.5 becomes 0.36)
    assert 0.3 < share.mean() < 0.42
    assert share.max() > 0.8


def test_both_mixings_share_a_batch() -> None:
    x = torch.arange(500).float()[:, None, None, None].expand(500, 1, 16, 16).contiguous()
    mixed, target = mix(x, torch.eye(500), Augment(mixup=0.4, cutmix=1.0), seeded())
    constant = mixed.flatten(1).std(1) == 0
    blended = constant & (mixed[:, 0, 0, 0] != x[:, 0, 0, 0])
    assert 0.3 < blended.float().mean() < 0.6
    assert 0.3 < (~constant).float().mean() < 0.6
    torch.testing.assert_close(mixed.mean((1, 2, 3)), target @ torch.arange(500.0), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("fill", "mirror", "fill is one of border, zeros, reflection"),
        ("resample", "nearest", "resample is one of bilinear, bicubic"),
        ("crops", 4, "crops is one of 0, 5, 10"),
        ("flip", 1.5, "flip is between 0 and 1"),
        ("light", -0.1, "light is between 0 and 1"),
        ("rotate", -3.0, "rotate is at least 0"),
        ("zoom", 1.0, "below 1"),
        ("crop_side", 0.0, "crop_side above 0"),
        ("erase_area", (0.3, 0.2), "erase_area"),
        ("erase_area", (0.3,), "erase_area"),
    ],
)
def test_a_wrong_strength_is_named(key: str, value: object, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        check_augment(replace(NOTHING, **{key: value}), "recipe x: augment")
    assert str(caught.value).startswith("recipe x: augment")


def test_two_ways_to_crop_exclude_each_other() -> None:
    with pytest.raises(RecipeError, match="leave one at 0"):
        check_augment(replace(NOTHING, crop=0.5, crops=5), "augment")
    check_augment(DOCUMENT_001, "augment")
