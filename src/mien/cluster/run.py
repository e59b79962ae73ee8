"""distribute: the driver of a run on many processes, which starts or joins Ray."""

import hashlib
import logging
import math
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Any

import mien
from mien._errors import (
    MienError,
    MissingExtraError,
    OutputError,
    first_line,
    require_integer,
    require_kind,
    require_number,
    shown,
)
from mien._output import lock_output
from mien._progress import Progress, no_progress
from mien._signals import kept_handlers
from mien._workers import pickled
from mien.cluster.blocks import ImageBlock
from mien.cluster.output import Partitions
from mien.cluster.plan import BLOCK_BYTES, Plan
from mien.cluster.stores import is_address
from mien.cluster.worker import RayWorker
from mien.reader import Reader

_STORE_BYTES = 256 * 2**20  # of Ray's object store on one machine: blocks of rows are small
_STARTS = 3  # of Ray: on a busy machine, its first one may exceed a time limit of its own
_TEMPORARY = "mien-ray-"  # begins the names of the folders of Ray
# Bytes of the name of the folder that they are in: the names of Ray's sockets are 82 longer, and have at most 103.
_LONGEST_PARENT = 20
_NEW_SECONDS = 5.0  # in which the driver that has made a folder locks it
_LOOK_SECONDS = 1.0  # between two looks at the processes of Ray
_ANSWER_SECONDS = 5.0  # after which a cluster that does not answer is an error


@dataclass(frozen=True)
class Distributed:
    """What a run has read.

    Attributes:
        folder: The folder with the partitions.
        partitions: Their number.
        images: Number of images.
        faces: Number of faces.
        failed: Number of images that could not be read; each has a row with its error.
        left_out: What was not read in folders, as ``files of other kinds (3)``.
    """

    folder: Path
    partitions: int
    images: int
    faces: int
    failed: int
    left_out: str = ""


def distribute(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    reader: Reader | None = None,
    fps: float | None = None,
    column: str | None = None,
    block_bytes: int = BLOCK_BYTES,
    workers: int | None = None,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
    address: str | None = None,
    resume: bool = False,
    dashboard: bool = False,
    progress: Progress = no_progress,
) -> Distributed:
    """Read many images with many processes, on this machine or a Ray cluster, into a folder of Parquet files.

    The rows are those of ``Parquet``, in the order of the sources, and the same as one process writes. They are never
    all in memory. Each partition appears when it is complete; after any end of the run, ``resume`` reads the rest. An
    image that cannot be read, or that ends the process which reads it, has a row with its error.

    Args:
        sources: One or several folders, globs, images, videos, lists (``.txt``, a name a line), tables (``.parquet``)
            and addresses of object stores (``s3://bucket/folder``).
        out: The folder to write. It must be new, except to resume.
        reader: How to read; the default is ``Reader()``. Its model and detector must be picklable.
        fps: Frames per second to read of videos. The default leaves videos out of folders.
        column: The column of tables that has the images, as bytes or names; the default is the only one that can be it.
        block_bytes: Bytes of encoded images in a partition, 1 or more. What a killed worker has to read again.
        workers: Number of processes; the default is as many as there are CPUs for.
        cpus_per_worker: CPUs that each worker reserves. Give the reader as many threads.
        gpus_per_worker: GPUs that each worker reserves, such as 0.25.
        address: Address of a running Ray cluster, ``host:port`` or ``auto``; the default starts Ray on this machine, or
            uses the one that this process has started.
        resume: Whether to continue an earlier run in ``out`` with the same sources and reader.
        dashboard: Whether the Ray that is started serves its dashboard, which needs ``ray[default]``.
        progress: Receives the number of images that are done.

    Returns:
        The numbers of the whole run.

    Raises:
        MissingExtraError: Ray is not installed.
        OutputError: The folder cannot be written, or is of another run.
        DataError: Tables differ, or an image is named twice.
        MienError: A source cannot be read, or the cluster cannot be reached or has not enough CPUs or GPUs.

    Example:
        >>> import mien
        >>> done = mien.distribute("photos", "readings", workers=8)  # doctest: +SKIP
        >>> done.images, done.failed  # doctest: +SKIP
        (200000, 3)
    """
    words = [sources] if isinstance(sources, str | os.PathLike) else sources
    require_kind("sources", words, (list, tuple), "a path, an address, or a list of them")
    for word in words:
        require_kind("sources", word, (str, os.PathLike), "a path, an address, or a list of them")
    require_kind("out", out, (str, os.PathLike), "the path of a folder")
    if re.match("[a-z][a-z0-9+.-]+:/", os.fspath(out), re.IGNORECASE):  # a Path has one of the two slashes
        raise OutputError(f"{out}: is no folder of this machine; write to one, and copy it to the store")
    reader = Reader() if reader is None else reader
    require_kind("reader", reader, Reader, "a mien.Reader")
    if not callable(progress):
        raise MienError(f"progress is {shown(progress)}; it must be a function of a stage and two numbers")
    for name, text in (("column", column), ("address", address)):
        require_kind(name, text, (str, type(None)), "a text")
    if fps is not None:
        require_number("fps", fps, lowest=1e-3, highest=1e3)
    require_integer("block_bytes", block_bytes, lowest=1, highest=10**15)
    if dashboard and address is not None:
        raise MienError("dashboard is that of the Ray which is started here; leave it out to join the one at address")
    needs = _Needs(workers, cpus_per_worker, gpus_per_worker)
    ray = _import_ray()
    settings = reader.describe() | {"abstain": str(reader.abstain)}
    names = [os.fspath(word) for word in words]
    places = [name if is_address(name) else os.path.abspath(name) for name in names]  # noqa: PTH100 (globs, too)
    given = {"sources": places, "fps": fps, "column": column, "version": mien.__version__, **settings}
    given |= {"min_quality": reader.min_quality, "max_faces": reader.max_faces, "model_sha256": _digest(reader)}
    plan = Plan(names, fps=fps, column=column, block_bytes=block_bytes)
    with Partitions(out, given, resume=resume) as partitions:
        if not partitions.is_planned:
            progress("finding images")
            partitions.plan(_with_images(plan))
        if len(partitions.done) < partitions.size:
            progress("starting Ray", partitions.count("images"), partitions.total)
            path = [os.path.abspath(place) for place in sys.path]  # noqa: PTH100 ("" is a place)
            work = pickled(reader), reader.model.emotions, settings, partitions.home, path
            with _cluster(ray, address, needs, dashboard=dashboard), _ending_with(ray):
                _run(ray, partitions, work, needs, progress)
        partitions.finish()
        images, faces, failed = (partitions.count(name) for name in ("images", "faces", "failed"))
        left_out = ", ".join(f"{kind} ({count:,})" for kind, count in plan.left_out.items() if count)
        return Distributed(Path(out), partitions.size, images, faces, failed, left_out)


