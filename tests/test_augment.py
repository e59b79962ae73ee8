"""Augmentation as a whole and its geometry, held to scipy."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform
from torch.nn import functional

from mien.lab.augment import FILLS, RESAMPLES, Augment, augment, augment_with_oval, check_augment, mix
from mien.lab.augment.move import draw_moves, resample
from support.augmentations import DOCUMENT_001, NOTHING, floats, seeded

STRONG = Augment(
    rotate=20, shift=0.2, scale=0.2, zoom=0.2, shear=0.2, crop=0.6, light=0.3, brightness=0.2, contrast=0.4, gamma=0.3,
    blur=1, noise=0.1, degrade=0.5, jpeg=0.5, erase=0.5, mixup=0.4, cutmix=1.0,
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
def test_same_generator_same_result_and_inputs_stay(images: torch.Tensor, fill: str) -> None:
    strong, before = replace(STRONG, fill=fill), images.clone()
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
        Augment,
        flip=st.floats(0, 1), rotate=st.floats(0, 180), shift=st.floats(0, 1), scale=st.floats(0, 3),
        zoom=st.floats(0, 0.9), shear=st.floats(0, 2), light=st.floats(0, 1), brightness=st.floats(0, 1),
        contrast=st.floats(0, 3), gamma=st.floats(0, 3), blur=st.floats(0, 2), noise=st.floats(0, 1),
        degrade=st.floats(0, 1), jpeg=st.floats(0, 1), erase=st.floats(0, 1), fill=st.sampled_from(FILLS),
        resample=st.sampled_from(RESAMPLES),
        crops=st.sampled_from((0, 5, 10)), mixup=st.floats(0, 2), cutmix=st.floats(0, 2),
    ),
    st.integers(1, 5),
    st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_strengths_give_faces_and_targets_in_range(strengths: Augment, n: int, seed: int) -> None:
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


@pytest.mark.parametrize("name", [f.name for f in fields(Augment)])
def test_every_key_changes_something(images: torch.Tensor, name: str) -> None:
    """A key that is read and then forgotten would stand in recipes and do nothing."""
    base = replace(NOTHING, rotate=30, noise=0.1, jpeg=0.9, erase=1, crops=5)
    others = {
        "fill": "zeros",
        "crops": 10,
        "erase_area": (0.3, 0.4),
        "degrade": 0.0,
        "crop_side": 0.6,
        "resample": "bicubic",
    }
    other = others.get(name, (5, 8) if name == "jpeg_quality" else 0.5)
    if name == "crop":
        base = replace(base, crops=0)
    results = []
    for strengths in (base, replace(base, **{name: other})):
        generator = seeded(5)
        results.append(mix(augment(images, strengths, generator), torch.eye(16), strengths, generator)[0])
    assert not torch.equal(*results)


def test_flip_mirrors(images: torch.Tensor) -> None:
    flipped = augment(images, Augment(flip=1), seeded())
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
    strengths = Augment(rotate=15, shift=0.12, scale=0.2, shear=0.1)
    soft, sharp = (
        augment(noise, replace(strengths, resample=mode), seeded(1))[:, :, 12:36, 12:36].var()
        for mode in ("bilinear", "bicubic")
    )
    kept = torch.stack([soft, sharp]) / (noise.float() / 255).var()
    assert kept[0] < 0.55
    assert kept[1] > 0.7


@pytest.mark.parametrize(
    ("fill", "mode"), [("border", "nearest"), ("zeros", "grid-constant"), ("reflection", "reflect")]
)
def test_drawn_moves_are_those_of_scipy_with_every_fill(images: torch.Tensor, fill: str, mode: str) -> None:
    strengths = Augment(rotate=40, shift=0.3, scale=0.3, zoom=0.3, shear=0.4, crop=0.5, flip=0.5, fill=fill)
    moves = draw_moves(16, strengths, seeded(1))
    ours = augment(images, strengths, seeded(1))[:, 0]
    for i in range(16):
        linear = moves[i, :, :2].flip(0, 1).double().numpy()  # scipy counts rows first
        shift = moves[i, :, 2].flip(0).double().numpy() * 24
        offset = 23.5 + shift - linear @ np.array([23.5, 23.5])
        picture = images[i].double().numpy() / 255
        theirs = affine_transform(picture, linear, offset, order=1, mode=mode, cval=0)
        np.testing.assert_allclose(ours[i].numpy(), theirs, atol=2e-3)


def test_the_map_is_the_product_of_its_parts() -> None:
    moves = draw_moves(4000, DOCUMENT_001, seeded())
    linear, shift = moves[:, :, :2].double(), moves[:, :, 2]
    # Rotation, then shear, then zoom and mirror: the angle stands in the first column, the zooms in norm and area.
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
    area = draw_moves(4000, Augment(flip=0, scale=0.25), seeded())[:, :, :2].det()
    _is_uniform(area.log() / 2, -math.log(1.25), math.log(1.25))


def test_a_random_crop_keeps_its_area_and_stays_within_the_image() -> None:
    moves = draw_moves(4000, Augment(flip=0, crop=0.3), seeded())
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
    """Each view equals one of five (ten) windows enlarged by torch, which only knows the window; all of them come."""
    x = floats(images)[3:4]
    windows = [x[..., a : a + 36, b : b + 36] for a, b in ((0, 0), (0, 12), (12, 0), (12, 12), (6, 6))]
    windows += [w.flip(-1) for w in windows] if crops == 10 else []
    expected = torch.cat([functional.interpolate(w, size=48, mode="bilinear", align_corners=False) for w in windows])
    shown = augment(images[3:4].repeat(400, 1, 1), Augment(flip=0, crops=crops, crop_side=0.75), seeded())
    inner = (..., slice(1, -1), slice(1, -1))  # at its rim a crop sees half a pixel beyond the window
    distance = (shown[inner][:, None, 0] - expected[inner][None, :, 0]).abs().amax((2, 3))
    assert distance.min(1).values.max() < 1e-4
    counts = distance.argmin(1).bincount(minlength=crops) / 400
    assert counts.min() > 0.5 / crops
    assert counts.max() < 1.6 / crops
