"""Faces for the tests of robustness."""

import pytest

from mien.lab.data import FaceSet
from support.synthetic_faces import cartoon_set


@pytest.fixture(scope="session")
def faces() -> FaceSet:
    return cartoon_set(per_split=(70, 210, 0))
