"""Readers in other processes: where threads wait for Python's lock, or an image may end the process."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import Any

from mien._errors import MienError, first_line
from mien._session import Session

_ENDED = (EOFError, OSError, ValueError, pickle.UnpicklingError)  # of the pipes of a process that has ended
_PATIENCE_SECONDS = 5.0  # in which a process ends before it is killed

Send = Callable[[object], None]


class EndedError(Exception):
    """A process has ended; the message says how."""


class ReaderProcess:
    """Another process with a reader, which answers what it is sent.

    Args:
        reader: What ``pickled`` returns.
        serve: The function that answers, as ``module:name``; it calls ``serve``.
        folder: The folder in which relative paths begin; ``None``: that of this process.
        path: Where Python looks for modules, after the places of this process; a detector may need them.

    Raises:
        MienError: It cannot open the reader.
        EndedError: It has ended.
    """

    def __init__(self, reader: bytes, serve: str, *, folder: str | None = None, path: Sequence[str] = ()) -> None:
        module, _, name = serve.partition(":")
        try:
            places = dict.fromkeys(os.path.abspath(place) for place in [*sys.path, *path])  # noqa: PTH100 ("" is one)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {module} import {name}; {name}()"],  # -P: no modules of the folder
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=folder,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
                start_new_session=True,  # Ctrl-C in a terminal is for the process that has started this one
            )
        except OSError as error:
            raise MienError(f"no other process can be started ({first_line(error)}); read with one") from error
        self.send(reader)
        reason = self.receive()
        if reason is not None:
            self.end()
            raise MienError(reason)

    def is_alive(self) -> bool:
        """Return whether the process has not ended."""
        return self._process.poll() is None

    def send(self, value: object) -> None:
        """Send a value.

        Args:
            value: The value; it can be pickled.

        Raises:
            EndedError: The process has ended.
        """
        try:
            _send(self._process.stdin, value)
        except _ENDED as error:
            raise EndedError(self.end()) from error

    def receive(self) -> Any:
        """Wait for an answer.

        Returns:
            The answer.

        Raises:
            EndedError: The process has ended.
        """
        try:
            return pickle.load(self._process.stdout)  # type: ignore[arg-type]
        except _ENDED as error:
            raise EndedError(self.end()) from error

    def kill(self) -> None:
        """Kill the process. Another thread may be waiting for its answer; ``end`` closes the pipes."""
        self._process.kill()

    def end(self) -> str:
        """End the process.

        Returns:
            How it ended.
        """
        process = self._process
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_SECONDS)
        process.kill()
        status = process.wait()
        return f"its process ended (signal {-status})" if status < 0 else f"its process ended (status {status})"


class ReaderPool(ThreadPoolExecutor):
    """Threads, each of which lets a process of its own read. ``shutdown`` ends the processes.

    Args:
        reader: The reader. In the processes, it has one thread.
        count: The number of processes.
        serve: The function that answers in them, as for ``ReaderProcess``.

    Raises:
        MienError: The reader cannot be sent to other processes.
    """

    def __init__(self, reader: Any, count: int, serve: str) -> None:
        self._start = partial(ReaderProcess, pickled(reader, threads=1), serve)
        self._processes: list[ReaderProcess] = []
        self._of_thread = threading.local()
        self._is_over = False
        super().__init__(count, thread_name_prefix="mien-decode")

    def ask(self, question: object) -> Any:
        """Send a question to the process of this thread, which is started if there is none.

        Args:
            question: A value that can be pickled.

        Returns:
            The answer.

        Raises:
            MienError: The reader has raised it, or the process does not start.
            EndedError: The process has ended.
        """
        process = getattr(self._of_thread, "process", None)
        if process is None:
            process = self._of_thread.process = self._start()
            self._processes.append(process)
            if self._is_over:
                process.kill()
        process.send(question)
        answer = process.receive()
        if isinstance(answer, MienError):
            raise answer
        return answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes and then the threads.

        Args:
            wait: Whether to wait for the threads, which may be reading a pipe.
            cancel_futures: Whether to leave out what has not begun.
        """
        self._is_over = True
        for process in self._processes:
            process.kill()
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
        for process in self._processes:
            process.end()


class _Pickler(pickle.Pickler):
    """Pickles readers; their models get another number of threads, if one is given."""

    threads: int | None = None

    def reducer_override(self, value: Any) -> Any:
        if self.threads is None or not isinstance(value, Session):
            return NotImplemented
        return partial(value.reopen, threads=self.threads), ()


def pickled(reader: Any, *, threads: int | None = None) -> bytes:
    """Return a reader as bytes, for another process.

    Args:
        reader: The reader.
        threads: Threads of its models there; ``None``: as many as here.

    Raises:
        MienError: It cannot be sent, because of its detector.
    """
    content = BytesIO()
    pickler = _Pickler(content)
    pickler.threads = threads
    try:
        pickler.dump(reader)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        reason = first_line(error)
        raise MienError(f"the reader cannot be sent to other processes ({reason}); change its detector") from error
    return content.getvalue()


def serve(answer: Callable[[Any, Any, Send], None]) -> None:
    """Open the reader that standard input brings, and answer what follows, until standard input ends.

    Args:
        answer: Called with the reader, what was sent, and a function that sends an answer.
    """
    commands, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    with suppress(EOFError, BrokenPipeError):  # the other process has ended
        try:
            reader = pickle.loads(pickle.load(commands))
        except (MienError, ImportError, AttributeError) as error:
            cure = "install the same on all machines"
            if "__main__" in str(error):
                cure = "define its detector in a module, not in the program"
            _send(results, f"a worker cannot open the reader ({first_line(error)}); {cure}")
            return
        _send(results, None)
        while True:
            answer(reader, pickle.load(commands), partial(_send, results))


def _send(stream: Any, value: object) -> None:
    pickle.dump(value, stream)
    stream.flush()
