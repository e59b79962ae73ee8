"""The lowest versions that are allowed are exact, exist as constraints, and are not above the pinned ones."""

import re
import tomllib

from lowest_versions import lowest_versions
from support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def test_every_dependency_has_a_lowest_version_below_the_pinned_one() -> None:
    extras = sorted(PROJECT["optional-dependencies"])
    lowest = dict(line.split("==") for line in lowest_versions(PROJECT, extras))
    needed = [*PROJECT["dependencies"], *(line for name in extras for line in PROJECT["optional-dependencies"][name])]
    assert lowest.keys() == {re.match(r"[\w.-]+", line)[0] for line in needed}  # type: ignore[index]
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if re.match(r"[\w.-]+==", line)
    )
    above = {name for name, version in lowest.items() if name in pinned and numbers(version) > numbers(pinned[name])}
    assert above == set()


def test_only_the_extras_that_are_named_are_included() -> None:
    assert {line.split("==")[0] for line in lowest_versions(PROJECT, [])} == {
        re.match(r"[\w.-]+", line)[0]  # type: ignore[index]
        for line in PROJECT["dependencies"]
    }
