"""The folder of a distributed run: its plan, its partitions, and the manifest of those that are complete.

    _plan.jsonl            what is read and how, then a line for each block; written before the first is read
    _manifest.jsonl        a line for each complete partition, and one at the end of the run
    part-0000000.parquet   the rows of the first block

A partition is written beside its place, flushed to the disk, renamed, and then named in the manifest. What the manifest
does not name does not count, so a run that is killed at any moment goes on with the first such block.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Self

from mien._errors import OutputError
from mien._output import Draft, lock_output, output_errors
from mien.cluster.blocks import ImageBlock

_PLAN, _MANIFEST = "_plan.jsonl", "_manifest.jsonl"


@dataclass(frozen=True)
class Part:
    """A complete partition, as a line of the manifest has it.

    Attributes:
        partition: Its number.
        images: Number of images.
        faces: Number of faces.
        failed: Number of images that could not be read.
        bytes: Size of the file.
        sha256: SHA-256 of the file.
    """

    partition: int
    images: int
    faces: int
    failed: int
    bytes: int
    sha256: str

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"part-{self.partition:07}.parquet"


class Partitions:
    """The folder of a run, as a context manager that no other run may open.

    Args:
        folder: The folder; it need not exist.
        given: What is read and how. A folder of a run that was given something else is refused.
        resume: Whether to continue the run that is there.

    Attributes:
        done: The complete partitions, by number.
        size: Number of all blocks.
        total: Number of images of all blocks.
        home: The folder in which relative paths begin.

    Raises:
        OutputError: The folder cannot be written, or belongs to another run or program.
    """

    def __init__(self, folder: str | os.PathLike[str], given: Mapping[str, Any], *, resume: bool) -> None:
        self._folder, self._given, self._resume = Path(folder), json.loads(json.dumps(given)), resume
        self.done: dict[int, Part] = {}
        self.size, self.total, self.home = 0, 0, str(Path.cwd())
        self._is_complete = False

    def __enter__(self) -> Self:
        plan, manifest = self._folder / _PLAN, self._folder / _MANIFEST
        with output_errors(str(self._folder)):
            if self._folder.exists() and not self._folder.is_dir():
                raise OutputError(f"{self._folder}: is a file; name a folder to write to")
            others = (
                [each for each in self._folder.iterdir() if not _is_left_behind(each)] if self._folder.exists() else []
            )
            if plan.exists() and not self._resume:
                raise OutputError(f"{self._folder}: has an earlier run; resume it, or name another folder")
            if not plan.exists() and others:
                raise OutputError(f"{self._folder}: has files that are not of such a run; name a new folder")
            self._made = [each for each in (self._folder, *self._folder.parents) if not each.exists()]
            self._folder.mkdir(parents=True, exist_ok=True)
            self._manifest: BinaryIO = manifest.open("a+b")
        try:
            lock_output(self._manifest.fileno(), self._folder)
            with output_errors(str(self._folder)):
                for draft in self._folder.glob(".mien-*.part"):  # of a run that was killed
                    draft.unlink()
            if plan.exists():
                self._read_plan()
                self._read_manifest()
        except BaseException:
            self._manifest.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # it writes again what a full disk refused, which was reported
            self._manifest.close()
        with suppress(OSError):
            if not (self._folder / _PLAN).exists():  # nothing was read
                (self._folder / _MANIFEST).unlink()
                for folder in self._made:
                    folder.rmdir()

    @property
    def is_planned(self) -> bool:
        """Whether the folder has a plan."""
        return (self._folder / _PLAN).exists()

    def plan(self, blocks: Iterable[ImageBlock]) -> None:
        """Write the plan, one block after another.

        Args:
            blocks: The blocks.

        Raises:
            OutputError: It cannot be written.
        """
        first = json.dumps({**self._given, "folder": self.home}) + "\n"
        with Draft(self._folder / _PLAN, first, sync=True) as draft:
            for block in blocks:
                draft.write(json.dumps(block.to_dict()) + "\n")
                self.size, self.total = self.size + 1, self.total + block.images

    def blocks(self) -> Iterator[tuple[int, str]]:
        """Yield the number and the JSON of each block that is not complete."""
        with (self._folder / _PLAN).open(encoding="utf-8") as lines:
            next(lines)
            for number, line in enumerate(lines):
                if number not in self.done:
                    yield number, line

    def add(self, number: int, content: bytes, *, images: int, faces: int, failed: int) -> Part:
        """Add a complete partition.

        Args:
            number: The number of its block.
            content: Its file.
            images: Number of images.
            faces: Number of faces.
            failed: Number of images that could not be read.

        Returns:
            The partition.

        Raises:
            OutputError: It cannot be written.
        """
        part = Part(number, images, faces, failed, len(content), hashlib.sha256(content).hexdigest())
        with Draft(self._folder / part.file, sync=True) as draft, output_errors(draft.name):
            draft.file.write(content)
        self._append(vars(part))
        self.done[number], self._is_complete = part, False
        return part

    def finish(self) -> None:
        """Note in the manifest that the run is complete.

        Raises:
            OutputError: It cannot be written.
        """
        if not self._is_complete:
            self._append({"complete": True, "partitions": len(self.done), "images": self.count("images")})

    def count(self, name: str) -> int:
        """Return a sum over the complete partitions.

        Args:
            name: ``images``, ``faces`` or ``failed``.
        """
        return sum(getattr(part, name) for part in self.done.values())

    def _append(self, line: Mapping[str, Any]) -> None:
        with output_errors(str(self._folder / _MANIFEST)):
            self._manifest.write(json.dumps(dict(line)).encode() + b"\n")
            self._manifest.flush()
            os.fsync(self._manifest.fileno())

    def _read_plan(self) -> None:
        with (self._folder / _PLAN).open(encoding="utf-8") as lines:
            try:
                given = json.loads(next(lines))
                self.home = given.pop("folder")
                for line in lines:
                    self.size, self.total = self.size + 1, self.total + json.loads(line)["images"]
            except (ValueError, KeyError, TypeError, StopIteration) as error:
                raise OutputError(f"{self._folder / _PLAN}: is damaged; name another folder") from error
        changed = [key for key in given | self._given if given.get(key) != self._given.get(key)]
        if changed:
            names = ", ".join(changed)
            raise OutputError(f"{self._folder}: is of another run (with other {names}); name another folder")

    def _read_manifest(self) -> None:
        """Read the complete partitions. A line that is not whole, or a file that is damaged, does not count."""
        self._manifest.seek(0)
        content = self._manifest.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._manifest.truncate(len(whole))
        known = {field.name for field in fields(Part)}
        named = dict[int, Part]()
        for line in whole.splitlines():
            self._is_complete = line.startswith(b'{"complete"')  # a partition after it was read again
            with suppress(ValueError, TypeError, AttributeError):
                part = Part(**{key: value for key, value in json.loads(line).items() if key in known})
                named[part.partition] = part
        self.done = {number: part for number, part in named.items() if self._is_whole(part)}

    def _is_whole(self, part: Part) -> bool:
        """Whether the file of a partition is as it was written. One that is damaged is removed, and read again."""
        path = self._folder / part.file
        try:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == part.sha256:
                    return True
        except OSError:
            return False
        with output_errors(path):
            path.unlink()
        return False


def _is_left_behind(path: Path) -> bool:
    """Whether a file may be of a run that was killed before it had a plan."""
    return path.name.startswith(".mien-") or (path.name == _MANIFEST and path.stat().st_size == 0)
