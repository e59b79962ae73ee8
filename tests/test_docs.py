"""The docs cannot drift: their Python runs, their generated pages are fresh, their links lead somewhere."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from PIL import Image

import mien
from docs_pages import PAGES
from docs_tables import write_pages
from mien._emotions import SEVEN
from support.paths import ROOT
from support.synthetic_faces import cartoon_set

TEXTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
# docs/reference/data.md needs the real data; tests/lab/data/test_duplicates.py runs its snippets where that is present.
RUN = [page for page in TEXTS if page.name != "data.md" and "```python" in page.read_text()]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All Python of a page runs in order and in one namespace, beside a labelled folder."""
    faces = cartoon_set(per_split=(28, 0, 0))
    for row, (image, label) in enumerate(zip(faces.images, faces.labels, strict=True)):
        folder = tmp_path / "my_faces" / SEVEN[int(label)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.numpy()).save(folder / f"{row}.png")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": page.stem}
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)):
        exec(compile(code, f"{page.name}, snippet {number + 1}", "exec"), namespace)


def test_the_generated_pages_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert write_pages(PAGES, check=True) == 0, capsys.readouterr().err


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)|src=\"([^\"]+)\"", page.read_text())
    local = [a or b for a, b in targets if not (a or b).startswith(("http", "mailto:"))]
    missing = [target for target in local if not (page.parent / target).exists()]
    assert missing == []


def test_every_command_is_documented() -> None:
    import typer

    from mien.commands import app

    page = (ROOT / "docs" / "reference/commands.md").read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) >= 5
    for name in commands:
        assert f"## mien {name}" in page


def test_the_examples_of_docstrings_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example of every module, in an empty folder: none needs a file that the package does not bring."""
    monkeypatch.chdir(tmp_path)
    finder, runner, count, report = doctest.DocTestFinder(), doctest.DocTestRunner(verbose=False), 0, []
    names = [each.name for each in pkgutil.walk_packages(mien.__path__, "mien.") if each.name != "mien.__main__"]
    for module in map(importlib.import_module, ["mien", *names]):
        for example in finder.find(module, module.__name__):
            runner.run(example, out=report.append)
            count += bool(example.examples)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)
    assert count > 90
