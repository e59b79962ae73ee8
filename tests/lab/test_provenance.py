"""The provenance that result files record."""

import sys

import pytest

from mien.lab.provenance import provenance


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["/usr/bin/mien", "train", "conv4", "--data", "/home/me/faces"], "mien train conv4 --data .../faces"),
        (
            ["mien", "train", "conv4", "--data=/home/me/faces.csv", "data.exclude=/home/me/bad.txt", "net.weights=a/b"],
            "mien train conv4 --data=.../faces.csv data.exclude=.../bad.txt net.weights=a/b",
        ),
        (
            ["mien", "train", 'data.extra=[{path="/home/me/x y", weight=2}]', 'target.teachers=["/a/b.npz", "/c/d"]'],
            """mien train 'data.extra=[{path=".../x y", weight=2}]' 'target.teachers=[".../b.npz", ".../d"]'""",
        ),
        (["/somewhere/mien/__main__.py", "audit"], "mien audit"),
        (["benchmarks/speedrun.py", "--runs", "2"], "python benchmarks/speedrun.py --runs 2"),
        (["/home/me/mien/tools/reproduce.py"], "python tools/reproduce.py"),
    ],
)
def test_the_command_can_be_repeated(monkeypatch: pytest.MonkeyPatch, arguments: list[str], command: str) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    assert provenance("abc")["command"] == command
