"""Block -> rows: a worker reads in a process of its own, so that an image which ends the process costs only itself."""

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mien._emotions import Emotion
from mien._errors import MienError, first_line
from mien._face import Reading
from mien.cluster.blocks import ImageBlock
from mien.report.tables import encode_parquet, parquet_rows

if TYPE_CHECKING:
    from mien.decode import Source

_TRIES = 2  # of an image during which the process ends
_Rows = list[dict[str, Any]]  # of one image


class BlockReader:
    """Reads blocks in another process, which is started again when it ends.

    The process says which image it is about to read. When it ends there (a crash, the memory of the system,
    ``kill -9``), a new one continues with that image. At the second time, the image gets a row with the error.

    Args:
        reader: A pickled ``mien.Reader``.
        emotions: The emotions of its model.
        folder: The folder in which relative paths begin.
        path: Where Python looks for modules, after its own places; it may need those of a detector.
    """

    def __init__(self, reader: bytes, emotions: Sequence[Emotion], folder: str, path: Sequence[str]) -> None:
        self._reader, self._emotions, self._folder = reader, tuple(emotions), folder
        self._path = os.pathsep.join(filter(None, dict.fromkeys([*sys.path, *path])))
        self._process: subprocess.Popen[bytes] | None = None

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
                _send(process.stdin, (block, len(done), broken))
                while True:
                    kind, value = pickle.load(process.stdout)  # type: ignore[arg-type]
                    if kind == "image":
                        image = value
                    elif kind == "rows":
                        done.append(value)
                    else:
                        return done if value is None else [*done, self._error_rows(block, value)]
            except (EOFError, OSError, pickle.UnpicklingError):
                reason = f"{self._end()} twice while it was read; look at the image by itself"
                ends[image] += 1
                if ends[image] > _TRIES:  # it is not read any more, so opening the block ends the process
                    return [*done, self._error_rows(block, f"{block}: {reason}")]
                if ends[image] == _TRIES:
                    broken[image] = reason

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._end()

    def _error_rows(self, block: ImageBlock, error: str) -> _Rows:
        return parquet_rows(Reading((), str(block), (0, 0), error=error), self._emotions)

    def _started(self) -> "subprocess.Popen[bytes]":
        """The process, ready to read."""
        if self._process is not None:
            if self._process.poll() is None:
                return self._process
            self._end()
        for _ in range(_TRIES):
            self._process = process = subprocess.Popen(
                [sys.executable, "-c", "from mien.cluster.worker import serve_blocks; serve_blocks()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=self._folder if Path(self._folder).is_dir() else None,
                env=os.environ | {"PYTHONPATH": self._path},
                start_new_session=True,  # Ctrl-C in a terminal is for the driver
            )
            with suppress(EOFError, OSError, pickle.UnpicklingError):
                _send(process.stdin, self._reader)
                error = pickle.load(process.stdout)  # type: ignore[arg-type]
                if error is not None:
                    raise MienError(error)
                return process
            reason = self._end()
        raise MienError(f"the process that reads does not start ({reason}); look at the memory of the machine")

    def _end(self) -> str:
        """End the process; say how it ended."""
        process, self._process = self._process, None
        assert process is not None
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        status = process.wait()
        return f"its process ended (signal {-status})" if status < 0 else f"its process ended (status {status})"


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
    """Read the blocks that standard input brings, and send their rows to standard output, until standard input ends."""
    commands, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no result
    try:
        reader = pickle.loads(pickle.load(commands))
    except (MienError, ImportError, AttributeError) as error:
        _send(results, f"a worker cannot open the reader ({first_line(error)}); install the same on all machines")
        return
    _send(results, None)
    emotions = reader.model.emotions

    def marked(block: ImageBlock, done: int, broken: dict[int, str]) -> "Iterator[Source]":
        with closing(block.open(done, broken)) as images:
            for index, image in images:
                _send(results, ("image", index))
                yield image

    with suppress(EOFError, BrokenPipeError):  # the worker has ended
        while True:
            given = pickle.load(commands)
            try:
                for reading in reader.read_many(marked(*given)):
                    _send(results, ("rows", parquet_rows(reading, emotions)))
                _send(results, ("end", None))
            except MienError as error:
                _send(results, ("end", str(error)))


def _send(stream: Any, value: object) -> None:
    pickle.dump(value, stream)
    stream.flush()
