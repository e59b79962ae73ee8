"""The net with branches for brows, eyes and mouth: the input of each branch, and the place of its output."""

import numpy as np
import pytest
import torch

from mien._emotions import SEVEN
from mien._framing import FER2013
from mien.infer import Classifier
from mien.lab import nets
from mien.lab.export.calibrate import Calibration
from mien.lab.export.onnx import contract_metadata, export_fp32
from mien.lab.inference import normalise
from mien.lab.nets._layers import Net
from mien.lab.nets.mien_regions import RegionFeatures, cells, regions_of

BROWS, MOUTH = regions_of(FER2013)
TINY = {"stem": 8, "widths": (8, 16, 16), "depths": (1, 1, 1), "region_stem": 8, "region_widths": (8, 16)}


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return nets.build("mien_regions", channels=1, classes=7, **TINY).eval()


def test_the_strips_hold_eyes_and_mouth_of_the_framing() -> None:
    def inside(region: tuple[float, ...], point: tuple[float, float]) -> bool:
        return region[0] < point[0] < region[2] and region[1] < point[1] < region[3]

    assert [inside(BROWS, p) for p in (FER2013.right_eye, FER2013.left_eye, FER2013.mouth)] == [True, True, False]
    assert [inside(MOUTH, p) for p in (FER2013.right_eye, FER2013.left_eye, FER2013.mouth)] == [False, False, True]
    assert (cells(BROWS, 6), cells(MOUTH, 6)) == ((0, 1, 6, 3), (1, 4, 5, 6))


@pytest.mark.parametrize("grid", range(1, 33))
def test_a_region_has_cells_on_every_grid(grid: int) -> None:
    for region in (BROWS, MOUTH):
        left, top, right, bottom = cells(region, grid)
        assert 0 <= left < right <= grid
        assert 0 <= top < bottom <= grid


class Pixels(torch.nn.Module):
    """The pixels, averaged over squares."""

    def __init__(self, pool: int) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(x, self.pool)


@pytest.mark.parametrize("pool", [1, 4, 8])
def test_features_of_a_branch_are_at_its_region_and_have_its_mean(pool: int) -> None:
    x = torch.rand(2, 1, 48, 48)
    features = RegionFeatures(Pixels(8), [Pixels(pool), Pixels(pool)], (BROWS, MOUTH))(x)
    assert features.shape == (2, 3, 6, 6)
    coarse = Pixels(8)(x)[:, 0]
    for channel, (left, top, right, bottom) in ((1, cells(BROWS, 6)), (2, cells(MOUTH, 6))):
        mask = torch.zeros(6, 6)
        mask[top:bottom, left:right] = 36 / ((bottom - top) * (right - left))
        torch.testing.assert_close(features[:, channel], coarse * mask)
        strip = x[:, 0, 8 * top : 8 * bottom, 8 * left : 8 * right]
        torch.testing.assert_close(features[:, channel].mean(dim=(1, 2)), strip.mean(dim=(1, 2)))


@torch.no_grad()
def test_the_mouth_reaches_the_mouth_branch_alone(net: Net) -> None:
    x = torch.randn(1, 1, 48, 48)
    other = x.clone()
    other[:, :, 34:46, 12:36] += 1
    before, after = net.features(x), net.features(other)
    changed = (before - after).abs().amax(dim=(0, 2, 3)) > 0
    assert changed[:16].any()  # the trunk sees the whole face
    assert not changed[16:32].any()
    assert changed[32:].any()


@pytest.mark.parametrize("size", [40, 48, 50, 64, 96])
@torch.no_grad()
def test_any_size_of_face_is_taken(net: Net, size: int) -> None:
    assert net(torch.randn(2, 1, size, size)).isfinite().all()


def test_a_region_beyond_the_edge_is_cut_off() -> None:
    assert cells((-0.2, 0.5, 1.3, 1.2), 8) == (0, 4, 8, 8)


def test_it_exports_and_its_maps_explain_the_logits(net: Net, tmp_path) -> None:
    metadata = contract_metadata(
        "regions", SEVEN, 48, FER2013, "mien-regions", {"commit": "none", "data_sha256": "0" * 64}
    )
    file = tmp_path / "model-fp32.onnx"
    export_fp32(net, file, size=48, calibration=Calibration((1.0,) * 7, (0.0,) * 7), metadata=metadata)
    crops = np.random.default_rng(0).integers(0, 256, (5, 48, 48), dtype=np.uint8)
    probs, maps = Classifier(file)(crops)
    x = normalise(torch.from_numpy(crops).unsqueeze(1).float() / 255, 48)
    with torch.no_grad():
        logits = net(x)
    np.testing.assert_allclose(probs, logits.softmax(dim=1).numpy(), atol=1e-4)
    assert maps.shape == (5, 7, 6, 6)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), logits.numpy(), atol=1e-3)
