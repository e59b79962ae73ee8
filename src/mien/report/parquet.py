"""Rows -> a Parquet file, in row groups, so that memory stays the same at any length."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from mien._errors import MissingExtraError
from mien.report.output import Draft, output_errors

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
