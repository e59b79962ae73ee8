"""Augmentation: geometry against scipy; light, blur, noise, JPEG, erasing and mixing by their properties."""

import io
import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter
from torch.nn import functional

from mien._errors import RecipeError
from mien._framing import FER2013
from mien.lab.augment import (
    FILLS,
    RESAMPLES,
    AugmentConfig,
    augment,
    augment_with_oval,
    check_augment,
    mix,
    shrink,
)
from mien.lab.augment.geometry import OVAL_AXES, OVAL_CENTRE, draw_affine, oval, resample
from mien.lab.augment.photometric import blur, jpeg

STRONG = AugmentConfig(
    rotate=20, shift=0.2, scale=0.2, zoom=0.2, shear=0.2, min_crop_area=0.6, brightness=0.3,
    brightness_shift=0.2, contrast=0.4, gamma=0.3,
    blur=1, noise=0.1, blur_noise_share=0.5, jpeg=0.5, random_erasing=0.5, mixup=0.4, cutmix=1.0,
)  # fmt: skip


def move(*rows: tuple[float, float, float]) -> torch.Tensor:
    """A map as ``resample`` takes it."""
    return torch.tensor([rows], dtype=torch.float32)


@pytest.fixture
def images(draw_face) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(draw_face(48, seed=i))) for i in range(16)])


def test_no_strength_changes_nothing(images: torch.Tensor) -> None:
    assert torch.equal(augment(images, NOTHING, seeded()), floats(images))


@pytest.mark.parametrize("fill", FILLS)
def test_same_generator_gives_the_same_result_and_inputs_are_unchanged(images: torch.Tensor, fill: str) -> None:
    strong, before = replace(STRONG, padding_mode=fill), images.clone()
    first, second = augment(images, strong, seeded(3)), augment(images, strong, seeded(3))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(images, strong, seeded(4)))
    assert torch.equal(images, before)
    assert first.shape == (16, 1, 48, 48)
    assert first.dtype == torch.float32


def test_global_randomness_is_left_alone(images: torch.Tensor) -> None:
    state = torch.get_rng_state()
    mix(augment(images, STRONG, seeded()), torch.eye(16), STRONG, seeded())
    assert torch.equal(torch.get_rng_state(), state)


@given(
    st.builds(
        AugmentConfig,
        flip=st.floats(0, 1), rotate=st.floats(0, 180), shift=st.floats(0, 1), scale=st.floats(0, 3),
        zoom=st.floats(0, 0.9), shear=st.floats(0, 2), brightness=st.floats(0, 1), brightness_shift=st.floats(0, 1),
        contrast=st.floats(0, 3), gamma=st.floats(0, 3), blur=st.floats(0, 2), noise=st.floats(0, 1),
        blur_noise_share=st.floats(0, 1), jpeg=st.floats(0, 1), random_erasing=st.floats(0, 1),
        padding_mode=st.sampled_from(FILLS),
        interpolation=st.sampled_from(RESAMPLES),
        n_crops=st.sampled_from((0, 5, 10)), mixup=st.floats(0, 2), cutmix=st.floats(0, 2),
    ),
    st.integers(1, 5),
    st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_strengths_give_faces_and_targets_in_range(strengths: AugmentConfig, n: int, seed: int) -> None:
    check_augment(strengths, "augment")
    images = torch.randint(0, 256, (n, 24, 24), dtype=torch.uint8, generator=seeded(seed))
    x, where = augment_with_oval(images, strengths, seeded(seed), size=16)
    x, target = mix(x, torch.eye(7)[torch.arange(n) % 7], strengths, seeded(seed))
    assert x.shape == (n, 1, 24, 24)
    assert where.shape == (n, 1, 16, 16)
    assert x.isfinite().all()
    assert x.min() >= -1e-6
    assert x.max() <= 1 + 1e-6
    torch.testing.assert_close(target.sum(1), torch.ones(n))
    assert target.min() >= 0


@pytest.mark.parametrize("name", [f.name for f in fields(AugmentConfig)])
def test_every_key_changes_something(images: torch.Tensor, name: str) -> None:
    """A key without an effect is a mistake."""
    base = replace(NOTHING, rotate=30, noise=0.1, jpeg=0.9, random_erasing=1, n_crops=5, shrink=0.9)
    others = {
        "padding_mode": "zeros",
        "n_crops": 10,
        "erasing_area": (0.3, 0.4),
        "blur_noise_share": 0.0,
        "crop_fraction": 0.6,
        "interpolation": "bicubic",
        "shrink_to": 8.0,
    }
    other = others.get(name, (5, 8) if name == "jpeg_quality" else 0.5)
    if name == "min_crop_area":
        base = replace(base, n_crops=0)
    results = []
    for strengths in (base, replace(base, **{name: other})):
        generator = seeded(5)
        mixed = mix(augment(images, strengths, generator), torch.eye(16), strengths, generator)
        results.append(torch.cat([each.flatten() for each in shrink(*mixed, strengths, generator)]))
    assert not torch.equal(*results)


def test_flip_mirrors(images: torch.Tensor) -> None:
    flipped = augment(images, AugmentConfig(flip=1), seeded())
    torch.testing.assert_close(flipped, floats(images).flip(-1), atol=1e-4, rtol=0)


def test_a_map_of_90_degrees_is_rot90_and_of_six_pixels_is_roll(images: torch.Tensor) -> None:
    x = floats(images)
    turned = resample(x, move((0, -1, 0), (1, 0, 0)).repeat(16, 1, 1), "border")
    torch.testing.assert_close(turned, torch.rot90(x, 1, (2, 3)), atol=1e-4, rtol=0)
    moved = resample(x, move((1, 0, 2 * 6 / 48), (0, 1, -2 * 3 / 48)).repeat(16, 1, 1), "zeros")
    expected = functional.pad(x, (0, 6, 3, 0))[:, :, :48, 6:]
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)


