"""The files of a release agree: the ranges of the conda recipe, versions, and the description for an index."""

import importlib.util
import re
import tomllib
from typing import Any

import pytest

import mien
from support.paths import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RECIPE = (ROOT / "conda" / "recipe.yaml").read_text("utf-8")
# Names that conda-forge gives to packages of another name, and extras without a part in the package for users.
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "prometheus-client": "prometheus_client"}
USED_EXTRAS = ("lab", "video", "parquet", "pandas", "supervision", "serve", "heic")


def section(name: str) -> set[str]:
    """The list of a key of the conda recipe, without comments."""
    found = re.search(rf"^( *){name}:.*\n((?:\1  +- .*\n)+)", RECIPE, re.MULTILINE)
    assert found is not None
    return set(re.findall(r"- (\S.*)$", found[2], re.MULTILINE))


def conda(requirements: list[str]) -> set[str]:
    """Requirements of pyproject.toml as conda writes them."""
    split = [re.fullmatch(r"([\w-]+)(?:\[\w+\])?([^;]*)(?:;.*)?", line) for line in requirements]
    assert all(split)
    return {f"{CONDA_NAMES.get(match[1], match[1])} {match[2].strip()}" for match in split if match}


def test_the_conda_recipe_has_the_ranges_of_the_package() -> None:
    assert section("run") - {"python >=${{ python_min }}"} == conda(PROJECT["dependencies"])
    extras = [line for extra in USED_EXTRAS for line in PROJECT["optional-dependencies"][extra]]
    assert section("run_constraints") == conda(extras)
    assert f'python_min: "{PROJECT["requires-python"].removeprefix(">=")}"' in RECIPE
    (backend,) = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    assert conda([backend]) <= section("host")
    (script,) = PROJECT["scripts"].items()
    assert section("entry_points") == {" = ".join(script)}
    for path in section("license_file"):
        assert (ROOT / path).is_file()


def test_every_file_names_the_version_of_the_package() -> None:
    assert f'\n  version: "{mien.__version__}"\n' in RECIPE
    assert f"\nversion: {mien.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


@pytest.mark.parametrize("repository", ["", "https://example.org/mien/blob/main/"])
def test_the_description_for_an_index_has_no_link_that_leads_nowhere(repository: str) -> None:
    spec = importlib.util.spec_from_file_location("describing", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (ROOT / "README.md").read_text("utf-8")
    text = module.describe(readme, repository)
    assert [link for link in re.findall(r"\]\(([^)]*)\)", text) if not link.startswith("https://")] == []
    words = re.findall(r"\w+", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", readme))
    assert len(re.findall(r"\w+", text)) >= len(words) - 30  # the images' descriptions alone are left out
