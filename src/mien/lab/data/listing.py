"""What a labelled folder or table says before a picture is opened: files, labels, splits and groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mien._errors import DataError
from mien.lab.data.columns import nearest, quote
from mien.lab.data.faces import Split

# How people name the parts of a set. What one calls validation is PublicTest here: it selects.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), Split.TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev", "publictest"), Split.PUBLIC_TEST),
    **dict.fromkeys(("test", "testing", "privatetest"), Split.PRIVATE_TEST),
}
# What Pillow reads everywhere that people keep faces in.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm")


@dataclass(frozen=True, slots=True)
class Entry:
    """One face that is yet to be read. ``name`` is what the hash calls it, ``where`` what errors call it."""

    path: Path
    name: str
    label: str
    split: Split
    group: str  # the person or scene it belongs to; empty: nobody says
    where: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The faces of ``source`` in their order. ``digests``: name and sha256 of the files that were read to list them."""

    source: Path
    entries: Sequence[Entry]
    digests: tuple[tuple[str, str], ...] = ()


def read_split_name(name: str, *, where: str) -> Split:
    """The split that ``name`` means. Raises ``DataError`` for an unknown one."""
    key = name.strip().lower()
    if key not in SPLIT_NAMES:
        known = ", ".join(SPLIT_NAMES)
        raise DataError(f"{where}: {quote(name)} is no split{nearest(key, SPLIT_NAMES)}; splits are called {known}")
    return SPLIT_NAMES[key]
