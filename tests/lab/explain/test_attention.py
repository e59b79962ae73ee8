"""Regions, alignment, attention by region and claims."""

import numpy as np
import pytest

from mien._emotions import SEVEN
from mien._face import Box, Detection
from mien._framing import FER2013
from mien.lab.explain.attention import (
    REGIONS,
    FaceAlignment,
    align_faces,
    attention_by_emotion,
    bootstrap_means,
    evaluate_claims,
    identity_alignment,
    max_region_shares,
    measure_attention,
    region_masks,
    region_polygons,
    region_shares,
    upsample,
    warp_to_framing,
)
from mien.lab.metrics import bootstrap_interval
from support.explained_faces import CENTRE, detection, random_crops


def test_regions_do_not_overlap_and_hold_the_key_points() -> None:
    parts = region_masks(96)
    assert parts.shape == (len(REGIONS), 96, 96)
    assert (parts > -1e-9).all()
    np.testing.assert_allclose(parts.sum(axis=0), 1)
    for region, point in (("eyes", FER2013.right_eye), ("eyes", FER2013.left_eye), ("nose", FER2013.nose)):
        assert parts[REGIONS.index(region), int(96 * point[1]), int(96 * point[0])] == 1
    assert parts[REGIONS.index("mouth"), int(96 * FER2013.mouth[1]), int(96 * FER2013.mouth[0])] == 1
    assert set(region_polygons()) == set(REGIONS[:-1])


def test_shares_of_a_constant_map_are_areas_and_of_one_region_are_1() -> None:
    even = region_shares(np.ones((1, 48, 48), np.float32))[0]
    np.testing.assert_allclose(even, region_masks(48).mean(axis=(1, 2)), atol=1e-12)
    mouth = (region_masks(48)[3:4] == 1).astype(np.float32)
    assert region_shares(mouth)[0].tolist() == pytest.approx([0, 0, 0, 1, 0])
    assert np.isnan(region_shares(np.zeros((1, 48, 48)))).all()
    fine, coarse = max_region_shares((48, 48), 48), max_region_shares((6, 6), 48)
    assert all(coarse[region] < fine[region] <= 1 for region in REGIONS[:-1])


def test_alignment_moves_a_shifted_face_back() -> None:
    shift = 0.125
    moved = {key: (x + shift, y) for key, (x, y) in CENTRE.items()}
    found = align_faces(random_crops(1), lambda _: [detection(moved)])
    np.testing.assert_allclose(found.affine[0], [[1, 0, shift], [0, 1, 0]], atol=1e-9)
    map_ = np.zeros((1, 48, 48), np.float32)
    map_[0, 20, 30] = 1  # 6 pixels right of where it belongs
    assert np.unravel_index(warp_to_framing(map_, found.affine)[0].argmax(), (48, 48)) == (20, 24)


def test_faces_that_are_not_found_or_far_too_stretched_are_left_out() -> None:
    flat = {key: (x, 0.5 + 0.1 * (y - 0.5)) for key, (x, y) in CENTRE.items()}
    mirrored = {key: (1 - x, y) for key, (x, y) in CENTRE.items()}
    small = Detection(Box(0, 0, 20, 20), 0.9, detection(CENTRE).points)
    detections = iter([[], [detection(flat)], [detection(mirrored)], [small], [detection(CENTRE)]])
    found = align_faces(random_crops(5), lambda _: next(detections))
    assert found.found.tolist() == [False, False, False, False, True]
    attention = measure_attention(np.ones((5, 6, 6), np.float32), np.zeros(5, np.int64), found, 48)
    assert attention.mask.tolist() == found.found.tolist()
    assert attention.maps.sum() == pytest.approx(1)


def test_a_place_slightly_above_its_negative_neighbours_has_its_whole_area() -> None:
    """Rectified after upsampling, all attention of this face would be on a few pixels of one place."""
    maps = np.full((1, 3, 3), -1, np.float32)
    maps[0, 0, 0] = 0.01
    attention = measure_attention(maps, np.zeros(1, np.int64), identity_alignment(1), 48)
    assert (attention.maps > 0).sum() > 16 * 16
    assert attention.maps.max() < 1 / 128
    assert attention.maps[0, 24:, 24:].max() == 0


def maps_of_regions(region_of: dict[int, str], count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Maps ``[N, 48, 48]`` with one region for each class, and some noise everywhere."""
    generator = np.random.default_rng(0)
    targets = np.repeat(list(region_of), count)
    hot = np.stack([region_masks(48)[REGIONS.index(region_of[t])] for t in targets])
    return (hot + 0.1 * generator.random(hot.shape)).astype(np.float32), targets


def test_a_claim_holds_only_for_maps_that_were_made_so() -> None:
    surprise, happy, sad = SEVEN.index("surprise"), SEVEN.index("happy"), SEVEN.index("sad")
    cases = [
        ({surprise: "eyes", happy: "mouth", sad: "nose"}, ["holds", "holds"]),
        ({surprise: "mouth", happy: "mouth", sad: "nose"}, ["does not hold", "holds"]),
        ({surprise: "mouth", happy: "eyes", sad: "nose"}, ["does not hold", "does not hold"]),
    ]
    for regions, verdicts in cases:
        maps, targets = maps_of_regions(regions)
        attention = measure_attention(maps, targets, identity_alignment(len(maps)), 48)
        assert [result["verdict"] for result in evaluate_claims(attention, SEVEN)] == verdicts
        table = attention_by_emotion(attention, np.ones(len(maps), bool), SEVEN)
        assert set(table) == {"surprise", "happy", "sad"}
        for result in table.values():
            assert sum(region["share"] for region in result["regions"].values()) == pytest.approx(1)
    maps, targets = maps_of_regions({surprise: "eyes", happy: "mouth"}, count=3)
    few = evaluate_claims(measure_attention(maps, targets, identity_alignment(6), 48), SEVEN)
    assert {result["verdict"] for result in few} == {"not measured"}


def test_a_constant_map_has_the_shares_of_chance_even_for_moved_faces() -> None:
    shifted = FaceAlignment(np.tile([[1, 0, 0.2], [0, 1, 0.1]], (4, 1, 1)), np.ones(4, bool))
    attention = measure_attention(np.ones((4, 6, 6), np.float32), np.zeros(4, np.int64), shifted, 48)
    np.testing.assert_allclose(attention.shares, attention.chance, atol=1e-6)


def test_bootstrapped_intervals_equal_those_of_the_metrics() -> None:
    values = np.random.default_rng(3).normal(5, 2, 80)
    low, high = bootstrap_interval(values)
    ours = np.percentile(bootstrap_means(values[:, None])[:, 0], [2.5, 97.5])
    np.testing.assert_allclose(ours, (low, high), atol=0.05)


def test_maps_are_enlarged_between_the_centres_of_places() -> None:
    ramp = np.arange(6, dtype=np.float32)[None, None].repeat(6, axis=1)
    wide = upsample(ramp, 48)
    assert wide.shape == (1, 48, 48)
    assert wide[0, 0, 4 + 8 * 2 - 1 : 4 + 8 * 2 + 1].mean() == pytest.approx(2)
