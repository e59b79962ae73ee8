"""What the commands of the lab say where the lab is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from mien._errors import MissingExtraError


@contextmanager
def needs_lab() -> Iterator[None]:
    """Around imports of the lab: a package that is missing becomes ``MissingExtraError``, which names the cure."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "lab") from error
