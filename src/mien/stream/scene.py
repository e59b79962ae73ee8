"""Pictures -> where a film cuts: the whole picture changes at once, and so do the faces in it."""

import numpy as np
from numpy.typing import NDArray

_ROWS, _COLUMNS = 36, 64  # places of a frame that are looked at
_LEAST_CHANGE = 18.0  # of 255, mean over these places: moving cameras stay below it from frame to frame
_LARGE_CHANGE = 30.0  # the same, where the colours stay: another place in the same room
_LEAST_REPAINTED = 0.15  # share of the places whose colour was not there before: what moves takes its colours along
_LONGEST_STEP = 0.25  # seconds; over a longer time, people may do what looks like a cut
# Correlation of two crops. Of 20,503 pairs of different people 4 % lie above it; in two films of one person, 1 % of
# neighbouring frames below.
_SAME_PERSON = 0.6

Values = NDArray[np.float64]


class Scene:
    """Tells for each frame whether a cut lies before it. Lights that go on look like a cut too: ask ``alike``."""

    def __init__(self) -> None:
        self._before: tuple[NDArray[np.int16], Values] | None = None
        self._seconds = 0.0

    def cuts(self, pixels: NDArray[np.uint8], seconds: float) -> bool:
        """Whether the RGB uint8 ``[H, W, 3]`` frame at ``seconds`` shows another picture than the one before."""
        height, width = pixels.shape[:2]
        places = pixels[:: max(1, height // _ROWS), :: max(1, width // _COLUMNS)].astype(np.int16)
        colors = np.bincount(((places >> 6) @ np.array([16, 4, 1])).ravel(), minlength=64) / places[..., 0].size
        before, elapsed = self._before, seconds - self._seconds
        self._before, self._seconds = (places, colors), seconds
        if before is None or before[0].shape != places.shape or elapsed > _LONGEST_STEP:
            return False
        change = float(np.abs(places - before[0]).mean())
        repainted = float(np.abs(colors - before[1]).sum() / 2)
        return change >= _LARGE_CHANGE or (change >= _LEAST_CHANGE and repainted >= _LEAST_REPAINTED)


def alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Whether two crops of faces, a moment apart, may show the same person, whatever the light."""
    a, b = (crop.astype(np.float64) - crop.mean() for crop in (one, other))
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return norm > 0 and float((a * b).sum()) / norm >= _SAME_PERSON