def _digest(reader: Reader) -> str:
    with reader.model.path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Needs:
    """The workers, and what each of them reserves."""

    workers: int | None
    cpus: float
    gpus: float

    def __post_init__(self) -> None:
        if self.workers is not None:
            require_integer("workers", self.workers, lowest=1)
        require_number("cpus_per_worker", self.cpus, lowest=0.01, highest=1e4)
        require_number("gpus_per_worker", self.gpus, lowest=0, highest=1e3)
        if self.gpus % 1 and not 1e-4 <= self.gpus < 1:  # Ray knows no others
            raise MienError(f"gpus_per_worker is {self.gpus:g}; it must be 0.0001 or more, and above 1 a whole number")

    def fit_in(self, resources: dict[str, float]) -> int:
        """How many workers fit."""
        needs = (("CPU", self.cpus), ("GPU", self.gpus))
        return min(math.floor(resources.get(name, 0) / each + 1e-9) for name, each in needs if each)

    def workers_in(self, resources: dict[str, float]) -> int:
        """The number of workers in a cluster. Raises ``MienError`` if they do not fit: Ray would wait for ever."""
        fit = self.fit_in(resources)
        if fit < (self.workers or 1):
            here = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
            wanted = f"{self.workers or 1} workers of {self.cpus:g} CPUs and {self.gpus:g} GPUs"
            raise MienError(f"the cluster has {here}, too few for {wanted}; ask for fewer")
        return self.workers or fit


def _import_ray() -> Any:
    """The package. Raises ``MissingExtraError`` if it is not installed."""
    # Without these, Ray sends usage statistics, and each of its processes prints warnings about later versions.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    return ray


def _with_images(plan: Plan) -> Iterator[ImageBlock]:
    """The blocks. Raises ``MienError`` at the end if none has an image."""
    first, found = "", False
    for block in plan:
        found = found or not block.errors
        first = first or (block.errors or [""])[0]
        yield block
    if not found:
        raise MienError(first or "the sources have no images; name folders, lists or tables that have some")


