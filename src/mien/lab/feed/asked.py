"""The words of --split and --map, as every command that reads labelled faces understands them."""

from collections.abc import Iterable
from difflib import get_close_matches

from mien._emotions import Emotion
from mien._errors import DataError
from mien.lab.data import FaceSet, Split
from mien.lab.data.columns import nearest, quote
from mien.lab.data.read_labels import KNOWN

ALL = "all"


def read_split(word: str | None) -> Split | str | None:
    """``Split``, or ``ALL``, for the word that a user gave, ``None`` for none. Raises ``DataError``."""
    if word is None:
        return None
    known = {str(split).lower(): split for split in Split} | {ALL: ALL}
    key = word.strip().lower()
    if key not in known:
        close = get_close_matches(key, known, n=1)
        hint = f' (did you mean "{known[close[0]]}"?)' if close else ""
        raise DataError(f"--split {quote(word)}: there is no such split{hint}; say {', '.join(Split)} or {ALL}")
    return known[key]


def read_part(word: str) -> Split | None:
    """As ``read_split``, where a word always stands: ``None`` is all of the set. Raises ``DataError``."""
    found = read_split(word)
    return found if isinstance(found, Split) else None


def chosen_split(wanted: Split | str | None, faces: FaceSet) -> Split | None:
    """The part of ``faces`` that ``wanted``, as of ``read_split``, means; ``None``: all of it.

    Where nothing is wanted it is PublicTest, or all of a set that nobody has parted, whose faces all are Training.
    """
    if wanted is None:
        return None if bool((faces.usage == 0).all()) else Split.PUBLIC_TEST
    return wanted if isinstance(wanted, Split) else None


def read_map(words: Iterable[str], *, option: str = "--map") -> dict[str, str]:
    """``LABEL=EMOTION`` words as a mapping of lower case; ``LABEL=`` leaves the label's faces out.

    Raises ``DataError`` for another form, and for what is no emotion; ``option`` names where the words come from.
    """
    said: dict[str, str] = {}
    for word in words:
        label, sign, target = word.rpartition("=")
        if not sign or not label.strip():
            raise DataError(f"{option} {quote(word)}: say LABEL=EMOTION, as in smile=happy; other= leaves a label out")
        key = target.strip().lower()
        if key and key not in KNOWN:
            raise DataError(
                f"{option} {word}: {quote(target)} is no emotion{nearest(key, KNOWN)}; there are {', '.join(Emotion)}, "
                "and nothing for faces to leave out"
            )
        said[label.strip().lower()] = key
    return said
