"""Bounded queue of images: threads decode them and detect faces, one thread classifies crops in batches."""

import contextlib
import functools
import io
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from mien._errors import MienError, require_integer
from mien._face import Reading
from mien._session import CHECK
from mien.decode import DecodedImage, decode
from mien.infer import CHUNK
from mien.reader import Prepared, Reader
from mien.serve.problems import Problem, TooSlowError

_T = TypeVar("_T")
# Histogram buckets in seconds: from one small crop to a large photograph behind a full queue.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CROPS = (1, 2, 4, 8, 16, 32, 64, 128)
# Memory while faces are found in an image of at most 17 megapixels, with the copy in Pillow; larger ones take less.
_BYTES_PER_PIXEL = 9
_STUCK_SECONDS = 2.0  # of one image in each thread, after which the server is not ready; most take a tenth
_NEWEST_WEIGHT = 0.05  # weight of the newest image in the mean time from which Retry-After is computed


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the server.

    Attributes:
        max_bytes: Bytes of a request body, and of one frame of a stream.
        max_pixels: Width x height of an image; each pixel takes four bytes while the image is read.
        max_images: Images in one request.
        timeout: Seconds for a request to arrive, and again for its response.
        queue: Images that are accepted and not finished; more are refused with 503.
        memory: Bytes of memory for bodies, frames and images together. A quarter is for what is received and not
            decoded, the rest for decoded images: more is refused with 503, and more images wait.
        connections: Connections open at the same time, streams included.
        streams: Streams open at the same time.
        per_address: Share of the connections and of the streams that one address may use, above 0 to 1.
        idle: Seconds without a frame after which a stream is closed.

    Raises:
        MienError: A limit would refuse every request.

    Example:
        >>> Limits(queue=16).held_bytes
        268435456
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_images: int = 16
    timeout: float = 30.0
    queue: int = 128
    memory: int = 2**30
    connections: int = 512
    streams: int = 16
    per_address: float = 0.5
    idle: float = 60.0

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_images", "queue", "connections"):
            if getattr(self, name) < 1:
                raise MienError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("timeout", "idle"):
            if not 0 < getattr(self, name) < math.inf:
                raise MienError(f"{name} must be a number of seconds above 0, not {getattr(self, name)}")
        if self.streams < 0:
            raise MienError(f"streams must be at least 0, not {self.streams}")
        if not 0 < self.per_address <= 1:
            raise MienError(f"per_address must be a share above 0 and at most 1, not {self.per_address}")
        if self.max_images > self.queue:
            raise MienError(f"max_images ({self.max_images}) must not exceed queue ({self.queue})")
        lowest = max(4 * self.max_bytes, _BYTES_PER_PIXEL * self.max_pixels * 4 // 3)
        if self.memory < lowest:
            detail = f"for {self.max_bytes:,} bytes and {self.max_pixels:,} pixels"
            raise MienError(f"memory must be at least {lowest:,} bytes {detail}, not {self.memory:,}")

    @property
    def held_bytes(self) -> int:
        """Bytes received and not decoded, of all clients."""
        return min(8 * self.max_bytes, self.memory // 4)

    @property
    def image_bytes(self) -> int:
        """Bytes for decoded images."""
        return self.memory - self.memory // 4


class Metrics:
    """Prometheus metrics of one server. Each server has its own registry."""

    def __init__(self) -> None:
        """Create all metrics at 0."""
        self.registry = own = CollectorRegistry()
        self.requests = Counter("mien_requests", "Requests with a response.", ("path", "status"), registry=own)
        text = "Time from a request's head to the end of its response."
        self.seconds = Histogram("mien_request_seconds", text, ("path",), buckets=_SECONDS, registry=own)
        text = "Time of each stage of an image; receive: of a request."
        stages = Histogram("mien_stage_seconds", text, ("stage",), buckets=_SECONDS, registry=own)
        self.stages = {stage: stages.labels(stage) for stage in ("receive", "wait", "decode", "detect", "classify")}
        self.batches = Histogram("mien_batch_crops", "Crops classified together.", buckets=_CROPS, registry=own)
        self.queue = Gauge("mien_queue_images", "Images accepted and not finished.", registry=own)
        self.held = Gauge("mien_held_bytes", "Bytes received and not decoded.", registry=own)
        images = Counter("mien_images", "Images by result.", ("result",), registry=own)
        self.images = {result: images.labels(result) for result in ("read", "error")}
        self.faces = Counter("mien_faces", "Faces in images and frames.", registry=own)
        frames = Counter("mien_frames", "Frames of streams by result.", ("result",), registry=own)
        self.frames = {result: frames.labels(result) for result in ("read", "dropped", "error")}
        self.streams = Gauge("mien_streams", "Open streams.", registry=own)
        ProcessCollector(registry=own)

    def to_text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


@dataclass(frozen=True, eq=False)
class Upload:
    """The bytes of an image file that was received.

    Attributes:
        name: Name of the image in messages and readings.
        data: Content of the file.
    """

    name: str
    data: bytes

    def open(self) -> io.BytesIO:
        """Return the bytes as a stream, without a copy; its ``name`` is the image's name in messages."""
        stream = io.BytesIO(self.data)
        stream.name = self.name
        return stream


@dataclass(frozen=True, eq=False)
class TimedReading:
    """A reading with its duration.

    Attributes:
        reading: The reading.
        seconds: Seconds of each stage: wait, decode, detect, classify.
    """

    reading: Reading
    seconds: dict[str, float]


class Engine:
    """Reads at most ``limits.queue`` images at a time. No method blocks the event loop.

    Attributes:
        reader: Reads the images.
        limits: The limits.
        accepted: Number of images that are accepted and not finished.
    """

    def __init__(
        self, reader: Reader, *, threads: int, limits: Limits, metrics: Metrics, batch_wait: float = 0.0
    ) -> None:
        """Start the threads.

        Args:
            reader: Reads the images.
            threads: Number of images that are decoded and searched for faces at the same time.
            limits: Length of the queue, and bytes and pixels of an image.
            metrics: Counts images, faces and seconds.
            batch_wait: Seconds to wait for crops of other requests before a batch is classified.
        """
        require_integer("threads", threads, lowest=1)
        self.reader = reader
        self.limits = limits
        self._threads = threads
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="mien-read")
        self._batcher = _Batcher(reader.classify, metrics, batch_wait)
        self._lock = threading.Lock()
        self._memory = _Memory(limits.image_bytes)
        self._since: dict[int, float] = {}  # when each busy thread began its image
        self.accepted = 0
        self._mean_seconds = 0.05  # of an image in its thread

    @property
    def full(self) -> bool:
        """Whether the queue takes no further image."""
        return self.accepted >= self.limits.queue

    @property
    def stuck(self) -> bool:
        """Whether a new image would wait long: every thread has been busy with one image for seconds."""
        since = list(self._since.values())
        return len(since) >= self._threads and time.perf_counter() - max(since) > _STUCK_SECONDS

    def check(self) -> None:
        """Refuse a request before its body is uploaded.

        Raises:
            Problem: 503, the queue is full.
        """
        if self.full:
            raise self._busy()

    def read(self, uploads: Sequence[Upload]) -> "list[Future[TimedReading]]":
        """Put images into the queue, all of them or none.

        Args:
            uploads: The images. The engine releases the bytes of each once it is decoded.

        Returns:
            A future for each image. If it is cancelled, no further step of the image begins.

        Raises:
            Problem: 503, the queue has no room for all of them.
        """
        self._accept(len(uploads))
        jobs = [_Job(upload) for upload in uploads]
        for job in jobs:
            job.future.add_done_callback(self._release)
            job.future.add_done_callback(job.discard)  # a cancelled job stays in the pool's queue until its turn
            self._pool.submit(self._in_thread, functools.partial(self._prepare, job), job.is_abandoned)
        return [job.future for job in jobs]

    def run(self, work: Callable[[], _T]) -> "Future[_T]":
        """Run a function in one of the threads; it counts as one image.

        Args:
            work: The function.

        Returns:
            The future of its result.

        Raises:
            Problem: 503, the queue is full.
        """
        self._accept(1)
        future = self._pool.submit(self._in_thread, work)
        future.add_done_callback(self._release)
        return future

    @contextlib.contextmanager
    def decoded(self, stream: io.BytesIO) -> Iterator[DecodedImage]:
        """Decode an image when there is memory for it, in one of the threads.

        Args:
            stream: The image file.

        Yields:
            The image. Its memory counts as taken until the block ends.

        Raises:
            ImageError: The image cannot be read.
        """
        taken = []

        def reserve(count: int, pixels: int) -> None:
            taken.append(self._memory.take(max(count, _BYTES_PER_PIXEL * pixels)))

        limits = self.limits
        try:
            image = decode(stream, max_bytes=limits.max_bytes, max_pixels=limits.max_pixels, reserve=reserve)
            del stream
            yield image
            del image
        finally:
            self._memory.give(sum(taken))

    def close(self, seconds: float = 0.0) -> bool:
        """Drop all images that are still waiting, and end the threads.

        Args:
            seconds: How long to wait for the images in the threads. Python cannot end a thread.

        Returns:
            Whether all threads have ended.
        """
        self._pool.shutdown(wait=False, cancel_futures=True)
        end = time.monotonic() + seconds
        while self._since and time.monotonic() < end:
            time.sleep(0.01)
        if not self._since:
            self._batcher.close()
        return not self._since

    def _accept(self, count: int) -> None:
        with self._lock:
            if self.accepted + count > self.limits.queue:
                raise self._busy()
            self.accepted += count
        self._metrics.queue.inc(count)

    def _release(self, _: "Future[_T]") -> None:
        with self._lock:
            self.accepted -= 1
        self._metrics.queue.dec()

    def _busy(self) -> Problem:
        seconds = max(1, math.ceil(self.accepted * self._mean_seconds / self._threads))
        detail = f"the queue is full ({self.accepted} of {self.limits.queue} images); try again in {seconds} s"
        return Problem(503, detail, headers={"Retry-After": str(seconds)})

    def _in_thread(self, work: Callable[[], _T], is_abandoned: Callable[[], bool] = bool) -> _T:
        """Do the work of one image. No model runs after the time limit, or after the client has left."""
        thread, started = threading.get_ident(), time.perf_counter()

        def check() -> None:
            if is_abandoned() or time.perf_counter() - started > self.limits.timeout:
                raise TooSlowError(f"reading takes longer than {self.limits.timeout:g} s; scale the image down")

        CHECK.set(check)
        self._since[thread] = started
        try:
            return work()
        except Exception as error:
            _clear_frames(error)
            raise
        finally:
            del self._since[thread]

    def _prepare(self, job: "_Job") -> None:
        """Decode the image and detect its faces, in a thread of the pool."""
        if not job.future.set_running_or_notify_cancel():
            return
        started = time.perf_counter()
        try:
            prepared = self._decode_and_detect(job)
            self._batcher.submit(prepared).add_done_callback(lambda done: self._finish(job, done))
        except Exception as error:  # any error must reach the request
            self._fail(job, error)
        self._mean_seconds += _NEWEST_WEIGHT * (time.perf_counter() - started - self._mean_seconds)

    def _decode_and_detect(self, job: "_Job") -> Prepared:
        started = time.perf_counter()
        with self.decoded(job.take()) as image:
            decoded = time.perf_counter()
            CHECK.get()()  # decoding may have waited for memory
            prepared = self.reader.prepare(image)
            del image  # before its memory counts as free
        detected = time.perf_counter()
        job.seconds = {"wait": started - job.arrived, "decode": decoded - started, "detect": detected - decoded}
        return prepared

    def _finish(self, job: "_Job", done: "Future[tuple[Reading, float]]") -> None:
        """Publish the result, in the batcher's thread."""
        error = done.exception()
        if error is not None:
            self._fail(job, error)
            return
        reading, job.seconds["classify"] = done.result()
        for stage, seconds in job.seconds.items():
            self._metrics.stages[stage].observe(seconds)
        self._metrics.images["read"].inc()
        self._metrics.faces.inc(len(reading.faces))
        job.future.set_result(TimedReading(reading, job.seconds))

    def _fail(self, job: "_Job", error: BaseException) -> None:
        self._metrics.images["error"].inc()
        _clear_frames(error)
        job.future.set_exception(error)


def _clear_frames(error: BaseException | None) -> None:
    """Release what the calls that failed hold, such as pixels. Their lines stay for the log.

    The error is part of a cycle with its future, so all of it would stay in memory for long.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class _ReadingFuture(Future[TimedReading]):
    """A future that remembers that it was cancelled while its image was read, which ``Future`` ignores."""

    abandoned = False

    def cancel(self) -> bool:
        self.abandoned = True
        return super().cancel()


class _Memory:
    """Bytes that threads share; each waits in turn until there is room for its image."""

    def __init__(self, limit: int) -> None:
        self._limit = self._free = limit
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    def take(self, count: int) -> int:
        """Wait for ``count`` bytes, at most all of them; return how many were taken."""
        count = min(count, self._limit)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= count)
            self._free -= count
        return count

    def give(self, count: int) -> None:
        with self._changed:
            self._free += count
            self._changed.notify()


class _Job:
    """An image in the engine."""

    def __init__(self, upload: Upload) -> None:
        self.arrived = time.perf_counter()
        self.future = _ReadingFuture()
        self.seconds: dict[str, float] = {}
        self._upload: Upload | None = upload

    def take(self) -> io.BytesIO:
        """Return the image file and release it: its bytes are not needed after decoding."""
        assert self._upload is not None
        upload, self._upload = self._upload, None
        return upload.open()

    def is_abandoned(self) -> bool:
        return self.future.abandoned

    def discard(self, _: object) -> None:
        self._upload = None


class _Batcher:
    """Classifies the crops of all waiting images in batches of about ``CHUNK`` crops.

    The next batch fills up while one is classified. By default, no batch waits for more crops (``wait``, in seconds):
    on a CPU, a crop in a batch of 64 takes only a tenth less time than a single crop, and detection takes twenty times
    as long.
    """

    def __init__(self, classify: Callable[[Sequence[Prepared]], list[Reading]], metrics: Metrics, wait: float) -> None:
        self._classify = classify
        self._metrics = metrics
        self._wait = wait
        self._waiting: deque[tuple[Prepared, Future[tuple[Reading, float]]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="mien-classify", daemon=True)
        self._thread.start()

    def submit(self, prepared: Prepared) -> "Future[tuple[Reading, float]]":
        """Return the future of the reading and of the seconds that its batch took."""
        future: Future[tuple[Reading, float]] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the batcher is closed")
            self._waiting.append((prepared, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Classify all waiting images, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            started = time.perf_counter()
            try:
                readings = self._classify([prepared for prepared, _ in batch])
            except Exception as error:  # any error must reach the requests of this batch
                for _, future in batch:
                    future.set_exception(error)
                continue
            seconds = time.perf_counter() - started
            self._metrics.batches.observe(sum(len(prepared.detections) for prepared, _ in batch))
            for (_, future), reading in zip(batch, readings, strict=True):
                future.set_result((reading, seconds))
            del batch, readings, future, reading  # no image stays in memory while the thread waits

    def _next_batch(self) -> list[tuple[Prepared, "Future[tuple[Reading, float]]"]]:
        """Return waiting images with about ``CHUNK`` crops; none when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._wait:
                self._changed.wait_for(lambda: self._closed or self._crops() >= CHUNK, self._wait)
            batch: list[tuple[Prepared, Future[tuple[Reading, float]]]] = []
            crops = 0
            while self._waiting and crops < CHUNK:
                batch.append(self._waiting.popleft())
                crops += len(batch[-1][0].detections)
            return batch

    def _crops(self) -> int:
        return sum(len(prepared.detections) for prepared, _ in self._waiting)