@contextmanager
def _cluster(ray: Any, address: str | None, needs: _Needs, *, dashboard: bool) -> Iterator[None]:
    """The Ray that this process has started, the one at the address, or one on this machine for the block alone."""
    if address is not None:
        _check_answer(address)
        if ray.is_initialized():
            raise MienError("Ray runs in this process already; leave address out to use it, or end it: ray.shutdown()")
    elif ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address}
    with _temporary_folder() as folder:
        if address is None:
            cpus = None if needs.workers is None else math.ceil(needs.workers * needs.cpus)
            options = {"num_cpus": cpus, "object_store_memory": _STORE_BYTES, "include_dashboard": dashboard}
            options |= {"_temp_dir": folder, "address": "local"}  # not that of RAY_ADDRESS
            if "RAY_memory_monitor_refresh_ms" not in os.environ:
                # Else Ray ends workers again and again while other programs fill the memory. An image that takes too
                # much ends the process that reads it.
                options["_system_config"] = {"memory_monitor_refresh_ms": 0}
        if dashboard and find_spec("aiohttp_cors") is None:
            raise MienError('the dashboard needs more of Ray; run: pip install "ray[default]"')
        for tries in range(_STARTS, 0, -1):
            try:
                with kept_handlers(), _quiet():
                    ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
                break
            except (KeyboardInterrupt, SystemExit) as stop:  # Ray's own handler of SIGTERM exits
                ray.shutdown()
                raise KeyboardInterrupt(*stop.args) from stop
            except Exception as error:  # of many kinds, some plain Exception
                ray.shutdown()
                if address is None and tries > 1:
                    continue
                what = "Ray does not start on this machine" if address is None else f"{address}: cannot be joined"
                cure = "see that it is not too busy" if address is None else "call this on a machine of the cluster"
                raise MienError(f"{what} ({first_line(error)}); {cure}") from error
        # Else a thread of Ray prints a paragraph on standard output for each worker that ends.
        prints, ray._private.worker._worker_logs_enabled = ray._private.worker._worker_logs_enabled, False
        try:
            yield
        finally:
            ray.shutdown()
            ray._private.worker._worker_logs_enabled = prints


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """A folder for Ray. Those of drivers that were killed are removed; that of a driver at work is locked."""
    parent = tempfile.gettempdir()
    if os.name == "posix" and len(os.fsencode(parent)) > _LONGEST_PARENT:
        parent = "/tmp"
    for old in Path(parent).glob(f"{_TEMPORARY}*"):
        with suppress(OSError, OutputError), _locked(old) as is_locked:
            if is_locked and time.time() - old.stat().st_mtime > _NEW_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    made = tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=parent, ignore_cleanup_errors=True)
    with made as folder, _locked(Path(folder)):
        yield folder


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether the block has the lock of a folder. Raises ``OutputError`` if another process has it."""
    handle = os.open(folder, os.O_RDONLY) if os.name == "posix" else None
    try:
        yield handle is not None and lock_output(handle, folder)
    finally:
        if handle is not None:
            os.close(handle)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the messages that Ray prints to standard error while it starts."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_answer(address: str) -> None:
    """Raise ``MienError`` soon where Ray would try for a minute."""
    if address == "auto":
        return
    found = re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", address)
    if not found:
        raise MienError(f"{address}: is no address of a Ray cluster; write host:port, such as 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), _ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or first_line(error)).lower()
        raise MienError(f"{address}: no Ray cluster answers ({reason}); check the address and the network") from error


@contextmanager
def _ending_with(ray: Any) -> Iterator[None]:
    """In this block, a main process of Ray that ends also ends this process, with a line and status 2.

    Ray would end it some seconds later, without a message, with the status of images that are damaged.
    """
    node: Any = None  # also of a client of Ray, and of a later Ray, where the private name may be another
    is_over = Event()
    with suppress(AttributeError):
        node = ray._private.worker._global_node

    def watch() -> None:
        while node is not None and not is_over.wait(_LOOK_SECONDS):
            dead = {name for name, _ in node.dead_processes()} & {"raylet", "gcs_server"}
            if dead:
                cure = "what was read is kept: look at the memory of the machine, and resume the run"
                sys.stderr.write(f"mien: Ray stopped (its process {min(dead)} ended); {cure}\n")
                sys.stderr.flush()
                os._exit(2)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def _run(ray: Any, partitions: Partitions, work: tuple[Any, ...], needs: _Needs, progress: Progress) -> None:
    """Read the blocks that are not complete."""
    workers = needs.workers_in(ray.cluster_resources())
    items = [{"number": number, "block": block} for number, block in partitions.blocks()]
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        RayWorker,
        fn_constructor_args=work,
        batch_size=1,  # each task is one block, whose result is there as soon as it is complete
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=min(workers, len(items)), max_tasks_in_flight_per_actor=2),
        num_cpus=needs.cpus,
        num_gpus=needs.gpus or None,
    )
    dataset.context.enable_progress_bars = dataset.context.print_on_execution_start = False
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what fails is raised here, and described in one line
    done, failed = partitions.count("images"), partitions.count("failed")
    is_free = needs.fit_in(ray.available_resources()) > 0
    progress("starting workers" if is_free else "waiting for free CPUs of the cluster", done, partitions.total)
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                if (failure := row.pop("error")) is not None:
                    raise MienError(failure)
                part = partitions.add(**row)
                done, failed = done + part.images, failed + part.failed
                total = max(done, partitions.total)  # of some videos, the number of frames is found while they are read
                progress(f"reading, {failed:,} not read" if failed else "reading", done, total)
    except ray.exceptions.RayError as error:
        lines = re.findall(r"^[\w.]+: .*$", str(error), re.MULTILINE) or [first_line(error)]
        raise MienError(f"Ray stopped ({lines[-1][:200]}); what was read is kept: resume the run") from error
    finally:
        logger.setLevel(level)
