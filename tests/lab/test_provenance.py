"""The provenance that result files record."""

import sys

import pytest

from mien.lab.provenance import provenance


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["/usr/bin/mien", "train", "conv4", "--data", "/home/me/faces"], "mien train conv4 --data .../faces"),
        (["/somewhere/mien/__main__.py", "audit"], "mien audit"),
        (["benchmarks/speedrun.py", "--runs", "2"], "python benchmarks/speedrun.py --runs 2"),
        (["/home/me/mien/tools/reproduce.py"], "python tools/reproduce.py"),
    ],
)
def test_the_command_can_be_repeated(monkeypatch: pytest.MonkeyPatch, arguments: list[str], command: str) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    assert provenance("abc")["command"] == command
