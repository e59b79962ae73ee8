"""What ``mien track`` shows in a terminal: a progress bar or the faces while it runs, and a table of the tracks."""

import csv
import os
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mien._emotions import Emotion
from mien._errors import OutputError
from mien._format import csv_cell, printable
from mien._output import open_output, require_replaceable
from mien.commands._terminal import TableConsole, new_table, print_table
from mien.report.tables import write_csv
from mien.video.statistics import VideoStatistics

if TYPE_CHECKING:
    from mien.video import FrameResult, FrameSource, TrackedFace

_TABLE_ROWS = 20  # the tracks seen longest
_TABLE_EMOTIONS = 3  # of each track
_REDRAWS_PER_SECOND = 8.0
_BAR_CELLS = 14
_SPEED_FRAMES = 30  # over which the speed is averaged
_MAX_FACES = 6  # shown live; the others are counted


class Summary:
    """Collects the statistics of the tracks and measures the speed."""

    def __init__(self) -> None:
        self.statistics = VideoStatistics()
        self._start = time.perf_counter()

    def add(self, result: "FrameResult") -> None:
        """Add a frame.

        Args:
            result: The frame.
        """
        if not self.statistics.frames:  # the time to open the source does not count for the speed
            self._start = time.perf_counter()
        self.statistics.add(result)

    def print(self, frames: "FrameSource", *, notes: Sequence[str], file: TextIO) -> None:
        """Print the table of the tracks, a line about the source, and the notes.

        Args:
            frames: The source.
            notes: Messages about the outputs.
            file: Standard output or standard error.
        """
        statistics = self.statistics
        took, count = time.perf_counter() - self._start, statistics.frames
        lasts = statistics.last - (statistics.first or 0)
        statistics.finish()
        speed = f", {(count - 1) / took:.0f} frames/s" if count > 1 and took > 0 else ""
        tracks = "1 track" if statistics.count == 1 else f"{statistics.count:,} tracks"
        parts = [
            f"{count:,} frame{'s' * (count != 1)} ({lasts:.1f} s) in {took:.1f} s{speed}",
            tracks if statistics.count else "no face found",
            f"{frames.skipped:,} broken frame{'s' * (frames.skipped != 1)} skipped" if frames.skipped else "",
            f"{frames.dropped:,} frames dropped" if frames.live else "",
        ]
        console = TableConsole(file=file, highlight=False)
        if statistics.count:
            console.print(_track_table(statistics))
        line = f"{frames.name}: " + "; ".join(part for part in parts if part)
        for text in (line, frames.note, *notes):
            if text:
                console.print(Text(printable(text)), soft_wrap=True)


