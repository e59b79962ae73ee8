"""The play of `make_film.py`: who is on the stage, where, and with which expression, at any moment of the scene."""

from dataclasses import dataclass
from itertools import pairwise

SCENE = 12.0  # seconds: the play lasts about as long, and begins again in a longer film
FLASH = 0.6  # seconds that the last role is seen: less than a second in any film


@dataclass(frozen=True)
class Key:
    """Where a role is at a moment of the scene (0..1): middle and height of the head as fractions of the picture."""

    at: float
    x: float
    y: float
    height: float
    tilt: float = 0.0  # degrees
    mood: float = 0.0  # -1 a frown, 0 the smile of the example, 1 an open mouth


@dataclass(frozen=True)
class Role:
    """One face of the play: how it differs from the example, and its way through the scene."""

    name: str
    tint: tuple[float, float, float]
    gamma: float
    mirrored: bool
    keys: tuple[Key, ...]


# Drawn in this order: the last stands in front.
ROLES = (
    Role(
        "walker", (1.0, 0.86, 0.78), 1.15, True,
        (Key(0.06, -0.15, 0.42, 0.40, -4, -1), Key(0.3, 0.2, 0.44, 0.42, 0, -1), Key(0.5, 0.5, 0.40, 0.42, 5, -0.6),
         Key(0.72, 0.82, 0.42, 0.42, 0, 0), Key(0.84, 1.15, 0.44, 0.42, 4, 0)),
    ),
    Role(
        "host", (1.0, 1.0, 1.0), 1.0, False,
        (Key(0.0, 0.56, 0.5, 0.5, 0, 0), Key(0.2, 0.6, 0.48, 0.5, 4, 0), Key(0.36, 0.58, 0.5, 0.52, -6, 1),
         Key(0.55, 0.46, 0.52, 0.5, -3, 1), Key(0.7, 0.5, 0.5, 0.54, 6, 0), Key(0.85, 0.54, 0.5, 0.5, 0, -1),
         Key(1.0, 0.56, 0.5, 0.5, 0, 0)),
    ),
    Role(
        "visitor", (0.72, 0.82, 1.0), 0.85, False,
        (Key(0.22, 1.12, 0.24, 0.30, 8, 1), Key(0.34, 0.86, 0.24, 0.30, 10, 1), Key(0.5, 0.87, 0.22, 0.29, -8, 0),
         Key(0.6, 0.86, 0.2, 0.30, 0, 0), Key(0.7, 0.88, -0.25, 0.30, 0, 0)),
    ),
    Role("flash", (0.95, 1.0, 0.8), 1.3, True, (Key(0.9, 0.14, 0.76, 0.34, 6, 0), Key(0.9, 0.2, 0.74, 0.34, 2, 0))),
)  # fmt: skip
ORDER = ("host", "walker", "visitor", "flash")  # who plays in a film of one, two, three, four faces


def timed(role: Role, length: float) -> tuple[Key, ...]:
    """The keys of a role; the flash lasts as long in a short scene as in a long one."""
    if role.name != "flash":
        return role.keys
    first, last = role.keys
    return first, Key(first.at + FLASH / length, last.x, last.y, last.height, last.tilt, last.mood)


def place_at(keys: tuple[Key, ...], at: float) -> Key | None:
    """Where the role is, between two keys with soft starts and stops; None before its first and after its last."""
    for one, other in pairwise(keys):
        if one.at <= at < other.at:
            part = (at - one.at) / (other.at - one.at)
            soft = part * part * (3 - 2 * part)
            values = [(1 - soft) * getattr(one, name) + soft * getattr(other, name) for name in Key.__annotations__]
            return Key(*values)
    return None