def test_bicubic_moves_weigh_four_pixels_a_side_and_stay_in_range(images: torch.Tensor) -> None:
    x = images.unsqueeze(1).float() / 255
    half = move((1, 0, 1 / 48), (0, 1, 0)).repeat(16, 1, 1)  # half a pixel to the side
    weights = x.new_tensor([-3 / 32, 19 / 32, 19 / 32, -3 / 32]).view(1, 1, 1, 4)  # Keys' kernel, a = -3/4
    expected = functional.conv2d(functional.pad(x, (1, 2, 0, 0), mode="replicate"), weights)
    assert expected.max() > 1 or expected.min() < 0
    torch.testing.assert_close(resample(x, half, "border", "bicubic"), expected.clamp(0, 1), atol=1e-4, rtol=0)


def test_bicubic_moves_keep_most_of_the_detail_that_bilinear_ones_lose() -> None:
    noise = torch.randint(0, 256, (200, 48, 48), generator=seeded(), dtype=torch.uint8)
    strengths = AugmentConfig(rotate=15, shift=0.12, scale=0.2, shear=0.1)
    soft, sharp = (
        augment(noise, replace(strengths, interpolation=mode), seeded(1))[:, :, 12:36, 12:36].var()
        for mode in ("bilinear", "bicubic")
    )
    kept = torch.stack([soft, sharp]) / (noise.float() / 255).var()
    assert kept[0] < 0.55
    assert kept[1] > 0.7


@pytest.mark.parametrize(
    ("fill", "mode"), [("border", "nearest"), ("zeros", "grid-constant"), ("reflection", "reflect")]
)
def test_drawn_moves_are_those_of_scipy_with_every_fill(images: torch.Tensor, fill: str, mode: str) -> None:
    strengths = AugmentConfig(
        rotate=40, shift=0.3, scale=0.3, zoom=0.3, shear=0.4, min_crop_area=0.5, flip=0.5, padding_mode=fill
    )
    moves = draw_affine(16, strengths, seeded(1))
    ours = augment(images, strengths, seeded(1))[:, 0]
    for i in range(16):
        linear = moves[i, :, :2].flip(0, 1).double().numpy()  # scipy counts rows first
        shift = moves[i, :, 2].flip(0).double().numpy() * 24
        offset = 23.5 + shift - linear @ np.array([23.5, 23.5])
        original = images[i].double().numpy() / 255
        theirs = affine_transform(original, linear, offset, order=1, mode=mode, cval=0)
        np.testing.assert_allclose(ours[i].numpy(), theirs, atol=2e-3)


