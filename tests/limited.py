"""A server of tight limits, for its tests."""

import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien.serve import Limits

LIMITS = Limits(max_bytes=100_000, max_pixels=10_000, max_images=3, timeout=20, queue=6)
