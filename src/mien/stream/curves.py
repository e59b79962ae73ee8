"""The probabilities of one person over time, in bounded memory: bins that double their length when they are full."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_BINS = 2048  # kept of one person: more than a page has pixels
_FIRST_BIN = 0.1  # seconds; about three frames of a film, so that a bin is never empty by chance
_FIRST_ROOM = 64  # bins; most people are seen for seconds


class Samples(NamedTuple):
    """A curve at even steps: sample ``i`` covers ``start + i * step`` to ``start + (i + 1) * step``, in seconds.

    ``means`` is float64 ``[N, C]``, the mean probabilities of each step, and NaN where the person was away.
    """

    start: float
    step: float
    means: NDArray[np.float64]

    @property
    def end(self) -> float:
        """Seconds at which the last sample ends."""
        return self.start + self.step * len(self.means)


class Curve:
    """Mean probabilities by bin, weighted with the time for which they held."""

    def __init__(self, start: float, classes: int) -> None:
        """``start`` in seconds is where the first bin begins; ``classes`` is how many probabilities come at a time."""
        self.start = start
        self.bin_seconds = _FIRST_BIN
        self._sums = np.zeros((_FIRST_ROOM, classes))
        self._weights = np.zeros(_FIRST_ROOM)  # seconds
        self._used = 0

    def add(self, start: float, end: float, probs: Sequence[float]) -> None:
        """Note that ``probs`` held from ``start`` to ``end``, in seconds; ``start`` never before the curve's."""
        if end <= start:
            return
        self._make_room(end)
        at = start
        index = int((start - self.start) / self.bin_seconds)
        while at < end:
            until = min(end, self.start + (index + 1) * self.bin_seconds)
            self._sums[index] += np.multiply(probs, max(0.0, until - at))
            self._weights[index] += max(0.0, until - at)
            at, index = max(at, until), index + 1
        self._used = max(self._used, index)

    def samples(self, most: int) -> Samples:
        """The curve in at most ``most`` steps, neighbours merged."""
        merged = max(1, -(-self._used // most))
        count = -(-self._used // merged)
        sums = np.zeros((count * merged, self._sums.shape[1]))
        weights = np.zeros(count * merged)
        sums[: self._used], weights[: self._used] = self._sums[: self._used], self._weights[: self._used]
        weight = weights.reshape(count, merged).sum(axis=1)
        mean = sums.reshape(count, merged, sums.shape[1]).sum(axis=1) / np.where(weight > 0, weight, np.nan)[:, None]
        return Samples(self.start, self.bin_seconds * merged, mean)

    def _make_room(self, end: float) -> None:
        """Bins up to ``end``: more of them, and once there are too many, half as many twice as long."""
        while (end - self.start) / self.bin_seconds >= MOST_BINS - 1:
            self._sums = _with_room(self._sums, MOST_BINS).reshape(MOST_BINS // 2, 2, -1).sum(axis=1)
            self._weights = _with_room(self._weights, MOST_BINS).reshape(-1, 2).sum(axis=1)
            self._used = -(-self._used // 2)
            self.bin_seconds *= 2
        needed = int((end - self.start) / self.bin_seconds) + 2
        if needed > len(self._weights):
            room = min(MOST_BINS, max(needed, 2 * len(self._weights)))
            self._sums, self._weights = _with_room(self._sums, room), _with_room(self._weights, room)


def _with_room(values: NDArray[np.float64], room: int) -> NDArray[np.float64]:
    padded = np.zeros((room, *values.shape[1:]))
    padded[: len(values)] = values
    return padded
