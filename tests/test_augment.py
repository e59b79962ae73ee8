"""Augmentation is a pure function of batch, strengths and generator, and each step does what its name says."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from mien.lab.augment import Augment, augment, mixup

NOTHING = Augment(flip=0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images(draw_face) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(draw_face(48, seed=i))) for i in range(16)])


def test_no_strength_changes_nothing(images: torch.Tensor) -> None:
    torch.testing.assert_close(augment(images, NOTHING, seeded())[:, 0] * 255, images.float(), atol=1e-2, rtol=0)


def test_same_generator_same_result_and_inputs_stay(images: torch.Tensor) -> None:
    strong = Augment(
        rotate=20, shift=0.2, scale=0.2, shear=0.2, brightness=0.2, contrast=0.4, gamma=0.3, blur=1, noise=0.1, erase=1
    )
    before = images.clone()
    first, second = augment(images, strong, seeded(3)), augment(images, strong, seeded(3))
    assert torch.equal(first, second)
    assert not torch.equal(first, augment(images, strong, seeded(4)))
    assert torch.equal(images, before)
    assert first.shape == (16, 1, 48, 48)
    assert first.min() >= 0
    assert first.max() <= 1


def test_flip_mirrors(images: torch.Tensor) -> None:
    flipped = augment(images, Augment(flip=1), seeded())[:, 0] * 255
    torch.testing.assert_close(flipped, images.flip(-1).float(), atol=1e-2, rtol=0)


def test_rotation_keeps_the_centre_and_turns_the_rest() -> None:
    bar = torch.zeros(64, 49, 49, dtype=torch.uint8)
    bar[:, 24, :] = 255
    turned = augment(bar, Augment(flip=0, rotate=45), seeded())[:, 0]
    assert (turned[:, 24, 24] > 0.9).all()
    mean_edge = turned[:, 24, 0].mean()
    assert mean_edge < 0.5  # most bars have left the row's end


def test_shift_and_scale_stay_within_their_bounds() -> None:
    dot = torch.zeros(256, 48, 48, dtype=torch.uint8)
    dot[:, 23:25, 23:25] = 255
    moved = augment(dot, Augment(flip=0, shift=0.25, fill="zeros"), seeded())[:, 0]
    rows, columns = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    mass = moved.sum((1, 2))
    cx = (moved * columns).sum((1, 2)) / mass
    cy = (moved * rows).sum((1, 2)) / mass
    for centre in (cx, cy):
        assert (centre - 23.5).abs().max() <= 12.01
        assert (centre - 23.5).abs().max() > 8
    block = torch.zeros(256, 48, 48, dtype=torch.uint8)
    block[:, 16:32, 16:32] = 255
    area = augment(block, Augment(flip=0, scale=0.25), seeded())[:, 0].sum((1, 2))
    assert area.min() >= 256 / 1.25**2 * 0.95
    assert area.max() <= 256 * 1.25**2 * 1.05
    assert area.std() > 10


def test_blur_is_the_gaussian_of_scipy(images: torch.Tensor) -> None:
    from mien.lab.augment import _blur

    x = images.unsqueeze(1).double() / 255
    sigma = torch.linspace(0.3, 1.2, 16, dtype=torch.float64)
    ours = _blur(x, sigma)[:, 0]
    for i in range(16):
        theirs = gaussian_filter(x[i, 0].numpy(), float(sigma[i]), mode="nearest", radius=3)
        np.testing.assert_allclose(ours[i].numpy(), theirs, atol=1e-6)


def test_erasing_takes_the_share_it_says() -> None:
    grey = torch.full((400, 48, 48), 128, dtype=torch.uint8)
    out = augment(grey, Augment(flip=0, erase=0.5, erase_area=(0.1, 0.1)), seeded())[:, 0]
    changed = ((out - 128 / 255).abs() > 1e-3).float().mean((1, 2))
    assert 0.35 < (changed > 0).float().mean() < 0.6
    assert changed.max() <= 0.13


def test_mixup_mixes_pixels_and_targets_alike() -> None:
    x = torch.eye(8)[:, None, None, :].repeat(1, 1, 2, 1)
    target = torch.eye(8)
    mixed, mixed_target = mixup(x, target, 1.0, seeded())
    torch.testing.assert_close(mixed[:, 0, 0], mixed_target)
    torch.testing.assert_close(mixed_target.sum(1), torch.ones(8))
    assert (mixed_target.argmax(1) == torch.arange(8)).all()
    same, same_target = mixup(x, target, 0.0, seeded())
    assert same is x
    assert same_target is target