def test_the_map_is_the_product_of_its_parts() -> None:
    moves = draw_affine(4000, DOCUMENT_001, seeded())
    linear, shift = moves[:, :, :2].double(), moves[:, :, 2]
    # Rotation, then shear, then zoom and mirror: the angle is in the first column, the zooms are in norm and area.
    zoom_x = linear[:, :, 0].norm(dim=1)
    mirror = linear.det().sign()
    zoom_y = linear.det().abs() / zoom_x
    angle = torch.atan2(linear[:, 1, 0] * mirror, linear[:, 0, 0] * mirror).rad2deg()
    shear = (linear[:, :, 0] * linear[:, :, 1]).sum(1) / zoom_x / zoom_y * mirror
    for values, edge, centre in ((angle, 35, 0), (shear, math.tan(0.4), 0), (zoom_x, 0.4, 1), (zoom_y, 0.4, 1)):
        _is_uniform(values, centre - edge, centre + edge)
    for axis in range(2):
        _is_uniform(shift[:, axis] / 2, -0.25, 0.25)
    assert abs((mirror < 0).double().mean() - 0.5) < 0.04
    assert abs(torch.corrcoef(torch.stack([zoom_x, zoom_y]))[0, 1]) < 0.06


def _is_uniform(values: torch.Tensor, low: float, high: float) -> None:
    assert values.min() >= low - 1e-5
    assert values.max() <= high + 1e-5
    quartiles = torch.quantile(values, torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype))
    expected = low + (high - low) * torch.tensor([0.25, 0.5, 0.75], dtype=values.dtype)
    torch.testing.assert_close(quartiles, expected, atol=0.04 * (high - low), rtol=0)


def test_scale_is_log_uniform() -> None:
    area = draw_affine(4000, AugmentConfig(flip=0, scale=0.25), seeded())[:, :, :2].det()
    _is_uniform(area.log() / 2, -math.log(1.25), math.log(1.25))


def test_a_random_crop_keeps_its_area_and_stays_within_the_image() -> None:
    moves = draw_affine(4000, AugmentConfig(flip=0, min_crop_area=0.3), seeded())
    assert (moves[:, 0, 1] == 0).all()
    width, height = moves[:, 0, 0], moves[:, 1, 1]
    _is_uniform(width * height, 0.3, 1.0)
    assert (width / height).max() <= 4 / 3 + 1e-5
    assert (width / height).min() >= 3 / 4 - 1e-5
    assert (width / height).log().std() > 0.1
    for centre, side in ((moves[:, 0, 2], width), (moves[:, 1, 2], height)):
        assert (centre.abs() + side).max() <= 1 + 1e-5
        _is_uniform((centre / (1 - side))[side < 0.95], -1, 1)


@pytest.mark.parametrize("crops", [5, 10])
def test_crops_are_the_corners_and_the_centre_resized(images: torch.Tensor, crops: int) -> None:
    """Each result equals one of five (ten) windows enlarged by torch; all windows occur."""
    x = floats(images)[3:4]
    windows = [x[..., a : a + 36, b : b + 36] for a, b in ((0, 0), (0, 12), (12, 0), (12, 12), (6, 6))]
    windows += [w.flip(-1) for w in windows] if crops == 10 else []
    expected = torch.cat([functional.interpolate(w, size=48, mode="bilinear", align_corners=False) for w in windows])
    shown = augment(images[3:4].repeat(400, 1, 1), AugmentConfig(flip=0, n_crops=crops, crop_fraction=0.75), seeded())
    inner = (..., slice(1, -1), slice(1, -1))  # at its edge a crop uses half a pixel beyond the window
    distance = (shown[inner][:, None, 0] - expected[inner][None, :, 0]).abs().amax((2, 3))
    assert distance.min(1).values.max() < 1e-4
    counts = distance.argmin(1).bincount(minlength=crops) / 400
    assert counts.min() > 0.5 / crops
    assert counts.max() < 1.6 / crops


