"""Films and folders, for the tests of sources."""

import pytest

pytest.importorskip("av", reason='PyAV is not installed; run: pip install "mien[video]"')


def times(count: int, rate: float = 25.0) -> list[float]:
    return [i / rate for i in range(count)]
