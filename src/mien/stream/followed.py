"""What is known of one followed face besides its place: whether it is a face at all, its filter, its last reading."""

from dataclasses import replace

import numpy as np

from mien._face import Box, Face
from mien.stream.records import TrackedFace
from mien.stream.smooth import Smoother

_SURE_SCORE = 0.8  # a new face that scores so is one; any other must show that it is
_PROVES_FOR = 0.25  # seconds; so long it must be found, with
_PROVES_SHARE = 0.95  # of its first score on average: what passes for a face at one moment seldom keeps doing so
_HOLDS_FOR = 0.2  # seconds; a face that the detector misses so long is still reported, where it should be


class Followed:
    """One followed face. ``number`` is the id that people see; 0 as long as it may be something else than a face."""

    def __init__(self, face: Face, seconds: float, *, time_constant: float) -> None:
        """``face`` is the first reading, at ``seconds``; ``time_constant`` (seconds) is that of its probabilities."""
        self.number = 0
        self.last = face
        self._since = seconds
        self._scores: list[float] = []
        self._smoother = Smoother(time_constant)
        self._reported: TrackedFace | None = None

    def add(self, face: Face, seconds: float) -> None:
        """The reading of one more frame."""
        self._smoother(np.array(list(face.probs.values())), seconds)
        if not self.number:
            self._scores.append(face.score)
        self.last = face

    def proves(self, seconds: float) -> bool | None:
        """Whether it is a face: yes, no, or ``None`` where that is still open."""
        if self.last.score >= _SURE_SCORE:
            return True
        if seconds - self._since < _PROVES_FOR:
            return None
        return float(np.mean(self._scores)) >= _PROVES_SHARE * self._scores[0]

    def report(self, box: Box, *, abstain: float) -> TrackedFace:
        """The face as it is in this frame, in its steady ``box``; unsure below the probability ``abstain``."""
        probs = self._smoother.value
        best = int(probs.argmax())
        confidence, emotions = float(probs[best]), tuple(self.last.probs)
        emotion = emotions[best] if confidence >= abstain else None
        smoothed = dict(zip(emotions, probs.tolist(), strict=True))
        self._reported = TrackedFace(self.number, self.last, smoothed, emotion, confidence, box)
        return self._reported

    def hold(self, box: Box, *, missed_for: float) -> TrackedFace | None:
        """The face as it was reported last, in ``box``, where the detector has not missed it for too long (seconds)."""
        if self._reported is None or missed_for > _HOLDS_FOR:
            return None
        return replace(self._reported, box=box, seen=False)
