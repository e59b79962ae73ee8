"""Files that commands write: never over an input, nor over a file that mien did not write, and never through a link."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from mien import _output
from mien._errors import OutputError
from mien.commands import _options, app
from mien.decode import decode
from mien.report.images import ImageFolder
from support.onnx_models import write_model
from support.written_files import foreign_files

FOREIGN = "<p>another program wrote this</p>"
Draw = Callable[..., np.ndarray]


def run(*words: object) -> Result:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def predict(tiny: Path) -> Callable[..., Result]:
    return lambda *words: run("predict", "--model", tiny, "--detector", "none", *words)


@pytest.fixture
def photo(tmp_path: Path, draw_face: Draw) -> Path:
    Image.fromarray(draw_face(48)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_every_command_that_writes_has_the_same_option() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    has = {name: [each.help for each in command.params if each.name == "force"] for name, command in commands.items()}
    assert {name for name, texts in has.items() if not texts} == {
        "models",
        "serve",
        "benchmark",
        "recipes",
        "doctor",
        "distribute",
    }
    assert len({text for texts in has.values() for text in texts}) == 1


def test_processes_that_save_images_of_one_name_at_once_lose_none(tmp_path: Path) -> None:
    first, second = ImageFolder(tmp_path), ImageFolder(tmp_path)

    class Slow:
        """An image during whose encoding another process writes one of the same name."""

        def save(self, *target: object, **options: Any) -> None:
            if not list(tmp_path.glob("x.mien.png")):
                second.save(Image.new("RGB", (2, 2)), "b/x.png", ".mien.png")
            Image.new("RGB", (3, 3)).save(*target, **options)  # type: ignore[arg-type]

    first.save(Slow(), "a/x.png", ".mien.png")  # type: ignore[arg-type]
    shapes = {path.name: decode(path).pixels.shape for path in tmp_path.iterdir()}
    assert shapes == {"x.mien.png": (2, 2, 3), "x-2.mien.png": (3, 3, 3)}


def test_a_file_of_another_program_needs_force(predict: Callable[..., Result], photo: Path, tmp_path: Path) -> None:
    page, empty = tmp_path / "page.html", tmp_path / "empty.html"
    page.write_text(FOREIGN)
    empty.touch()
    refused = predict(photo, "--out", page)
    assert refused.exit_code == 2
    assert refused.stderr == f"mien: {page}: exists and was not written by mien; name another file, or add --force\n"
    assert page.read_text() == FOREIGN
    for words in (("--out", page, "--force"), ("--out", page), ("--out", empty)):
        assert predict(photo, *words).exit_code == 0  # now it is a page of mien
    assert FOREIGN not in page.read_text()


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
def test_force_replaces_no_input(tiny: Path, photo: Path, tmp_path: Path, link: str | None) -> None:
    for number, source in enumerate((photo, tiny)):
        output, before = source, source.read_bytes()
        if link:
            output = tmp_path / f"output-{number}"
            getattr(output, link)(source)
        done = run("predict", "--model", tiny, photo, "--out", output, "--force")
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert "is read by this command and would be lost" in done.stderr
        assert source.read_bytes() == before


def test_a_frame_of_a_folder_is_no_output(photo: Path, tmp_path: Path) -> None:
    photo.with_suffix(".csv").hardlink_to(photo)
    done = run("track", tmp_path, "--out", photo.with_suffix(".csv"), "--force")
    assert "is read by this command and would be lost" in done.stderr
    with Image.open(photo) as image:
        assert image.size == (48, 48)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["evaluate", "results/conv4", "--out", "results/conv4/seed-0"], "results/conv4/seed-0"),
        (["evaluate", "model.onnx", "--data", "data", "--out", "data"], "data"),
        (["record", "run", "--out", "run"], "run"),
        (["export", "run", "--out", "run"], "run"),
        (["ensemble", "run", "other", "--out", "run"], "run"),
        (["logits", "run", "--out", "old.npz"], "old.npz"),
        (["prepare", "kdef", "data", "--out", "data"], "data"),
        (["audit", "data", "--keep", "model.onnx", "--model", "model.onnx"], "model.onnx"),
        (["search", "recipe.toml", "--out", "run", "--data", "run"], "run"),
        (["compare", "run", "--out", "out", "--keep", "run"], "run"),
        (["stress", "model.onnx", "--groups", "groups.csv", "--out", "data", "--data", "data"], "data"),
    ],
)
def test_no_command_writes_into_its_inputs(
    words: list[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("results/conv4/seed-0", "data", "run", "other"):
        Path(folder).mkdir(parents=True)
    for file in ("model.onnx", "old.npz", "recipe.toml", "groups.csv"):
        Path(file).write_text("of another program")
    before = sorted(tmp_path.rglob("*"))
    done = run(*words)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"mien: {name}: ")
    assert "is read by this command" in done.stderr or "was not written by mien" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_names_of_results_are_checked_before_the_work(tmp_path: Path) -> None:
    files = pytest.importorskip("mien.lab.files")
    (tmp_path / "table.csv").write_text("name;age\n")
    with _output.protect_files([]), pytest.raises(OutputError, match=r"table\.csv: exists and was not written by mien"):
        files.output_folder(tmp_path, ("report.html", "table.csv")).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_equal_content_may_be_written_again(tmp_path: Path) -> None:
    files = pytest.importorskip("mien.lab.files")
    (tmp_path / "LICENSE").write_text("mine")
    with _output.protect_files([], cure=", or else"):
        files.save_text(tmp_path / "LICENSE", "mine")
        with pytest.raises(OutputError, match="was not written by mien; name another file, or else"):
            files.save_text(tmp_path / "LICENSE", "other")
    files.save_text(tmp_path / "LICENSE", "other")  # the library does what it is asked to do
    assert [path.name for path in tmp_path.iterdir()] == ["LICENSE"]


@pytest.mark.skipif(os.name == "nt", reason="access rights of POSIX")
def test_a_private_file_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.touch(0o600)
    with _output.open_output(path) as stream:
        stream.write("x")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("x", 0o600)


def test_a_mark_is_found_at_both_ends_of_a_file_and_nowhere_else(tmp_path: Path) -> None:
    filler, path = bytes(3 * _output._EDGE), tmp_path / "file"
    for content, own in (
        (filler + b"<!-- Written by mien -->\n", True),
        (b"% Written by mien\n" + filler, True),
        (filler, False),
        (b"source;face", False),
        (b"x\nsource,face,x1,y1", False),
        (b"source,face,x1,y1", True),
        (b"", True),
    ):
        path.write_bytes(content)
        assert _output.is_own(path) == own, content[:30]


@pytest.mark.parametrize(
    "text",
    [
        "data_sha256: abc\n",
        "average_steps = 3\n",
        "about = {'data_sha256': 1, \"provenance\": 2}\n",
        "A report. Written by mien, they said.\nWritten by mien\n",
        "train with data.exclude=THIS_FILE\n",
        "mien-sha256 and mien_contract are its marks\n",
        '{"epoch": 1, "loss": 0.5}\n',
        '{"name": "page", "publishConfig": {"provenance": true}}\n',
        'the line <meta name="generator" is what pages have\n',
    ],
)
def test_a_text_that_names_a_mark_is_not_replaced(
    predict: Callable[..., Result], photo: Path, tmp_path: Path, text: str
) -> None:
    notes = tmp_path / "notes.csv"
    notes.write_text(text)
    done = predict(photo, "--out", notes)
    assert (done.exit_code, notes.read_text()) == (2, text)
    assert "was not written by mien" in done.stderr


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="names of open pipes are those of POSIX")
def test_an_open_pipe_is_written_by_its_name(predict: Callable[..., Result], photo: Path) -> None:
    end, start = os.pipe()
    try:
        done = predict(photo, "--format", "csv", "--out", f"/dev/fd/{start}")
        assert (done.exit_code, done.stderr) == (0, "")
        assert os.read(end, 30).startswith(b"source,face,x1,")
        refused = predict(photo, "--out", f"/dev/fd/{start}")
        assert refused.stderr == f"mien: --out /dev/fd/{start}: this suffix names no format; add --format\n"
    finally:
        os.close(start)
        os.close(end)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are those of POSIX")
@pytest.mark.parametrize("suffix", ["parquet", "html"])
def test_a_named_pipe_gets_a_whole_file_or_an_error(photo: Path, tmp_path: Path, suffix: str) -> None:
    pipe = tmp_path / f"pipe.{suffix}"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    program = [sys.executable, "-m", "mien", "predict", photo, "--detector", "none", "--out", pipe]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as writer:
        content = reader.communicate()[0]
        try:
            error = writer.communicate(timeout=60)[1]
        finally:
            writer.kill()
    if suffix == "parquet":
        assert (writer.returncode, content[:4], content[-4:], error) == (0, b"PAR1", b"PAR1", "")
    else:
        assert (writer.returncode, content) == (2, b"")
        assert error == f"mien: {pipe}: is a pipe, into which no page can be written; name a file\n"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_copies_of_streams_and_of_files_are_recognised(tmp_path: Path, suffix: str) -> None:
    folder = ImageFolder(tmp_path)
    for source in ("<stdin>", __file__):
        folder.save(Image.new("RGB", (2, 2)), source, f".mien{suffix}")
    assert len(list(tmp_path.iterdir())) == 2
    assert foreign_files(tmp_path) == []


@pytest.mark.parametrize(("source", "root", "name"), [("../b/x.jpg", ".", "b"), ("a/k/../x.jpg", "a", "k")])
def test_names_that_climb_stay_in_the_folder(tmp_path: Path, source: str, root: str, name: str) -> None:
    ImageFolder(tmp_path, (root,)).save(Image.new("RGB", (2, 2)), source, ".mien.png")
    assert copies(tmp_path) == [f"{name}/x.mien.png"]


def copies(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


def test_copies_of_two_folders_never_replace_each_other(
    predict: Callable[..., Result], draw_face: Draw, tmp_path: Path
) -> None:
    for number, name in enumerate(("a/x.jpg", "a/sub/x.jpg", "b/x.jpg", "b/sub/x.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_face(48, seed=number)).save(tmp_path / name)
    out = tmp_path / "out"
    for _ in range(2):  # again in another order, and by other names of the same files
        for words in ((tmp_path / "a",), (tmp_path / "b" / "..", "--json"), (f"{tmp_path}/b/**/*.*",)):
            assert predict(*words, "--out", out).exit_code == 0
    first = ["sub/x.mien.jpg", "sub/x.mien.png", "x-2.mien.jpg", "x.mien.jpg"]
    whole = ["a/sub/x.mien.jpg", "a/x.mien.jpg", "b/sub/x.mien.png", "b/x.mien.jpg"]
    assert copies(out) == sorted(first + whole)


def test_links_in_the_folder_of_copies_are_not_followed(
    predict: Callable[..., Result], photo: Path, draw_face: Draw, tmp_path: Path
) -> None:
    out, secret, elsewhere, album = (tmp_path / name for name in ("out", "secret", "elsewhere", "album"))
    for folder in (out, elsewhere, album / "sub"):
        folder.mkdir(parents=True)
    secret.write_text("kept")
    Image.fromarray(draw_face(48)).save(album / "sub" / "photo.png")
    (out / "photo.mien.png").symlink_to(secret)
    (out / "sub").symlink_to(elsewhere)
    (out / "photo-2.mien.png").write_text("of another program")
    assert predict(photo, album, "--out", out, "--force").exit_code == 0
    assert secret.read_text() == "kept"
    assert list(elsewhere.iterdir()) == []
    assert copies(out) == ["photo-2.mien.png", "photo-3.mien.png", "photo.mien.png", "sub", "sub-2/photo.mien.png"]
    assert (out / "photo-2.mien.png").read_text() == "of another program"


def test_a_copy_that_is_read_is_not_replaced(predict: Callable[..., Result], photo: Path, tmp_path: Path) -> None:
    assert predict(photo, "--out", tmp_path).exit_code == 0
    copy = tmp_path / "photo.mien.png"
    before = copy.read_bytes()
    assert predict(photo, copy, "--out", tmp_path).exit_code == 0
    assert copy.read_bytes() == before
    assert {"photo-2.mien.png", "photo.mien.mien.png"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("stem", ["x" * 251, "\N{GRINNING FACE}" * 62, "line\nbreak\x1b[2J", "\udcff\udcfe" * 100])
def test_odd_and_long_names(predict: Callable[..., Result], photo: Path, tmp_path: Path, stem: str) -> None:
    image = tmp_path / "in" / f"{stem}.png"
    image.parent.mkdir()
    try:
        photo.rename(image)
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    for _ in range(2):
        done = predict(image, "--json", "--out", tmp_path / "out")
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["source"] == str(image)
    (copy,) = (tmp_path / "out").iterdir()
    assert copy.name.endswith(".mien.png")
    assert stem.startswith(copy.name.removesuffix(".mien.png"))


def test_names_of_options_are_those_of_the_commands() -> None:
    params = {
        each.name
        for command in typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
        for each in command.params
    }
    assert {*_options._OUTPUTS, *_options._IMAGES} <= params
