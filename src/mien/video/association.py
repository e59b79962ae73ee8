"""Places of faces, frame by frame -> ids: motion predicted, matched by overlap and position, lost and found again.

Pure geometry, without pixels. A face that is followed has its last place and a velocity; places that are found are
given to the faces whose predicted places they fit best.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._face import Box, Point


def share_of_new(elapsed: float, time_constant: float) -> float:
    """How much a value that comes ``elapsed`` seconds after the last one counts, 0..1; 1 without a time constant.

    ``1 - exp(-elapsed / time_constant)``: two steps of half the time leave what one whole step leaves, so the filter
    answers alike at any frame rate.
    """
    return 1.0 if time_constant <= 0 else -math.expm1(-max(elapsed, 0.0) / time_constant)


class Smoother:
    """Exponential filter of one array over time. A step in the values is followed to 63 % after the time constant.

    The first value is taken as it is. Probabilities that sum to 1 stay so: every answer is a mean of what came in.
    """

    value: NDArray[np.float64]  # the last answer; there is none before the first call

    def __init__(self, time_constant: float) -> None:
        """``time_constant`` in seconds; 0 answers each value as it comes."""
        self._time_constant = time_constant
        self._seconds: float | None = None

    def __call__(self, value: NDArray[Any], seconds: float) -> NDArray[np.float64]:
        """The smoothed value at ``seconds``, which never falls from call to call."""
        new = np.asarray(value, np.float64)
        if self._seconds is None:
            self.value = new
        else:
            share = share_of_new(seconds - self._seconds, self._time_constant)
            self.value = self.value + share * (new - self.value)
        self._seconds = seconds
        return self.value


_VELOCITY_OVER = 0.12  # seconds; time constant of the velocity: shorter takes the detector's trembling for motion


_COASTS_FOR = 0.4  # seconds; time constant with which a face that is not seen slows down: nobody moves on for ever


_STEADY_OVER = 0.08  # seconds; time constant of the steady box, in which only the error of its motion is smoothed


_LEAST_OVERLAP = 0.1  # intersection over union from which a place may be the predicted face's


_REACH = 0.6  # widths of the box: so far may a face lie from where it was predicted,


_REACH_PER_SECOND = 2.0  # and so many more for each second that it was not seen,


_LARGEST_REACH = 2.0  # up to this many


_LARGEST_GROWTH = 1.8  # ratio of two widths above which they are not the same face,


_GROWTH_PER_SECOND = 0.5  # and so much more for each second that it was not seen: who comes from behind is half hidden


_HIDDEN = 0.3  # share of a face's expected place that others cover, from which it is behind them


_HIDDEN_PATIENCE = 3.0  # times as long a hidden face is waited for


@dataclass
class Path:
    """One face that is followed: its ``id``, the last ``box`` it was seen in, at ``seconds``, and its velocity.

    ``velocity`` is in pixels a second. ``steady`` is the box without its trembling, and without a lag in even motion.
    ``waited`` is for how many seconds it could have been seen and was not.
    """

    id: int
    box: Box
    seconds: float
    velocity: Point = (0.0, 0.0)
    steady: Box = field(init=False)
    waited: float = 0.0

    def __post_init__(self) -> None:
        self.steady = self.box

    def predict(self, seconds: float) -> Box:
        """Where the face should be at ``seconds``."""
        return _moved(self.box, self._way(seconds))

    def predict_steady(self, seconds: float) -> Box:
        """Where the steady box should be at ``seconds``."""
        return _moved(self.steady, self._way(seconds))

    def update(self, box: Box, seconds: float) -> None:
        """The face was seen in ``box`` at ``seconds``."""
        elapsed = seconds - self.seconds
        share = share_of_new(elapsed, _STEADY_OVER)
        foreseen = self.predict_steady(seconds)
        self.steady = Box(*(old + share * (new - old) for old, new in zip(foreseen, box, strict=True)))
        if elapsed > 0:
            share = share_of_new(elapsed, _VELOCITY_OVER)
            (old_x, old_y), (new_x, new_y) = center_of(self.box), center_of(box)
            vx, vy = self.velocity
            self.velocity = (
                vx + share * ((new_x - old_x) / elapsed - vx),
                vy + share * ((new_y - old_y) / elapsed - vy),
            )
        self.box, self.seconds, self.waited = box, seconds, 0.0

    def _way(self, seconds: float) -> Point:
        coasted = _COASTS_FOR * share_of_new(seconds - self.seconds, _COASTS_FOR)
        return self.velocity[0] * coasted, self.velocity[1] * coasted


class Follower:
    """The faces that are followed, by their ids. Ids count from 1 and are never given twice."""

    def __init__(self) -> None:
        self._last_id = 0
        self.paths: dict[int, Path] = {}

    def start(self, box: Box, seconds: float) -> int:
        """Follow a new face; returns its id."""
        self._last_id += 1
        self.paths[self._last_id] = Path(self._last_id, box, seconds)
        return self._last_id

    def drop(self, ids: Collection[int]) -> None:
        """Give these faces up."""
        self.paths = {i: path for i, path in self.paths.items() if i not in ids}

    def wait(self, seen: Collection[int], seconds: float, *, elapsed: float, forget: float) -> list[int]:
        """Who was waited for long enough: those not ``seen`` for ``forget`` seconds, not counting (for as long again,
        and once more) the time for which somebody stands before them. ``elapsed`` is the time since the last call.
        """
        fronts = [self.paths[i].box for i in seen]
        given_up = []
        for i, path in self.paths.items():
            if i in seen:
                continue
            place = path.predict(seconds)
            if sum(_shared(place, front) for front in fronts) < _HIDDEN * place.width * place.height:
                path.waited += elapsed
            if path.waited > forget or seconds - path.seconds > _HIDDEN_PATIENCE * forget:
                given_up.append(i)
        return given_up

    def match(self, boxes: Sequence[Box], seconds: float, *, among: Collection[int]) -> list[int | None]:
        """Which of the faces ``among`` is in each of ``boxes`` at ``seconds``, ``None`` where none fits.

        Greedy: the pair that fits best comes first; a face and a box are in one pair at most.
        """
        pairs: list[tuple[float, int, int]] = []
        for i in among:
            predicted, unseen = self.paths[i].predict(seconds), seconds - self.paths[i].seconds
            costs = ((_cost(predicted, box, unseen), index) for index, box in enumerate(boxes))
            pairs += [(cost, index, i) for cost, index in costs if cost is not None]
        ids: list[int | None] = [None] * len(boxes)
        taken: set[int] = set()
        for _, index, i in sorted(pairs):
            if ids[index] is None and i not in taken:
                ids[index] = i
                taken.add(i)
        return ids


def _cost(predicted: Box, box: Box, unseen: float) -> float | None:
    """How badly ``box`` fits a face that should be at ``predicted`` and was not seen for ``unseen`` seconds, from 0.

    ``None`` where it cannot be that face.
    """
    narrow, wide = sorted((predicted.width, box.width))
    if narrow <= 0 or wide / narrow > _LARGEST_GROWTH + _GROWTH_PER_SECOND * unseen:
        return None
    distance = 2 * math.dist(center_of(predicted), center_of(box)) / (narrow + wide)
    if distance > _LARGEST_REACH:  # nearly all pairs of a crowd
        return None
    overlap = overlap_of(predicted, box)
    reach = min(_REACH + _REACH_PER_SECOND * unseen, _LARGEST_REACH)
    return (1 - overlap) + distance if overlap >= _LEAST_OVERLAP or distance <= reach else None


def overlap_of(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    shared = _shared(one, other)
    return shared / (one.width * one.height + other.width * other.height - shared) if shared else 0.0


def center_of(box: Box) -> Point:
    """The middle of a box."""
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


def _shared(one: Box, other: Box) -> float:
    """Square pixels that both boxes cover."""
    wide = min(one.x2, other.x2) - max(one.x1, other.x1)
    high = min(one.y2, other.y2) - max(one.y1, other.y1)
    return wide * high if wide > 0 and high > 0 else 0.0


def _moved(box: Box, way: Point) -> Box:
    dx, dy = way
    return Box(box.x1 + dx, box.y1 + dy, box.x2 + dx, box.y2 + dy)
