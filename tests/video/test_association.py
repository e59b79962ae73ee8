"""Track ids without pixels: filter, prediction, matching, and scenes with several tracks."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien._face import Box
from mien.video.association import Motion, Smoother, center_of, expired_tracks, iou, match_boxes, smoothing_weight

numbers = st.floats(0, 1000, allow_nan=False)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), numbers, numbers, st.floats(5, 200), st.floats(5, 200))
steps = st.lists(st.floats(0, 2, allow_nan=False), min_size=1, max_size=30)


def square(x: float, y: float, side: float = 100.0) -> Box:
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


@given(steps, st.floats(0.01, 5))
def test_many_small_steps_weigh_as_one_large_step(parts: list[float], constant: float) -> None:
    left = math.prod(1 - smoothing_weight(part, constant) for part in parts)
    assert left == pytest.approx(1 - smoothing_weight(sum(parts), constant), abs=1e-9)


def test_each_value_counts_by_its_quality() -> None:
    same, plain, blurred = Smoother(0.5), Smoother(0.5), Smoother(0.5)
    for step in range(5):
        value = np.array([float(step % 2), 1.0 - step % 2])
        first = same(value, step / 10, 0.3)
        assert (first == plain(value, step / 10)).all()  # equal qualities have no effect
        found = blurred(value, step / 10, 1.0 if step % 2 == 0 else 0.01)
    assert found[0] < 0.1 < first[0]  # the blurred frames are nearly without weight
    assert Smoother(0.0)(np.array([0.5]), 0.0, 0.0) == 0.5


def test_qualities_weigh_values_as_a_weighted_mean() -> None:
    """The filter is the mean of all values by their weight in time times their quality."""
    generator = np.random.default_rng(0)
    values, qualities, smoother = generator.random((20, 3)), generator.uniform(0.1, 1, 20), Smoother(0.4)
    for step in range(20):
        found = smoother(values[step], step / 10, qualities[step])
    share = smoothing_weight(0.1, 0.4)
    weights = qualities * np.array([1.0, *[share] * 19]) * (1 - share) ** np.arange(19, -1, -1)
    np.testing.assert_allclose(found, (weights[:, None] * values).sum(0) / weights.sum())


@pytest.mark.parametrize("constant", [0.1, 0.5, 2.0])
def test_the_curve_is_the_same_at_ten_and_sixty_frames_a_second(constant: float) -> None:
    def curve(rate: int) -> list[float]:
        smoother = Smoother(constant)
        smoother(np.zeros(1), 0.0)
        values = [float(smoother(np.ones(1), (i + 1) / rate)[0]) for i in range(3 * rate)]
        return values[rate // 10 - 1 :: rate // 10]  # every tenth of a second

    assert curve(10) == pytest.approx(curve(60), abs=1e-9)
    assert curve(10)[round(10 * constant) - 1] == pytest.approx(1 - math.exp(-1), abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 1), st.lists(st.floats(0.01, 1), min_size=7, max_size=7)), min_size=1))
def test_smoothed_probabilities_stay_probabilities(values: list[tuple[float, list[float]]]) -> None:
    smoother, seconds = Smoother(0.5), 0.0
    for elapsed, weights in values:
        seconds += elapsed
        smoothed = smoother(np.array(weights) / sum(weights), seconds)
        assert smoothed.sum() == pytest.approx(1)
        assert (smoothed >= 0).all()


def test_a_time_constant_of_zero_returns_the_values() -> None:
    smoother = Smoother(0)
    assert [float(smoother(np.array([v]), v)[0]) for v in (0.0, 1.0, 5.0)] == [0.0, 1.0, 5.0]


@given(boxes, boxes)
def test_overlap_is_symmetric_and_a_share(one: Box, other: Box) -> None:
    assert 0 <= iou(one, other) <= 1 + 1e-9
    assert iou(one, other) == pytest.approx(iou(other, one))
    assert iou(one, one) == pytest.approx(1)


@given(st.lists(boxes, max_size=6), st.lists(boxes, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_a_match_pairs_each_face_once_and_ignores_the_order(old: list[Box], new: list[Box], random: object) -> None:
    motions = {key: Motion(box, 0.0) for key, box in enumerate(old, 1)}
    ids = match_boxes(new, motions, 0.1)
    given_out = [i for i in ids if i is not None]
    assert len(given_out) == len(set(given_out))
    assert set(given_out) <= set(motions)
    order = list(range(len(new)))
    random.shuffle(order)  # type: ignore[attr-defined]
    mixed = match_boxes([new[i] for i in order], dict(reversed(motions.items())), 0.1)
    if len(set(new)) == len(new):
        assert [mixed[order.index(i)] for i in range(len(new))] == ids


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_greedy_matching_is_optimal_for_separate_faces(count: int, seed: int) -> None:
    """Against every permutation: faces at least their width apart, moved by up to a third of it."""
    generator = np.random.default_rng(seed)
    places = generator.permutation(12)[:count]
    centers = np.stack([places % 4 * 220.0, places // 4 * 220.0], axis=1)
    motions = {key: Motion(square(x, y), 0.0) for key, (x, y) in enumerate(centers)}
    moved = centers + generator.uniform(-33, 33, centers.shape)
    shuffled = generator.permutation(count)
    ids = match_boxes([square(*moved[i]) for i in shuffled], motions, 0.04)
    best = min(
        itertools.permutations(range(count)),
        key=lambda order: sum(math.dist(centers[a], moved[b]) for a, b in enumerate(order)),
    )
    expected = dict(enumerate(best))
    assert {i: int(shuffled[index]) for index, i in enumerate(ids)} == expected


def associate(scenes: list[list[Box]], *, rate: float = 30.0, forget: float = 1.0) -> list[list[int]]:
    """The ids of the boxes of each frame, as the tracker assigns them."""
    motions: dict[int, Motion] = {}
    keys = itertools.count(1)
    ids = []
    for index, frame in enumerate(scenes):
        seconds = index / rate
        known = []
        for box, match in zip(frame, match_boxes(frame, motions, seconds), strict=True):
            key = next(keys) if match is None else match
            motions.setdefault(key, Motion(box, seconds)).update(box, seconds)
            known.append(key)
        for key in expired_tracks(motions, known, seconds, elapsed=1 / rate if index else 0.0, forget=forget):
            del motions[key]
        ids.append(known)
    return ids


@pytest.mark.parametrize("rate", [10, 30, 60])
@pytest.mark.parametrize("speed", [60.0, 150.0, 400.0])
def test_crossing_faces_keep_their_ids(rate: int, speed: float) -> None:
    """One moves right, one left; while one covers more than half of the other, only one is detected."""
    jitter = np.random.default_rng(0).normal(0, 1.0, (2000, 2))
    scenes, sides = [], []
    for index in range(int(600 / speed * rate)):
        way = speed * index / rate
        left, right = square(100 + way, 200 + jitter[index, 0]), square(700 - way, 215 + jitter[index, 1])
        hidden = abs(left.x1 - right.x1) < 60
        scenes.append([left] if hidden else [left, right])
        sides.append(("l",) if hidden else ("l", "r"))
    tracks: dict[str, set[int]] = {"l": set(), "r": set()}
    for ids, names in zip(associate(scenes, rate=rate), sides, strict=True):
        for i, name in zip(ids, names, strict=True):
            tracks[name].add(i)
    assert tracks == {"l": {1}, "r": {2}}


def test_a_face_is_found_again_within_its_time_and_new_after_it() -> None:
    here, gone = [square(300, 300)], []
    assert associate([here] * 5 + [gone] * 20 + [here])[-1] == [1]
    assert associate([here] * 5 + [gone] * 40 + [here])[-1] == [2]
    assert associate([here] * 5 + [gone] * 40 + [here], forget=2.0)[-1] == [1]


def test_an_occluded_face_is_kept_longer() -> None:
    back = square(330, 290)
    comes = [[back, square(x, 300, 160)] for x in np.linspace(100, 240, 15)]
    stays = [[square(x, 300, 160)] for x in [*np.linspace(250, 310, 7), *[320] * 45]]
    ids = associate([*comes, *stays, [square(400, 290), square(320, 300, 160)]])
    assert ids[0] == ids[-1] == [1, 2], "occluded for 1.7 s, where an unoccluded face expires after 1 s"
    assert associate([*comes, *[[square(900, 300, 160)]] * 52, [back]])[-1] == [4], "nothing occludes it"


def test_a_distant_or_much_larger_face_gets_a_new_id() -> None:
    assert associate([[square(100, 100)], [square(600, 100)]])[-1] == [2]
    assert associate([[square(100, 100, 50)], [square(100, 100, 150)]])[-1] == [2], "three times as wide in one frame"


@given(st.lists(st.lists(boxes, max_size=4), max_size=25))
@settings(max_examples=60)
def test_ids_increase_and_are_never_reused(scenes: list[list[Box]]) -> None:
    seen: dict[int, int] = {}
    newest = 0
    for index, ids in enumerate(associate(scenes, rate=5, forget=0.5)):
        assert len(set(ids)) == len(ids)
        for i in sorted(ids):
            if i not in seen:
                newest += 1
                assert i == newest
            else:
                assert index - seen[i] <= 0.5 * 3 * 5 + 2, "an id returned after its track had ended"
            seen[i] = index


def test_uniform_motion_is_predicted_and_decays() -> None:
    motion = Motion(square(0, 0), 0.0)
    for index in range(1, 40):
        motion.update(square(10 * index, 0), index / 30)
    assert center_of(motion.predict(40 / 30))[0] == pytest.approx(400, abs=1)
    assert center_of(motion.steady)[0] == pytest.approx(390, abs=3), "the steady box does not lag in uniform motion"
    assert center_of(motion.predict(60.0))[0] < 390 + 300 * 0.5, "the velocity decays"


def test_the_smoothed_box_jitters_less() -> None:
    generator = np.random.default_rng(1)
    motion = Motion(square(0, 0), 0.0)
    raw, steady = [], []
    for index in range(1, 300):
        motion.update(square(*generator.normal(0, 1.5, 2), side=100 + generator.normal(0, 2)), index / 30)
        raw.append(motion.box)
        steady.append(motion.steady)
    assert np.diff(np.array(steady), axis=0).std() < 0.55 * np.diff(np.array(raw), axis=0).std()