def _track_table(statistics: VideoStatistics) -> Table:
    table = new_table()
    for heading in ("track", "from", "to", "seen"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("mostly")
    longest = sorted(statistics, key=lambda track: -track.seconds)[:_TABLE_ROWS]
    for track in sorted(longest, key=lambda track: track.track_id):
        times = (f"{seconds:.1f} s" for seconds in (track.first, track.last, track.seconds))
        mostly = Text()
        for emotion, seconds in sorted(track.shares.items(), key=lambda item: -item[1])[:_TABLE_EMOTIONS]:
            mostly.append(", " if mostly else "")
            mostly.append(str(emotion or "unsure"), style=emotion.color if emotion else "dim")
            mostly.append(f" {seconds / track.seconds:.0%}" if track.seconds > 0 else "")
        table.add_row(str(track.track_id), *times, mostly)
    if more := statistics.count - len(longest):
        table.add_row("...", "", "", "", Text(f"{more} more, seen more briefly", style="dim"))
    return table


class VideoTable:
    """A row for each of several videos, in a file that is complete after each of them.

    Args:
        path: The file, CSV; ``None``: the table is only printed.
        emotions: The emotions of the model.
        settings: How the videos are tracked.
        resume: Whether to begin with the rows that the file has.

    Raises:
        OutputError: The file was made with other settings, or changed by another program.
    """

    def __init__(self, path: Path | None, emotions: Sequence[Emotion], settings: str, *, resume: bool) -> None:
        self._path, self._settings, self._rows = path, settings, list[dict[str, Any]]()
        self._emotions = [*map(str, emotions), "unsure"]
        if path is not None:
            require_replaceable(path)
        if resume and path is not None and path.is_file():
            try:
                with path.open(encoding="utf-8-sig", newline="") as stream:
                    self._rows = list(csv.DictReader(stream))
                if any(row["settings"] != settings for row in self._rows):
                    raise OutputError(f"{path}: was made with other settings; use the same ones, or another folder")
                self._cells()
            except (ValueError, KeyError, TypeError, csv.Error) as error:
                raise OutputError(f"{path}: was changed by another program; name another folder") from error
        self._done = {_place(row["source"]) for row in self._rows}

    def has(self, video: str) -> bool:
        """Return whether the file had the row of a video at the start, under any of its names such as ``./a.mp4``.

        Args:
            video: Its path.
        """
        return _place(video) in self._done

    def add(self, video: str, statistics: VideoStatistics) -> None:
        """Add a video and write the file.

        Args:
            video: Its path.
            statistics: Its tracks.

        Raises:
            OutputError: The file cannot be written.
        """
        shares: Counter[str] = Counter()
        for track in statistics:
            shares.update({str(emotion or "unsure"): seconds for emotion, seconds in track.shares.items()})
        seen = sum(shares.values())
        row: dict[str, Any] = {
            "source": csv_cell(video),
            "seconds": round(statistics.last - (statistics.first or 0), 3),
        }
        row |= {"frames": statistics.frames, "tracks": statistics.count, "face_seconds": round(seen, 3)}
        row |= {name: round(shares[name] / seen, 4) if seen else "" for name in self._emotions}
        self._rows = [each for each in self._rows if _place(each["source"]) != _place(video)] + [
            row | {"settings": self._settings}
        ]
        if self._path is not None:
            with open_output(self._path) as stream:
                write_csv(stream, [self._rows[0], *(each.values() for each in self._rows)])

    def print(self) -> None:
        """Print the table to standard output."""
        print_table(("video", "seconds", "frames", "tracks", "mostly"), self._cells())

    def _cells(self) -> list[tuple[str, ...]]:
        rows = []
        for row in self._rows:
            ranked = sorted((name for name in self._emotions if row[name]), key=lambda name: -float(row[name]))
            mostly = ", ".join(f"{name} {float(row[name]):.0%}" for name in ranked[:_TABLE_EMOTIONS])
            rows.append(
                (row["source"], f"{float(row['seconds']):.1f}", *map(str, (row["frames"], row["tracks"])), mostly)
            )
        return rows


def _place(video: str) -> str:
    """The place of a video that the table, where names are escaped, or an argument names."""
    return os.path.abspath(str(csv_cell(video)))  # noqa: PTH100 (Path.absolute keeps "..")


def open_watch(frames: "FrameSource", *, live: bool) -> "Watch":
    """Open the live view or the progress bar. Nothing is shown if standard error is not a terminal.

    Args:
        frames: The source.
        live: Show the live view.

    Returns:
        A context manager that takes results.
    """
    console = Console(stderr=True)
    return LiveView(frames, console) if live and console.is_terminal else _Bar(frames, console)


class _Bar(Progress):
    """A progress bar over the frames."""

    def __init__(self, frames: "FrameSource", console: Console) -> None:
        columns = (TextColumn("tracking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.add_task("", total=frames.count)

    def add(self, result: "FrameResult") -> None:
        self.update(self.task_ids[0], completed=result.index + 1)


class LiveView:
    """The faces of the current frame, each with bars of its probabilities.

    Args:
        frames: The source.
        console: A terminal.
    """

    def __init__(self, frames: "FrameSource", console: Console) -> None:
        self._frames = frames
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._times: deque[float] = deque(maxlen=_SPEED_FRAMES)
        self._drawn = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def add(self, result: "FrameResult") -> None:
        """Draw a result, unless the last one was drawn too recently.

        Args:
            result: The frame.
        """
        now = time.monotonic()
        self._times.append(now)
        if now - self._drawn >= 1 / _REDRAWS_PER_SECOND:
            self._drawn = now
            self._live.update(self.view(result), refresh=True)

    def view(self, result: "FrameResult") -> Group:
        """Return what is drawn for a result.

        Args:
            result: The frame.

        Returns:
            Cards of the faces below a line with time and speed.
        """
        shown = sorted(result.faces[:_MAX_FACES], key=lambda face: face.track_id)
        grid = Table.grid(padding=(0, 3))
        grid.add_row(*(_face_card(face) for face in shown))
        took = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        speed = f"  {(len(self._times) - 1) / took:.0f} frames/s" if took > 0 else ""
        dropped = f"  {self._frames.dropped:,} dropped" if self._frames.live else ""
        broken = f"  {self._frames.skipped:,} broken" if self._frames.skipped else ""
        status = Text(f"{result.seconds:8.1f} s{speed}{dropped}{broken}  Ctrl-C ends", style="dim")
        more = len(result.faces) - len(shown)
        empty = Text("no face in sight", style="dim")
        rest = [Text(f"and {more} more", style="dim")] if more else []
        return Group(status, grid if shown else empty, *rest)


Watch = LiveView | _Bar  # what is shown while frames are processed


def _face_card(face: "TrackedFace") -> Table:
    """The track number, the emotion, and a bar for each probability."""
    card = Table.grid(padding=(0, 1))
    style = face.top.color if face.emotion else "dim"
    heading = Text(f"{face.emotion or 'unsure'} {face.confidence:.0%}", style=style)
    card.add_row(Text(f"track {face.track_id}", style="bold"), heading)
    for emotion, probability in face.probs.items():
        filled = round(probability * _BAR_CELLS)
        bar = Text("\u2588" * filled, style=emotion.color).append("\u2500" * (_BAR_CELLS - filled), style="dim")
        card.add_row(Text(str(emotion), style="dim"), bar.append(f" {probability:4.0%}", style="default"))
    return card
