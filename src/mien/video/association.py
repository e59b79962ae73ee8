"""Assign the boxes of a frame to tracks by predicted motion, overlap and distance. Pixels are not used."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._face import Box, Point

# Time constants of exponential filters, in seconds.
_LEAST_QUALITY = 0.02  # a face that is never seen well has a smoothed reading, too
_VELOCITY_OVER = 0.12  # of the velocity; with a shorter one, jitter of the detector becomes motion
_COASTS_FOR = 0.4  # of the decay of an unseen face's velocity
_STEADY_OVER = 0.08  # of the smoothed box: only the error of the prediction is filtered
# A box can belong to a track if it overlaps the predicted box or is near it, and has a similar width.
_MIN_OVERLAP = 0.1  # intersection over union
_MAX_DISTANCE = 0.6  # box widths between the centres
_DISTANCE_PER_SECOND = 2.0  # added for each second that the face was not seen
_DISTANCE_LIMIT = 2.0  # the largest distance at any time
_MAX_GROWTH = 1.8  # ratio of the widths
_GROWTH_PER_SECOND = 0.5  # added for each second that the face was not seen: a face that reappears is still half hidden
_OCCLUDED = 0.3  # share of the predicted box covered by other faces, from which a face counts as occluded
_OCCLUDED_PATIENCE = 3.0  # ratio of the times after which an occluded track and another one end


def smoothing_weight(elapsed: float, time_constant: float) -> float:
    """Return the weight of a new value in an exponential filter: ``1 - exp(-elapsed / time_constant)``.

    Two steps of half the time weigh as much as one whole step, so the filter behaves alike at any frame rate.

    Args:
        elapsed: Seconds since the last value.
        time_constant: Time constant in seconds; 0 gives a weight of 1.

    Returns:
        The weight, 0..1.
    """
    return 1.0 if time_constant <= 0 else -math.expm1(-max(elapsed, 0.0) / time_constant)


class Smoother:
    """Exponential filter of an array over time. One time constant after a step, 63 % of it has come through.

    The first value is returned unchanged. Probabilities that sum to 1 keep that sum. Each value counts by its quality,
    so that a blurred frame changes little. Where all values have the same quality, it has no effect.

    Args:
        time_constant: Time constant in seconds; 0 returns each value unchanged.
    """

    value: NDArray[np.float64]  # the last result; unset before the first call

    def __init__(self, time_constant: float) -> None:
        self._time_constant = time_constant
        self._seconds: float | None = None
        self._quality = 0.0

    def __call__(self, value: NDArray[Any], seconds: float, quality: float = 1.0) -> NDArray[np.float64]:
        """Add a value.

        Args:
            value: The new value, with the same shape in every call.
            seconds: Its time in seconds, not before that of the last call.
            quality: Its quality, 0..1.

        Returns:
            The smoothed value, float64.
        """
        new, quality = np.asarray(value, np.float64), max(quality, _LEAST_QUALITY)
        if self._seconds is None:
            self.value, self._quality = new, quality
        else:
            # The mean of all values, weighted by the filter and by quality: the same filter also smooths the quality.
            weight = smoothing_weight(seconds - self._seconds, self._time_constant)
            self._quality += weight * (quality - self._quality)
            self.value = self.value + weight * (quality / self._quality) * (new - self.value)
        self._seconds = seconds
        return self.value


@dataclass
class Motion:
    """Position and velocity of one tracked face.

    Args:
        box: The box in which the face was last seen, in pixels.
        seconds: When that was.
        velocity: Pixels per second, ``(x, y)``.
        steady: The box without its jitter, and without lag in uniform motion.
        unseen: Seconds for which the face could have been seen and was not.
    """

    box: Box
    seconds: float
    velocity: Point = (0.0, 0.0)
    steady: Box = field(init=False)
    unseen: float = 0.0

    def __post_init__(self) -> None:
        self.steady = self.box

    def predict(self, seconds: float, *, steady: bool = False) -> Box:
        """Predict the box from the velocity, which decays while the face is not seen.

        Args:
            seconds: Time of the prediction.
            steady: Predict the smoothed box instead of the last observed one.

        Returns:
            The expected box in pixels.
        """
        coasted = _COASTS_FOR * smoothing_weight(seconds - self.seconds, _COASTS_FOR)
        dx, dy = self.velocity[0] * coasted, self.velocity[1] * coasted
        box = self.steady if steady else self.box
        return Box(box.x1 + dx, box.y1 + dy, box.x2 + dx, box.y2 + dy)

    def update(self, box: Box, seconds: float) -> None:
        """Add an observation.

        Args:
            box: The box in which the face was seen, in pixels.
            seconds: Time of the frame, not before that of the last observation.
        """
        elapsed = seconds - self.seconds
        weight = smoothing_weight(elapsed, _STEADY_OVER)
        expected = self.predict(seconds, steady=True)
        self.steady = Box(*(old + weight * (new - old) for old, new in zip(expected, box, strict=True)))
        if elapsed > 0:
            weight = smoothing_weight(elapsed, _VELOCITY_OVER)
            (old_x, old_y), (new_x, new_y) = center_of(self.box), center_of(box)
            vx, vy = self.velocity
            vx += weight * ((new_x - old_x) / elapsed - vx)
            vy += weight * ((new_y - old_y) / elapsed - vy)
            self.velocity = vx, vy
        self.box, self.seconds, self.unseen = box, seconds, 0.0


def match_boxes(boxes: Sequence[Box], motions: Mapping[int, Motion], seconds: float) -> list[int | None]:
    """Assign boxes to tracks, the best pair first (greedy). Each track and each box is in at most one pair.

    Args:
        boxes: The boxes found in a frame, in pixels.
        motions: The candidate tracks, by key.
        seconds: The frame's time.

    Returns:
        The key of a track for each box, ``None`` where none fits.
    """
    pairs: list[tuple[float, int, int]] = []
    for key, motion in motions.items():
        predicted, unseen = motion.predict(seconds), seconds - motion.seconds
        costs = ((_cost(predicted, box, unseen), index) for index, box in enumerate(boxes))
        pairs += [(cost, index, key) for cost, index in costs if cost is not None]
    matched: list[int | None] = [None] * len(boxes)
    taken: set[int] = set()
    for _, index, key in sorted(pairs):
        if matched[index] is None and key not in taken:
            matched[index] = key
            taken.add(key)
    return matched


def expired_tracks(
    motions: Mapping[int, Motion], seen: Collection[int], seconds: float, *, elapsed: float, forget: float
) -> list[int]:
    """Return the tracks that were not seen for too long, and update how long each was unseen.

    The time for which another face occludes a track does not count, up to three times ``forget`` in all.

    Args:
        motions: All tracks, by key.
        seen: Keys of the tracks seen in this frame.
        seconds: The frame's time.
        elapsed: Seconds since the last frame.
        forget: Seconds after which an unseen track expires.

    Returns:
        Keys of the expired tracks.
    """
    front = [motions[key].box for key in seen]
    expired = []
    for key, motion in motions.items():
        if key in seen:
            continue
        box = motion.predict(seconds)
        if sum(_shared_area(box, other) for other in front) < _OCCLUDED * box.width * box.height:
            motion.unseen += elapsed
        if motion.unseen > forget or seconds - motion.seconds > _OCCLUDED_PATIENCE * forget:
            expired.append(key)
    return expired


def _cost(predicted: Box, box: Box, unseen: float) -> float | None:
    """Cost, from 0, of assigning ``box`` to a track; ``None`` if they cannot match. ``unseen`` is in seconds."""
    narrow, wide = sorted((predicted.width, box.width))
    if narrow <= 0 or wide / narrow > _MAX_GROWTH + _GROWTH_PER_SECOND * unseen:
        return None
    distance = 2 * math.dist(center_of(predicted), center_of(box)) / (narrow + wide)
    if distance > _DISTANCE_LIMIT:  # nearly all pairs of a crowd
        return None
    overlap = iou(predicted, box)
    reach = min(_MAX_DISTANCE + _DISTANCE_PER_SECOND * unseen, _DISTANCE_LIMIT)
    return (1 - overlap) + distance if overlap >= _MIN_OVERLAP or distance <= reach else None


def iou(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes.

    Args:
        one: A box.
        other: Another box, in the same pixels.

    Returns:
        The ratio, 0..1.

    Example:
        >>> round(iou(Box(0, 0, 2, 1), Box(1, 0, 3, 1)), 3)
        0.333
    """
    shared = _shared_area(one, other)
    return shared / (one.width * one.height + other.width * other.height - shared) if shared else 0.0


def center_of(box: Box) -> Point:
    """Return the centre of a box.

    Args:
        box: The box in pixels.

    Returns:
        The centre ``(x, y)``.
    """
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


def _shared_area(one: Box, other: Box) -> float:
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    return width * height if width > 0 and height > 0 else 0.0
