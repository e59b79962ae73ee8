"""Block -> rows: a worker reads in a process of its own, so that an image which ends the process costs only itself."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien._emotions import Emotion
from mien._errors import MienError
from mien._face import Reading
from mien._workers import EndedError, ReaderProcess, Send, serve
from mien.cluster.blocks import ImageBlock
from mien.reader import Reader
from mien.report.tables import encode_parquet, parquet_rows

if TYPE_CHECKING:
    from mien.decode import Source

_BATCH = 64  # images or faces that are classified together
_TRIES = 2  # of an image during which the process ends
_SERVE = f"{__name__}:serve_blocks"
_Rows = list[dict[str, Any]]  # of one image


class BlockReader:
    """Reads blocks in another process, which is started again when it ends.

    The process says which image it is about to read. When it ends there (a crash, the memory of the system,
    ``kill -9``), a new one continues with that image, one by one, as threads may have read several at once. At the
    second time, the image gets a row with the error.

    Args:
        reader: A pickled ``mien.Reader``.
        emotions: The emotions of its model.
        folder: The folder in which relative paths begin.
        path: Where Python looks for modules, after its own places; it may need those of a detector.
    """

    def __init__(self, reader: bytes, emotions: Sequence[Emotion], folder: str, path: Sequence[str]) -> None:
        self._reader, self._emotions, self._folder, self._path = reader, tuple(emotions), folder, path
        self._process: ReaderProcess | None = None

    def read(self, block: ImageBlock) -> list[_Rows]:
        """Read a block.

        Args:
            block: The block.

        Returns:
            The rows of each image, in order.

        Raises:
            MienError: The process does not start.
        """
        done, ends, broken = list[_Rows](), Counter[int](), dict[int, str]()
        while True:
            process, image = self._started(), len(done)
            try:
                process.send((block, len(done), broken, bool(ends)))
                while True:
                    kind, value = process.receive()
                    if kind == "image":
                        image = value
                    elif kind == "rows":
                        done.append(value)
                    else:
                        return done if value is None else [*done, self._error_rows(block, value)]
            except EndedError as error:
                reason = f"{error} twice while it was read; look at the image by itself"
                ends[image] += 1
                if ends[image] > _TRIES:  # it is not read any more, so opening the block ends the process
                    return [*done, self._error_rows(block, f"{block}: {reason}")]
                if ends[image] == _TRIES:
                    broken[image] = reason

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.end()

    def _error_rows(self, block: ImageBlock, error: str) -> _Rows:
        return parquet_rows(Reading((), str(block), (0, 0), error=error), self._emotions)

    def _started(self) -> ReaderProcess:
        """The process, ready to read."""
        if self._process is not None:
            if self._process.is_alive():
                return self._process
            self._process.end()
        folder, reason = self._folder if Path(self._folder).is_dir() else None, ""
        for _ in range(_TRIES):
            try:
                self._process = ReaderProcess(self._reader, _SERVE, folder=folder, path=self._path)
                return self._process
            except EndedError as error:
                reason = str(error)
        raise MienError(f"the process that reads does not start ({reason}); look at the memory of the machine")


class RayWorker:
    """An actor of Ray Data: a row with a block in, a row with its partition out.

    Args:
        reader: A pickled ``mien.Reader``.
        emotions: The emotions of its model.
        settings: How the rows are made, for the metadata of the files.
        folder: The folder in which relative paths begin.
        path: Where the driver looks for modules.
    """

    def __init__(
        self, reader: bytes, emotions: Sequence[Emotion], settings: dict[str, str], folder: str, path: Sequence[str]
    ) -> None:
        self._blocks = BlockReader(reader, emotions, folder, path)
        self._emotions, self._settings = emotions, settings

    def __call__(self, batch: Any) -> Any:
        """Read one block.

        Args:
            batch: A table of pyarrow with one row: ``number`` and ``block``, the JSON of a block.

        Returns:
            A table with one row: the arguments of ``Partitions.add``, and the ``error`` that ends the run, if any.
        """
        import pyarrow

        (given,) = batch.to_pylist()
        images, error = list[_Rows](), None
        try:
            images = self._blocks.read(ImageBlock(**json.loads(given["block"])))
        except MienError as failure:  # Ray would wrap an exception in pages of text
            error = str(failure)
        rows = [row for image in images for row in image]
        row = {
            "number": given["number"],
            "content": encode_parquet(rows, self._emotions, self._settings),
            "images": len(images),
            "faces": sum(row["face"] is not None for row in rows),
            "failed": sum(row["error"] is not None for row in rows),
            "error": error,
        }
        return pyarrow.table({name: [value] for name, value in row.items()})


def serve_blocks() -> None:
    """Read blocks in this process, and send their rows."""
    serve(_read_block)


def _read_block(reader: Reader, given: tuple[ImageBlock, int, dict[int, str], bool], send: Send) -> None:
    block, done, broken, one_by_one = given

    def marked() -> "Iterator[Source]":
        with closing(block.open(done, broken, max_bytes=reader.max_bytes)) as images:
            for index, image in images:
                send(("image", index))
                yield image

    try:
        for reading in reader.read_many(marked(), batch=1 if one_by_one else _BATCH):
            send(("rows", parquet_rows(reading, reader.model.emotions)))
        send(("end", None))
    except MienError as error:
        send(("end", str(error)))
