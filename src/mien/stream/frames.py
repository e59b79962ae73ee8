"""Frames: what every source of pictures has in common. Its pictures are made ahead on a thread and counted."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mien._errors import SourceError
from mien.stream.ahead import Ahead
from mien.stream.records import Frame

_AHEAD = 4  # frames decoded before they are asked for: evens out key frames, 11 MB at 1280x720

Timed = tuple[float, NDArray[np.uint8]]


class Frames(ABC):
    """The frames of one source, to be gone through once: ``with open_source(...) as frames: for frame in frames``.

    ``name`` is what messages call it. A ``live`` source gives its newest frame and drops those that nobody fetched in
    time; any other gives all of them. ``count`` is how many frames there will be and ``rate`` how many there are a
    second, where the source says so. ``skipped`` counts broken frames, ``note`` tells what else a reader should know.
    """

    live = False

    def __init__(self, name: str, *, count: int | None = None, rate: float | None = None) -> None:
        self.name = name
        self.count = count
        self.rate = rate
        self.skipped = 0
        self.note: str | None = None
        self._ahead: Ahead[Timed] | None = None
        self._stopped = False

    @property
    def dropped(self) -> int:
        """Frames of a live source that were lost because newer ones came before they were fetched."""
        return 0 if self._ahead is None else self._ahead.dropped

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once. Raises ``SourceError`` where the source breaks off or none of its frames can be read."""
        if self._ahead is not None:
            raise SourceError(f"{self.name}: its frames were read already; open it again")
        self._ahead = Ahead(self._read_whole(), room=1 if self.live else _AHEAD, newest=self.live)
        if self._stopped:
            self._ahead.stop()
        try:
            for index, (seconds, pixels) in enumerate(self._ahead):
                yield Frame(index, seconds, pixels)
        finally:
            self.close()

    def stop(self) -> None:
        """Let the iteration end with the frame that it is at, or before its first; a signal may call it."""
        self._stopped = True
        if self._ahead is not None:
            self._ahead.stop()

    def close(self) -> None:
        """End reading and let go of file or camera. Safe to call twice."""
        if self._ahead is not None:
            self._ahead.close()
        else:
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read_whole(self) -> Iterator[Timed]:
        # The thread that reads is the one that closes: it may be in the middle of a file or of a camera's driver.
        try:
            yield from self._read()
        finally:
            self._let_go()

    def _let_go(self) -> None:  # noqa: B027 (a folder has nothing open)
        """Close file or camera."""

    @abstractmethod
    def _read(self) -> Iterator[Timed]:
        """Seconds, never falling, and read-only pixels of each frame. Runs on the thread."""
