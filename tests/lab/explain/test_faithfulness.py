"""Deletion and insertion curves, and the randomisation test."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from scipy.stats import spearmanr

from mien._errors import MienError
from mien.lab.explain.faithfulness import (
    BASELINES,
    CURVE_POINTS,
    RANDOMISATION_STAGES,
    _shuffle_file,
    area_under_curve,
    baseline_images,
    faithfulness,
    pixel_ranks,
    randomisation_stages,
    randomisation_test,
    rank_correlation,
)
from mien.lab.explain.methods import Explainer
from mien.lab.models import Model, open_model
from support.explained_faces import random_crops
from support.onnx_models import write_model


def test_a_faithful_map_beats_random_ones_and_its_reverse_loses() -> None:
    """A predictor that sees only one corner: only the map of that corner is faithful."""
    crops = np.random.default_rng(0).integers(0, 256, (12, 24, 24), dtype=np.uint8)
    crops[:, :8, :8] = 255 * (np.indices((8, 8)).sum(axis=0) % 2)

    def read(images: np.ndarray) -> np.ndarray:
        strength = images[:, :8, :8].astype(float).std(axis=(1, 2)) / 127.5
        return np.stack([strength, 1 - strength], axis=1).astype(np.float32)

    maps = np.zeros((12, 3, 3), np.float32)
    maps[:, 0, 0] = 1
    targets = np.zeros(12, np.int64)
    good = faithfulness(read, crops, targets, maps)
    bad = faithfulness(read, crops, targets, -maps)
    assert good["deletion"]["map"]["differences"]["random"]["interval"][1] < 0
    assert good["insertion"]["map"]["differences"]["centre"]["interval"][0] > 0
    assert bad["deletion"]["map"]["differences"]["random"]["interval"][0] > 0
    assert good["deletion"]["map"]["curve"][0] == pytest.approx(good["insertion"]["map"]["curve"][-1])


def test_areas_ranks_and_baselines() -> None:
    assert area_under_curve(np.linspace(1, 0, CURVE_POINTS)) == pytest.approx(0.5)
    assert area_under_curve(np.ones(CURVE_POINTS)) == pytest.approx(1)
    ranks = pixel_ranks(np.array([[[0.1, 0.9], [0.5, 0.5]]]), 0)[0]
    assert (ranks[0, 1], ranks[0, 0]) == (0, 3)
    crops = random_crops(2)
    assert np.ptp(baseline_images(crops, "mean")[1]) == 0
    assert baseline_images(crops, "blur").std() < 0.2 * crops.std()
    assert set(BASELINES) == {"blur", "mean"}
    with pytest.raises(MienError, match="unknown baseline 'black'"):
        faithfulness(lambda x: x, crops, np.zeros(2, int), np.ones((2, 2, 2), np.float32), baseline="black")


def test_rank_correlation_is_scipys() -> None:
    one, other = np.random.default_rng(0).integers(0, 9, (2, 4, 6, 6)).astype(np.float32)
    theirs = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(rank_correlation(one, other), theirs)
    assert rank_correlation(one, one) == pytest.approx([1] * 4)
    assert np.isnan(rank_correlation(one, np.ones_like(one))).all()


def test_stages_begin_with_the_last_layer_and_reach_every_layer() -> None:
    stages = randomisation_stages(list(range(30)))
    assert stages[0] == [29]
    assert len(stages) == RANDOMISATION_STAGES
    assert [layer for stage in stages for layer in stage] == list(range(29, -1, -1))
    assert randomisation_stages([1]) == [[1]]
    assert randomisation_stages([1, 2]) == [[2], [1]]


def test_randomised_weights_change_the_maps_of_a_file_but_not_the_file(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx")
    before = path.read_bytes()
    explainer = Explainer(open_model(path))
    found = randomisation_test(explainer, random_crops(6), np.zeros(6, np.int64))
    assert [stage["layers"] for stage in found["stages"]] == [["head"], ["features"]]
    assert found["stages"][-1]["correlation"] < 0.9
    assert path.read_bytes() == before


@pytest.mark.parametrize("precision", ["int8", "fp32"])  # fp32: in halves, which nodes before the first layer join
def test_the_layers_of_a_file_are_shuffled_from_the_last_to_the_first_as_a_whole(precision: str) -> None:
    def weights(model: Model) -> dict[str, np.ndarray]:
        found = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(model.path)).graph.initializer}
        halves = {name.removesuffix(".low"): found[name] for name in found if name.endswith(".low")}
        return found | {name: low + 256 * found[f"{name}.high"].astype(int) for name, low in halves.items()}

    model = open_model("mien-0", precision=precision)
    stages = [(layers, weights(changed)) for _, _, layers, changed in _shuffle_file(model, 0)]
    names = [name.removesuffix("_quantized") for layers, _ in stages for name in layers]
    assert names[0] == "maps.weight"
    blocks = [int(name.split(".")[1]) for name in names[1:]]
    assert blocks == sorted(blocks, reverse=True)
    before, after = weights(model), stages[-1][1]
    for layers, at_this_stage in stages:
        for name in layers:
            np.testing.assert_array_equal(at_this_stage[name], after[name])
            assert not np.array_equal(after[name], before[name])
            np.testing.assert_array_equal(np.sort(after[name], axis=None), np.sort(before[name], axis=None))
