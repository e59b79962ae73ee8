"""Rules of the source tree: the order of imports, what an import costs, docstrings, unique names, length of files."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import mien
from support.paths import ROOT

PACKAGE = ROOT / "src" / "mien"
FILES = sorted(PACKAGE.rglob("*.py"))

# Lowest first; a module imports only from the lines above its own, and from its own package.
LAYERS = [
    {"_checksum", "_emotions", "_format", "_memory", "_progress", "_signals", "_suggest", "bundled"},
    {"_errors"},
    {"_download", "_framing", "_measure", "_metrics", "_ordered", "_output", "_page", "_session", "_structure"},
    {"decode"},
    {"_face"},
    {"_inputs"},
    {"_workers", "detect", "extract", "infer", "overlay"},
    {"reader"},
    {"report"},
    {"video"},
    {"cluster"},
    {"serve"},
    {"commands"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# The order within the lab, as docs/explanations/architecture.md shows it.
LAB_LAYERS = [
    {"augment", "emotion_text", "files", "inference", "nets", "provenance", "significance"},
    {"html", "metrics", "recipe"},
    {"data", "pretrained"},
    {"ledger", "predictions", "train"},
    {"ensemble", "export", "gan", "recipe_summary", "search"},
    {"models", "record"},
    {"audit", "evaluate", "explain", "robustness"},
    {"compare"},
]
LAB_USES = {"bundled", "decode", "detect", "extract", "infer", "overlay"}  # what the lab may import from the core
LAB_RANK = {name: rank for rank, names in enumerate(LAB_LAYERS) for name in names}

CORE_PACKAGES = {"numpy", "onnxruntime", "PIL", "typer", "rich"}
OPTIONAL_PACKAGES = {
    "av",
    "fsspec",
    "pandas",
    "pillow_heif",
    "pyarrow",
    "ray",
    "supervision",
}  # only inside of a function, which says what to install
SERVE_PACKAGES = {
    "httptools",
    "fastapi",
    "starlette",
    "uvicorn",
    "websockets",
    "pydantic",
    "prometheus_client",
    "python_multipart",
}
HEAVY = ("torch", "torchvision", "cv2", "matplotlib", "sklearn", "pyarrow", "av", "fastapi", "ray", "mien.lab")


@cache
def parsed(path: Path) -> ast.Module:
    """The tree of a file: every rule looks at it."""
    return ast.parse(path.read_text("utf-8"))


def part(path: Path) -> str:
    """The name of a file in LAYERS: its first folder, or its own name."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


@cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """Every imported module as a dotted name, and whether importing the file imports it.

    Imports inside of functions and below ``if TYPE_CHECKING`` are not executed then.
    """
    nodes = list(ast.walk(parsed(path)))
    inner = {id(node) for parent in nodes if _is_deferred(parent) for node in ast.walk(parent)}
    found: list[tuple[str, bool]] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += ((alias.name, id(node) not in inner) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "mien":
                found += ((f"mien.{alias.name}", id(node) not in inner) for alias in node.names)
            else:
                found.append((node.module or "", id(node) not in inner))
    return found


def _is_deferred(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


LAB_FILES = sorted(path for path in (PACKAGE / "lab").rglob("*.py"))


@pytest.mark.parametrize("path", LAB_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_lab_runs_one_way(path: Path) -> None:
    inside = path.relative_to(PACKAGE / "lab")
    here = inside.parts[0].removesuffix(".py")
    for module, _ in lab_imports(path):
        there = module.split(".")[2]
        if here not in ("__init__", there):
            assert LAB_RANK[there] < LAB_RANK[here], f"lab/{inside} imports {module}, which is above it"


def lab_imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The imports of modules of the lab, ``from mien.lab import x`` as ``mien.lab.x``."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module == "mien.lab":
            yield from ((f"mien.lab.{alias.name}", True) for alias in node.names)
    yield from ((module, at_top) for module, at_top in imports(path) if module.startswith("mien.lab."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    here = part(path)
    for module, at_top in imports(path):
        if module.partition(".")[0] != "mien" or module == "mien":
            continue
        there = module.split(".")[1]
        if here == "__init__" or here == there:
            continue
        if here == "lab":
            assert there.startswith("_") or there in LAB_USES, f"the lab imports {module}"
        elif there == "lab":
            assert here == "commands", f"{here} imports {module}"
            assert not at_top, f"{path} imports {module} before it is needed"
        elif there not in RANK and here in ("commands", "__main__"):
            assert there in mien.__all__, f"{here} imports {module}, which is in no layer"
        else:
            assert RANK[there] < RANK[here], f"{here} imports {module}"


@pytest.mark.parametrize(
    "path", [p for p in FILES if part(p) != "lab"], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_the_core_needs_five_packages(path: Path) -> None:
    for module, at_top in imports(path):
        package = module.partition(".")[0]
        if package == "mien" or package in sys.stdlib_module_names or package in CORE_PACKAGES:
            continue
        if part(path) == "serve" and package in SERVE_PACKAGES:
            continue  # `mien serve` imports this folder inside of a function, which says what to install
        assert package in OPTIONAL_PACKAGES, f"{path} imports {module}"
        assert not at_top, f"{path} imports {module} before it is needed"


def loaded_by(statement: str) -> tuple[float, list[str]]:
    """Seconds and modules that ``statement`` takes in a fresh Python."""
    code = (
        "import json, sys, time; start = time.perf_counter()\n"
        f"{statement}\n"
        "print(json.dumps([time.perf_counter() - start, sorted(sys.modules)]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    seconds, modules = json.loads(done.stdout)
    return seconds, modules


@pytest.mark.parametrize(
    "statement", ["import mien", "from mien import Reader", "import mien.__main__", "import mien.report, mien.overlay"]
)
def test_imports_are_light(statement: str, capsys: pytest.CaptureFixture[str]) -> None:
    seconds, modules = loaded_by(statement)
    with capsys.disabled():
        print(f"\n{statement}: {1000 * seconds:.0f} ms")
    assert not [module for module in modules if any(f"{module}.".startswith(f"{heavy}.") for heavy in HEAVY)]
    if statement in ("import mien", "import mien.__main__"):  # Ctrl-C prints a traceback until the program handles it
        assert not {"numpy", "onnxruntime", "PIL"}.intersection(modules)


def test_public_names_are_sorted_and_all_there() -> None:
    assert mien.__all__ == sorted(mien.__all__)
    for name in mien.__all__:
        assert getattr(mien, name) is not None
        assert name in dir(mien)
    assert {name for name, value in vars(mien._errors).items() if isinstance(value, type)} <= set(mien.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Writer'"):
        mien.Writer  # noqa: B018


def test_the_version_is_stated_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project.get("version", mien.__version__) == mien.__version__


def undocumented(body: list[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{prefix}{node.name}.")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_name_is_documented(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree), f"{path} has no docstring"
    assert list(undocumented(tree.body, "")) == []


def defined_names(path: Path) -> Iterator[str]:
    """The public names that a module defines itself, not those it imports."""
    for node in parsed(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


def test_no_public_name_is_defined_twice() -> None:
    """Except ``build``, which every module of ``lab/nets`` defines for its own net."""
    homes: dict[str, set[str]] = {}
    for path in FILES:
        for name in defined_names(path):
            if not name.startswith("_") and (name, path.parent.name) != ("build", "nets"):
                homes.setdefault(name, set()).add(str(path.relative_to(PACKAGE)))
    assert {name: sorted(files) for name, files in homes.items() if len(files) > 1} == {}


def public_functions(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """Name, node and docstring of every public function and method; of ``__init__`` with the docstring of its class."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for name, function, text in public_functions(node.body, f"{node.name}."):
                yield name, function, text + (ast.get_docstring(node) or "" if function.name == "__init__" else "")
        elif isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
            yield owner + node.name, node, ast.get_docstring(node) or ""


def parameters(function: ast.FunctionDef) -> Iterator[str]:
    """The parameters that a caller passes: no ``self``, no underscore."""
    listed = function.args
    for each in [*listed.posonlyargs, *listed.args, *listed.kwonlyargs, listed.vararg, listed.kwarg]:
        if each is not None and each.arg not in ("self", "cls") and not each.arg.startswith("_"):
            yield each.arg


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_parameter_has_its_line(path: Path) -> None:
    """Except options of commands, which Typer documents in their help."""
    missing = [
        f"{name}({parameter})"
        for name, function, text in public_functions(parsed(path).body)
        for parameter in parameters(function)
        if not name.endswith("_command")
        if not re.search(rf"^ +(?:\S+, )*[*`]*{parameter}[*`]*(?:, \S+)*(?: \(.*\))?:", text, re.MULTILINE)
    ]
    assert missing == []


def test_no_file_is_longer_than_600_lines() -> None:
    folders = [PACKAGE, *(ROOT / name for name in ("tests", "tools", "benchmarks"))]
    files = [path for folder in folders for kind in ("*.py", "*.mjs") for path in folder.rglob(kind)]
    ours = [path for path in files if "runtime" not in path.parts]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in ours}
    assert {name: lines for name, lines in lengths.items() if lines > 600} == {}
