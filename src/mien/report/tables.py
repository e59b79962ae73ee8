"""Readings as tables: JSON lines, CSV and Parquet, written reading by reading, and data frames."""

import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from mien._emotions import Emotion
from mien._errors import MienError, MissingExtraError, OutputError, first_line, require_kind, shown
from mien._face import Reading, record_columns
from mien._format import csv_cell, printable
from mien._output import MARK, PARTIAL, Draft, is_device, lock_output, open_output, output_errors

if TYPE_CHECKING:
    from pandas import DataFrame

_ROWS_PER_GROUP = 4096  # rows in memory at a time, about 1 MB


def import_parquet() -> Any:
    """Return the module ``pyarrow.parquet``. Raises ``MissingExtraError`` if it is not installed."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    return parquet


class RowGroups:
    """Writes a Parquet file in row groups. The file appears when the block ends without an exception.

    Args:
        path: The file.
        types: The columns in their order, each with the name of its pyarrow type, such as ``"float32"``.
        metadata: Texts that the file carries.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OutputError: The file cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], types: Mapping[str, str], *, metadata: Mapping[str, str] | None = None
    ) -> None:
        self._path, self._types, self._metadata = path, dict(types), dict(metadata or {})
        self._pending: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        parquet = import_parquet()
        import pyarrow

        self._pyarrow, self._schema = pyarrow, _schema(self._types, self._metadata)
        self._draft = Draft(self._path)
        try:
            with output_errors(self._draft.name):
                self._writer = parquet.ParquetWriter(self._draft.file, self._schema)
        except BaseException:
            self._draft.drop()
            raise
        return self

    def add_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows. They are written when a row group is full.

        Args:
            rows: For each row a value or ``None`` for every column.

        Raises:
            OutputError: The file cannot be written.
        """
        self._pending += rows
        if len(self._pending) >= _ROWS_PER_GROUP:
            self._flush()

    def copy(self, file: str | os.PathLike[str]) -> None:
        """Add the rows of another file, one row group at a time.

        Args:
            file: A Parquet file with the same columns.

        Raises:
            OutputError: The file cannot be written.
        """
        with import_parquet().ParquetFile(file) as opened, output_errors(self._draft.name):
            for group in range(opened.num_row_groups):
                self._writer.write_table(opened.read_row_group(group).cast(self._schema))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                with output_errors(self._draft.name):
                    self._writer.close()
                self._draft.keep()
        finally:
            with suppress(OSError, ValueError):  # the writer of pyarrow must be closed before its file
                self._writer.close()
            self._draft.drop()

    def _flush(self) -> None:
        if not self._pending:
            return
        with output_errors(self._draft.name):
            self._writer.write_table(self._pyarrow.Table.from_pylist(self._pending, schema=self._schema))
        self._pending = []


class TextOutput:
    """A text file that appears when the block ends, or an open stream. After Ctrl-C it has the results until then.

    Args:
        file: The path of the file, or a text stream such as ``sys.stdout``, which is not closed.

    Raises:
        OutputError: The file cannot be written.
    """

    def __init__(self, file: str | os.PathLike[str] | TextIO) -> None:
        if not hasattr(file, "write"):
            require_kind("file", file, (str, os.PathLike), "a path or a text stream")
        self._path = file if isinstance(file, str | os.PathLike) else None
        self._end = ExitStack()
        if not isinstance(file, str | os.PathLike):
            self._stream = file

    def __enter__(self) -> Self:
        if self._path is not None:
            self._stream = self._end.enter_context(open_output(self._path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, PARTIAL):
            with self._end, suppress(BrokenPipeError):  # another error of the last lines removes the file
                self._finish()
        else:
            self._end.__exit__(kind, error, trace)

    def _finish(self) -> None:
        """Write the last lines."""


class JsonOutput(TextOutput):
    """JSON values in a file or stream: a line each, or the items of one array.

    Args:
        file: The path of the file, or a text stream, which is not closed.
        array: Whether the file is one JSON array.
    """

    def __init__(self, file: str | os.PathLike[str] | TextIO, *, array: bool = False) -> None:
        super().__init__(file)
        self._array, self._count = array, 0

    def write_value(self, plain: Any) -> None:
        """Write one value and flush.

        Args:
            plain: A value of JSON.

        Raises:
            OutputError: The file cannot be written.
        """
        line = json.dumps(plain, ensure_ascii=False)
        if escaped(line, self._stream) != line:  # the encoding lacks a character; JSON can write all in ASCII
            line = json.dumps(plain)
        before = ("[\n" if not self._count else ",\n") if self._array else ""
        write(self._stream, before + printable(line) + ("" if self._array else "\n"))
        self._count += 1

    def _finish(self) -> None:
        if self._array:
            write(self._stream, "\n]\n" if self._count else "[]\n")


class JsonLines(JsonOutput):
    """Writes one JSON object per line, as ``Reading.to_dict`` returns it. Each line is flushed.

    Args:
        file: The path of the file, or a text stream such as ``sys.stdout``, which is not closed.
        array: Whether to write one JSON array instead of lines.

    Raises:
        OutputError: The file cannot be written.

    Example:
        >>> import sys
        >>> from mien import JsonLines, Reading
        >>> with JsonLines(sys.stdout) as lines:
        ...     lines.add(Reading((), "photo.jpg", (640, 480)))
        {"source": "photo.jpg", "size_wh": [640, 480], "faces": [], "error": null}
    """

    def add(self, reading: Reading) -> None:
        """Write one line.

        Args:
            reading: The reading.

        Raises:
            OutputError: The file cannot be written.
        """
        require_kind("reading", reading, Reading, "what Reader.read returns")
        self.write_value(reading.to_dict())


class Csv(TextOutput):
    """Writes one row for each face: the columns of ``Reading.to_records``.

    In names and errors, control characters are escaped, and a ``'`` is set before what a spreadsheet would take for a
    formula.

    ``emotion`` is empty where the reader is unsure. An image without a face, or with an error, has one row without a
    face number. The header is written at the start of the ``with`` block.

    Args:
        file: The path of the file, or a text stream such as ``sys.stdout``, which is not closed.
        emotions: The emotions of the model, in its order.
        raw: Whether names and errors are written unchanged.

    Raises:
        OutputError: The file cannot be written.

    Example:
        >>> import sys
        >>> from mien import Csv, Emotion, Reading
        >>> with Csv(sys.stdout, (Emotion.HAPPY, Emotion.SAD)) as table:  # doctest: +ELLIPSIS
        ...     table.add(Reading((), "photo.jpg", (640, 480)))
        source,face,x1,y1,x2,y2,score,emotion,confidence,happy,sad,quality,size,sharpness,turn,image_width,...,error
        photo.jpg,,,,,,,,,,,,,,,640,480,,,,,,,,,,,,,
    """

    def __init__(
        self, file: str | os.PathLike[str] | TextIO, emotions: Sequence[Emotion], *, raw: bool = False
    ) -> None:
        super().__init__(file)
        require_kind("emotions", emotions, (list, tuple), "a list of emotions")
        self._raw, self._emotions = raw, tuple(emotions)

    def __enter__(self) -> Self:
        super().__enter__()
        write_csv(self._stream, [record_columns(self._emotions)])
        return self

    def add(self, reading: Reading) -> None:
        """Write the rows of one image.

        Args:
            reading: The reading of the image.

        Raises:
            OutputError: The file cannot be written.
        """
        write_csv(self._stream, (row.values() for row in _rows(reading, self._emotions)), raw=self._raw)


class Parquet:
    """Writes the rows of ``Csv`` as a Parquet file, which appears when the block ends. Empty cells are nulls.

    Until then, each row group is a complete file in a folder beside it (``.NAME.parts``). After ``kill -9``, a power
    cut or an error, ``resume`` continues there; after Ctrl-C, the file has what was read until then.

    Args:
        path: The file.
        emotions: The columns of probabilities. The column of an emotion that the model does not have is null.
        resume: Whether to add to the file, and to what an earlier run has left. ``done`` then has the sources.
        settings: How the rows are made, such as ``Reader.describe``: resuming with others is refused.

    Attributes:
        done: The sources whose rows the file has already.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OutputError: The file cannot be written, or what is there was made with other settings or did not end.

    Example:
        >>> from mien import Parquet, Reader
        >>> with Parquet("faces.parquet") as table:  # doctest: +SKIP
        ...     for reading in Reader().read_many(["photo.jpg"]):
        ...         table.add(reading)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        emotions: Sequence[Emotion] = tuple(Emotion),
        resume: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        require_kind("path", path, (str, os.PathLike), "the path of a file")
        require_kind("emotions", emotions, (list, tuple), "a list of emotions")
        require_kind("settings", {} if settings is None else settings, Mapping, "a mapping of texts")
        for name, value in (settings or {}).items():
            require_kind(f"settings: {shown(name)}", value, (str,), "a text")
        if not Path(path).name:
            raise OutputError(f"{path}: is a folder; name a file")
        self._emotions, self._path, self._resume = tuple(emotions), Path(path), resume
        self._parts = self._path.with_name(f".{self._path.name}.parts")
        self._types, self._settings = _types(self._emotions), _metadata(settings)
        self._pending: list[dict[str, Any]] = []
        self.done: set[str] = set()

    def __enter__(self) -> Self:
        import_parquet()
        if not (is_pipe := is_device(self._path)):  # whose reader would end when it is closed
            Draft(self._path).drop()  # a path that cannot be written is reported now
        with output_errors(str(self._parts)):
            if is_pipe:
                self._parts = Path(tempfile.mkdtemp())
            self._parts.mkdir(exist_ok=True)
            folder = os.open(self._parts, os.O_RDONLY) if os.name == "posix" else None
        if folder is not None:
            try:
                lock_output(folder, self._path)
            except BaseException:
                os.close(folder)
                raise
        self._folder = folder
        try:
            self._find_parts()
        except BaseException:
            self._close()
            raise
        return self

    def _find_parts(self) -> None:
        """Find what earlier runs have written."""
        is_left = any(not file.name.startswith(".mien-") for file in self._parts.iterdir())  # else no part was complete
        if is_left and not self._resume:
            cure = f"resume it, or remove {self._parts} to begin again"
            raise OutputError(f"{self._path}: an earlier run did not end, and what it read is kept; {cure}")
        self._files = [self._path] if self._resume and self._path.is_file() else []
        self.done = complete = self._sources(self._path) if self._files else set()
        for part in sorted(self._parts.glob("*.parquet")):
            sources = self._sources(part)
            if not sources <= complete:  # else the run was killed after the file was complete
                self._files.append(part)
            self.done = self.done | sources

    def _close(self) -> None:
        """Free the folder of parts for other runs, and remove it if it has none."""
        with suppress(OSError):
            self._parts.rmdir()
        if self._folder is not None:
            os.close(self._folder)

    def add(self, reading: Reading) -> None:
        """Add the rows of one image. They are written when a row group is full.

        Args:
            reading: The reading of the image.

        Raises:
            OutputError: The file cannot be written.
        """
        self._pending += parquet_rows(reading, self._emotions)
        if len(self._pending) >= _ROWS_PER_GROUP:
            self._write_part()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, PARTIAL):
                self._join_parts()
        finally:  # after an error the parts are kept, to be resumed
            self._close()

    def _join_parts(self) -> None:
        """Write the file of all parts, and remove them."""
        try:
            if self._pending or not self._files:
                self._write_part()
            with self._groups(self._path) as groups:
                for file in self._files:
                    groups.copy(file)
        except BaseException:
            if self._path.exists() and not self._path.is_file():
                shutil.rmtree(self._parts, ignore_errors=True)
            raise
        shutil.rmtree(self._parts, ignore_errors=True)

    def _groups(self, path: Path) -> "RowGroups":
        return RowGroups(path, self._types, metadata=self._settings)

    def _write_part(self) -> None:
        used = [int(file.stem) for file in self._parts.glob("*.parquet")]
        part = self._parts / f"{max(used, default=0) + 1:06}.parquet"
        with self._groups(part) as groups:
            groups.add_rows(self._pending)
        self._files.append(part)
        self._pending = []

    def _sources(self, file: Path) -> set[str]:
        """The sources of a file; refuses one that was made in another way."""
        parquet = import_parquet()
        try:
            with parquet.ParquetFile(file) as opened:
                columns, metadata = opened.schema_arrow.names, opened.schema_arrow.metadata or {}
                if columns != [*self._types] or metadata.get(b"settings", b"{}") != self._settings["settings"].encode():
                    cure = "use the same model and settings, or name another file"
                    raise OutputError(f"{self._path}: was made with other settings or by another program; {cure}")
                groups = range(opened.num_row_groups)
                return {text for i in groups for text in opened.read_row_group(i, ["source"])[0].to_pylist()}
        except (OSError, ValueError) as error:  # pyarrow's errors are kinds of ValueError
            raise OutputError(
                f"{file}: cannot be read ({first_line(error)}); remove it or name another file"
            ) from error


