"""Folders that the tests read."""

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
# FER-2013 for the tests that need it.
DATA = Path(os.environ.get("MIEN_DATA", ROOT.parent / "shared" / "data"))
# Real photographs and videos for the tests that need them.
PICTURES = ROOT.parent / "shared" / "pictures"
