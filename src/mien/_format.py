"""Number formats of tables, pages, plots and terminals, and text of others that is safe to print there."""

import json
import re
from collections.abc import Sequence

# Control characters, marks that change the direction of text or are invisible, line separators, bytes of no encoding.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
# A cell that begins so, here or after a separator of other countries, is a formula in spreadsheets.
_FORMULA = re.compile("(^|[;|])(?=[=+@\uff0b\uff0d\uff1d\uff20-])")


def printable(text: str) -> str:
    """Escape the characters that control a terminal or hide text, as in JSON; a file name may contain them.

    Args:
        text: Any text.

    Returns:
        One line.

    Example:
        >>> printable("a\\nb\\x1b[2J.png")
        'a\\\\nb\\\\u001b[2J.png'
    """
    return _CONTROLS.sub(lambda found: json.dumps(found[0])[1:-1], text)


def csv_cell(value: object) -> object:
    """Return a value of a table such that spreadsheets show it and do not calculate it.

    Args:
        value: The value.

    Returns:
        A text as ``printable`` returns it, with a ``'`` before what would begin a formula; any other value unchanged.

    Example:
        >>> csv_cell("=1+1.png")
        "'=1+1.png"
    """
    return _FORMULA.sub(r"\1'", printable(value)) if isinstance(value, str) else value


def without_password(address: str) -> str:
    """Remove user name and password from an address.

    Args:
        address: An address, or any other text.

    Returns:
        The text.

    Example:
        >>> without_password("rtsp://admin:p@ss@camera/stream")
        'rtsp://camera/stream'
    """
    return re.sub(r"(?<=://)[^/]*@", "", address)


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


def points_interval(edges: Sequence[float]) -> str:
    """Format an interval of a difference of shares in percentage points.

    Args:
        edges: Lower and upper difference, from -1 to 1.

    Returns:
        For example ``-0.4 to +2.8``.
    """
    return interval(edges, "+.1f", factor=100)


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


def counted(count: int, noun: str) -> str:
    """Format a number of things.

    Args:
        count: The number.
        noun: What is counted, in the singular; its plural ends in "s".

    Returns:
        For example ``1 face`` or ``2,000 faces``.

    Example:
        >>> counted(1, "face"), counted(2000, "face")
        ('1 face', '2,000 faces')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def milliseconds(value: float) -> str:
    """Format a duration in milliseconds: two decimals below 10 ms, none from 100 ms on.

    Args:
        value: The duration in milliseconds.

    Returns:
        For example ``0.85 ms``, ``12.1 ms`` or ``176 ms``.
    """
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f} ms"
