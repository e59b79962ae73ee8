"""Run an iterator on a thread and buffer a bounded number of its items."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Generic, TypeVar

Item = TypeVar("Item")

_JOIN_SECONDS = 2.0  # limit, because the driver of a camera can hang


def run_in_thread(call: Callable[[], Item]) -> Item:
    """Run a function on a thread, so that Ctrl-C works while it waits for a network or a driver.

    Args:
        call: The function.

    Returns:
        Its result. Its exceptions are raised here.
    """
    with closing(Prefetcher((call() for _ in range(1)), capacity=1)) as prefetcher:
        return next(prefetcher)


class Prefetcher(Generic[Item]):
    """Iterator that runs another iterator on a thread, which starts at once.

    Exceptions of ``items`` are raised by ``next``, after the items before them.

    Args:
        items: The iterator. A generator is closed on the thread.
        capacity: Size of the buffer in items, at least 1.
        newest: If the buffer is full, drop its oldest item instead of pausing the thread. ``dropped`` counts these.

    Example:
        >>> list(Prefetcher(iter("abc"), capacity=2))
        ['a', 'b', 'c']
    """

    def __init__(self, items: Iterator[Item], *, capacity: int, newest: bool = False) -> None:
        self.dropped = 0
        self._items, self._capacity, self._newest = items, capacity, newest
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="mien-frames", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        with self._changed:
            # The timeout lets Ctrl-C through on every system while the thread waits for a camera.
            while not (self._waiting or self._ended or self._stopped):
                self._changed.wait(0.5)
            if self._waiting and not self._stopped:
                item = self._waiting.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None and not self._stopped:
                raise self._error
            raise StopIteration

    def stop(self) -> None:
        """End the iteration and discard waiting items. Does not wait for the thread, so signal handlers may call it."""
        with self._changed:  # reentrant: the signal may arrive while this thread holds it
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, and wait for the thread. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self.stop()
        self._thread.join(_JOIN_SECONDS)
        with self._changed:
            self._waiting.clear()

    def _run(self) -> None:
        try:
            for item in self._items:
                if not self._put(item):
                    break
        except BaseException as error:  # raised by __next__
            self._error = error
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: Item) -> bool:
        """Buffer an item; return False if the iteration was stopped."""
        with self._changed:
            while len(self._waiting) >= self._capacity and not self._stopped:
                if self._newest:
                    self._waiting.popleft()
                    self.dropped += 1
                else:
                    self._changed.wait()
            self._waiting.append(item)
            self._changed.notify_all()
            return not self._stopped
