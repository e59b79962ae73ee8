"""Suggestions of similar known words, for error messages."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest_words(word: str, known: Iterable[str], *, n: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return the known words that are most similar to a word. Upper and lower case are equal.

    Args:
        word: The word that was given.
        known: The words that are allowed, in their own spelling.
        n: The largest number of words to return.
        cutoff: Smallest similarity from 0 to 1 (as ``difflib`` measures it).

    Returns:
        At most ``n`` known words, the most similar first.

    Example:
        >>> nearest_words("hapy", ["happy", "sad"])
        ['happy']
    """
    spelling = {each.lower(): str(each) for each in known}
    return [spelling[each] for each in get_close_matches(word.strip().lower(), list(spelling), n=n, cutoff=cutoff)]


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message that names the nearest known word.

    Args:
        word: The word that was given.
        known: The words that are allowed.

    Returns:
        ``"; did you mean 'happy'?"``, or an empty string where no known word is similar.

    Example:
        >>> suggest("hapy", ["happy", "sad"])
        "; did you mean 'happy'?"
    """
    near = nearest_words(word, known)
    return f"; did you mean {near[0]!r}?" if near else ""


def require_known(what: str, word: str, known: Iterable[str], error: type[Exception], *, where: str = "") -> None:
    """Refuse a word that is not among those that are allowed.

    Args:
        what: What the word names, for the message.
        word: The word that was given.
        known: The words that are allowed.
        error: The class of the error.
        where: The place of the word, for the message.

    Raises:
        Exception: The word is unknown: an ``error`` that names the known words, and the nearest.

    Example:
        >>> require_known("emotion", "happy", ["happy", "sad"], ValueError)
    """
    words = [str(each) for each in known]
    if word not in words:
        place = f"{where}: " if where else ""
        raise error(f"{place}unknown {what} {word!r:.80}{suggest(word, words)}; known are {', '.join(words)}")
