"""Track ids without pixels: filter, prediction, matching, and scenes with several people."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien._face import Box
from mien.video.association import Follower, Path, Smoother, center_of, overlap_of, share_of_new

numbers = st.floats(0, 1000, allow_nan=False)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), numbers, numbers, st.floats(5, 200), st.floats(5, 200))
steps = st.lists(st.floats(0, 2, allow_nan=False), min_size=1, max_size=30)


def square(x: float, y: float, side: float = 100.0) -> Box:
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


@given(steps, st.floats(0.01, 5))
def test_many_small_steps_weigh_as_one_large_step(parts: list[float], constant: float) -> None:
    left = math.prod(1 - share_of_new(part, constant) for part in parts)
    assert left == pytest.approx(1 - share_of_new(sum(parts), constant), abs=1e-9)


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
        answer = smoother(np.array(weights) / sum(weights), seconds)
        assert answer.sum() == pytest.approx(1)
        assert (answer >= 0).all()


def test_a_time_constant_of_zero_leaves_values_as_they_are() -> None:
    smoother = Smoother(0)
    assert [float(smoother(np.array([v]), v)[0]) for v in (0.0, 1.0, 5.0)] == [0.0, 1.0, 5.0]


@given(boxes, boxes)
def test_overlap_is_symmetric_and_a_share(one: Box, other: Box) -> None:
    assert 0 <= overlap_of(one, other) <= 1 + 1e-9
    assert overlap_of(one, other) == pytest.approx(overlap_of(other, one))
    assert overlap_of(one, one) == pytest.approx(1)


@given(st.lists(boxes, max_size=6), st.lists(boxes, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_a_match_pairs_each_face_once_and_ignores_the_order(old: list[Box], new: list[Box], random: object) -> None:
    follower = Follower()
    keys = [follower.start(box, 0.0) for box in old]
    ids = follower.match(new, 0.1, among=keys)
    given_out = [i for i in ids if i is not None]
    assert len(given_out) == len(set(given_out))
    assert set(given_out) <= set(keys)
    order = list(range(len(new)))
    random.shuffle(order)  # type: ignore[attr-defined]
    mixed = follower.match([new[i] for i in order], 0.1, among=list(reversed(keys)))
    if len(set(new)) == len(new):
        assert [mixed[order.index(i)] for i in range(len(new))] == ids


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_greedy_is_the_best_assignment_where_faces_stand_apart(count: int, seed: int) -> None:
    """Against every permutation: faces at least their width apart, moved by up to a third of it."""
    generator = np.random.default_rng(seed)
    places = generator.permutation(12)[:count]
    centers = np.stack([places % 4 * 220.0, places // 4 * 220.0], axis=1)
    follower = Follower()
    keys = [follower.start(square(x, y), 0.0) for x, y in centers]
    moved = centers + generator.uniform(-33, 33, centers.shape)
    shuffled = generator.permutation(count)
    ids = follower.match([square(*moved[i]) for i in shuffled], 0.04, among=keys)
    best = min(
        itertools.permutations(range(count)),
        key=lambda order: sum(math.dist(centers[a], moved[b]) for a, b in enumerate(order)),
    )
    expected = {keys[face]: place for face, place in enumerate(best)}
    assert {i: int(shuffled[index]) for index, i in enumerate(ids)} == expected


def follow(scenes: list[list[Box]], *, rate: float = 30.0, forget: float = 1.0) -> list[list[int]]:
    """The ids of the boxes of each frame, as the tracker uses the follower."""
    follower, answers = Follower(), []
    for index, frame in enumerate(scenes):
        seconds = index / rate
        ids = follower.match(frame, seconds, among=list(follower.paths))
        known = []
        for box, i in zip(frame, ids, strict=True):
            key = follower.start(box, seconds) if i is None else i
            follower.paths[key].update(box, seconds)
            known.append(key)
        follower.drop(follower.wait(known, seconds, elapsed=1 / rate if index else 0.0, forget=forget))
        answers.append(known)
    return answers


@pytest.mark.parametrize("rate", [10, 30, 60])
@pytest.mark.parametrize("speed", [60.0, 150.0, 400.0])
def test_two_who_cross_keep_their_ids(rate: int, speed: float) -> None:
    """One walks to the right, one to the left; while one hides the other by more than half, only one is found."""
    trembling = np.random.default_rng(0).normal(0, 1.0, (2000, 2))
    scenes, sides = [], []
    for index in range(int(600 / speed * rate)):
        way = speed * index / rate
        left, right = square(100 + way, 200 + trembling[index, 0]), square(700 - way, 215 + trembling[index, 1])
        hidden = abs(left.x1 - right.x1) < 60
        scenes.append([left] if hidden else [left, right])
        sides.append(("l",) if hidden else ("l", "r"))
    people: dict[str, set[int]] = {"l": set(), "r": set()}
    for ids, names in zip(follow(scenes, rate=rate), sides, strict=True):
        for i, name in zip(ids, names, strict=True):
            people[name].add(i)
    assert people == {"l": {1}, "r": {2}}


def test_a_face_is_found_again_within_its_time_and_new_after_it() -> None:
    here, gone = [square(300, 300)], []
    assert follow([here] * 5 + [gone] * 20 + [here])[-1] == [1]
    assert follow([here] * 5 + [gone] * 40 + [here])[-1] == [2]
    assert follow([here] * 5 + [gone] * 40 + [here], forget=2.0)[-1] == [1]


def test_who_is_hidden_behind_another_is_waited_for_longer() -> None:
    back = square(330, 290)
    comes = [[back, square(x, 300, 160)] for x in np.linspace(100, 240, 15)]
    stays = [[square(x, 300, 160)] for x in [*np.linspace(250, 310, 7), *[320] * 45]]
    ids = follow([*comes, *stays, [square(400, 290), square(320, 300, 160)]])
    assert ids[0] == ids[-1] == [1, 2], "1.7 s behind somebody, with a patience of 1 s for those in sight"
    assert follow([*comes, *[[square(900, 300, 160)]] * 52, [back]])[-1] == [4], "nobody stands before it"


def test_a_stranger_far_away_is_somebody_new() -> None:
    assert follow([[square(100, 100)], [square(600, 100)]])[-1] == [2]
    assert follow([[square(100, 100, 50)], [square(100, 100, 150)]])[-1] == [2], "three times as wide in one frame"


@given(st.lists(st.lists(boxes, max_size=4), max_size=25))
@settings(max_examples=60)
def test_ids_count_up_and_are_never_given_again(scenes: list[list[Box]]) -> None:
    seen: dict[int, int] = {}
    newest = 0
    for index, ids in enumerate(follow(scenes, rate=5, forget=0.5)):
        assert len(set(ids)) == len(ids)
        for i in sorted(ids):
            if i not in seen:
                newest += 1
                assert i == newest
            else:
                assert index - seen[i] <= 0.5 * 3 * 5 + 2, "an id came back after it was given up"
            seen[i] = index


def test_even_motion_is_foreseen_and_dies_out() -> None:
    path = Path(1, square(0, 0), 0.0)
    for index in range(1, 40):
        path.update(square(10 * index, 0), index / 30)
    assert center_of(path.predict(40 / 30))[0] == pytest.approx(400, abs=1)
    assert center_of(path.steady)[0] == pytest.approx(390, abs=3), "the steady box does not lag behind even motion"
    assert center_of(path.predict(60.0))[0] < 390 + 300 * 0.5, "nobody moves on for ever"


def test_the_steady_box_trembles_less() -> None:
    generator = np.random.default_rng(1)
    path = Path(1, square(0, 0), 0.0)
    raw, steady = [], []
    for index in range(1, 300):
        path.update(square(*generator.normal(0, 1.5, 2), side=100 + generator.normal(0, 2)), index / 30)
        raw.append(path.box)
        steady.append(path.steady)
    assert np.diff(np.array(steady), axis=0).std() < 0.55 * np.diff(np.array(raw), axis=0).std()
