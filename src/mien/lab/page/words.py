"""Figures as people read them, on pages and in the terminal."""

from collections.abc import Sequence


def percent(share: float, decimals: int = 1) -> str:
    """A share 0..1 in per cent: ``70.5 %``."""
    return f"{100 * share:.{decimals}f} %"


def within(edges: Sequence[float], form: str = ".3f", *, times: float = 1) -> str:
    """An interval without its unit, ``0.412 to 0.431``; with ``times=100`` and ``".1f"`` shares as ``69.0 to 72.1``."""
    low, high = edges
    return f"{times * low:{form}} to {times * high:{form}}"


def percent_within(edges: Sequence[float], decimals: int = 1) -> str:
    """An interval of shares in per cent, the unit left to its neighbour: ``69.0 to 72.1``."""
    return within(edges, f".{decimals}f", times=100)


def points(difference: float, decimals: int = 1) -> str:
    """A difference of two shares in percentage points, always with its sign: ``+1.2``."""
    return f"{100 * difference:+.{decimals}f}"


def points_within(edges: Sequence[float], decimals: int = 1) -> str:
    """An interval of a difference of shares in percentage points: ``-0.4 to +2.8``."""
    return within(edges, f"+.{decimals}f", times=100)


def p_value(p: float) -> str:
    """A p-value, never told as 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def short_count(value: float) -> str:
    """A large number, short: ``1.56 M``, ``783 k``."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"
