"""The docs cannot drift: their Python runs, their generated pages are fresh, their links lead somewhere."""

import doctest
import importlib
import pkgutil
import re
import shlex
from collections.abc import Iterator
from itertools import groupby
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
# The code of other packages on the pages of docs/migrate is marked ```py: only ours is run.
RUN = [page for page in TEXTS if page.name != "data.md" and "```python\n" in page.read_text()]


def place(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", RUN, ids=place)
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


def outside_of_code(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as the extension ``toc`` of Python-Markdown makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", outside_of_code(page), re.MULTILINE):
        name = re.sub(
            r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.encode("ascii", "ignore").decode()).strip().lower()
        )
        found.add(next(n for n in (name, *(f"{name}_{i}" for i in range(1, 99))) if n not in found))
    return found


def broken_links(page: Path, within: Path) -> list[str]:
    """The links of a page to files that do not exist or are outside of ``within``, and to missing headings."""
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", outside_of_code(page))
    broken = []
    for link in (a or b for a, b in links if not (a or b).startswith(("http", "mailto:"))):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not (target.exists() and target.is_relative_to(within)) or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", TEXTS, ids=place)
def test_links_lead_somewhere(page: Path) -> None:
    """A link of a page of docs/ stays in it, because the site has nothing else."""
    docs = ROOT / "docs"
    assert broken_links(page, docs if docs in page.parents else ROOT) == []


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `title` of 70 %\n[a](#a-title-of-70) [b](#b) [c](page.md#a-title-of-70) [d](no.md) [e](../f.md)\n"
    )
    (tmp_path.parent / "f.md").touch()
    assert broken_links(page, tmp_path) == ["#b", "no.md", "../f.md"]


def test_the_docs_stay_short() -> None:
    """At most 25,000 hand-written words, without code, generated parts, the changelog and the table of statements."""
    left_out = {"CHANGELOG.md", "CODE_OF_CONDUCT.md", "docs/reference/systems.md"}
    count = 0
    for page in TEXTS:
        marked = re.compile(r"<!-- (\w+): written by make docs -->.*?<!-- end of \1 -->", re.DOTALL)
        text, parts = marked.subn("", re.sub(r"^::: .*$", "", outside_of_code(page), flags=re.MULTILINE))
        if place(page) not in left_out and (parts or place(page) not in PAGES):
            count += len(text.split())
    assert 10_000 < count <= 25_000, count


def test_every_page_is_in_the_navigation_once() -> None:
    """What `make docs` would refuse, without the packages that it needs."""
    nav = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r": (\S+\.md)$", nav, re.MULTILINE)
    assert sorted(listed) == sorted(
        page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")
    )


def test_the_python_reference_names_objects_that_exist() -> None:
    named = [
        n
        for page in (ROOT / "docs" / "reference").glob("*.md")
        for n in re.findall(r"^::: (\S+)$", page.read_text(), re.M)
    ]
    assert len(named) > 50
    for name in named:
        pkgutil.resolve_name(name)


def test_every_command_is_documented() -> None:
    import typer

    from mien.commands import app

    page = (ROOT / "docs" / "reference/commands.md").read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) >= 5
    for name in commands:
        assert f"## mien {name}" in page


def calls(text: str) -> Iterator[list[str]]:
    """The words of every call of mien in the shell code of a page."""
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in code.splitlines() if language in ("", "sh", "bash", "console", "ini") else ():
            if re.search(r"(^|\s|/)mien ", line):
                words = shlex.shlex(line, posix=True, punctuation_chars=True)
                words.whitespace_split = True
                for is_end, part in groupby(words, lambda word: set(word) <= set(";&|<>()")):
                    call = [word.removeprefix("/opt/mien/bin/") for word in part]
                    if not is_end and "mien" in call[:3] and call[0] != "pip":
                        yield call[call.index("mien") + 1 :]


def test_the_calls_of_the_docs_name_commands_and_options_that_exist() -> None:
    import typer

    from mien.commands import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = {name: {o for p in each.params for o in (*p.opts, *p.secondary_opts)} for name, each in commands.items()}
    found = [(place(page), words) for page in TEXTS for words in calls(page.read_text("utf-8"))]
    assert len(found) > 120
    for page, (command, *words) in found:
        assert command in options, page
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options[command], (page, words)


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
