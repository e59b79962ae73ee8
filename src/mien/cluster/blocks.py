"""The images of one partition: planned by the driver, opened by a worker."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from itertools import accumulate, chain, islice
from typing import Any

from mien._errors import ImageError, MienError, SourceError, first_line
from mien.cluster.stores import is_address, local_copy, open_object, store_reason
from mien.decode import MAX_BYTES, DecodedImage, Source, name_of
from mien.report.tables import import_parquet

_AHEAD = 8  # images that a worker fetches from an object store while it reads one


@dataclass(frozen=True)
class ImageBlock:
    """The images of one partition: files, rows of a table, or a part of a video.

    Attributes:
        images: Their number; of a video the number that is expected.
        names: Paths and addresses of files, or that of the table or video.
        errors: Why each of ``names`` cannot be read at all; empty for images.
        options: Options of the object store: the query of its address.
        column: The column of the table with the images or their names.
        fps: Frames per second that are read of the video.
        start: First row of the table, or time in seconds at which the part of the video begins.
        end: The row or time after the last one; ``None``: the end.
    """

    images: int
    names: list[str]
    errors: list[str] = field(default_factory=list)
    options: str = ""
    column: str = ""
    fps: float = 0.0
    start: float = 0
    end: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes that are not empty, as JSON values."""
        return {key: value for key, value in asdict(self).items() if value or key == "images"}

    def __str__(self) -> str:
        if self.column or self.fps:
            unit = "rows" if self.column else "seconds"
            return f"{self.names[0]}, {unit} {self.start:g} to {'the end' if self.end is None else f'{self.end:g}'}"
        return self.names[0] if len(self.names) == 1 else f"{self.names[0]} to {self.names[-1]}"

    def open(
        self, done: int = 0, broken: Mapping[int, str] | None = None, *, max_bytes: int = MAX_BYTES
    ) -> Generator[tuple[int, Source], None, None]:
        """Open the images in their order.

        Args:
            done: How many images to leave out.
            broken: Why images must not be read, by their number.
            max_bytes: Largest size of an image of an object store; of a larger one, a byte more is fetched.

        Yields:
            The number of each image in the block, and the image as ``Reader.read`` takes it.
        """
        items = self._frames() if self.fps else self._rows(max_bytes) if self.column else self._files(max_bytes)
        with closing(_fetch_ahead(islice(enumerate(items), done, None))) as ahead:
            for index, image in ahead:
                reason = (broken or {}).get(index)
                yield index, image if reason is None else _failing(name_of(image), f"{name_of(image)}: {reason}")

    def _files(self, max_bytes: int) -> Iterator[Source]:
        if self.errors:
            yield from map(_failing, self.names, self.errors)
        else:
            yield from (_open_name(name, self.options, max_bytes) for name in self.names)

    def _rows(self, max_bytes: int) -> Iterator[Source]:
        with open_table(self.names[0], self.options) as file:
            sizes = (file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
            firsts, end = [0, *accumulate(sizes)], int(self.end or 0)
            if firsts[-1] < end or self.column not in file.schema_arrow.names:
                raise MienError(f"{self.names[0]}: has changed since the run began; read it into another folder")
            groups = [i for i in range(len(firsts) - 1) if firsts[i] < end and firsts[i + 1] > self.start]
            row = firsts[groups[0]]
            parts = (  # a group each, so that one that is damaged does not take the end of the one before it along
                file.iter_batches(batch_size=_AHEAD, row_groups=[group], columns=[self.column]) for group in groups
            )
            for batch in chain.from_iterable(parts):
                for value in batch.column(self.column).to_pylist():
                    if self.start <= row < end:
                        yield _open_value(value, f"{self.names[0]}#{row}", self.options, max_bytes)
                    row += 1

    def _frames(self) -> Iterator[Source]:
        from mien.video import open_source

        video = self.names[0]
        try:
            with local_copy(video, self.options) as path:
                frames = open_source(path, fps=self.fps, start=self.start, end=self.end)
                frames.name = video
                for frame in frames:
                    yield DecodedImage(frame.pixels, f"{video}#t={frame.seconds:.3f}")
                if frames.note:
                    yield _failing(video, f"{video}: {frames.note}; get the video again")
        except (SourceError, ImageError) as error:
            if not (self.start and "before the start" in str(error)):  # else nothing is shown in this part
                yield _failing(f"{video}#t={self.start:.3f}", str(error))


@contextmanager
def open_table(name: str, options: str) -> Iterator[Any]:
    """Open a Parquet file, of which only what is needed is read.

    Args:
        name: Its path or address.
        options: As for ``open_object``.

    Yields:
        The ``pyarrow.parquet.ParquetFile``.

    Raises:
        MienError: It cannot be read.
    """
    how = {"pre_buffer": False, "buffer_size": 2**20}
    try:
        with open_object(name, options) as file, import_parquet().ParquetFile(file, **how) as table:
            yield table
    except (OSError, ValueError) as error:  # pyarrow's errors are kinds of ValueError
        raise MienError(f"{name}: cannot be read as Parquet ({first_line(error)}); write it again") from error


class Fetched:
    """An image that is fetched when it is read, or ahead of it: a binary stream with a name.

    Args:
        name: The name of the image.
        fetch: Returns the bytes of its file; raises ``ImageError``.
    """

    def __init__(self, name: str, fetch: Callable[[], bytes]) -> None:
        self.name, self._fetch = name, fetch
        self._stream: BytesIO | None = None

    def start(self, pool: ThreadPoolExecutor) -> None:
        """Fetch the bytes on a thread.

        Args:
            pool: The threads.
        """
        future: Future[bytes] = pool.submit(self._fetch)
        self._fetch = future.result

    def read(self, size: int = -1) -> bytes:
        """Read bytes, as binary streams do.

        Args:
            size: Their largest number.

        Raises:
            ImageError: The image cannot be fetched.
        """
        if self._stream is None:
            self._stream = BytesIO(self._fetch())
        return self._stream.read(size)


def _fetch_ahead(items: Iterable[tuple[int, Source]]) -> Generator[tuple[int, Source], None, None]:
    """The items. A few of an object store are fetched while one is read."""
    waiting: deque[tuple[int, Source]] = deque()
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="mien-fetch") as pool:
        try:
            for item in items:
                waiting.append(item)
                if isinstance(item[1], Fetched):
                    item[1].start(pool)
                while waiting and (len(waiting) > _AHEAD or not isinstance(item[1], Fetched)):
                    yield waiting.popleft()
        except MienError:  # a table is damaged from here on
            yield from waiting
            raise
        yield from waiting


def _failing(name: str, error: str) -> Source:
    """An image of which it is known that it cannot be read."""

    def fetch() -> bytes:
        raise ImageError(error)

    return Fetched(name, fetch)  # type: ignore[return-value]  # it has all that `decode` uses of a stream


def _open_name(name: str, options: str, max_bytes: int) -> Source:
    """A file: its path, or an object that is fetched."""

    def fetch() -> bytes:
        try:
            with open_object(name, options) as file:
                return bytes(file.read(min(max_bytes + 1, file.size())))  # pyarrow allocates what is asked for
        except (OSError, ValueError, MienError) as error:
            raise ImageError(f"{name}: cannot be fetched ({store_reason(error)}); check name and rights") from error

    return Fetched(name, fetch) if is_address(name) else name  # type: ignore[return-value]


def _open_value(value: Any, name: str, options: str, max_bytes: int) -> Source:
    """An image in a table: its bytes, its name, or both as Hugging Face writes them."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value and isinstance(value, str):
        return _open_name(value, options, max_bytes)
    if not value or not isinstance(value, bytes):
        return _failing(name, f"{name}: the row has no image; fill or remove it")
    return Fetched(name, lambda: value)  # type: ignore[return-value]
