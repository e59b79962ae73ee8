"""Ctrl-C while frames come: the frame that is being worked on is finished, so that every file stays whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopped_by_user(stop: Callable[[], None]) -> Iterator[threading.Event]:
    """Within the block the first Ctrl-C calls ``stop`` and sets the event; a second one interrupts as always."""
    pressed = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            signal.default_int_handler(number, frame)
        pressed.set()
        stop()

    if threading.current_thread() is not threading.main_thread():  # handlers belong to the main thread
        yield pressed
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
