"""The notebooks of examples/ run from top to bottom, are short, and hold no outputs."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mien._emotions import SEVEN
from mien.lab.data import find_fer2013
from support.paths import ROOT
from support.synthetic_faces import cartoon_set

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells(notebook: Path) -> list[dict[str, Any]]:
    return list(json.loads(notebook.read_text("utf-8"))["cells"])


def run(notebook: Path, **changes: str) -> dict[str, Any]:
    """Run all code of a notebook in order and in one namespace; ``changes`` are set after the first cell."""
    names: dict[str, Any] = {"__name__": notebook.stem}
    for number, cell in enumerate(cell for cell in cells(notebook) if cell["cell_type"] == "code"):
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number + 1}", "exec"), names)
        if number == 0:
            assert changes.keys() <= names.keys()
            names |= changes
    return names


@pytest.fixture
def small_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of cartoon faces with the three splits, in place of FER-2013."""
    faces = cartoon_set()
    for row, (image, label, usage) in enumerate(zip(faces.images, faces.labels, faces.usage, strict=True)):
        folder = tmp_path / "faces" / ("train", "val", "test")[int(usage)] / SEVEN[int(label)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{row}.png")
    monkeypatch.setenv("MIEN_DATA", str(tmp_path / "faces"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_is_short_and_holds_no_outputs(notebook: Path) -> None:
    source = [line for cell in cells(notebook) for line in cell["source"]]
    assert len(source) <= 40
    for cell in cells(notebook):
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    names = run(ROOT / "examples" / "reading.ipynb")
    assert names["face"].emotion == "happy"
    assert len(names["table"]) == 2


def test_training_on_few_faces(small_set: Path) -> None:
    names = run(ROOT / "examples" / "training.ipynb", FRACTION=1.0, EPOCHS=1)
    assert names["metrics"]["n"] == 70
    assert (small_set / "runs" / "notebook" / "final.pt").is_file()


def test_comparing_on_few_faces(small_set: Path) -> None:
    names = run(ROOT / "examples" / "comparing.ipynb")
    assert len(names["found"].common.rows) == 70
    assert (small_set / "reports" / "notebook" / "report.html").is_file()


@pytest.mark.release
@pytest.mark.parametrize("name", ["training", "comparing"])
def test_they_run_on_fer2013(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = find_fer2013()
    monkeypatch.setenv("MIEN_DATA", os.fspath(data))
    monkeypatch.chdir(tmp_path)
    names = run(ROOT / "examples" / f"{name}.ipynb")
    found = names["metrics"]["n"] if name == "training" else len(names["found"].common.rows)
    assert found == 3589
