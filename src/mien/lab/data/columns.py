"""Checks that every table of FER-2013 has to pass, whatever its file format."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from mien._emotions import SEVEN
from mien._errors import DataError
from mien.lab.data.faces import Split

VOTERS = 10  # people who labelled each face for FER+
_COUNTS = {str(count): count for count in range(VOTERS + 1)}
_LABELS = {str(label): label for label in range(len(SEVEN))}
_SPLITS = {str(split): index for index, split in enumerate(Split)}


def nearest(word: str, choices: Iterable[str]) -> str:
    """`` (did you mean "x"?)`` for the choice that ``word`` most resembles, or nothing."""
    close = get_close_matches(word.strip().lower(), list(choices), n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


def quote(value: object) -> str:
    """``value`` in quotes, cut so that an error stays one readable line."""
    text = str(value)
    return repr(text if len(text) <= 40 else text[:37] + "...")


def require_columns(found: Sequence[str], wanted: Sequence[str], *, source: str) -> None:
    """Raise ``DataError`` naming the first wanted column that is missing, what was found and the nearest name."""
    for name in wanted:
        if name not in found:
            near = get_close_matches(name, found, n=1)
            hint = f' (is "{near[0]}" meant?)' if near else ""
            names = ", ".join(quote(column) for column in found[:16])
            raise DataError(f'{source}: column "{name}" is missing{hint}; found {names}; expected {", ".join(wanted)}')


def read_split(value: object, *, where: str) -> int:
    """The index in ``Split`` of a value of the ``Usage`` column."""
    text = str(value).strip()
    if text not in _SPLITS:
        lowered = {name.lower(): name for name in _SPLITS}
        close = get_close_matches(text.lower(), lowered, n=1)
        hint = f' (did you mean "{lowered[close[0]]}"?)' if close else ""
        raise DataError(f"{where}: unknown Usage {quote(value)}{hint}; it must be one of {', '.join(_SPLITS)}")
    return _SPLITS[text]


def check_label(value: int | str, *, where: str) -> int:
    """A label 0..6 from the number or text of a table."""
    text = str(value).strip()
    if text not in _LABELS:
        raise DataError(f"{where}: label {quote(value)} is not a whole number from 0 (angry) to 6 (neutral)")
    return _LABELS[text]


def check_vote(value: int | str, *, where: str, column: str) -> int:
    """A number of votes 0..10. The sum of a row is free: row 10435 of the published votes has nine, not ten."""
    text = str(value).strip()
    if text not in _COUNTS:
        raise DataError(
            f'{where}: column "{column}" holds {quote(value)}; FER+ votes are whole numbers from 0 to {VOTERS}'
        )
    return _COUNTS[text]
