"""Tracker: search or look, follow, read and smooth, for one frame after another."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mien._errors import ImageError, MienError
from mien._face import Detection, Face
from mien.pipeline import Reader
from mien.stream.follow import Follower
from mien.stream.followed import Followed
from mien.stream.look import distinct, look
from mien.stream.records import Moment, TrackedFace
from mien.stream.scene import Scene, alike

_ALONE = 0.25  # seconds; frames further apart than this are single pictures: nobody can show himself over several

Found = list[tuple[int, Detection]]
Seen = list[tuple[int, Face]]


class Tracker:
    """Follows the faces of one film or camera: give it the frames in their order. One tracker, one film, one thread."""

    def __init__(self, reader: Reader, *, every: int = 3, smooth: float = 0.5, forget: float = 1.0) -> None:
        """``reader`` finds and reads the faces; several trackers may share it.

        The whole picture is searched on each ``every``-th frame, after a cut, and when a face is lost. On the others
        the detector only looks where faces are expected from their motion. ``smooth`` is the time constant in seconds
        of the smoothed probabilities, 0 leaves them as they are. A face that was not seen for more than ``forget``
        seconds is given up, and a new one when it comes back; behind another face it is waited for thrice as long.

        Raises ``MienError`` for a number out of its range.
        """
        if every < 1:
            raise MienError(f"every counts from 1 (each frame is searched), not {every}")
        if not (math.isfinite(smooth) and smooth >= 0 and math.isfinite(forget) and forget >= 0):
            raise MienError(f"smooth and forget are seconds from 0, not {smooth} and {forget}")
        self.reader = reader
        self._every, self._smooth, self._forget = every, smooth, forget
        # Without a detector each picture is one face: there is nothing to look for around it.
        self._looks = getattr(reader.detector, "name", "") != "none"  # a plain function may find faces, too
        self._follower, self._scene = Follower(), Scene()
        self._people: dict[int, Followed] = {}  # by the keys of the follower's paths
        self._index = self._searched_ago = self._last_number = 0
        self._seconds = -math.inf
        self._size_wh = (0, 0)

    def step(self, pixels: NDArray[np.uint8], seconds: float) -> Moment:
        """The faces of the next frame: ``pixels`` RGB uint8 ``[H, W, 3]``, ``seconds`` its presentation time.

        Raises ``ImageError`` for another array, ``MienError`` where ``seconds`` falls.
        """
        self._check(pixels, seconds)
        cut = self._scene.cuts(pixels, seconds) or self._resized(pixels)
        found, new = self._find(pixels, seconds, searching=cut)
        faces = self.reader.read_at(pixels, [detection for _, detection in found] + new)
        seen = [(key, face) for (key, _), face in zip(found, faces, strict=False)]
        if cut:
            seen = self._after_cut(seen, seconds)
        seen += [(self._start(face, seconds), face) for face in faces[len(found) :]]
        self._learn(seen, seconds, at_once=cut or seconds - self._seconds > _ALONE)
        self._give_up(self._unseen({key for key, _ in seen}, seconds))
        moment = Moment(self._index, seconds, self._size_wh, self._report({key for key, _ in seen}, seconds))
        self._index, self._seconds = self._index + 1, seconds
        return moment

    def _check(self, pixels: NDArray[np.uint8], seconds: float) -> None:
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ImageError(f"a frame is RGB uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
        if not seconds >= self._seconds or not math.isfinite(seconds):
            raise MienError(f"frames come in their order: {seconds} s cannot follow {self._seconds} s")

    def _resized(self, pixels: NDArray[np.uint8]) -> bool:
        """Whether the frame has another size than the last; places of before then mean nothing, and are given up."""
        before, self._size_wh = self._size_wh, (pixels.shape[1], pixels.shape[0])
        if before == self._size_wh:
            return False
        self._give_up(list(self._people))
        return True

    def _find(self, pixels: NDArray[np.uint8], seconds: float, *, searching: bool) -> tuple[Found, list[Detection]]:
        """The faces that are followed, with their places, and the places of new ones."""
        expected = {key for key, path in self._follower.paths.items() if path.seconds == self._seconds and self._looks}
        found = self._look(pixels, seconds, expected)
        self._searched_ago += 1
        lost = len(found) < len(expected)
        if not (searching or lost or self._searched_ago >= self._every or not self._looks):
            return found, []
        self._searched_ago = 0
        places = distinct(self.reader.detector(pixels), [detection for _, detection in found])
        again = self._match(places, seconds, set(self._follower.paths) - {key for key, _ in found})
        known = [id(detection) for _, detection in again]
        return found + again, [place for place in places if id(place) not in known]

    def _look(self, pixels: NDArray[np.uint8], seconds: float, expected: set[int]) -> Found:
        boxes = [self._follower.paths[key].predict(seconds) for key in expected]
        around = [detection for box in boxes for detection in look(self.reader.detector, pixels, box)]
        return self._match(distinct(around), seconds, expected)

    def _match(self, places: Sequence[Detection], seconds: float, among: set[int]) -> Found:
        keys = self._follower.match([place.box for place in places], seconds, among=among)
        return [(key, place) for key, place in zip(keys, places, strict=True) if key is not None]

    def _after_cut(self, seen: Seen, seconds: float) -> Seen:
        """After a cut, a face in the same place is the same person only when it looks like it; nobody else is kept."""
        kept = [(key, face) for key, face in seen if alike(self._people[key].last.crop, face.crop)]
        same = {key for key, _ in kept}
        self._give_up([key for key in self._people if key not in same])
        return kept + [(self._start(face, seconds), face) for key, face in seen if key not in same]

    def _start(self, face: Face, seconds: float) -> int:
        key = self._follower.start(face.box, seconds)
        self._people[key] = Followed(face, seconds, time_constant=self._smooth)
        return key

    def _give_up(self, keys: Iterable[int]) -> None:
        gone = set(keys)
        self._follower.drop(gone)
        self._people = {key: person for key, person in self._people.items() if key not in gone}

    def _learn(self, seen: Seen, seconds: float, *, at_once: bool) -> None:
        """Tell paths and people what was seen; those that have shown that they are faces get their numbers."""
        for key, face in seen:
            person = self._people[key]
            self._follower.paths[key].update(face.box, seconds)
            person.add(face, seconds)
            proven = at_once or person.number > 0 or person.proves(seconds)
            if proven is False:
                self._give_up([key])
            elif proven and not person.number:
                self._last_number += 1
                person.number = self._last_number

    def _unseen(self, seen: set[int], seconds: float) -> list[int]:
        """Who is given up: not seen for too long. What has not shown yet that it is a face is not waited for."""
        elapsed = max(0.0, seconds - self._seconds) if self._index else 0.0
        blinks = [key for key, person in self._people.items() if not person.number and key not in seen]
        here = seen & self._people.keys()
        return blinks + self._follower.wait(here, seconds, elapsed=elapsed, forget=self._forget)

    def _report(self, seen: set[int], seconds: float) -> tuple[TrackedFace, ...]:
        """Everybody who is seen, and those who are missed for a moment, by their numbers."""
        faces = []
        for key, person in self._people.items():
            path = self._follower.paths[key]
            if person.number and key in seen:
                faces.append(person.report(path.steady, abstain=self.reader.abstain))
            elif (held := person.hold(path.predict_steady(seconds), missed_for=seconds - path.seconds)) is not None:
                faces.append(held)
        return tuple(sorted(faces, key=lambda face: face.id))
