"""--data, --map and --split -> the faces of a test, with an account of those that a map leaves out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.data.columns import nearest, quote
from mien.lab.data.list_folder import list_folder
from mien.lab.data.list_table import list_table
from mien.lab.data.listing import Entry
from mien.lab.data.read_labels import KNOWN
from mien.lab.data.read_own import hold_out
from mien.lab.feed.asked import chosen_split
from mien.lab.feed.sets import is_fer2013, start_of
from mien.lab.feed.test_set import load_test_set
from mien.lab.judge.examine import Selection, select_rows


@dataclass(frozen=True, eq=False)
class TestSet:
    """A set to be judged on: its ``faces``, all splits, a short ``name``, and the rows that were never read.

    ``left_out`` counts these by split and reason.
    """

    __test__ = False  # no test of pytest's

    faces: FaceSet
    name: str
    left_out: Mapping[tuple[Split, str], int] = field(default_factory=dict)

    @property
    def undivided(self) -> bool:
        """Whether nobody has parted it: every face is Training."""
        return bool((self.faces.usage == 0).all())

    def held_out(self) -> "TestSet":
        """The same set with the share held out as PublicTest that a training on it validates on."""
        return replace(self, faces=hold_out(self.faces))


def load_tests(
    paths: Iterable[Path | None], emotions: tuple[Emotion, ...], *, size: int, label_map: Mapping[str, str]
) -> list[TestSet]:
    """The sets at ``paths`` (``None``: $MIEN_DATA), labels translated by ``label_map`` where a set has them.

    ``emotions`` and ``size`` are the model's. Raises ``DataError`` for a label that no set has, for one that nobody
    explains, and for whatever ``load_test_set`` refuses.
    """
    starts = [start_of(path) for path in paths]
    listed = [None if is_fer2013(start) else _entries(start) for start in starts]
    _require_used(label_map, [entries for entries in listed if entries is not None])
    names = _names(
        [Path("FER-2013") if entries is None else start for start, entries in zip(starts, listed, strict=True)]
    )
    return [
        _load(start, name, entries, emotions, size=size, label_map=label_map)
        for start, name, entries in zip(starts, names, listed, strict=True)
    ]


def select(test: TestSet, emotions: tuple[Emotion, ...], wanted: Split | str | None) -> Selection:
    """The rows to be judged. By default PublicTest, or all of a set that nobody has parted.

    Raises ``DataError`` as ``select_rows``.
    """
    split = chosen_split(wanted, test.faces)
    selection = select_rows(test.faces, emotions, split)
    missing = {reason: count for (part, reason), count in test.left_out.items() if split in (None, part)}
    account = Counter(missing) + Counter(selection.account)
    return replace(selection, account=dict(account), total=selection.total + sum(missing.values()))


def _entries(start: Path) -> list[Entry]:
    try:
        return list((list_folder(start) if start.is_dir() else list_table(start)).entries)
    except OSError as error:
        raise DataError(f"{error.filename or start}: cannot be read ({error.strerror or error})") from error


def _load(
    start: Path,
    name: str,
    entries: list[Entry] | None,
    emotions: tuple[Emotion, ...],
    *,
    size: int,
    label_map: Mapping[str, str],
) -> TestSet:
    if entries is None:
        return TestSet(load_test_set(start, emotions, size=size), name)
    labels = {entry.label.strip().lower() for entry in entries}
    used = {label: target for label, target in label_map.items() if label in labels}
    meaning = _meaning(labels, used, start)
    known = CLASS_SETS["eight"] if Emotion.CONTEMPT in emotions else SEVEN
    left_out: Counter[tuple[Split, str]] = Counter()
    for entry in entries:
        emotion = meaning[entry.label.strip().lower()]
        if emotion is None:
            left_out[entry.split, f"label {entry.label}: left out by --map"] += 1
        elif emotion not in known:
            left_out[entry.split, f"{emotion}: not among the model's classes"] += 1
    return TestSet(load_test_set(start, emotions, size=size, labels=used), name, dict(left_out))


def _meaning(labels: Iterable[str], label_map: Mapping[str, str], start: Path) -> dict[str, Emotion | None]:
    meaning: dict[str, Emotion | None] = {}
    for label in sorted(labels):
        word = label_map.get(label, label)
        if word and word not in KNOWN:
            raise DataError(
                f"{start}: {quote(label)} is no emotion that mien knows{nearest(label, KNOWN)}; say which it is with "
                f"--map {label}=happy, or leave its faces out with --map {label}="
            )
        meaning[label] = KNOWN.get(word)
    return meaning


def _require_used(label_map: Mapping[str, str], listed: list[list[Entry]]) -> None:
    if label_map and not listed:
        raise DataError("--map: the labels of FER-2013 are known; leave it out")
    there = {entry.label.strip().lower() for entries in listed for entry in entries}
    for label in label_map:
        if label not in there:
            raise DataError(
                f"--map {label}=...: there is no such label{nearest(label, there)}; the labels are "
                f"{', '.join(sorted(there))}"
            )


def _names(starts: Iterable[Path]) -> list[str]:
    """A short name for every set, each its own: the last part of its path, with a number where that comes again."""
    names: list[str] = []
    for start in starts:
        stem = start.resolve().stem if start.is_file() else start.resolve().name
        name = "".join(c if c.isalnum() or c in "-_+." else "-" for c in stem) or "data"
        count = sum(other == name or other.rpartition("-")[0] == name for other in names)
        names.append(f"{name}-{count + 1}" if count else name)
    return names
