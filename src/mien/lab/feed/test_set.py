"""Any labelled faces as a test set: FER-2013 in any form, a folder or a table of one's own."""

from collections.abc import Mapping
from pathlib import Path

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import DataError
from mien.lab.data import FaceSet, load_fer2013
from mien.lab.data.faces import SIZE
from mien.lab.data.listing import SUFFIXES
from mien.lab.data.read_own import read_own
from mien.lab.feed.sets import is_fer2013, start_of


def load_test_set(
    path: Path | None, emotions: tuple[Emotion, ...], *, size: int = SIZE, labels: Mapping[str, str] | None = None
) -> FaceSet:
    """The faces at ``path`` (``None``: at $MIEN_DATA), all splits, none held out, none moved.

    One's own faces are read at ``max(48, size)`` pixels, ``labels`` saying what their labels mean where the names do
    not; in the eight classes of FER+ where ``emotions``, the model's, have contempt, else in the seven. Raises
    ``DataError`` naming file or row for what is not as it should be.
    """
    start = start_of(path)
    if start.is_file() and start.suffix.lower() in SUFFIXES:
        raise DataError(f"{start}: is one picture; a data set is a folder or a table of labelled faces")
    if is_fer2013(start):
        if labels:
            raise DataError(f"{start}: is FER-2013, whose labels are known; leave --map out")
        return load_fer2013(start)
    known = CLASS_SETS["eight"] if Emotion.CONTEMPT in emotions else SEVEN
    try:
        return read_own(start, label_map=labels or {}, emotions=known, side=max(SIZE, size), option="--map")
    except OSError as error:
        raise DataError(f"{error.filename or start}: cannot be read ({error.strerror or error})") from error
