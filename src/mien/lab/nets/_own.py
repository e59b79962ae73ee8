"""Nets of your own: the Python files of the folder that ``$MIEN_NETS`` names. Recipes name them as they name mien's."""

import hashlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from mien._errors import RecipeError, first_line

_VARIABLE = "MIEN_NETS"


def own_nets() -> dict[str, Path]:
    """Return the nets of ``$MIEN_NETS``.

    Returns:
        Name, with underscores -> file. Files whose name begins with an underscore are no nets: nets share them.

    Raises:
        RecipeError: The variable names no folder, or one that cannot be read.
    """
    if not os.environ.get(_VARIABLE):
        return {}
    folder = Path(os.environ[_VARIABLE]).expanduser().absolute()
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".py" and path.name[0] not in "_.")
    except OSError as error:
        raise RecipeError(f"${_VARIABLE} is no folder of nets: {first_line(error)}") from error
    return {file.stem.replace("-", "_"): file for file in files}


def code_hashes(names: Iterable[str]) -> dict[str, str]:
    """Hash the code of nets: a run of other code is another run.

    Args:
        names: Names of nets; those of mien and timm have no hash.

    Returns:
        Name of a file -> its SHA-256: the files of the nets, and those that the nets of their folder share.

    Raises:
        RecipeError: A file cannot be read.
    """
    own = own_nets()
    files = [own[name] for name in (each.replace("-", "_") for each in names) if name in own]
    try:
        files += sorted(files[0].parent.glob("_*.py")) if files else []
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    except OSError as error:
        raise RecipeError(f"${_VARIABLE}: {first_line(error)}") from error


def load_builder(name: str, file: Path) -> Callable[..., Any]:
    """Import a file of ``$MIEN_NETS``: this runs its code.

    Args:
        name: The name of the net.
        file: Its file.

    Returns:
        Its function ``build(channels, classes, **options)``.

    Raises:
        RecipeError: The file cannot be imported, or has no such function.
    """
    # A package for each content, so that a notebook gets the file as it is now. Files import others of it with a dot.
    digest = hashlib.sha256(repr((file, code_hashes([name]))).encode()).hexdigest()
    package = ModuleType(f"mien_nets_{digest[:16]}")
    package.__path__ = [str(file.parent)]
    sys.modules.setdefault(package.__name__, package)
    importlib.invalidate_caches()
    # Python takes compiled code for that of a file if the size and the second of its last change are equal.
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        module = importlib.import_module(f"{package.__name__}.{file.stem}")
    except Exception as error:  # whatever the file raises
        raise RecipeError(f"{place(error, file)}: {type(error).__name__}: {first_line(error)}") from error
    finally:
        sys.dont_write_bytecode = writes_none
    build = getattr(module, "build", None)
    if not callable(build):
        raise RecipeError(f"{file} has no function build(channels, classes, *, ...) that returns a Net")
    return build  # type: ignore[no-any-return]


def place(error: Exception, file: Path) -> str:
    """Return where in a folder of nets an error was raised.

    Args:
        error: The error.
        file: The file of the net.

    Returns:
        The file, with the line if it is known.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [each for each in traceback.extract_tb(error.__traceback__) if Path(each.filename).parent == file.parent]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else str(file)
