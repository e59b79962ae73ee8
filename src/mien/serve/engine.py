"""From bytes to readings: a bounded queue, threads that decode and detect, and the batcher behind them."""

import io
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from mien._errors import MienError
from mien._face import Reading
from mien.decode import decode
from mien.infer import CHUNK
from mien.reader import Prepared, Reader
from mien.serve.problems import Problem

# Seconds: from a tiny crop to a crowd in a large photograph behind a full queue.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


_CROPS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one server, in a registry of its own: several servers in one process do not mix."""

    def __init__(self) -> None:
        """Everything starts at 0."""
        self.registry = own = CollectorRegistry()
        self.requests = Counter("mien_requests", "Requests answered.", ("path", "status"), registry=own)
        self.seconds = Histogram(
            "mien_request_seconds", "From a request's head to its answer.", ("path",), buckets=_SECONDS, registry=own
        )
        stages = Histogram(
            "mien_stage_seconds",
            "Time of a picture by stage; receive counts requests.",
            ("stage",),
            buckets=_SECONDS,
            registry=own,
        )
        self.stages = {stage: stages.labels(stage) for stage in ("receive", "wait", "decode", "detect", "classify")}
        self.batches = Histogram("mien_batch_crops", "Crops classified together.", buckets=_CROPS, registry=own)
        self.queue = Gauge("mien_queue_pictures", "Pictures accepted and not yet answered.", registry=own)
        self.held = Gauge("mien_held_bytes", "Bytes of request bodies in memory.", registry=own)
        pictures = Counter("mien_pictures", "Pictures, by whether they could be read.", ("result",), registry=own)
        self.read, self.unread = pictures.labels("read"), pictures.labels("error")
        self.faces = Counter("mien_faces", "Faces read in pictures and frames.", registry=own)
        frames = Counter("mien_frames", "Frames of streams.", ("result",), registry=own)
        self.frames = {result: frames.labels(result) for result in ("read", "dropped", "error")}
        self.streams = Gauge("mien_streams", "Streams open now.", registry=own)
        ProcessCollector(registry=own)

    def to_text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


Classify = Callable[[Sequence[Prepared]], Sequence[Reading]]


@dataclass(frozen=True, eq=False)
class Classified:
    """A picture's reading, and how many seconds the batch took that it was in."""

    reading: Reading
    seconds: float


class Batcher:
    """Takes prepared pictures and classifies all that wait, in batches of about 64 crops.

    While one batch is classified the next one gathers: no waiting is needed for that. ``wait`` (seconds) makes a batch
    wait for more crops on purpose; it is off because on a processor a crop in a batch of 64 takes only a tenth less
    time than alone, and a picture spends twenty times as long in the detector.
    """

    def __init__(self, classify: Classify, *, metrics: Metrics, wait: float = 0.0) -> None:
        """Starts the thread; ``close`` ends it."""
        self._classify = classify
        self._metrics = metrics
        self._wait = wait
        self._waiting: deque[tuple[Prepared, Future[Classified]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="mien-classify", daemon=True)
        self._thread.start()

    def submit(self, prepared: Prepared) -> "Future[Classified]":
        """The reading of ``prepared``, when its batch is done."""
        future: Future[Classified] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append((prepared, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Classify what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take():
            started = time.perf_counter()
            try:
                readings = self._classify([prepared for prepared, _ in batch])
            except Exception as error:  # whatever it is, the requests of this batch must hear of it
                for _, future in batch:
                    future.set_exception(error)
                continue
            seconds = time.perf_counter() - started
            self._metrics.batches.observe(sum(len(prepared.detections) for prepared, _ in batch))
            for (_, future), reading in zip(batch, readings, strict=True):
                future.set_result(Classified(reading, seconds))
            del batch, readings, future, reading  # nothing of a picture stays while the thread sleeps

    def _take(self) -> list[tuple[Prepared, "Future[Classified]"]]:
        """All that waits, up to the chunk that the classifier takes at once; nothing when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._wait:
                self._changed.wait_for(lambda: self._closed or self._crops() >= CHUNK, self._wait)
            batch: list[tuple[Prepared, Future[Classified]]] = []
            crops = 0
            while self._waiting and crops < CHUNK:
                batch.append(self._waiting.popleft())
                crops += len(batch[-1][0].detections)
            return batch

    def _crops(self) -> int:
        return sum(len(prepared.detections) for prepared, _ in self._waiting)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the server. Raises ``MienError`` that names the option, for a bound that lets nothing through."""

    max_bytes: int = 32 * 2**20
    """Bytes of a request's body, and of one frame of a stream."""
    max_pixels: int = 50_000_000
    """Width x height of a picture; three bytes each while it is read."""
    max_images: int = 16
    """Pictures of one request."""
    timeout: float = 30.0
    """Seconds in which a request must have arrived, and again in which it must be answered."""
    queue: int = 128
    """Pictures that are accepted and not yet answered; beyond them the answer is 503."""
    streams: int = 8
    """Streams open at the same time."""
    idle: float = 60.0
    """Seconds without a frame after which a stream is closed."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_images", "queue"):
            if getattr(self, name) < 1:
                raise MienError(f"--{name.replace('_', '-')} counts from 1, not {getattr(self, name)}")
        for name in ("timeout", "idle"):
            if not 0 < getattr(self, name) < float("inf"):
                raise MienError(f"--{name} is a number of seconds above 0, not {getattr(self, name)}")
        if self.streams < 0:
            raise MienError(f"--streams counts from 0, not {self.streams}")
        if self.max_images > self.queue:
            raise MienError(
                f"--max-images {self.max_images} does not fit into --queue {self.queue}; such requests would never pass"
            )

    @property
    def held_bytes(self) -> int:
        """Bytes of all bodies that are in memory at the same time; beyond them the answer is 503."""
        return 8 * self.max_bytes


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
