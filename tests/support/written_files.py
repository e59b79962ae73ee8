"""What mien has written, as its commands recognise it."""

from pathlib import Path

from mien._output import is_own

# Copied, or of a form that other programs write as well: the same command writes the same content again.
SAME_AGAIN = {"LICENSE", "faces.csv", "not_found.txt"}


def foreign_files(*places: Path) -> list[str]:
    """The files below folders, or at paths, that a command would not replace."""
    written = [file for place in places for file in (place.rglob("*") if place.is_dir() else [place])]
    return [str(file) for file in written if file.name not in SAME_AGAIN and not is_own(file)]
