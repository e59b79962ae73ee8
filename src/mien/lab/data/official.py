"""How many faces FER-2013 has, and a check that a copy has them."""

import torch

from mien._emotions import SEVEN
from mien._errors import DataError
from mien.lab.data.faces import FaceSet, Split, split_index

# Faces by emotion, in the order of SEVEN, as the 2013 table holds them.
OFFICIAL_COUNTS: dict[Split, tuple[int, ...]] = {
    Split.TRAINING: (3995, 436, 4097, 7215, 4830, 3171, 4965),  # 28,709
    Split.PUBLIC_TEST: (467, 56, 496, 895, 653, 415, 607),  # 3,589
    Split.PRIVATE_TEST: (491, 55, 528, 879, 594, 416, 626),  # 3,589
}


def check_official(faces: FaceSet) -> None:
    """Raise ``DataError`` naming the first split or class whose count is not the official one.

    A copy whose test faces do not say which of the two test splits they belong to has them all in PublicTest; it passes
    when that split holds exactly the two together.
    """
    if faces.emotions != SEVEN:
        raise DataError(f"{faces.source}: official counts exist for the seven classes only; check before with_classes")
    for split, expected in _expected(faces).items():
        labels = faces.labels[faces.usage == split_index(split)]
        _compare(str(split), len(labels), sum(expected), faces.source)
        counts = torch.bincount(labels, minlength=len(SEVEN)).tolist()
        for emotion, count, official in zip(SEVEN, counts, expected, strict=True):
            _compare(f'{split}, "{emotion}"', count, official, faces.source)


def _expected(faces: FaceSet) -> dict[Split, tuple[int, ...]]:
    public, private = OFFICIAL_COUNTS[Split.PUBLIC_TEST], OFFICIAL_COUNTS[Split.PRIVATE_TEST]
    together = tuple(a + b for a, b in zip(public, private, strict=True))
    found = [int((faces.usage == split_index(split)).sum()) for split in Split]
    if found[1:] != [sum(together), 0]:
        return OFFICIAL_COUNTS
    return {Split.TRAINING: OFFICIAL_COUNTS[Split.TRAINING], Split.PUBLIC_TEST: together}


def _compare(what: str, count: int, official: int, source: str) -> None:
    if count != official:
        raise DataError(
            f"{source}: {what} holds {count:,} faces, the official set {official:,}; "
            "get the full set, or pass official=False to use a subset knowingly"
        )
