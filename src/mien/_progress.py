"""The one protocol by which long work reports how far it is."""

from typing import Protocol

__all__ = ["Progress", "no_progress"]


class Progress(Protocol):
    """What long functions call to report their progress.

    Any function with these arguments will do. An exception that it raises ends the work.

    Example:
        >>> def show(stage, done=0, total=0):
        ...     print(stage, done, total)
    """

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Take one report.

        Args:
            stage: What is being done, for people.
            done: How many parts of it are finished.
            total: How many parts there are; 0 where that is not known.
        """


def no_progress(stage: str, done: int = 0, total: int = 0) -> None:
    """Ignore every report: the default of functions that take a ``Progress``."""