@pytest.mark.parametrize(
    ("key", "inverse"),
    [
        ("brightness", lambda y, x: (y / x, 0.6, 1.4)),
        ("brightness_shift", lambda y, x: (y - x, -0.4, 0.4)),
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
    for strengths in (
        replace(NOTHING, blur=1.0, blur_noise_share=0.3),
        replace(NOTHING, noise=0.05, blur_noise_share=0.3),
    ):
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


def test_erasing_covers_its_share() -> None:
    grey = torch.full((400, 48, 48), 128, dtype=torch.uint8)
    out = augment(grey, AugmentConfig(flip=0, random_erasing=0.5, erasing_area=(0.1, 0.1)), seeded())[:, 0]
    changed = ((out - 128 / 255).abs() > 1e-3).float()
    assert 0.35 < (changed.mean((1, 2)) > 0).float().mean() < 0.6
    assert changed.mean((1, 2)).max() <= 0.13
    for image, where in zip(out, changed.bool(), strict=True):
        if where.any():  # one grey, in one full rectangle
            rows, columns = where.any(1), where.any(0)
            assert torch.equal(where, rows[:, None] & columns[None, :])
            assert image[where].unique().numel() == 1


def test_the_oval_holds_eyes_nose_and_mouth_and_not_the_corners() -> None:
    still = draw_affine(1, NOTHING, seeded())
    mask = oval(still, 96)[0, 0]
    for x, y in (FER2013.right_eye, FER2013.left_eye, FER2013.nose, FER2013.mouth):
        assert mask[int(y * 96), int(x * 96)] == 1
    assert mask[0, 0] == mask[0, -1] == mask[-1, 0] == mask[-1, -1] == 0
    assert abs(mask.mean() - math.pi * OVAL_AXES[0] * OVAL_AXES[1]) < 0.01
    rows, columns = torch.nonzero(mask, as_tuple=True)
    assert abs((columns + 0.5).mean() / 96 - OVAL_CENTRE[0]) < 0.005
    assert abs((rows + 0.5).mean() / 96 - OVAL_CENTRE[1]) < 0.005


@pytest.mark.parametrize("size", [48, 96])
def test_the_oval_moves_with_the_face(size: int) -> None:
    """An image of the oval, augmented as a face, equals the mask."""
    still = draw_affine(1, NOTHING, seeded())
    images = (oval(still, 48)[:, 0] * 255).byte().repeat(32, 1, 1)
    strengths = replace(DOCUMENT_001, min_crop_area=0.5)
    shown, mask = augment_with_oval(images, replace(strengths, brightness=0), seeded(2), size=size)
    shown = functional.interpolate(shown, size=size, mode="bilinear", align_corners=False)
    assert ((shown > 0.5) != (mask > 0.5)).float().mean() < 0.01
    assert torch.equal(
        augment(images, strengths, seeded(2)), augment_with_oval(images, strengths, seeded(2), size=9)[0]
    )
    assert augment_with_oval(images, strengths, seeded(2), size=0)[1].shape == (32, 0)


def test_mixup_mixes_pixels_and_targets_alike() -> None:
    x = torch.eye(8)[:, None, None, :].repeat(1, 1, 2, 1)
    target = torch.eye(8)
    mixed, mixed_target = mix(x, target, AugmentConfig(mixup=1.0), seeded())
    torch.testing.assert_close(mixed[:, 0, 0], mixed_target)
    torch.testing.assert_close(mixed_target.sum(1), torch.ones(8))
    assert (mixed_target.argmax(1) == torch.arange(8)).all()
    assert torch.equal(x[:, 0, 0], target)
    same, same_target = mix(x, target, AugmentConfig(), seeded())
    assert same is x
    assert same_target is target


def test_cutmix_takes_one_rectangle_and_the_labels_by_its_area() -> None:
    """Each sample is filled with its own number, so the pixels show the area, the shape and the other sample."""
    n = 600
    x = torch.arange(n).float()[:, None, None, None].expand(n, 1, 48, 48).contiguous()
    before, target = x.clone(), torch.eye(n)
    mixed, mixed_target = mix(x, target, AugmentConfig(cutmix=1), seeded())  # a whole number, as Python allows
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
    # alpha 1: a uniform area; the edges cut off a part of it (the mean 0.5 becomes 0.36)
    assert 0.3 < share.mean() < 0.42
    assert share.max() > 0.8


def test_both_mixings_share_a_batch() -> None:
    x = torch.arange(500).float()[:, None, None, None].expand(500, 1, 16, 16).contiguous()
    mixed, target = mix(x, torch.eye(500), AugmentConfig(mixup=0.4, cutmix=1.0), seeded())
    constant = mixed.flatten(1).std(1) == 0
    blended = constant & (mixed[:, 0, 0, 0] != x[:, 0, 0, 0])
    assert 0.3 < blended.float().mean() < 0.6
    assert 0.3 < (~constant).float().mean() < 0.6
    torch.testing.assert_close(mixed.mean((1, 2, 3)), target @ torch.arange(500.0), atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("padding_mode", "mirror", "padding_mode is one of border, zeros, reflection"),
        ("interpolation", "nearest", "interpolation is one of bilinear, bicubic"),
        ("n_crops", 4, "n_crops is one of 0, 5, 10"),
        ("flip", 1.5, r"flip is in \[0, 1\]"),
        ("brightness", -0.1, r"brightness is in \[0, 1\], not -0.1"),
        ("rotate", -3.0, r"rotate is in \[0, 360\]"),
        ("zoom", 1.0, r"zoom is in \[0, 1\), not 1.0"),
        ("crop_fraction", 0.0, r"crop_fraction is in \(0, 1\], not 0.0"),
        ("erasing_area", (0.3, 0.2), "erasing_area"),
        ("erasing_area", (0.3,), "erasing_area"),
    ],
)
def test_an_invalid_strength_is_named(key: str, value: object, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        check_augment(replace(NOTHING, **{key: value}), "recipe x: augment")
    assert str(caught.value).startswith("recipe x: augment")


def test_two_ways_to_crop_exclude_each_other() -> None:
    with pytest.raises(RecipeError, match="leave one at 0"):
        check_augment(replace(NOTHING, min_crop_area=0.5, n_crops=5), "augment")
    check_augment(DOCUMENT_001, "augment")


NOTHING = AugmentConfig(flip=0)
# The augmentation of document 001.
DOCUMENT_001 = AugmentConfig(
    rotate=35, shear=math.tan(0.4), zoom=0.4, shift=0.25, brightness=0.5, flip=0.5, padding_mode="zeros"
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def floats(images: torch.Tensor) -> torch.Tensor:
    return images.unsqueeze(1).float() / 255


def test_small_faces_lose_detail_and_get_softer_targets() -> None:
    x, target = torch.rand(200, 1, 48, 48, generator=seeded()), torch.eye(7)[torch.arange(200) % 7]
    config = AugmentConfig(shrink=0.5, shrink_to=16, shrink_softness=0.3)
    small, soft = shrink(x.clone(), target, config, seeded())
    is_small = (small != x).flatten(1).any(1)
    assert 70 < int(is_small.sum()) < 130
    torch.testing.assert_close(soft.sum(1), torch.ones(200))
    assert torch.equal(soft[~is_small], target[~is_small])
    spread = (1 - soft.max(1).values) * 7 / 6  # the probability that is spread over all classes
    expected = [0.3 * (1 - side / 48) for side in (16, 24, 32, 40)]
    assert sorted({round(float(value), 4) for value in spread[is_small]}) == pytest.approx(sorted(expected), abs=1e-4)
    detail = small[:, 0].diff(dim=2).abs().mean(dim=(1, 2))
    assert detail[is_small & (spread > 0.19)].max() < detail[is_small & (spread < 0.06)].min() < detail[~is_small].min()
    unchanged = shrink(x, target, AugmentConfig(), seeded())
    assert unchanged[0] is x
    assert unchanged[1] is target


@pytest.mark.parametrize("wrong", [{"shrink": 1.5}, {"shrink_softness": -0.1}, {"shrink_to": 0}])
def test_strengths_of_small_faces_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        check_augment(AugmentConfig(**wrong), "augment")
