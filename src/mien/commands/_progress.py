"""How a training is watched: a bar with its figures in a terminal, one line an epoch anywhere else."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

# Seconds over which the speed is taken for the remaining time; an epoch on a processor lasts minutes.
_SPEED_OVER = 600.0
# Share of clipped steps that is told: then the clipping, and not the rate, says how far a plain SGD step goes.
_OFTEN = 0.5


class Watch:
    """Takes what ``fit`` reports of one run. Nothing shows before the first report: only the first process has any."""

    def __init__(self, name: str) -> None:
        """``name`` stands before the bar."""
        self._name = name
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._epoch: Mapping[str, Any] = {}
        self.epochs = 0  # seen by this watch

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, record: dict[str, Any]) -> None:
        """Show the progress of an epoch, or its figures once it is over."""
        if "epoch" in record:
            self._epoch, self.epochs = record, self.epochs + 1
            self._console.print(epoch_line(record), highlight=False, soft_wrap=True)
        elif self._console.is_terminal:
            self._show(record)

    def _show(self, record: Mapping[str, Any]) -> None:
        if self._bar is None:
            self._bar = self._start(record)
        figures = f"loss {record['loss']:.3f}" + (f"  {_validated(self._epoch)}" if self._epoch else "")
        self._bar.update(self._bar.task_ids[0], completed=record["step"], total=record["steps"], figures=figures)

    def _start(self, record: Mapping[str, Any]) -> Progress:
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        bar = Progress(*columns, console=self._console, speed_estimate_period=_SPEED_OVER, transient=True)
        # A resumed run starts where it stands, or its steps so far would count for its speed.
        bar.add_task(self._name, total=record["steps"], completed=record["step"], figures="")
        bar.start()
        return bar


def epoch_line(record: Mapping[str, Any]) -> str:
    """The figures of an epoch for people."""
    parts = [
        f"epoch {record['epoch']}",
        f"loss {record['loss']:.3f}",
        f"training {record['accuracy']:.2%}",
        _validated(record),
        f"{record['images_per_second']:,.0f} images/s",
        f"{record['seconds']:.1f} s",
        f"clipped {record['clipped']:.0%} of the steps" if record.get("clipped", 0) >= _OFTEN else "",
        f"back to the best epoch, on with {record['fallback']}" if "fallback" in record else "",
    ]
    return "  ".join(part for part in parts if part)


def _validated(record: Mapping[str, Any]) -> str:
    for key, name in (("public", "PublicTest"), ("fold", "fold"), ("leaky", "leaky (copies of training faces)")):
        if f"{key}_accuracy" in record:
            return f"{name} {record[f'{key}_accuracy']:.2%}"
    return ""


def silence_lightning() -> None:
    """As of ``mien.lab.train.logging``, which is imported now: call it where a missing lab has been seen to."""
    from mien.lab.train.logging import silence_lightning as silence

    silence()


class Stages:
    """What is being done and how much of it: a bar in a terminal, anywhere else a plain line for every new thing."""

    def __init__(self, *, lines: bool = True, whole: bool = False) -> None:
        """``lines=False`` leaves the plain lines out.

        ``whole`` says that ``done`` counts all of the work, not one stage: a plain line then tells how far it is.
        """
        self._console = Console(stderr=True)
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal, transient=True)
        self._task = self._bar.add_task("", total=None)
        self._doing, self._lines, self._whole = "", lines and not self._console.is_terminal, whole

    def __enter__(self) -> "Stages":
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """``done`` of ``total`` parts of ``stage``; a ``total`` of 0 or 1 says that nobody knows how long it takes."""
        if stage != self._doing and self._lines:
            far = f": from {done / total:.0%}" if self._whole and total else ""
            self._console.print(f"{stage}{far}", highlight=False, markup=False, soft_wrap=True)
        self._doing = stage
        self._bar.update(self._task, description=escape(stage), completed=done, total=total if total > 1 else None)
