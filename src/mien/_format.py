"""Number formats of tables, pages, plots and terminals."""

from collections.abc import Sequence


def percent(share: float, decimals: int = 1) -> str:
    """Format a share from 0 to 1 in per cent.

    Args:
        share: The share.
        decimals: Digits after the point.

    Returns:
        For example ``70.5 %``.

    Example:
        >>> percent(0.705)
        '70.5 %'
    """
    return f"{100 * share:.{decimals}f} %"


def interval(edges: Sequence[float], spec: str = ".3f", *, factor: float = 1) -> str:
    """Format an interval without its unit.

    Args:
        edges: Lower and upper edge.
        spec: Format of one edge, as ``format`` takes it.
        factor: Both edges are multiplied by this first.

    Returns:
        For example ``0.412 to 0.431``.
    """
    low, high = edges
    return f"{factor * low:{spec}} to {factor * high:{spec}}"


def percent_interval(edges: Sequence[float], decimals: int = 1) -> str:
    """Format an interval of shares in per cent, without the unit.

    Args:
        edges: Lower and upper share, from 0 to 1.
        decimals: Digits after the point.

    Returns:
        For example ``69.0 to 72.1``.
    """
    return interval(edges, f".{decimals}f", factor=100)


def probability_percent(probability: float) -> str:
    """Format a probability of a model in per cent. It is never 0 % or 100 %, because no model can be certain.

    Args:
        probability: The probability from 0 to 1.

    Returns:
        For example ``93 %``, ``< 1 %`` or ``> 99 %``.

    Example:
        >>> probability_percent(0.999)
        '> 99 %'
    """
    rounded = round(100 * probability)
    return "< 1 %" if rounded < 1 else "> 99 %" if rounded > 99 else f"{rounded} %"


def points(difference: float, decimals: int = 1) -> str:
    """Format a difference of two shares in percentage points, always with its sign.

    Args:
        difference: The difference, from -1 to 1.
        decimals: Digits after the point.

    Returns:
        For example ``+1.2``.
    """
    return f"{100 * difference:+.{decimals}f}"


def points_interval(edges: Sequence[float], decimals: int = 1) -> str:
    """Format an interval of a difference of shares in percentage points.

    Args:
        edges: Lower and upper difference, from -1 to 1.
        decimals: Digits after the point.

    Returns:
        For example ``-0.4 to +2.8``.
    """
    return interval(edges, f"+.{decimals}f", factor=100)


def p_value(p: float) -> str:
    """Format a p-value. A small one is never printed as 0.

    Args:
        p: The p-value, from 0 to 1.

    Returns:
        For example ``0.012`` or ``< 0.001``.
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def short_count(value: float) -> str:
    """Format a large number with three digits and a unit.

    Args:
        value: The number, at least 0.

    Returns:
        For example ``1.56 M`` or ``783 k``.
    """
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"


def milliseconds(value: float) -> str:
    """Format a duration in milliseconds: two decimals below 10 ms, none from 100 ms on.

    Args:
        value: The duration in milliseconds.

    Returns:
        For example ``0.85 ms``, ``12.1 ms`` or ``176 ms``.
    """
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f} ms"
