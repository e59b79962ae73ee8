"""Paths in recipes: recorded results are found from every working directory."""

from pathlib import Path

import pytest

from mien.lab import files
from mien.lab.files import find_input


def test_recorded_results_do_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = tmp_path / "checkout" / "results" / "run"
    recorded.mkdir(parents=True)
    monkeypatch.setattr(files, "_CHECKOUT", tmp_path / "checkout")
    monkeypatch.chdir(tmp_path)
    assert find_input("results/run") == recorded
    assert find_input("results/other") == Path("results/other")


@pytest.mark.parametrize("name", ["runs/mine/seed-0", "faces.csv", "/data/results/run"])
def test_other_paths_are_used_as_given(name: str) -> None:
    assert find_input(name) == Path(name)


def test_the_home_folder_may_be_abbreviated() -> None:
    assert find_input("~/runs") == Path.home() / "runs"


def test_results_of_this_repository_are_found() -> None:
    assert find_input("results").samefile(Path(__file__).parents[2] / "results")
