"""A labelled folder -> Listing: ``<label>/*.jpg``, or the same below ``train/``, ``val/`` and ``test/``."""

from collections.abc import Iterator
from pathlib import Path

from mien._errors import DataError
from mien.lab.data.faces import Split
from mien.lab.data.listing import SPLIT_NAMES, SUFFIXES, Entry, Listing, read_split_name

_CLUTTER = ("thumbs.db", "desktop.ini")  # left behind by Windows; names with a leading dot are skipped as well
_LAYOUT = "mien reads <label>/*.jpg, or train/<label>/*.jpg with val/ and test/ beside it"


def list_folder(folder: Path) -> Listing:
    """List the pictures below ``folder`` by split, label and name; opens none.

    Folders below a label's name the person: ``happy/ann/1.jpg`` and ``sad/ann/2.jpg`` are one group. Files beside the
    folders of labels are not looked at. Raises ``DataError`` for a folder that is laid out otherwise.
    """
    tops = [entry for entry in _visible(folder) if entry.is_dir()]
    if not tops:
        raise DataError(f"{folder}: holds no folder of a label; {_LAYOUT}")
    if any(top.name.lower() in SPLIT_NAMES for top in tops):
        splits = [(read_split_name(top.name, where=str(top)), top) for top in tops]
    else:
        splits = [(Split.TRAINING, folder)]
    splits.sort(key=lambda split: (list(Split).index(split[0]), split[1].name))
    entries = [entry for split, top in splits for entry in _labels(folder, top, split)]
    return Listing(folder, entries)


def _labels(root: Path, top: Path, split: Split) -> Iterator[Entry]:
    labels = [entry for entry in _visible(top) if entry.is_dir()]
    if not labels:
        raise DataError(f"{top}: holds no folder of a label; {_LAYOUT}")
    for label in labels:
        found = list(_pictures(label))
        if not found:
            raise DataError(f"{label}: holds no picture; remove the folder, or unpack the archive again")
        for path, group in found:
            yield Entry(path, path.relative_to(root).as_posix(), label.name, split, group, str(path))


def _pictures(label: Path) -> Iterator[tuple[Path, str]]:
    """Every picture of a label and the group it belongs to."""
    for entry in _visible(label):
        if not entry.is_dir():
            yield _checked(entry), ""
            continue
        for file in _visible(entry):
            if file.is_dir():
                raise DataError(f"{file}: lies too deep; below a label there are pictures, or one folder a person")
            yield _checked(file), entry.name


def _checked(file: Path) -> Path:
    if file.suffix.lower() not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"{file}: is no picture that mien reads here ({kinds}); convert it, or move it away")
    return file


def _visible(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER]
