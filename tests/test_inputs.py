"""Names on the command line -> images: none is lost, none is read twice, and a wrong one stops no other."""

import os
from pathlib import Path
from typing import Any

import pytest

from mien import _inputs
from mien._errors import MienError
from mien.cluster.plan import Plan
from mien.infer import find_model
from mien.video.sources import open_source


@pytest.fixture
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("images/img_1", "images/dsc.jpg", "x/y/p.jpg", "x/y/z.jpg", "late.HIF", "both.mpo"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("album")
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/im*", ["images/dsc.jpg", "images/img_1"]),
        ("**/[xp]*", ["x/y/p.jpg", "x/y/z.jpg"]),
        ("images/*", ["images/dsc.jpg", "images/img_1"]),
        ("**/*.jpg", ["images/dsc.jpg", "x/y/p.jpg", "x/y/z.jpg"]),
        (".", ["./both.mpo", "./images/dsc.jpg", "./late.HIF", "./x/y/p.jpg", "./x/y/z.jpg"]),
    ],
)
def test_a_folder_and_files_in_it_that_match_are_read_once(pattern: str, expected: list[str]) -> None:
    found = _inputs.expand_inputs([pattern])
    assert sorted(map(str, found.sources)) == expected
    assert "already" not in found.note()
    assert found.failed == []


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need rights elsewhere")
def test_a_link_to_a_folder_of_which_one_file_matches_gives_the_others(album: Path) -> None:
    (album / "images" / "dlink").symlink_to(album / "images")
    (album / "images" / "e.jpg").touch()
    assert _inputs.expand_inputs(["images/d*"]).sources == ["images/dlink/e.jpg", "images/dsc.jpg"]


@pytest.mark.usefixtures("album")
@pytest.mark.parametrize("name", ["x" * 300, "null\0byte.jpg", "x" * 300 + "/*.jpg", "late.HIF/below.jpg"])
def test_a_name_that_cannot_be_looked_at_stops_no_other(name: str) -> None:
    found = _inputs.expand_inputs(["both.mpo", name, "late.HIF"])
    assert [source for source in found.sources if source != name] == ["both.mpo", "late.HIF"]
    assert _inputs.expand_videos([name]) == ([name], False)


def test_brackets_of_a_name_with_no_match_are_explained(album: Path) -> None:
    (album / "album [2024]").mkdir()
    (album / "album [2024]" / "a.jpg").touch()
    (reading,) = _inputs.expand_inputs(["album [2024]/*.jpg"]).failed
    assert reading.error == "album [2024]/*.jpg: no such file; write [[] for a bracket of a name, else it is a wildcard"
    assert _inputs.expand_inputs(["album [[]2024]/*.jpg"]).sources == ["album [2024]/a.jpg"]


def test_a_closed_standard_input_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(MienError, match="standard input is closed; send an image to it"):
        _inputs.expand_inputs(["-"])


def test_what_is_in_a_closed_folder_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = os.stat

    def refuse(path: Any, **options: Any) -> os.stat_result:  # access rights do not stop root
        if str(path).startswith(str(tmp_path / "closed")):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "lstat", refuse)
    for name, find in {
        "net.onnx": find_model,
        "film.mp4": open_source,
        "films": lambda path: _inputs.names_of([str(path)]),
        "images": lambda path: list(Plan([str(path)], fps=None, column=None)),
    }.items():
        with pytest.raises(MienError, match="no permission to look at it; change the access rights"):
            find(tmp_path / "closed" / name)
    for find in (find_model, open_source):
        with pytest.raises(MienError, match="no such"):
            find(tmp_path / "net.onnx")
