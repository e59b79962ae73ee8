"""Sources -> blocks: folders, globs, lists, tables, videos and object stores, cut by the bytes of their images."""

import glob
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path, PurePath
from typing import Any

from mien._errors import DataError, ImageError, MienError, SourceError, why_absent
from mien._inputs import VIDEO_SUFFIXES, expand_inputs, image_suffixes
from mien.cluster.blocks import ImageBlock, open_table
from mien.cluster.stores import QUERY, is_address, list_objects, split_address

BLOCK_BYTES = 64 * 2**20  # of encoded images in a block: 5 to 10 s of one core
BLOCK_IMAGES = 1024  # at most in so many bytes, where images are small
_TYPICAL_BYTES = 100_000  # of an image whose size is not known before it is fetched
_VIDEO_SECONDS = 120.0  # of a video in a block
_NAME_COLUMNS = ("path", "image", "image_path", "file", "file_name", "filename", "url", "uri")
# Suffixes of MP4 and Matroska, in which a time is found without decoding what is before it.
_SPLITTABLE = frozenset([".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm"])


class Plan:
    """The blocks of sources, which are found one after another while it is iterated over.

    Args:
        sources: Folders, globs, images, videos, lists (``.txt``, a name a line), tables (``.parquet``), and addresses
            of object stores.
        fps: Frames per second to read of videos; ``None``: videos are not read.
        column: The column of tables with the images or their names; ``None``: the only one that can be it.
        block_bytes: Bytes of encoded images in a block.

    Attributes:
        left_out: What is not read in folders, and how often.
    """

    def __init__(
        self, sources: Sequence[str], *, fps: float | None, column: str | None, block_bytes: int = BLOCK_BYTES
    ) -> None:
        self._sources, self._fps, self._column, self._bytes = sources, fps, column, block_bytes
        self._most = max(BLOCK_IMAGES, BLOCK_IMAGES * block_bytes // BLOCK_BYTES)  # images in a block
        self._suffixes = image_suffixes() | (VIDEO_SUFFIXES if fps else frozenset())
        self._names: set[str] = set()
        self._first: tuple[str, str, Any] | None = None  # the first table, its column, and the type of the column
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[ImageBlock]:
        """Yield the blocks. Raises ``MienError`` for a source that cannot be read or is named twice."""
        for kind, group in groupby(self._sources, _kind_of_source):
            words = list(group)
            if kind == "files":
                yield from self._expand(words)
            for word in words if kind == "address" else ():
                yield from self._blocks(list_objects(word, self._suffixes), split_address(word)[2])
            for word in _lists(words) if kind == "list" else ():
                yield from self._blocks(((name, _size_of(name)) for name in _read_list(word)), "")

    def _expand(self, words: list[str]) -> Iterator[ImageBlock]:
        for word in words:
            if not os.path.lexists(word) and not re.search(r"[*?[]", word):
                raise MienError(f"{word}: {why_absent(word, 'there is no such file or folder; check the path')}")
        inputs = expand_inputs(words, suffixes=self._suffixes)
        for word in words:
            if not os.path.lexists(word) and _kind_of_file(word) != "image" and word in inputs.sources:
                raise MienError(f"{word}: no file matches it; check the path")
        self.left_out += inputs.left_out
        if inputs.failed:
            errors = [str(reading.error) for reading in inputs.failed]
            yield ImageBlock(len(errors), [reading.source for reading in inputs.failed], errors)
        names = map(str, inputs.sources)
        yield from self._blocks(((name, _size_of(name)) for name in names), "")

    def _blocks(self, found: Iterable[tuple[str, int]], options: str) -> Iterator[ImageBlock]:
        once = ((self._once(name), size) for name, size in found)
        for kind, files in groupby(once, lambda each: _kind_of_file(each[0])):
            if kind == "image":
                yield from (ImageBlock(len(names), names, options=options) for names in self._cut(files))
            for name, _ in files if kind != "image" else ():
                yield from self._table(name, options) if kind == "table" else self._video(name, options)

    def _once(self, name: str) -> str:
        known = name if is_address(name) else os.path.abspath(name)  # noqa: PTH100 (a million Paths are slow)
        if known in self._names:
            raise DataError(f"{name}: is named twice, so its faces would be counted twice; name it once")
        self._names.add(known)
        return name

    def _cut(self, files: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
        """Lists of names of about as many bytes as a block has."""
        names, total = list[str](), 0
        for name, size in files:
            if names and (total + size > self._bytes or len(names) >= self._most):
                yield names
                names, total = [], 0
            names.append(name)
            total += size or _TYPICAL_BYTES
        if names:
            yield names

    def _table(self, name: str, options: str) -> Iterator[ImageBlock]:
        """Row groups together, or parts of a large one."""
        with open_table(name, options) as file:
            column, is_name = self._check_column(name, file.schema_arrow)
            for batch in file.iter_batches(columns=[column]) if is_name else ():
                for value in filter(None, batch.column(column).to_pylist()):
                    self._once(value)
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        first = row = total = 0
        block = ImageBlock(0, [name], options=options, column=column)
        for group in groups:
            size = _column_bytes(group, column)
            average = _TYPICAL_BYTES if is_name else max(1, size // max(1, group.num_rows))
            most = min(self._most, max(1, self._bytes // average))
            for count in [most] * (group.num_rows // most) + [group.num_rows % most]:
                is_full = total + count * average > self._bytes or row + count - first > self._most
                if row > first and count and is_full:
                    yield replace(block, images=row - first, start=first, end=row)
                    first, total = row, 0
                row, total = row + count, total + count * average
        if row > first:
            yield replace(block, images=row - first, start=first, end=row)

    def _check_column(self, name: str, schema: Any) -> tuple[str, bool]:
        """The column with the images of a table, and whether it has their names. All tables have the same."""
        column = self._column or (self._first[1] if self._first else _choose_column(name, schema))
        if column not in schema.names:
            other = f", as {self._first[0]} has" if self._first else ""
            raise DataError(f"{name}: has no column {column!r}{other}; it has {', '.join(schema.names)}")
        if schema.names.count(column) > 1:
            raise DataError(f"{name}: has several columns {column!r}; keep one of them")
        kind = schema.field(column).type
        if not _holds_images(kind) and not _holds_names(kind):
            raise DataError(f"{name}: its column {column!r} is of the type {kind}; it must be bytes, names or both")
        self._first = self._first or (name, column, kind)
        if kind != self._first[2]:
            raise DataError(
                f"{name}: its column {column!r} is of the type {kind}, but {self._first[2]} in {self._first[0]};"
                " write them alike, or read them one after another into folders of their own"
            )
        return column, not _holds_images(kind)

    def _video(self, name: str, options: str) -> Iterator[ImageBlock]:
        """Parts of two minutes, where the container can be searched; else the whole video."""
        from mien.video import open_source

        if not self._fps:
            raise MienError(f"{name}: is a video; say how many frames a second to read of it (fps)")
        block = ImageBlock(1, [name], options=options, fps=self._fps)
        if is_address(name):
            yield block
            return
        try:
            with open_source(name, fps=self._fps) as source:
                images, rate = source.count or 1, min(source.rate or self._fps, self._fps)
        except (SourceError, ImageError) as error:
            yield ImageBlock(1, [name], [str(error)])
            return
        samples = math.ceil(_VIDEO_SECONDS * self._fps)  # whole ones, so that the parts sample the times of the whole
        most = max(1, round(samples / self._fps * rate))
        last = max(1, math.ceil(images / most)) - 1 if PurePath(name).suffix.lower() in _SPLITTABLE else 0
        for part in range(last):
            yield replace(block, images=most, start=part * samples / self._fps, end=(part + 1) * samples / self._fps)
        yield replace(block, images=max(1, images - last * most), start=last * samples / self._fps)


def _kind_of_source(word: str) -> str:
    if is_address(word):
        return "address"
    return "list" if word.lower().endswith(".txt") else "files"


def _kind_of_file(name: str) -> str:
    suffix = PurePath(QUERY.sub("", name) if is_address(name) else name).suffix.lower()
    return "table" if suffix == ".parquet" else "video" if suffix in VIDEO_SUFFIXES else "image"


def _lists(words: list[str]) -> Iterator[str]:
    """The lists that paths and globs name."""
    for word in words:
        yield from (not os.path.lexists(word) and sorted(glob.glob(word, recursive=True))) or [word]  # noqa: PTH207


def _size_of(name: str) -> int:
    """The size of a file; 0 if it is not known, or if reading it will report what is wrong."""
    if is_address(name):
        return 0
    try:
        return os.stat(name).st_size  # noqa: PTH116
    except (OSError, ValueError):
        return 0


def _read_list(name: str) -> Iterator[str]:
    """The names in a text file, a line each."""
    try:
        with Path(name).open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for line in lines:
                if "\0" in line:  # UTF-16, or names that end with a zero byte
                    raise MienError(f"{name}: has zero bytes; write it in UTF-8, with a name a line")
                if line.strip():
                    yield line.rstrip("\n")
    except OSError as error:
        raise MienError(f"{name}: cannot be read ({(error.strerror or '').lower()}); check the path") from error


def _choose_column(name: str, schema: Any) -> str:
    images = [field.name for field in schema if _holds_images(field.type)]
    texts = [field.name for field in schema if _holds_names(field.type)]
    found = images or [text for text in texts if text.lower() in _NAME_COLUMNS]
    if len(found) != 1:
        known = ", ".join(schema.names)
        raise DataError(f"{name}: which column has the images, or their names? Name it; the table has {known}")
    return str(found[0])


def _holds_images(kind: Any) -> bool:
    """Whether a type of pyarrow is bytes, or the structure with ``bytes`` and ``path`` of Hugging Face."""
    if str(kind).startswith("struct"):
        return "bytes" in [kind.field(index).name for index in range(kind.num_fields)]
    return re.fullmatch("(large_)?binary(_view)?", str(kind)) is not None


def _holds_names(kind: Any) -> bool:
    """Whether a type of pyarrow is text, or the categories of pandas."""
    return re.match("(dictionary<values=)?(large_)?string", str(kind)) is not None


def _column_bytes(group: Any, column: str) -> int:
    parts = (group.column(index) for index in range(group.num_columns))
    return sum(part.total_uncompressed_size for part in parts if f"{part.path_in_schema}.".startswith(f"{column}."))
