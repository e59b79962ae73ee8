"""Wishes of a stream, in its address or in a text message: read strictly, whatever somebody sends."""

import json
from dataclasses import dataclass, replace
from typing import Any

from starlette.datastructures import QueryParams

from mien.serve.problems import Problem

BAD_MESSAGE, REFUSED = 1003, 1008  # close codes of RFC 6455

_LONGEST = 4096  # characters of a text message
_MOST = 1_000_000  # frames or seconds that a wish may name: Python's whole numbers have no end


@dataclass(frozen=True)
class Wish:
    """How a connection wants its faces followed."""

    every: int = 3
    smooth: float = 0.5
    maps: bool = False


def pairs_of(query: bytes) -> dict[str, Any]:
    """The wishes in a query: numbers and flags as JSON spells them. Raises ``Problem`` with a close code."""
    said: dict[str, Any] = {}
    for name, value in QueryParams(query).multi_items():
        if name == "token":
            raise Problem(REFUSED, 'an address stands in logs: send the token as a header or as {"token": "..."}')
        try:
            said[name] = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Problem(BAD_MESSAGE, f"{name[:40]} is a number, true or false, not {value[:40]!r}") from error
    return said


def message_of(text: str) -> dict[str, Any]:
    """The JSON object of a text message. Raises ``Problem`` with a close code."""
    try:
        said = json.loads(text) if len(text) <= _LONGEST else None
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise Problem(BAD_MESSAGE, 'a text message is a JSON object such as {"every": 3, "smooth": 0.5}')
    return said


def wish_of(said: dict[str, Any], before: Wish | None = None) -> Wish:
    """``before`` (or the usual wish) with what is ``said``. Raises ``Problem`` for a value of another type or size."""
    kinds = {"every": (int,), "smooth": (int, float), "maps": (bool,)}
    for name, value in said.items():
        if name not in kinds:
            raise Problem(BAD_MESSAGE, f"{name[:40]!r} is unknown; a stream takes {', '.join(kinds)}")
        if type(value) not in kinds[name]:
            words = " or ".join(kind.__name__ for kind in kinds[name])
            raise Problem(BAD_MESSAGE, f"{name} is {words}, not {str(value)[:40]!r}")
        if type(value) is int and abs(value) > _MOST:
            raise Problem(BAD_MESSAGE, f"{name} is at most {_MOST:,}")
    return replace(before or Wish(), **said)