def parquet_rows(reading: Reading, emotions: Sequence[Emotion]) -> list[dict[str, Any]]:
    """Return the rows of a reading as ``Parquet`` writes them.

    Args:
        reading: The reading.
        emotions: The emotions whose probabilities the rows have.
    """
    rows = _rows(reading, emotions)
    return [{key: escaped(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows]


def encode_parquet(
    rows: list[dict[str, Any]], emotions: Sequence[Emotion], settings: Mapping[str, str] | None = None
) -> bytes:
    """Return the file that ``Parquet`` writes, for rows that fit into memory.

    Args:
        rows: The rows, as ``parquet_rows`` returns them.
        emotions: The emotions whose probabilities they have.
        settings: How the rows were made.

    Returns:
        The content of the file.
    """
    parquet, stream = import_parquet(), io.BytesIO()
    import pyarrow

    schema = _schema(_types(emotions), _metadata(settings))
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), stream)
    return stream.getvalue()


def _types(emotions: Sequence[Emotion]) -> dict[str, str]:
    """The columns of readings, each with the name of its pyarrow type."""
    kinds = dict.fromkeys(("source", "emotion", "error"), "string")
    kinds |= dict.fromkeys(("face", "image_width", "image_height"), "int32")
    return {name: kinds.get(name, "float32") for name in record_columns(emotions)}


