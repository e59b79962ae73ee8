"""Ctrl-C, or being told to end, while frames come: the frame at work is finished, so that every file stays whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, a service manager, a terminal that is closed


class Stopped(KeyboardInterrupt):
    """The end that a signal asked for."""

    def __init__(self, number: int) -> None:
        """``number`` is the signal's."""
        super().__init__()
        self.status = 128 + number  # as shells count


class Stop:
    """Which signal asked for the end, if any did."""

    number: int | None = None

    def error(self) -> BaseException | None:
        """What to raise for it when all is written, with the exit status of the signal."""
        return None if self.number is None else Stopped(self.number)


@contextmanager
def stopped_by_user(stop: Callable[[], None]) -> Iterator[Stop]:
    """Within the block the first such signal calls ``stop`` and is noted; a second one interrupts as Ctrl-C does."""
    asked = Stop()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if asked.number is not None:
            signal.default_int_handler(number, frame)
        asked.number = number
        stop()

    if threading.current_thread() is not threading.main_thread():  # handlers belong to the main thread
        yield asked
        return
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    # What is ignored stays so: `nohup mien track ...` goes on when the terminal is closed.
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, interrupt)
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
