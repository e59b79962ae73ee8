"""Contact sheets: the faces of a finding, each with its row, split and label; copies beside each other."""

from collections.abc import Callable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from mien.lab.data import FaceSet, Split
from mien.lab.page import Tile, gallery, paragraph

MOST_TILES = 60  # of a sheet
MOST_GROUPS = 24  # of copies
_MOST_IN_GROUP = 8


def sheet(faces: FaceSet, places: NDArray[np.int64], *, what: str, say: Callable[[int], str] | None = None) -> str:
    """The first faces at ``places``. ``what`` they are stands in the line above; ``say`` gives the n-th more words."""
    shown = places[:MOST_TILES].tolist()
    tiles = [tile(faces, place, "" if say is None else say(n)) for n, place in enumerate(shown)]
    return _first(len(shown), len(places), what) + gallery(tiles)


def groups(sets: Sequence[Sequence[Tile]], *, total: int, what: str) -> str:
    """Groups of tiles, each in a frame. ``total`` says how many there are of ``what``."""
    framed = "".join(f"<div>{gallery(tiles[:_MOST_IN_GROUP])}{_more(len(tiles))}</div>" for tiles in sets)
    return _first(len(sets), total, what) + f'<div class="groups">{framed}</div>'


def tile(faces: FaceSet, place: int, more: str = "") -> Tile:
    """One face with its row, split and label, and ``more``."""
    split, label = tuple(Split)[int(faces.usage[place])], faces.emotions[int(faces.labels[place])]
    said = f"row {int(faces.rows[place])}, {split}, {label}"
    return Tile(faces.images[place].numpy(), f"{said}: {more}" if more else said)


def _first(shown: int, total: int, what: str) -> str:
    if not total:
        return paragraph(f"No {what}.")
    return paragraph(f"{total:,} {what}." if shown == total else f"The first {shown:,} of {total:,} {what}.")


def _more(count: int) -> str:
    left = count - _MOST_IN_GROUP
    return f"<p>{escape(f'and {left:,} more')}</p>" if left > 0 else ""
