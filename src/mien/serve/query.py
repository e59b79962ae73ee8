"""Wishes in the query of a request, read strictly: an unknown word is an answer 422, not silence."""

from collections.abc import Sequence
from difflib import get_close_matches

from mien.serve.problems import Problem


class Query:
    """The query of one request: each ``take`` names a parameter that the path knows; ``end`` refuses all others."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        """``pairs`` are name and value. Raises ``Problem`` 422 for a name given twice."""
        self._values: dict[str, str] = {}
        self._known: list[str] = []
        for name, value in pairs:
            if name in self._values:
                raise Problem(422, f"{name[:40]!r} stands twice in the query; give it once")
            self._values[name] = value

    def flag(self, name: str) -> bool:
        """``true`` or ``false``, which it is without the parameter."""
        return self.word(name, ("false", "true")) == "true"

    def word(self, name: str, words: Sequence[str]) -> str:
        """One of ``words``; the first without the parameter."""
        value = self._take(name)
        if value is None:
            return words[0]
        if value not in words:
            near = get_close_matches(value[:40], words, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise Problem(422, f"{name} is {', '.join(words)}, not {value[:40]!r}{hint}")
        return value

    def number(self, name: str, usual: int, *, least: int, most: int) -> int:
        """A whole number from ``least`` to ``most``; ``usual`` without the parameter."""
        value = self._take(name)
        if value is None:
            return usual
        if not (value.isascii() and value.isdecimal() and len(value) < 10 and least <= int(value) <= most):
            raise Problem(422, f"{name} is a whole number from {least} to {most}, not {value[:40]!r}")
        return int(value)

    def end(self) -> None:
        """Raises ``Problem`` 422 for a parameter that nobody took."""
        for name in self._values:
            if name not in self._known:
                known = ", ".join(self._known) or "none"
                raise Problem(422, f"{name[:40]!r} is unknown; this path takes: {known}")

    def _take(self, name: str) -> str | None:
        self._known.append(name)
        return self._values.get(name)
