"""Data sets of faces as tensors: find and load FER-2013, choose classes, find exact copies.

find_fer2013 -> load_fer2013 -> leaked_into_tests, clean_rows -> with_classes -> vote_distribution
"""

from mien._errors import MissingExtraError

try:
    import torch  # noqa: F401  (checked here once for all modules below)
except ModuleNotFoundError as error:
    raise MissingExtraError("torch", "lab") from error

from mien.lab.data.duplicates import clean_rows, extra_copies, leaked_into_tests
from mien.lab.data.faceset import FERPLUS_COLUMNS, FaceSet, Split, usable_votes, vote_distribution, with_classes
from mien.lab.data.fer2013 import check_official, load_fer2013
from mien.lab.data.folders import find_fer2013

__all__ = [
    "FERPLUS_COLUMNS",
    "FaceSet",
    "Split",
    "check_official",
    "clean_rows",
    "extra_copies",
    "find_fer2013",
    "leaked_into_tests",
    "load_fer2013",
    "usable_votes",
    "vote_distribution",
    "with_classes",
]
