"""What ``mien track`` writes: each file that the user named, opened before the first frame, whole at the end."""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from mien.report.output import Draft, open_output
from mien.stream import Frames, Moment

if TYPE_CHECKING:
    from mien.pipeline import Reader
    from mien.stream.film import FilmWriter
    from mien.stream.timeline import Timeline

_USUAL_RATE = 25.0  # frames a second, where the source does not tell


class _Sink(Protocol):
    def add(self, moment: Moment) -> None: ...


class Outputs:
    """Takes moments with their frames. Leaving the block closes the files; after an error, none of the tables appears.

    ``notes`` holds what is to be said of them at the end. Set ``partial`` where the source was not seen to its end.
    """

    def __init__(self, frames: Frames, reader: "Reader", files: Mapping[str, Path | None]) -> None:
        """``files`` maps ``--video``, ``--jsonl``, ``--csv``, ``--parquet`` and ``--html`` to their paths."""
        self.notes: list[str] = []
        self.partial = False
        self._frames, self._reader, self._files = frames, reader, files
        self._stack = ExitStack()
        self._sinks: list[_Sink] = []
        self._film: FilmWriter | None = None
        self._timeline: Timeline | None = None

    def __enter__(self) -> Self:
        with self._stack:
            self._open_tables()
            self._open_page()
            if (video := self._files["--video"]) is not None:
                Draft(video).drop()  # says at once where a film cannot be written
            self._stack = self._stack.pop_all()
        return self

    def add(self, moment: Moment, pixels: NDArray[np.uint8]) -> None:
        """Write one frame everywhere."""
        for sink in self._sinks:
            sink.add(moment)
        if self._timeline is not None:
            self._timeline.add(moment, pixels)
        if self._files["--video"] is not None:
            self._film = self._film or self._open_film(self._files["--video"], moment.size_wh)
            self._film.write(pixels, moment)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if self._film is not None and self._film.note:
            self.notes.append(self._film.note)
        if self._timeline is not None and self._files["--html"] is not None and kind is None:
            self._timeline.write(self._files["--html"], partial=self.partial)

    def _open_tables(self) -> None:
        from mien.stream.tables import MomentCsv, MomentLines, MomentParquet

        emotions = self._reader.model.emotions
        if (jsonl := self._files["--jsonl"]) is not None:
            self._sinks.append(MomentLines(self._text(jsonl)))
        if (csv := self._files["--csv"]) is not None:
            self._sinks.append(MomentCsv(self._text(csv), emotions))
        if (parquet := self._files["--parquet"]) is not None:
            self._sinks.append(self._stack.enter_context(MomentParquet(parquet, emotions)))

    def _text(self, path: Path) -> TextIO:
        return sys.stdout if str(path) == "-" else self._stack.enter_context(open_output(path))

    def _open_page(self) -> None:
        html = self._files["--html"]
        if html is None:
            return
        from mien.commands.predict import model_facts
        from mien.stream.timeline import Timeline

        Draft(html).drop()  # a page is written last: whether it can be must be known first
        name = self._frames.name
        facts = {"source": name, **model_facts(self._reader)}
        self._timeline = Timeline(title=f"Faces in {Path(name).name or name}", facts=facts)

    def _open_film(self, path: Path, size_wh: tuple[int, int]) -> "FilmWriter":
        from mien.stream.film import FilmWriter

        source = Path(self._frames.name)
        with_sound = source if not self._frames.live and source.is_file() else None
        rate = self._frames.rate or _USUAL_RATE
        return self._stack.enter_context(FilmWriter(path, source=with_sound, size_wh=size_wh, rate=rate))
