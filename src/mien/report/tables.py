"""Readings as lines and tables for programs: JSON lines, CSV and Parquet. All of them write as the readings come."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TextIO

from mien._emotions import Emotion
from mien._errors import MissingExtraError
from mien._face import Reading
from mien._output import Draft, output_errors

_ROWS_PER_GROUP = 4096  # rows in memory at a time, about 1 MB


class RowGroups:
    """A Parquet file that appears when the block ends well; after an error there is none.

    Raises ``MissingExtraError`` without pyarrow, ``OutputError`` where the path is not writable.
    """

    def __init__(self, path: str | os.PathLike[str], types: Mapping[str, str]) -> None:
        """``types`` are the columns in their order, each with its type as pyarrow names it, such as ``"float32"``."""
        self._path, self._types = path, dict(types)
        self._pending: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MissingExtraError("pyarrow", "lab") from error
        self._pyarrow = pyarrow
        self._schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in self._types.items()])
        self._draft = Draft(self._path)
        try:
            with output_errors(self._draft.name):
                self._writer = pyarrow.parquet.ParquetWriter(self._draft.file, self._schema)
        except BaseException:
            self._draft.drop()
            raise
        return self

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take rows, a value or ``None`` for each column; they are written when a row group is full."""
        self._pending += rows
        if len(self._pending) >= _ROWS_PER_GROUP:
            self._flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._drop()
            return
        try:
            self._flush()
            with output_errors(self._draft.name):
                self._writer.close()
        except BaseException:
            self._drop()
            raise
        self._draft.keep()

    def _drop(self) -> None:
        with suppress(OSError, ValueError):  # pyarrow wants its writer closed before the file below it
            self._writer.close()
        self._draft.drop()

    def _flush(self) -> None:
        with output_errors(self._draft.name):
            self._writer.write_table(self._pyarrow.Table.from_pylist(self._pending, schema=self._schema))
        self._pending = []


class JsonLines:
    """One JSON object a line, exactly ``Reading.to_dict()``; each line is flushed, so that a pipe sees it at once.

    Raises ``OutputError`` when the stream cannot be written. The stream stays open: who opened it closes it.
    """

    def __init__(self, stream: TextIO) -> None:
        """``stream`` takes text, for example ``sys.stdout``."""
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def add(self, reading: Reading) -> None:
        """Write one line."""
        plain = reading.to_dict()
        line = json.dumps(plain, ensure_ascii=False)
        if _fitting(line, self._stream) != line:  # the stream lacks a letter; JSON can spell all of them in ASCII
            line = json.dumps(plain)
        write(self._stream, line + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Csv:
    """One row a face: source, face (0, 1, ...), box, score, emotion, confidence, one column an emotion, error.

    ``emotion`` is empty where the reader is unsure. A picture without a face, or with an error, has one row without a
    face number. Values are those of ``Reading.to_dict()``. Raises ``OutputError`` when the stream cannot be written.
    """

    def __init__(self, stream: TextIO, emotions: Sequence[Emotion]) -> None:
        """``emotions`` are the model's, in its order; the header is written on entering the ``with`` block."""
        self._stream = stream
        self._emotions = tuple(emotions)

    def __enter__(self) -> Self:
        self._write_rows([_columns(self._emotions)])
        return self

    def add(self, reading: Reading) -> None:
        """Write the rows of one picture."""
        self._write_rows([list(row.values()) for row in _rows(reading, self._emotions)])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def _write_rows(self, rows: list[list[Any]]) -> None:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(rows)
        write(self._stream, _fitting(buffer.getvalue(), self._stream))


class Parquet:
    """The rows of ``Csv`` as a Parquet file, written in row groups; the file appears when the block ends well.

    Empty cells are nulls. Raises ``MissingExtraError`` without pyarrow, ``OutputError`` where ``path`` is not writable.
    """

    def __init__(self, path: str | os.PathLike[str], *, emotions: Sequence[Emotion] = tuple(Emotion)) -> None:
        """``emotions`` names the columns of probabilities; those that a model does not know stay null."""
        self._emotions = tuple(emotions)
        text = ("source", "emotion", "error")
        kinds = {"face": "int32"} | dict.fromkeys(text, "string")
        self._rows = RowGroups(path, {name: kinds.get(name, "float32") for name in _columns(self._emotions)})

    def __enter__(self) -> Self:
        self._rows.__enter__()
        return self

    def add(self, reading: Reading) -> None:
        """Take the rows of one picture; they are written when a row group is full."""
        rows = _rows(reading, self._emotions)
        self._rows.add({k: _fitting(v, None) if isinstance(v, str) else v for k, v in row.items()} for row in rows)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rows.__exit__(kind, error, trace)


def _columns(emotions: Sequence[Emotion]) -> list[str]:
    names = ["source", "face", "x1", "y1", "x2", "y2", "score", "emotion", "confidence"]
    return [*names, *(str(e) for e in emotions), "error"]


def _rows(reading: Reading, emotions: Sequence[Emotion]) -> Iterator[dict[str, Any]]:
    empty: dict[str, Any] = dict.fromkeys(_columns(emotions))
    plain = reading.to_dict()
    ends = {"source": plain["source"], "error": plain["error"]}
    for index, face in enumerate(plain["faces"]):
        corners = dict(zip(("x1", "y1", "x2", "y2"), face["box"], strict=True))
        values = {name: face[name] for name in ("score", "emotion", "confidence")}
        probs = {str(e): face["probs"].get(str(e)) for e in emotions}
        yield empty | ends | {"face": index} | corners | values | probs
    if not plain["faces"]:
        yield empty | ends


def _fitting(text: str, stream: TextIO | None) -> str:
    """``text`` with letters that the encoding of ``stream`` lacks (a file name may hold any byte) spelled out."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def write(stream: TextIO, text: str) -> None:
    """Write and flush. Raises ``OutputError`` when the stream refuses."""
    with output_errors(str(getattr(stream, "name", "the output"))):
        stream.write(text)
        stream.flush()