def _metadata(settings: Mapping[str, str] | None) -> dict[str, str]:
    return {"settings": json.dumps(dict({} if settings is None else settings))}


def _schema(types: Mapping[str, str], metadata: Mapping[str, str]) -> Any:
    import pyarrow

    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in types.items()])
    return schema.with_metadata({"writer": MARK, **metadata})


def to_pandas(readings: Reading | Iterable[Reading], *, emotions: Sequence[Emotion] | None = None) -> "DataFrame":
    """Return readings as a data frame with one row for each face, as ``Csv`` writes them.

    An image without a face, or with an error, has one row without a face number.

    Args:
        readings: Readings of ``Reader.read_many``, or one reading.
        emotions: The emotions whose probabilities the table has; the default is those of the readings' models.

    Returns:
        A data frame with the columns of ``Reading.to_records``. ``face`` and the size of the image are ``Int32``, texts
        are strings, numbers ``float64``; what is not known is missing.

    Raises:
        MissingExtraError: pandas is not installed.
        MienError: ``readings`` has something else than readings.

    Example:
        >>> import mien
        >>> table = mien.to_pandas(mien.Reader().read_many([mien.example()]))
        >>> table[["face", "emotion"]].values.tolist()
        [[0, 'happy']]
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingExtraError("pandas", "pandas") from error
    if not isinstance(readings, Iterable):
        raise MienError(f"readings is {type(readings).__name__}; it must be what Reader.read or read_many returns")
    several = [readings] if isinstance(readings, Reading) else list(readings)
    for reading in several:
        require_kind("readings", reading, Reading, "what Reader.read or read_many returns")
    if emotions is None:
        known = {emotion for reading in several for face in reading for emotion in face.probs}
        emotions = [emotion for emotion in Emotion if emotion in known]
    require_kind("emotions", emotions, (list, tuple), "a list of emotions")
    types = _types(emotions)
    rows = [row for reading in several for row in _rows(reading, emotions)]
    kinds = {"string": "string", "int32": "Int32", "float32": "float64"}
    table = pandas.DataFrame.from_records(rows, columns=[*types])
    return table.astype({name: kinds[kind] for name, kind in types.items()})


def _rows(reading: Reading, emotions: Sequence[Emotion]) -> list[dict[str, Any]]:
    """The rows of a reading; one without a face number if it has no faces."""
    require_kind("reading", reading, Reading, "what Reader.read returns")
    return reading.to_records(emotions, keep_empty=True)


def escaped(text: str, stream: TextIO | None = None) -> str:
    """Escape characters that an encoding lacks. A file name may contain any byte.

    Args:
        text: The text.
        stream: The stream whose encoding counts; ``None``: UTF-8.

    Returns:
        The text that can be encoded.
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def write_csv(stream: TextIO, rows: Iterable[Iterable[Any]], *, raw: bool = False) -> None:
    """Write rows of CSV and flush. Characters that the encoding of the stream lacks are escaped.

    Args:
        stream: A text stream.
        rows: The cells of each row; ``None`` is empty.
        raw: Whether texts are written unchanged, also control characters and what spreadsheets take for formulas.

    Raises:
        OutputError: The stream cannot be written.
    """
    lines: list[str] = []
    # It quotes texts with a character of its line end: else a raw name with "\r" would end the row.
    writer = csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n")
    writer.writerows(rows if raw else (map(csv_cell, row) for row in rows))
    write(stream, escaped("".join(line.removesuffix("\r\n") + "\n" for line in lines), stream))


def write(stream: TextIO, text: str) -> None:
    """Write text and flush.

    Args:
        stream: A text stream.
        text: The text.

    Raises:
        OutputError: The stream cannot be written.
    """
    with output_errors(str(getattr(stream, "name", "the output"))):
        stream.write(text)
        stream.flush()
