"""The tracker with a detector that finds what it is told: who is new, who is lost, and when it looks."""

from collections.abc import Sequence

import numpy as np

from mien import Box, KeyPoints
from mien._face import Detection
from mien.pipeline import Reader
from mien.stream import Moment, Tracker
from mien.stream.follow import overlap_of
from support.tracker_steps import RATE, Pixels, ids


class Places:
    """A detector that finds what it is told, wherever that is: at each call the next list of scores and boxes."""

    name = "places"

    def __init__(self, script: Sequence[Sequence[tuple[float, Box]]]) -> None:
        self.script, self.frame, self.searches = script, -1, 0

    def __call__(self, _: Pixels) -> list[Detection]:
        self.searches += 1
        return [detection(score, box) for score, box in self.script[self.frame]]

    def near(self, _: Pixels, box: Box) -> list[Detection]:
        return [detection(s, b) for s, b in self.script[self.frame] if overlap_of(b, box) > 0]

    def run(self, tracker: Tracker, frames: Sequence[Pixels], *, rate: float = RATE) -> list[Moment]:
        moments = []
        for self.frame, pixels in enumerate(frames):
            moments.append(tracker.step(pixels, self.frame / rate))
        return moments


def detection(score: float, box: Box) -> Detection:
    def at(x: float, y: float) -> tuple[float, float]:
        return box.x1 + x * box.width, box.y1 + y * box.height

    return Detection(box, score, KeyPoints(at(0.3, 0.35), at(0.7, 0.35), at(0.5, 0.55), at(0.5, 0.8)))


def noise(seed: int, *, size_wh: tuple[int, int] = (160, 120)) -> Pixels:
    """Coarse random colours, so that a crop of them looks like itself and like nothing else."""
    coarse = np.random.default_rng(seed).integers(0, 255, (size_wh[1] // 10, size_wh[0] // 10, 3), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 10, axis=0), 10, axis=1)


def test_a_cut_makes_new_people_and_a_flash_does_not() -> None:
    box = Box(50, 30, 110, 90)
    places = Places([[(0.95, box)]] * 20)
    scene = noise(1)
    for other in (noise(2), np.ascontiguousarray(scene[::-1, ::-1])):  # other colours, and the same elsewhere
        moments = places.run(Tracker(Reader(detector=places)), [scene] * 8 + [other] * 8)
        assert ids(moments) == [(1,)] * 8 + [(2,)] * 8
    bright = (scene // 2 + 127).astype(np.uint8)
    places = Places([[(0.95, box)]] * 20)
    moments = places.run(Tracker(Reader(detector=places)), [scene] * 8 + [bright] * 8)
    assert set(ids(moments)) == {(1,)}


def test_the_whole_picture_is_searched_on_each_nth_frame_and_when_a_face_is_lost() -> None:
    box, frames = Box(50, 30, 110, 90), [noise(1)] * 20
    for every, searches in ((1, 20), (4, 5), (7, 3)):
        places = Places([[(0.95, box)]] * 20)
        places.run(Tracker(Reader(detector=places), every=every), frames)
        assert places.searches == searches
    places = Places([[(0.95, box)]] * 3 + [[]] * 17)
    places.run(Tracker(Reader(detector=places), every=100), frames)
    assert places.searches == 2, "the first frame, and once when the face was lost"


def test_a_pattern_that_passes_for_a_face_for_a_moment_is_none() -> None:
    box, frames = Box(50, 30, 110, 90), [noise(1)] * 30
    face = (0.95, Box(0, 30, 40, 70))
    weak = Places([[face]] * 4 + [[face, (0.67, box)]] + [[face, (0.52, box)]] * 12 + [[face]] * 13)
    assert set(ids(weak.run(Tracker(Reader(detector=weak), every=1), frames))) == {(1,)}
    steady = Places([[face]] * 4 + [[face, (0.67, box)]] * 26)
    moments = steady.run(Tracker(Reader(detector=steady), every=1), frames)
    assert ids(moments)[-1] == (1, 2), "a face that is hard to see shows itself in time"
    assert ids(moments)[5] == (1,)
    sure = Places([[face]] * 4 + [[face, (0.9, box)]] * 26)
    assert ids(sure.run(Tracker(Reader(detector=sure), every=1), frames))[4] == (1, 2)


def test_single_pictures_have_no_time_to_prove_anything() -> None:
    places = Places([[(0.66, Box(50, 30, 110, 90))]] * 5)
    moments = places.run(Tracker(Reader(detector=places)), [noise(1)] * 5, rate=1)
    assert set(ids(moments)) == {(1,)}
