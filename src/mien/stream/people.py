"""Everyone who is seen in a film: when, for how long, with which emotions. Bounded, however many people pass by."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from mien._emotions import Emotion
from mien.stream.curves import Curve
from mien.stream.records import Moment, TrackedFace
from mien.stream.thumbnails import Thumbnails

MOST_PEOPLE = 64  # kept with curve and thumbnails, about 200 kB each; beyond them the briefest are only counted
_LONGEST_STEP = 2.0  # seconds for which a frame stands at most: a camera may pause
_USUAL_STEP = 1 / 25  # seconds for which the only frame of a film stands
_REMEMBERED = 60.0  # seconds for which someone who is only counted is known again


@dataclass(eq=False)
class Person:
    """One face as long as it was followed: times in seconds, ``shares`` the seconds by emotion (``None``: unsure).

    The columns of ``curve`` are the probabilities, and in the last one 1 where the reader was unsure, else 0.
    """

    id: int
    first: float
    last: float
    curve: Curve
    seconds: float = 0.0
    shares: dict[Emotion | None, float] = field(default_factory=dict)
    thumbnails: Thumbnails = field(default_factory=Thumbnails)


class People:
    """Takes moments in their order. A frame stands until the next one comes, the last as long as the one before it."""

    def __init__(self) -> None:
        self.emotions: tuple[Emotion, ...] = ()
        self.count = 0
        self.merged = 0  # of them only counted
        self.merged_seconds = 0.0  # how long one of these was in sight, at most
        self._kept: dict[int, Person] = {}
        self._merged_at: dict[int, float] = {}
        self._standing: tuple[TrackedFace, ...] = ()
        self._at: float | None = None
        self._step = _USUAL_STEP

    def __iter__(self) -> Iterator[Person]:
        return iter(sorted(self._kept.values(), key=lambda person: person.id))

    def add(self, moment: Moment) -> list[tuple[Person, TrackedFace]]:
        """Take a moment; returns its faces beside the people whom they belong to, without those only counted."""
        if self._at is not None and moment.seconds > self._at:
            self._step = moment.seconds - self._at
            self._settle(moment.seconds)
        self._at = moment.seconds
        self._standing = moment.faces
        present = {face.id for face in moment.faces}
        found = [(self._person(face, moment.seconds, present), face) for face in moment.faces]
        return [(person, face) for person, face in found if person is not None]

    def finish(self) -> None:
        """Let the last moment stand for its time."""
        if self._at is not None:
            self._settle(self._at + self._step)
            self._standing = ()

    def _settle(self, until: float) -> None:
        """Give the time from the last moment on to the faces that stood in it."""
        start = self._at or 0.0
        end = min(until, start + _LONGEST_STEP)
        for face in self._standing:
            person = self._kept.get(face.id)
            if person is not None:
                person.last = end
                person.seconds += end - start
                person.shares[face.emotion] = person.shares.get(face.emotion, 0.0) + end - start
                person.curve.add(start, end, [*face.probs.values(), float(face.emotion is None)])

    def _person(self, face: TrackedFace, seconds: float, present: set[int]) -> Person | None:
        if face.id in self._kept:
            return self._kept[face.id]
        if face.id in self._merged_at:
            self._merged_at[face.id] = seconds
            return None
        self.count += 1
        self.emotions = self.emotions or tuple(face.probs)
        if len(self._kept) >= MOST_PEOPLE and not self._merge_briefest(seconds, present):
            self._merge(face.id, seconds, 0.0)
            return None
        person = Person(face.id, seconds, seconds, Curve(seconds, len(face.probs) + 1))
        self._kept[face.id] = person
        return person

    def _merge_briefest(self, seconds: float, present: set[int]) -> bool:
        """Make room by only counting the one seen for the shortest time of those not seen now, if there is any."""
        away = [person for person in self._kept.values() if person.id not in present]
        if not away:
            return False
        briefest = min(away, key=lambda person: person.seconds)
        del self._kept[briefest.id]
        self._merge(briefest.id, seconds, briefest.seconds)
        return True

    def _merge(self, number: int, seconds: float, duration: float) -> None:
        self.merged += 1
        self.merged_seconds = max(self.merged_seconds, duration)
        self._merged_at = {i: at for i, at in self._merged_at.items() if seconds - at < _REMEMBERED}
        self._merged_at[number] = seconds
