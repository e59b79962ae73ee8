"""mien predict where something is wrong: one line, the right exit status, nothing lost."""

import io
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from mien.__main__ import app
from support.onnx_models import write_model
from support.predict_command import EXAMPLE, Draw, make_album, runner, start
from support.processes import rest_of


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def predict(tiny: Path) -> Callable[..., Result]:
    return runner(tiny)


@pytest.fixture
def album(tmp_path: Path, draw_face: Draw) -> Path:
    return make_album(tmp_path / "album", draw_face)


def test_a_file_name_cannot_steer_the_terminal(predict: Callable[..., Result], tmp_path: Path, draw_face: Draw) -> None:
    path = tmp_path / "a\x1b[31m[bold]b.png"
    Image.fromarray(draw_face(48)).save(path)
    result = predict(path, tmp_path / "gone\x1b[2J.png", "--detector", "none")
    assert "\x1b" not in result.stdout + result.stderr
    assert "[31m[bold]b.png" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector", "haar"], "mien: unknown detector 'haar'; mien knows blazeface, yunet, none"),
        (["--precision", "int4"], "mien: unknown precision 'int4'; choose one of int8, fp32"),
        (["--model", "mien-zero"], "mien: unknown model 'mien-zero'"),
        (["--model", EXAMPLE], f"mien: {EXAMPLE}: not a usable ONNX file"),
        (["--save", EXAMPLE], f"mien: {EXAMPLE}: cannot be written"),
        (["--html", "/nowhere/page.html"], "mien: /nowhere/page.html: cannot be written, its folder does not exist"),
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
    [[], [EXAMPLE, "--json", "--csv"], [EXAMPLE, "--abstain", "2"], [EXAMPLE, "--batch", "0"], [EXAMPLE, "--loud"]],
)
def test_wrong_usage_is_status_2(predict: Callable[..., Result], arguments: list[str]) -> None:
    result = predict(*arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert "Traceback" not in result.stderr


def test_a_terminal_on_standard_input_is_said(predict: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    import mien.commands.gather

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    class System:
        stdin = Terminal()

    monkeypatch.setattr(mien.commands.gather, "sys", System)
    result = predict("-")
    assert result.exit_code == 2
    assert "standard input is a terminal" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("arguments", [["--json"], ["--csv"], []])
def test_a_full_disk_is_one_line(tiny: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = start(tiny, EXAMPLE, *arguments, stdout=full)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "no space left on device" in errors.lower()
    assert errors.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("arguments", [["--json"], ["--csv"], []])
def test_a_closed_pipe_is_quiet(tiny: Path, arguments: list[str]) -> None:
    process = start(tiny, *[EXAMPLE] * 3, *arguments, "--batch", 1)
    assert process.stdout is not None
    process.stdout.close()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (141, "")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_closes_the_outputs_and_says_one_line(tiny: Path, tmp_path: Path, draw_face: Draw, threads: int) -> None:
    folder, page = tmp_path / "many", tmp_path / "page.html"
    folder.mkdir()
    Image.fromarray(draw_face(48)).save(folder / "0000.png")
    for number in range(1, 3000):
        (folder / f"{number:04}.png").hardlink_to(folder / "0000.png")
    options = ("--json", "--html", page, "--detector", "none", "--batch", 1, "--threads", threads)
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
        except OSError:  # Linux ends a terminal so
            break
        if not part:
            break
        seen += part
    assert process.wait(timeout=60) == 0
    assert b"reading" in seen
    assert b"5 pictures, 5 faces, 0 not read" in seen
    assert process.stdout is not None
    assert len(process.stdout.read().splitlines()) == 5
    process.stdout.close()
    os.close(leader)
