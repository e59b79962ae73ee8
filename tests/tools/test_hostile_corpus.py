"""The hostile corpus: library, command and server handle each file alike, within the bounds of docs/how-to/read.md."""

import json
from pathlib import Path

import pytest

import hostile_corpus

pytest.importorskip("fastapi", reason="the server needs the serve extra")

from mien import Reader
from mien._errors import MienError, TooLargeError
from mien.decode import MAX_PIXELS, decode
from mien.serve import Limits, create_app
from support.cli import mien_here
from support.http_server import serving


def decoded(path: Path) -> str:
    """The error of a file, its name replaced; empty if it is read."""
    try:
        decode(path)
    except MienError as error:
        return str(error).replace(str(path), "FILE")
    return ""


def test_library_command_and_server_handle_each_file_alike(tmp_path: Path) -> None:
    files = {}
    for case in [*hostile_corpus.structures(20_000), *hostile_corpus.images(300)]:
        if len(case.data) < 1_000_000:
            path = tmp_path / f"{case.name.replace(' ', '-')}{case.suffix}"
            path.write_bytes(case.data)
            files[str(path)] = case
    errors = {name: decoded(Path(name)) for name in files}
    assert all(case.word in errors[name] for name, case in files.items())
    done = mien_here("predict", str(tmp_path), "--json", cwd=tmp_path)
    rows = {row["source"]: row["error"] or "" for row in map(json.loads, done.stdout.splitlines())}
    assert {name: error.replace(name, "FILE") for name, error in rows.items()} == errors
    with serving(create_app(Reader(), limits=Limits(max_pixels=MAX_PIXELS, memory=2**31))) as server:
        for name, case in files.items():
            response = server.request("/v1/predict", case.data)
            assert response.status == (413 if errors[name] else 200), name
            if errors[name]:
                assert response.json()["detail"].partition(": ")[2] == errors[name].partition(": ")[2]


def test_a_file_that_exceeds_a_bound_is_reported() -> None:
    case = hostile_corpus.Hostile("name", ".png", b"", "chunks")
    good = {"cpu": 0.1, "peak": 1000, "megapixels": 0, "line": f"{TooLargeError.__name__}: too many chunks"}
    assert hostile_corpus.faults_of(case, good, 2000) == []
    for wrong in ({"cpu": 3.0}, {"peak": 3000}, {"line": "read, 1 x 1"}, {"line": "FAULT, status -11"}):
        assert hostile_corpus.faults_of(case, good | wrong, 2000), wrong


def test_finding_faces_takes_no_second_copy_of_a_large_image(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(hostile_corpus.empty_png((36_000, 1000), 8, 0, 1))
    result = hostile_corpus.measure(path)
    assert result["line"] == "read, 36000 x 1000"
    assert result["peak"] < 4 * 36_000_000 + 30_000_000  # 4 bytes a pixel while it is decoded


@pytest.mark.release
def test_the_whole_corpus_keeps_to_the_bounds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sys.argv", ["hostile_corpus.py"])
    assert hostile_corpus.main() == 0, capsys.readouterr().out
