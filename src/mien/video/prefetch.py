"""Ahead: an iterator that runs on a thread of its own, with a bounded number of its items waiting."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_JOIN_SECONDS = 2.0  # a camera that hangs inside of its driver must not keep the program from ending


def aside(call: Callable[[], Answer]) -> Answer:
    """What ``call`` answers, from a thread: so that Ctrl-C is heard while it hangs in the network or in a driver."""
    waiting = Ahead((call() for _ in range(1)), room=1)
    try:
        return next(waiting)
    finally:
        waiting.close()


class Ahead(Generic[Item]):
    """Runs ``items`` on a thread and gives them out in their order.

    Where ``newest`` is set, nobody waits for the reader: an item that finds no room takes the place of the oldest, and
    ``dropped`` counts those that are lost so. Else the thread waits for room. What ``items`` raises is raised by
    ``next``, after the items before it. ``close`` ends the thread, also in the middle.
    """

    def __init__(self, items: Iterator[Item], *, room: int, newest: bool = False) -> None:
        """``room`` is how many items may wait, at least 1. The thread starts at once."""
        self.dropped = 0
        self._items, self._room, self._newest = items, room, newest
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mien-frames", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        with self._changed:
            # A time limit, so that Ctrl-C is heard on every system while the thread waits for a camera.
            while not (self._waiting or self._ended or self._closed):
                self._changed.wait(0.5)
            if self._waiting and not self._closed:
                item = self._waiting.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None and not self._closed:
                raise self._error
            raise StopIteration

    def stop(self) -> None:
        """End the iteration; items that wait are lost. Does not wait for the thread, so that a signal may call it."""
        with self._changed:  # reentrant: the signal may come while this very thread holds it
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        """``stop``, and wait for the thread. Safe to call twice."""
        if self._closing:
            return
        self._closing = True
        self.stop()
        self._thread.join(_JOIN_SECONDS)
        with self._changed:
            self._waiting.clear()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as error:  # whatever it is belongs to the one who reads
            self._error = error
        finally:
            close = getattr(self._items, "close", None)  # a generator's `finally` runs on this thread
            if close is not None:
                close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: Item) -> bool:
        """Whether anybody still wants items."""
        with self._changed:
            while len(self._waiting) >= self._room and not self._closed:
                if self._newest:
                    self._waiting.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            self._waiting.append(item)
            self._changed.notify_all()
            return not self._closed
