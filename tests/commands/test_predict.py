"""`mien predict`: outputs for people and programs from every kind of source; one line and an exit status for errors."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from mien._emotions import SEVEN
from mien._format import printable
from mien.commands import app
from support.onnx_models import write_model
from support.paths import ROOT
from support.processes import rest_of

EXAMPLE = str(ROOT / "examples" / "astronaut.png")
Draw = Callable[..., np.ndarray]


def start(tiny: Path, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
    """The real program in its own process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120"}
    command = [sys.executable, "-m", "mien", "predict", "--model", str(tiny), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen(command, **{**pipes, **options})


def runner(tiny: Path) -> Callable[..., Result]:
    """`mien predict` with the model ``tiny`` in this process."""

    def run(*arguments: object, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, ["predict", "--model", str(tiny), *map(str, arguments)], input=stdin)

    return run


def make_album(folder: Path, draw_face: Draw) -> Path:
    """Five images in three folders, and files that are no images."""
    for index, name in enumerate(("b.png", "a.jpg", "sub/c.webp", "sub/deep/d.bmp", "e.JPEG")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_face(64, seed=index)).save(path)
    for name in ("notes.txt", ".hidden.png", ".cache/f.png", "sub/g.mien.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not for reading")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def predict(tiny: Path) -> Callable[..., Result]:
    return runner(tiny)


@pytest.fixture
def album(tmp_path: Path, draw_face: Draw) -> Path:
    return make_album(tmp_path / "album", draw_face)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def names(result: Result) -> list[str]:
    return [Path(line["source"]).name for line in lines(result)]


def test_json_of_the_example(predict: Callable[..., Result]) -> None:
    result = predict(EXAMPLE, "--json")
    assert result.exit_code == 0, result.stderr
    (reading,) = lines(result)
    assert list(reading) == ["source", "size_wh", "faces", "error"]
    assert (reading["source"], reading["error"]) == (EXAMPLE, None)
    face = reading["faces"][0]
    assert list(face) == ["box", "score", "points", "emotion", "confidence", "probs", "quality"]
    assert list(face["probs"]) == [str(emotion) for emotion in SEVEN]
    assert sum(face["probs"].values()) == pytest.approx(1, abs=1e-3)
    assert face["probs"][face["emotion"]] == face["confidence"]
    assert len(face["box"]) == 4


def test_the_table_is_for_people(predict: Callable[..., Result]) -> None:
    result = predict(EXAMPLE)
    assert result.exit_code == 0
    assert "astronaut.png" in result.stdout
    assert any(emotion in result.stdout for emotion in SEVEN)
    assert "%" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("columns", [40, 20, 10])
def test_a_narrow_terminal_shows_the_whole_name_and_the_emotion(
    predict: Callable[..., Result], album: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    image = album / "sub" / "c.webp"
    shown = predict(image, "--detector", "none").stdout
    text = "".join(shown.split())
    assert str(image) in text
    assert any(f"emotion:{emotion}confidence:" in text for emotion in SEVEN)
    assert max(map(len, shown.splitlines())) <= columns


def test_csv_has_a_row_for_each_face(predict: Callable[..., Result]) -> None:
    rows = list(csv.DictReader(io.StringIO(predict(EXAMPLE, "--format", "csv").stdout)))
    assert rows[0]["source"] == EXAMPLE
    assert {str(emotion) for emotion in SEVEN} <= set(rows[0])


def test_a_folder_is_read_below_and_in_order(predict: Callable[..., Result], album: Path) -> None:
    result = predict(album, "--json", "--detector", "none")
    assert result.exit_code == 0, result.stderr
    assert names(result) == ["a.jpg", "b.png", "e.JPEG", "c.webp", "d.bmp"]


def test_globs_are_expanded_where_no_file_has_that_name(predict: Callable[..., Result], album: Path) -> None:
    assert names(predict(f"{album}/*.jpg", f"{album}/**/*.bmp", "--json", "--detector", "none")) == ["a.jpg", "d.bmp"]
    (album / "odd[1].png").write_bytes((album / "b.png").read_bytes())
    (album / "odd1.png").write_bytes((album / "b.png").read_bytes())
    assert names(predict(album / "odd[1].png", "--json", "--detector", "none")) == ["odd[1].png"]
    nothing = predict(f"{album}/*.gif", "--json")
    assert nothing.exit_code == 2
    assert "no such file" in lines(nothing)[0]["error"]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need rights elsewhere")
@pytest.mark.parametrize("pattern", ["", "/**/*.*", "/**", "/*"])
def test_links_to_folders_are_followed_and_each_folder_is_read_once(
    predict: Callable[..., Result], album: Path, tmp_path: Path, pattern: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (album / "b.png").rename(other / "b.png")
    for name, target in (("again", album), ("alias", "sub"), ("linked", other), ("up", tmp_path), ("zz", album / "up")):
        (album / name).symlink_to(target)
    os.mkfifo(album / "pipe.png")  # reading it would never end
    page = tmp_path / "page.html"
    result = predict(f"{album}{pattern}", "--json", "--detector", "none", "--out", page)
    images = [name for name in names(result) if name not in ("notes.txt", "g.mien.png")]  # a glob names any file
    assert sorted(images) == ["a.jpg", "b.png", "c.webp", "d.bmp", "e.JPEG"]
    for output in (result.stderr, page.read_text("utf-8")):
        assert "folders that were read already (" in output
        assert pattern or "files of other kinds (" in output


def test_bytes_on_standard_input(predict: Callable[..., Result], album: Path) -> None:
    result = predict("-", "--json", "--detector", "none", stdin=(album / "b.png").read_bytes())
    assert result.exit_code == 0, result.stderr
    named = predict(album / "b.png", "--json", "--detector", "none")
    assert lines(result)[0]["faces"] == lines(named)[0]["faces"]
    empty = predict("-", "--json", stdin=b"")
    assert empty.exit_code == 2
    assert lines(empty)[0]["error"]


def test_standard_input_of_a_real_process(tiny: Path) -> None:
    with Path(EXAMPLE).open("rb") as stream:
        process = start(tiny, "-", "--json", stdin=stream)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert json.loads(output)["source"] == "<stdin>"
    assert len(json.loads(output)["faces"]) >= 1


@pytest.mark.parametrize("threads", [1, 3])
def test_five_hundred_mixed_files_with_broken_ones_among_them(
    predict: Callable[..., Result], tmp_path: Path, draw_face: Draw, threads: int
) -> None:
    broken = write_mixed_folder(tmp_path / "mixed", draw_face)
    result = predict(tmp_path / "mixed", "--json", "--detector", "none", "--threads", threads)
    assert result.exit_code == 1
    read = lines(result)
    assert len(read) == 480
    assert {Path(line["source"]).name for line in read if line["error"]} == broken
    assert all(len(line["faces"]) == (line["error"] is None) for line in read)
    assert result.stderr.splitlines() == [
        f"mien: 480 images, {480 - len(broken)} faces, {len(broken)} not read; left out: files of other kinds (20)"
    ]


def write_mixed_folder(folder: Path, draw_face: Draw) -> set[str]:
    """500 files: seven formats and modes, five kinds of broken images, and text. Returns the names of the broken."""
    folder.mkdir()
    face, broken = Image.fromarray(draw_face(48)), set()
    for number in range(480):
        suffix, mode = [("jpg", "RGB"), ("png", "L"), ("png", "RGBA"), ("gif", "P"), ("webp", "RGB"), ("tif", "I;16")][
            number % 6
        ]
        path = folder / f"{number:03}.{suffix}"
        stream = io.BytesIO()
        source = Image.fromarray(np.asarray(face).astype(np.uint16) * 257) if mode == "I;16" else face.convert(mode)
        source.save(stream, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
        data = stream.getvalue()
        if number % 20 == 7:
            broken.add(path.name)
            kinds = [data[: len(data) // 3], b"", b"<html>404</html>", data[:9], bytes(range(256)) * 9]
            data = kinds[number // 20 % len(kinds)]
        path.write_bytes(data)
    for number in range(20):
        (folder / f"note-{number}.txt").write_text("no image")
    return broken


def test_the_exit_status_shows_what_could_be_read(predict: Callable[..., Result], album: Path) -> None:
    bad = album / "bad.png"
    bad.write_bytes(b"nothing")
    assert predict(album / "b.png", "--detector", "none").exit_code == 0
    some = predict(album / "b.png", bad, "--detector", "none")
    assert some.exit_code == 1
    assert some.stderr.splitlines()[0].startswith(f"mien: {bad}: ")
    none = predict(bad, album / "gone.png")
    assert none.exit_code == 2
    assert "gone.png: no such file" in none.stderr
    assert none.stdout == ""


def test_a_folder_without_images_is_reported_and_the_others_are_read(
    predict: Callable[..., Result], album: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert predict(empty).exit_code == 2
    result = predict(empty, album, "--json", "--detector", "none")
    assert result.exit_code == 1
    assert "no images in this folder" in lines(result)[0]["error"]
    assert len(lines(result)) == 6


def test_a_folder_that_cannot_be_opened_is_reported(
    predict: Callable[..., Result], album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refuse(path: Any) -> Any:  # access rights do not stop root, under whom tests may run
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = predict(album, "--detector", "none", "--json")
    assert result.exit_code == 1
    assert "deep: this folder cannot be opened (permission denied)" in lines(result)[0]["error"]
    assert names(result)[1:] == ["a.jpg", "b.png", "e.JPEG", "c.webp"]


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX")
def test_a_closed_output_is_one_line(tiny: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = ["sh", "-c", f'"{sys.executable}" -m mien predict --json --model "{tiny}" "{EXAMPLE}" >&-']
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "mien: standard output is closed; send it to a file or to /dev/null\n"
    done = subprocess.run([*command[:2], command[2][:-3] + "2>&-"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert '"faces": [{' in done.stdout


def test_abstain_prints_unsure(predict: Callable[..., Result], album: Path) -> None:
    result = predict(album / "b.png", "--detector", "none", "--abstain", "1")
    assert "unsure" in result.stdout
    (reading,) = lines(predict(album / "b.png", "--detector", "none", "--abstain", "1", "--json"))
    assert reading["faces"][0]["emotion"] is None


def test_an_image_without_a_face_is_no_failure(predict: Callable[..., Result], tmp_path: Path) -> None:
    Image.new("RGB", (90, 60), "white").save(tmp_path / "white.png")
    result = predict(tmp_path / "white.png")
    assert result.exit_code == 0
    assert "no face found" in result.stdout


def test_annotated_copies_keep_format_and_originals(predict: Callable[..., Result], album: Path) -> None:
    (album / "sub" / "a.jpg").write_bytes((album / "a.jpg").read_bytes())
    before = {path: path.read_bytes() for path in album.rglob("*") if path.is_file()}
    for _ in range(2):  # the second run replaces what the first has written
        result = predict(album, "--detector", "none", "--out", album)
        assert result.exit_code == 0, result.stderr
    written = {str(path.relative_to(album)) for path in album.rglob("*") if path.is_file() and path not in before}
    below = {"sub/a.mien.jpg", "sub/c.mien.png", "sub/deep/d.mien.png"}
    assert written == {"a.mien.jpg", "b.mien.png", "e.mien.jpeg"} | below
    assert {path: path.read_bytes() for path in before} == before
    with Image.open(album / "e.mien.jpeg") as copy, Image.open(album / "e.JPEG") as original:
        assert (copy.format, copy.size) == ("JPEG", original.size)
        assert np.abs(np.asarray(copy.convert("RGB"), int) - np.asarray(original.convert("RGB"), int)).max() > 60
    assert predict(album, "--json", "--detector", "none").stdout.count("\n") == 6


def test_the_page_contains_faces_and_model(predict: Callable[..., Result], album: Path, tmp_path: Path) -> None:
    (album / "bad.png").write_bytes(b"nothing")
    page = tmp_path / "page.html"
    assert predict(album, "--detector", "none", "--out", page, "--json").exit_code == 1
    text = page.read_text("utf-8")
    assert text.count("<article") == 5
    assert "bad.png" in text
    assert "tiny (fp32)" in text


def test_the_page_shows_a_second_model_beside_the_first(
    predict: Callable[..., Result], album: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert predict(album, "--detector", "none", "--beside", "mien-0", "--out", page).exit_code == 0
    assert page.read_text("utf-8").count("mien-0, the lower bars: ") == 5


@pytest.mark.parametrize("way", ["same name", "other name", "link", "hard link", "folder"])
def test_an_image_to_read_is_never_replaced(
    predict: Callable[..., Result], album: Path, tmp_path: Path, way: str
) -> None:
    photo = album / "b.png"
    before = photo.read_bytes()
    page = {"other name": album / "sub" / ".." / "b.png", "same name": photo, "folder": photo}.get(
        way, tmp_path / "page"
    )
    if way == "link":
        page.symlink_to(photo)
    elif way == "hard link":
        page.hardlink_to(photo)
    result = predict(album if way == "folder" else photo, "--out", page)
    assert result.exit_code == 2
    assert ("was not written by mien" if way == "folder" else "is read by this command") in result.stderr
    assert photo.read_bytes() == before


def test_heic_files_of_a_folder_are_not_left_out_in_silence(
    predict: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    result = predict(tmp_path, "--json")
    assert result.exit_code == 2
    assert "mien[heic]" in json.loads(result.stdout)["error"]


def test_a_file_name_cannot_control_the_terminal(
    predict: Callable[..., Result], tmp_path: Path, draw_face: Draw
) -> None:
    path = tmp_path / "a\x1b[31m[bold]b.png"
    Image.fromarray(draw_face(48)).save(path)
    result = predict(path, tmp_path / "gone\x1b[2J.png", "--detector", "none")
    assert "\x1b" not in result.stdout + result.stderr
    assert "[31m[bold]b.png" in result.stdout


def test_odd_names_are_escaped_in_every_output(
    predict: Callable[..., Result], tmp_path: Path, draw_face: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    odd = "=1+1\n\x1b[2J\x9b31m\u202e\u2028\udcff"
    Image.fromarray(draw_face(48)).save("plain.png")
    try:
        Path("plain.png").rename(f"{odd}.png")
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    shown = "=1+1\\n\\u001b[2J\\u009b31m\\u202e\\u2028\\udcff"
    words = (f"{odd}.png", f"{odd}gone.png", "--detector", "none", "--out", "page.html")
    for options, name in (([], shown), (["--format", "csv"], f"'{shown}"), (["--json"], shown)):
        done = predict(*words, *options)
        text = done.stdout + done.stderr + Path("page.html").read_text("utf-8")
        assert all(printable(line) == line for line in text.split("\n"))
        assert f"{name}.png" in "".join(done.stdout.split())
        output = (done.stdout + done.stderr).replace("\\\\", "\\")  # the backslashes of an error in JSON
        assert f"{shown}gone.png: no such file" in output
    assert [line["source"] for line in lines(done)] == [f"{odd}.png", f"{odd}gone.png"]  # JSON keeps what it escapes
    raw = list(csv.reader(io.StringIO(predict(*words, "--format", "csv", "--raw").stdout, newline="")))
    assert raw[1][0] == f"{odd}.png".replace("\udcff", "\\udcff")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector", "haar"], "mien: unknown detector 'haar'; mien knows blazeface, yunet, none"),
        (["--precision", "int4"], "mien: unknown precision 'int4'; choose one of int8, fp32"),
        (["--model", "mien-zero"], "mien: unknown model 'mien-zero'"),
        (["--model", EXAMPLE], f"mien: {EXAMPLE}: not a usable ONNX file"),
        (["--out", EXAMPLE], f"mien: {EXAMPLE}: is read by this command and would be lost"),
        (["--beside", "mien-9", "--out", "page.html"], "mien: unknown model 'mien-9'"),
        (["--out", "/nowhere/page.html"], "mien: /nowhere/page.html: cannot be written, its folder does not exist"),
    ],
)
def test_a_wrong_value_is_one_line_and_status_2(
    predict: Callable[..., Result], arguments: list[str], message: str
) -> None:
    result = predict(EXAMPLE, *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [EXAMPLE, "--json", "--format", "csv"],
        [EXAMPLE, "--abstain", "2"],
        [EXAMPLE, "--batch", "0"],
        [EXAMPLE, "--beside", "mien-0"],
        [EXAMPLE, "--beside", "mien-0", "--json"],
        [EXAMPLE, "--loud"],
    ],
)
def test_wrong_usage_is_status_2(predict: Callable[..., Result], arguments: list[str]) -> None:
    result = predict(*arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_a_terminal_on_standard_input_is_reported(
    predict: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mien._inputs

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    class System:
        stdin = Terminal()

    monkeypatch.setattr(mien._inputs, "sys", System)
    result = predict("-")
    assert result.exit_code == 2
    assert "standard input is a terminal" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("arguments", [["--json"], ["--format", "csv"], []])
def test_a_full_disk_is_one_line(tiny: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(tiny, EXAMPLE, *arguments, stdout=full)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "no space left on device" in errors.lower()
    assert errors.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_page_that_is_too_large_leaves_the_other_outputs_complete(
    predict: Callable[..., Result], album: Path, tmp_path: Path
) -> None:
    import resource

    page, before = tmp_path / "page.html", resource.getrlimit(resource.RLIMIT_FSIZE)
    arguments = (album, "--detector", "none", "--format", "csv", "--out", page, "--out", tmp_path / "copies")
    assert predict(*arguments).exit_code == 0
    size = page.stat().st_size
    page.unlink()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, before[1]))
        result = predict(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"mien: {page}: cannot be written (file too large)")
    assert result.stderr.count("\n") == 1
    assert len(list(csv.DictReader(io.StringIO(result.stdout)))) == 5
    assert len([path for path in (tmp_path / "copies").rglob("*") if path.is_file()]) == 5
    assert not page.exists()
    assert not list(tmp_path.glob(".mien-*"))


def test_onnx_runtime_prints_nothing(tmp_path: Path) -> None:
    """Of a damaged model, and of one whose graph fails on the first face."""
    import onnx

    path = write_model(tmp_path / "model.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = ["reshaped" if name == "crops" else name for name in node.input]
    model.graph.initializer.append(onnx.helper.make_tensor("sevens", onnx.TensorProto.INT64, [2], [-1, 7]))
    for number, names in enumerate((["crops", "sevens"], ["sevenths", "shape"])):
        made = onnx.helper.make_node("Reshape", names, ["reshaped" if number else "sevenths"])
        model.graph.node.insert(number, made)
    model.graph.node.insert(0, onnx.helper.make_node("Shape", ["crops"], ["shape"]))
    onnx.save(model, tmp_path / "fails.onnx")
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:-99])
    for name in ("fails.onnx", "cut.onnx"):
        with start(tmp_path / name, EXAMPLE) as process:
            output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (2, "")
        assert errors.startswith(f"mien: {tmp_path / name}: ")
        assert errors.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("arguments", [["--json"], ["--format", "csv"], []])
def test_a_closed_pipe_is_quiet(tiny: Path, arguments: list[str]) -> None:
    process = start(tiny, *[EXAMPLE] * 3, *arguments, "--batch", 1)
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (141, "")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_closes_the_outputs_and_prints_one_line(
    tiny: Path, tmp_path: Path, draw_face: Draw, threads: int
) -> None:
    folder, page = tmp_path / "many", tmp_path / "page.html"
    folder.mkdir()
    Image.fromarray(draw_face(48)).save(folder / "0000.png")
    for number in range(1, 3000):
        (folder / f"{number:04}.png").hardlink_to(folder / "0000.png")
    options = ("--json", "--out", page, "--detector", "none", "--batch", 1, "--threads", threads)
    # A suite that was started in the background of a script inherits an ignored Ctrl-C.
    process = start(tiny, folder, *options, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    output, errors = rest_of(process)
    assert (process.returncode, errors) == (130, "mien: stopped\n")
    read = [json.loads(line) for line in (first + output).splitlines()]
    assert 0 < len(read) < 3000
    text = page.read_text("utf-8")
    assert "partial" in text
    assert abs(text.count("<article") - len(read)) <= 1
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_every_command_and_option_has_help() -> None:
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    assert {"predict", "models", "benchmark"} <= set(commands)
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"
        shown = CliRunner().invoke(app, [name, "--help"])
        assert shown.exit_code == 0
        assert command.help.split(".")[0].split()[0] in shown.stdout


def test_version_and_help() -> None:
    import mien

    assert CliRunner().invoke(app, ["--version"]).stdout == f"mien {mien.__version__}\n"
    shown = CliRunner().invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert "predict" in shown.stdout
    assert CliRunner().invoke(app, ["paint"]).exit_code == 2


def test_progress_is_for_terminals_only(tiny: Path, album: Path) -> None:
    pty = pytest.importorskip("pty", reason="pseudo-terminals are POSIX's")
    leader, follower = pty.openpty()
    process = start(tiny, album, "--json", "--detector", "none", stderr=follower)
    os.close(follower)
    seen, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        try:
            part = os.read(leader, 65536)
        except OSError:  # so a terminal ends on Linux
            break
        if not part:
            break
        seen += part
    assert process.wait(timeout=60) == 0
    assert b"reading" in seen
    assert b"5 images, 5 faces, 0 not read" in seen
    assert process.stdout is not None
    assert len(process.stdout.read().splitlines()) == 5
    process.stdout.close()
    os.close(leader)


def test_an_address_is_one_line_that_says_how_to_download_it(predict: Callable[..., Result]) -> None:
    result = predict("https://example.org/a.jpg?b=1", "--json")
    assert result.exit_code == 2
    (reading,) = lines(result)
    assert reading["error"].endswith("run: curl -sL 'https://example.org/a.jpg?b=1' | mien predict -")
    assert predict("https://example.org/a.jpg", EXAMPLE).exit_code == 1
