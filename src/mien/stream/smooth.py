"""Values over time -> smoothed values: an exponential filter with a time constant in seconds."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
