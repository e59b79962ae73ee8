"""Helpers that commands share: --split, --map, the progress bar, and the missing lab extra."""

import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from mien._errors import DataError
from mien.commands import app
from mien.commands._progress import TerminalProgress
from mien.lab.data import Split, public_sets
from mien.lab.data.datasets import ALL, chosen_split, read_map, read_part, read_split
from support.synthetic_faces import cartoon_set


@pytest.mark.parametrize(
    ("word", "split"), [("PublicTest", Split.PUBLIC_TEST), (" training", Split.TRAINING), ("ALL", ALL), (None, None)]
)
def test_a_split_is_named_in_any_case(word: str | None, split: object) -> None:
    assert read_split(word) == split
    if word is not None:
        assert read_part(word) == (None if split == ALL else split)


@pytest.mark.parametrize(("word", "hint"), [("Privat", "PrivateTest"), ("publictst", "PublicTest"), ("al", "all")])
def test_an_unknown_split_names_the_nearest_as_it_is_spelled(word: str, hint: str) -> None:
    with pytest.raises(DataError, match=rf"no such split as .*; name Training, .* or all; did you mean \'{hint}\'\?"):
        read_split(word)


def test_the_default_split_never_is_private_test() -> None:
    faces = cartoon_set(per_split=(7, 7, 7))
    assert chosen_split(None, faces) is Split.PUBLIC_TEST
    assert chosen_split(None, faces.split(Split.TRAINING)) is None
    # Without PublicTest nothing is chosen silently that holds PrivateTest: what reads the rows then says what there is.
    assert chosen_split(None, faces.select(faces.usage != 1)) is Split.PUBLIC_TEST
    assert chosen_split(ALL, faces) is None
    assert chosen_split(Split.PRIVATE_TEST, replace(faces)) is Split.PRIVATE_TEST


def test_a_map_of_labels() -> None:
    assert read_map(["Smile = Happy", "other=", "a=b=sad"]) == {"smile": "happy", "other": "", "a=b": "sad"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("smile", "say LABEL=EMOTION"),
        ("=happy", "say LABEL=EMOTION"),
        ("smile=hapy", "no emotion; there are .*did you mean 'happy'"),
    ],
)
def test_a_wrong_label_map_names_the_word(word: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^label map .*{message}"):
        read_map([word])


def test_outside_of_a_terminal_every_new_stage_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress() as bar:
        for done in range(3):
            bar("maps [bold]", done, 2)
        bar("writing")
    assert capsys.readouterr().err.splitlines() == ["maps [bold]", "writing"]
    with TerminalProgress(lines=False) as bar:
        bar("reading")
    assert capsys.readouterr().err == ""
    with TerminalProgress(overall=True) as bar:
        bar("blur", 1, 4)
        bar("noise", 3, 4)
    assert capsys.readouterr().err.splitlines() == ["blur: from 25%", "noise: from 75%"]


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = ["prepare", "kdef", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(public_sets, "prepare_public_set", Mock(side_effect=ValueError("passes")))
    assert str(CliRunner().invoke(app, words).exception) == "passes"
    monkeypatch.setitem(sys.modules, public_sets.__name__, None)  # as if it could not be imported
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert done.stderr == f'mien: {public_sets.__name__} is not installed; run: pip install "mien[lab]"\n'
