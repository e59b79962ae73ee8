"""How commands show progress: a bar in a terminal, plain lines anywhere else."""

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mien._format import printable

if TYPE_CHECKING:  # the lab is an extra
    from mien.lab.train.logging import EpochRecord

# Seconds over which the speed is averaged for the remaining time: an epoch on a CPU takes minutes.
_SPEED_WINDOW = 600.0
# Share of clipped steps that is reported: above it, clipping and not the learning rate sets the size of most steps.
_OFTEN = 0.5


class TerminalProgress:
    """A ``mien._progress.Progress``: a bar in a terminal, anywhere else one line for each new stage."""

    def __init__(self, *, lines: bool = True, overall: bool = False) -> None:
        """Start with no stage.

        Args:
            lines: Whether to print the lines outside of a terminal.
            overall: Whether ``done`` counts all of the work instead of one stage; the lines then show the share done.
        """
        self._console = Console(stderr=True)
        columns = (TextColumn("[bold]{task.description}"), BarColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal, transient=True)
        self._task = self._bar.add_task("", total=None)
        self._stage, self._lines, self._overall = "", lines and not self._console.is_terminal, overall

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Show the progress.

        Args:
            stage: What is being done.
            done: How many parts of it are finished.
            total: How many parts there are; 0 or 1 where the duration is unknown.
        """
        if stage != self._stage and self._lines:
            share = f": from {done / total:.0%}" if self._overall and total else ""
            self._console.print(printable(f"{stage}{share}"), highlight=False, markup=False, soft_wrap=True)
        self._stage = stage
        self._bar.update(
            self._task, description=escape(printable(stage)), completed=done, total=total if total > 1 else None
        )


class TrainingProgress:
    """Shows one training: a bar with its metrics in a terminal, and one line for each epoch.

    Nothing is shown before the first report, because only the first process of a distributed run reports.
    """

    def __init__(self, name: str) -> None:
        """Start without a bar.

        Args:
            name: Text before the bar.
        """
        self._name = escape(printable(name))
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._validation = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Show the progress and the last validation.

        Args:
            stage: The metrics of the step.
            done: Number of finished steps.
            total: Number of all steps.
        """
        if not self._console.is_terminal:
            return
        if self._bar is None:
            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[metrics]}"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console, speed_estimate_period=_SPEED_WINDOW, transient=True)
            # A resumed run starts at its step: the steps of earlier calls must not count for the speed.
            self._bar.add_task(self._name, total=total, completed=done, metrics="")
            self._bar.start()
        metrics = f"{stage}  {self._validation}"
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, metrics=metrics)

    def on_epoch(self, record: "EpochRecord") -> None:
        """Print the metrics of a finished epoch.

        Args:
            record: The record of the epoch.
        """
        self._validation = _validation(record) or self._validation
        self._console.print(epoch_line(record), highlight=False, soft_wrap=True)


def epoch_line(record: "EpochRecord") -> str:
    """Format the record of a finished epoch as one line.

    Args:
        record: The record.

    Returns:
        For example ``epoch 3  loss 1.204  training 54.10%  PublicTest 57.31%  812 images/s  35.4 s``.
    """
    parts = [
        f"epoch {record.epoch}",
        f"loss {record.loss:.3f}",
        f"training {record.accuracy:.2%}" + (f" at {record.size} px" if record.size else ""),
        _validation(record),
        f"{record.images_per_second:,.0f} images/s",
        f"{record.seconds:.1f} s",
        f"clipped {record.clipped:.0%} of the steps" if record.clipped >= _OFTEN else "",
        f"returned to the best epoch, continuing with {record.fallback}" if record.fallback else "",
    ]
    return "  ".join(part for part in parts if part)


def _validation(record: "EpochRecord") -> str:
    return f"{record.val_name} {record.val_accuracy:.2%}" if record.val_split else ""
