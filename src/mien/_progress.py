"""The protocol by which long functions report their progress."""

from typing import Protocol


class Progress(Protocol):
    """A function that long functions call to report their progress. An exception that it raises ends the work.

    Example:
        >>> def show(stage, done=0, total=0):
        ...     print(stage, done, total)
    """

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Receive one report.

        Args:
            stage: The current work, in words.
            done: Number of finished parts.
            total: Number of all parts; 0 where it is unknown.
        """


def no_progress(stage: str, done: int = 0, total: int = 0) -> None:
    """Ignore a report. This is the default of functions that take a ``Progress``.

    Args:
        stage: The current work, in words.
        done: Number of finished parts.
        total: Number of all parts; 0 where it is unknown.
    """
