"""The load benchmark at a small size: correct responses, bounded cost of HTTP."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from support.paths import ROOT


@pytest.mark.release
@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="the benchmark reads /proc")
@pytest.mark.timeout(600)
def test_every_answer_under_load_is_right(tmp_path: Path) -> None:
    words = ["--requests", "300", "--rounds", "1", "--pipeline-images", "100", "--overload", "200", "--json"]
    subprocess.run([sys.executable, ROOT / "benchmarks" / "serve_load.py", *words, tmp_path / "serve.json"], check=True)
    report = json.loads((tmp_path / "serve.json").read_text())
    assert report["responses"]["statuses"] == {"200": 300}
    assert report["responses"]["wrong"] == report["overload"]["wrong"] == 0
    assert set(report["overload"]["statuses"]) == {"200", "503"}
    assert report["overload"]["p50_ms"] < 2 * report["overload"]["queue_ms"]
    assert report["cpu_share"]["median"] > 0.6
    medians = report["memory_mb"]["medians"]
    assert max(medians) < 1.3 * report["memory_mb"]["before"]
