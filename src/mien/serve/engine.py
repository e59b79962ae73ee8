"""From bytes to readings: a bounded queue, threads that decode and detect, and the batcher behind them."""

import io
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from mien._face import Reading
from mien.decode import decode
from mien.pipeline import Prepared, Reader
from mien.serve.batcher import Batcher, Classified
from mien.serve.limits import Limits
from mien.serve.metrics import Metrics
from mien.serve.problems import Problem

_T = TypeVar("_T")
_SMOOTH = 0.05  # weight of the newest picture in the mean time that Retry-After is made of


@dataclass(frozen=True, eq=False)
class Sent:
    """A picture as it arrived: its file's bytes, and the name that messages call it by."""

    name: str
    data: bytes


@dataclass(frozen=True, eq=False)
class Read:
    """A picture that was read, and the seconds that each stage took: wait, decode, detect, classify."""

    reading: Reading
    seconds: dict[str, float]


class Engine:
    """Reads pictures, at most ``limits.queue`` of them at a time. Its calls return at once: nothing blocks the loop."""

    def __init__(
        self, reader: Reader, *, threads: int, limits: Limits, metrics: Metrics, batch_wait: float = 0.0
    ) -> None:
        """``threads`` pictures are decoded and searched side by side; ``batch_wait`` in seconds (see ``Batcher``)."""
        self.reader = reader
        self.limits = limits
        self.threads = threads
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mien-read")
        self._batcher = Batcher(reader.classify, metrics=metrics, wait=batch_wait)
        self._lock = threading.Lock()
        self._accepted = 0
        self._mean = 0.05  # seconds of a picture in its thread

    @property
    def accepted(self) -> int:
        """Pictures that are accepted and not yet done."""
        return self._accepted

    def check(self) -> None:
        """Raises the ``Problem`` 503 when the queue is full: said before a body is read, it spares the upload."""
        if self._accepted >= self.limits.queue:
            raise self._busy()

    def read(self, pictures: list[Sent], *, keep_pixels: bool = False) -> "list[Future[Read]]":
        """A future for each picture, all accepted or none. Raises the ``Problem`` 503 when they do not fit.

        A future that is cancelled before its turn costs nothing more.
        """
        self._accept(len(pictures))
        jobs = [_Job(sent, keep_pixels, time.perf_counter()) for sent in pictures]
        for job in jobs:
            job.future.add_done_callback(self._release)
            job.future.add_done_callback(job.forget)  # cancelled, it still stands in the pool's line
            self._pool.submit(self._prepare, job)
        return [job.future for job in jobs]

    def run(self, work: Callable[[], _T]) -> "Future[_T]":
        """Do ``work`` in one of the threads; it counts as a picture. Raises the ``Problem`` 503 as ``read``."""
        self._accept(1)
        future = self._pool.submit(work)
        future.add_done_callback(self._release)
        return future

    def close(self) -> None:
        """Finish what is accepted, then end the threads."""
        self._pool.shutdown()
        self._batcher.close()

    def give_up(self) -> None:
        """Drop what has not begun, without waiting for what has."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _accept(self, count: int) -> None:
        with self._lock:
            if self._accepted + count > self.limits.queue:
                raise self._busy()
            self._accepted += count
        self._metrics.queue.inc(count)

    def _release(self, _: "Future[_T]") -> None:
        with self._lock:
            self._accepted -= 1
        self._metrics.queue.dec()

    def _busy(self) -> Problem:
        seconds = max(1, math.ceil(self._accepted * self._mean / self.threads))
        detail = f"the queue is full ({self._accepted} of {self.limits.queue} pictures); try again in {seconds} s"
        return Problem(503, detail, headers={"Retry-After": str(seconds)})

    def _prepare(self, job: "_Job") -> None:
        """The first half of a picture's way, in a thread of the pool."""
        if not job.future.set_running_or_notify_cancel():
            return
        started = time.perf_counter()
        job.note("wait", started - job.arrived)
        try:
            prepared = self._find(job, started)
            self._batcher.submit(prepared).add_done_callback(lambda done: self._finish(job, done))
        except Exception as error:  # a picture's own error, or whatever else: the request must hear of it
            self._metrics.unread.inc()
            job.future.set_exception(error)
        self._mean += _SMOOTH * (time.perf_counter() - started - self._mean)

    def _find(self, job: "_Job", started: float) -> Prepared:
        picture = decode(job.take(), max_bytes=self.limits.max_bytes, max_pixels=self.limits.max_pixels)
        decoded = time.perf_counter()
        job.note("decode", decoded - started)
        prepared = self.reader.prepare(picture, keep_pixels=job.keep_pixels)
        job.note("detect", time.perf_counter() - decoded)
        return prepared

    def _finish(self, job: "_Job", done: "Future[Classified]") -> None:
        """The second half, in the batcher's thread."""
        error = done.exception()
        if error is not None:
            self._metrics.unread.inc()
            job.future.set_exception(error)
            return
        classified = done.result()
        job.note("classify", classified.seconds)
        for stage, seconds in job.seconds.items():
            self._metrics.stages[stage].observe(seconds)
        self._metrics.read.inc()
        self._metrics.faces.inc(len(classified.reading.faces))
        job.future.set_result(Read(classified.reading, job.seconds))


class _Job:
    """A picture on its way through the engine."""

    def __init__(self, sent: Sent, keep_pixels: bool, arrived: float) -> None:
        self.keep_pixels = keep_pixels
        self.arrived = arrived
        self.future: Future[Read] = Future()
        self.seconds: dict[str, float] = {}
        self._sent: Sent | None = sent

    def take(self) -> "Named":
        """The bytes as a stream with a name. The job lets go of them: decoded, they are not needed any more."""
        assert self._sent is not None
        sent, self._sent = self._sent, None
        return Named(sent)

    def forget(self, _: object) -> None:
        """Let go of the bytes."""
        self._sent = None

    def note(self, stage: str, seconds: float) -> None:
        """Keep how long ``stage`` took."""
        self.seconds[stage] = seconds


class Named(io.BytesIO):
    """Bytes as a stream that has a name, which is what errors and readings call it."""

    def __init__(self, sent: Sent) -> None:
        """``sent`` is not copied."""
        super().__init__(sent.data)
        self.name = sent.name
