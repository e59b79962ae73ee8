"""The built wheel, installed alone, reads a face: `make release-check` runs this (it needs a package index)."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from support.paths import ROOT

WHEEL_BYTES, INSTALL_BYTES = 10e6, 250e6  # budgets


def run(*words: object, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(w) for w in words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.release
@pytest.mark.timeout(600)
def test_the_wheel_reads_the_example_and_keeps_its_budgets(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.stat().st_size <= WHEEL_BYTES
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith("/METADATA"))
        description = archive.read(name).decode().partition("\n\n")[2]
    assert "# mien" in description
    assert not re.search(r"\]\((?!https?:)", description)  # a link into the repository
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    size = sum(f.stat().st_size for f in (tmp_path / "venv").rglob("*") if f.is_file() and not f.is_symlink())
    assert size <= INSTALL_BYTES
    page = tmp_path / "report.html"
    output = run(
        python, "-m", "mien", "predict", "--json", ROOT / "examples" / "astronaut.png", "--out", page, cwd=tmp_path
    )
    assert '"happy"' in output
    assert "<!doctype html>" in page.read_text().lower()
    for snippet in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL):
        assert "happy" in run(python, "-c", snippet, cwd=tmp_path)
    loaded = run(
        python,
        "-c",
        "import mien, sys; mien.Reader(); print('torch' in sys.modules, 'cv2' in sys.modules)",
        cwd=tmp_path,
    )
    assert loaded.strip() == "False False"
