"""The signals that end a command: Ctrl-C, SIGTERM (a service manager) and SIGHUP (a closed terminal)."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

Handler = Any  # as ``signal.signal`` takes and returns it

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_RETRY_SECONDS = 0.05
_GRACE_SECONDS = 5.0  # for a handler of Python, which runs between two calls of C
_interruptible = 0  # blocks of ``interruptible`` around what the main thread is doing
_stopped_by: int | None = None  # the first signal in the block of a ``GracefulStop``


def set_handlers(handler: Handler) -> dict[int, Handler]:
    """Handle the signals that end a command.

    Ignored signals stay ignored: ``nohup`` programs continue after their terminal is closed. Only the main thread can
    set handlers; on any other one nothing changes.

    Args:
        handler: The handler of all of these signals, as ``signal.signal`` takes it.

    Returns:
        The handlers before, by the number of the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    return before


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Set the handlers of these signals again that a library sets in the block.

    Yields:
        ``None``; the block runs.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: raise ``KeyboardInterrupt`` with its number, but never inside of an import.

    C modules turn an interrupt into an ``ImportError``, and Python's own import discards it with a traceback.

    Args:
        number: Number of the signal.
        frame: What is being executed.

    Raises:
        KeyboardInterrupt: Now, or soon if a module is being imported.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            retry = threading.Timer(_RETRY_SECONDS, signal.raise_signal, [number])
            retry.daemon = True
            retry.start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt(number)


def exit_status(error: KeyboardInterrupt) -> int:
    """Return the exit status of a program that a signal stopped, as shells count it.

    Args:
        error: The error of ``interrupt``; one without a number is taken for Ctrl-C.

    Returns:
        128 and the number of the signal: 130, 143 or 129.
    """
    return 128 + int((error.args or (signal.SIGINT,))[0])


@contextmanager
def interruptible() -> Iterator[None]:
    """In this block, the first signal interrupts at once also inside of a ``GracefulStop``.

    It is for work of which nothing is written yet, and which may take long or, as reading a pipe, for ever. So it does
    not begin either after a signal. Only the main thread handles signals: on any other one nothing changes.

    Yields:
        ``None``; the block runs.

    Raises:
        KeyboardInterrupt: A signal came before the block, or in it.
    """
    global _interruptible
    is_main = threading.current_thread() is threading.main_thread()
    _interruptible += is_main
    try:
        if is_main and _stopped_by is not None:
            raise KeyboardInterrupt(_stopped_by)
        yield
    finally:
        _interruptible -= is_main


@contextmanager
def ending_while_waiting() -> Iterator[None]:
    """In this block, a signal ends the process soon, also where it waits in C for another process.

    Python runs its handlers after the call, which may wait for minutes. So a thread waits some seconds for the block to
    end, then prints a line and ends the process. It is for work of which nothing is lost. Only the main thread handles
    signals: on any other one nothing changes.

    Yields:
        ``None``; the block runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_over = threading.Event()

    def watch() -> None:
        while number := reader.recv(1):
            if number[0] in _SIGNALS and not is_over.wait(_GRACE_SECONDS):
                sys.stderr.write("mien: stopped while it waited for another process\n")
                os._exit(128 + number[0])

    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)  # as Python requires
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            is_over.set()
            writer.shutdown(socket.SHUT_WR)
            watcher.join()


class GracefulStop:
    """A context manager: the first signal in its block ends the input, a second one interrupts at once.

    So a run that is stopped completes the files that it has begun, and all of them agree.

    Args:
        stop: Called on the first signal, by its handler.
    """

    def __init__(self, stop: Callable[[], None] = lambda: None) -> None:
        self._stop = stop
        self._number: int | None = None

    def __enter__(self) -> Self:
        self._before = set_handlers(self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        global _stopped_by
        _stopped_by = None
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def error(self) -> KeyboardInterrupt | None:
        """The interruption by the first signal; ``None`` if there was no signal."""
        return None if self._number is None else KeyboardInterrupt(self._number)

    def until_stopped(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield items until the first signal.

        Args:
            items: The input of the run.

        Yields:
            The items.
        """
        for item in items:
            if self._number is not None:
                return
            yield item

    def _handle(self, number: int, frame: FrameType | None) -> None:
        global _stopped_by
        if self._number is not None or _interruptible:
            interrupt(number, frame)
            return  # inside of an import: the signal comes again
        self._number = _stopped_by = number
        self._stop()
