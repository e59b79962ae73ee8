"""One vocabulary of options: a name means the same in every command, and a meaning has one name."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.text import Text

from mien._errors import MienError, RecipeError
from mien.commands import _options, app
from mien.commands._options import STDOUT, protected, read_outputs
from mien.detect import DETECTORS
from mien.infer import PRECISIONS
from mien.lab.data import Split
from mien.lab.data.datasets import ALL
from mien.lab.inference import TTA
from mien.lab.recipe.schema import CALIBRATIONS, LARGEST_SEED

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
FORMATS = ("csv", "jsonl", "json", "parquet", "html", "mp4")
OPTIONS = [
    (command, "/".join([*option.opts, *option.secondary_opts]), option)
    for command, group in COMMANDS.items()
    for option in group.params
    if option.opts[0].startswith("-")
]


def meaning(option: Any) -> str:
    """The help without what depends on whether the option may be repeated."""
    return re.sub(r"; repeatable\.$", ".", option.help)


def kind_of(option: Any) -> Any:
    """The type of one value."""
    kind = option.type_descriptor.annotation
    return kind.__args__[0] if option.multiple and hasattr(kind, "__args__") else kind


def test_a_name_has_one_type_metavar_and_help_in_all_commands() -> None:
    seen: dict[str, dict[tuple[str, str | None, str], list[str]]] = {}
    for command, name, option in OPTIONS:
        form = (
            repr((kind_of(option), option.min, option.max, option.is_flag)),
            option.metavar,
            meaning(option),
        )
        seen.setdefault(name, {}).setdefault(form, []).append(command)
    assert {name: forms for name, forms in seen.items() if len(forms) > 1} == {}


def test_a_meaning_has_one_name() -> None:
    names: dict[str, set[str]] = {}
    for _, name, option in OPTIONS:
        names.setdefault(meaning(option), set()).add(name)
    assert {text: found for text, found in names.items() if len(found) > 1} == {}


def test_where_the_shared_options_are() -> None:
    has = {name: {command for command, other, _ in OPTIONS if other == name} for _, name, _ in OPTIONS}
    images = {"predict", "track", "serve", "benchmark"}
    judged = {"evaluate", "compare", "explain", "stress", "audit"}
    trained = {"train", "search", "synthesize", "logits", "record", "export"}
    assert has["--threads"] == images | judged | trained
    assert has["--device"] == has["--threads"] | {"distribute"}  # which has --cpus-per-worker
    assert has["--detector"] == images | {"explain", "distribute"}
    assert has["--model"] == images | {"explain", "audit", "distribute"}
    assert has["--abstain"] == {"predict", "track", "serve", "distribute"}
    assert has["--format"] == {"predict", "track"}
    assert has["--json"] == {"predict", "track", "models", "recipes", "benchmark", "doctor"} | judged
    assert set(COMMANDS) - has["--out"] == {"serve", "models", "recipes", "benchmark", "doctor"}
    assert not {"--save", "--csv", "--html", "--parquet", "--jsonl", "--video", "--counts", "--accelerator"} & set(has)


@pytest.mark.parametrize(
    ("out", "formats", "as_json", "pairs"),
    [
        ([], [], False, []),
        ([], [], True, [("jsonl", "-")]),
        ([], ["csv"], False, [("csv", "-")]),
        (["-"], [], False, [("jsonl", "-")]),
        (["-", "a.html"], ["csv"], False, [("csv", "-"), ("html", "a.html")]),
        (
            ["a.CSV", "b.json", "copies"],
            [],
            True,
            [("csv", "a.CSV"), ("json", "b.json"), ("", "copies"), ("jsonl", "-")],
        ),
        (["copies"], ["csv"], False, [("", "copies"), ("csv", "-")]),
        (["notes.txt"], ["csv"], False, [("csv", "notes.txt")]),
    ],
)
def test_the_suffix_is_the_format(
    out: list[str], formats: list[str], as_json: bool, pairs: list[tuple[str, str]]
) -> None:
    found = read_outputs([Path(each) for each in out], formats, as_json, FORMATS)
    assert [(name, str(path)) for name, path in found] == pairs
    assert Path("-") == STDOUT


def test_a_folder_of_several_videos_gets_the_formats() -> None:
    pairs = read_outputs([Path("tables")], ["csv", "html"], False, FORMATS, folders=True)
    assert [(name, str(path)) for name, path in pairs] == [("csv", "tables"), ("html", "tables")]


@pytest.mark.parametrize(
    ("out", "formats", "as_json", "message"),
    [
        (["a.avi"], [], False, "--out a.avi: this suffix names no format; name a file .csv, .jsonl"),
        (["a.csv", "./a.csv"], [], False, "--out a.csv: two results cannot go there"),
        ([], ["csv"], True, "standard output: two results cannot go there"),
        (["-"], ["mp4"], False, "mp4 cannot go to standard output; name a file: --out FILE.mp4"),
        ([], ["parqet"], False, "unknown --format 'parqet'; did you mean 'parquet'?; known are csv"),
        ([__file__], [], False, "this suffix names no format"),
    ],
)
def test_what_cannot_be_written_is_named(out: list[str], formats: list[str], as_json: bool, message: str) -> None:
    with pytest.raises(MienError) as caught:
        read_outputs([Path(each) for each in out], formats, as_json, FORMATS)
    assert message in str(caught.value)


def test_force_may_be_anywhere_in_a_command() -> None:
    def command(out: _options.OutOption = None, force: bool = False, seed: int = 0) -> None:
        seen.append((out, force, seed))

    seen: list[Any] = []
    once = typer.Typer()
    once.command()(protected(command))
    typer.main.get_command(once)(["--force", "--seed", "3"], standalone_mode=False)
    assert seen == [(None, True, 3)]


def test_a_folder_is_not_named_like_a_file(tmp_path: Path) -> None:
    def command(out: _options.OutOption = None, keep: _options.KeepOption = None) -> None:
        pass

    once = typer.Typer()
    once.command()(protected(command))
    for option in ("--out", "--keep"):
        with pytest.raises(MienError, match=r"ex\.html: is a file; name a folder to write to"):
            typer.main.get_command(once)([option, str(tmp_path / "ex.html")], standalone_mode=False)
        typer.main.get_command(once)([option, str(tmp_path / "seed-0.5")], standalone_mode=False)


def test_a_recipe_from_a_pipe_is_refused_by_its_name(tmp_path: Path) -> None:
    import os

    from mien.lab.recipe import load

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecipeError, match=r"pipe: a recipe is a file whose name ends in \.toml; copy or rename it"):
        load(str(tmp_path / "pipe"))


def test_every_seed_is_one_that_a_recipe_takes() -> None:
    seeds = [option for _, name, option in OPTIONS if name == "--seed"]
    assert seeds
    assert all((option.min, option.max) == (0, LARGEST_SEED) for option in seeds)


@pytest.mark.parametrize("command", ["predict", "track"])
def test_a_device_that_is_not_here_is_one_line(command: str, tmp_path: Path) -> None:
    from support.cli import mien_here

    for device, line in (("tpu", "unknown provider 'tpu'"), ("cuda,cpu", "provider 'cuda' is not in the installed")):
        done = mien_here(command, str(tmp_path), "--device", device, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert line in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_no_word_of_a_help_text_is_taken_for_markup(name: str) -> None:
    command = COMMANDS[name]
    for text in (command.help, *(each.help for each in command.params if getattr(each, "help", None))):
        assert Text.from_markup(text).plain == text, "a word in brackets is not shown"


def mien_process(code: str, columns: int) -> str:
    """The output of a program in a terminal of this width."""
    environment = {**os.environ, "COLUMNS": str(columns)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, encoding="utf-8", check=True)
    return done.stdout


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_cuts_off_no_name_of_an_option(columns: int) -> None:
    code = "from mien.commands import app\nfor name in {}: app([name, '--help'], standalone_mode=False); print('END')"
    pages = mien_process(code.format(list(COMMANDS)), columns).split("END")
    for (name, command), page in zip(COMMANDS.items(), pages, strict=False):
        words = (word for option in command.params for word in (*option.opts, *option.secondary_opts))
        names = {word for word in words if word.startswith("-")}
        assert not {word for word in names if not re.search(rf"{word}\b", page)}, name


def test_a_terminal_of_unknown_width_shows_everything() -> None:
    code = "import sys\nfrom mien.__main__ import main\nsys.argv = ['mien', 'models']\nmain()"
    assert "mien-plus" in mien_process(code, columns=0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("word", ["--version", "--help", "models"])
def test_a_full_disk_behind_standard_output_is_one_line(word: str, unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        words = [sys.executable, "-m", "mien", word]
        done = subprocess.run(words, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "mien: standard output: cannot be used (no space left on device)\n"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("words", [["--help"], ["predict", "--help"], ["models"]])
def test_help_into_a_closed_pipe_ends_as_other_outputs_do(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "mien", *words], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("mien train attention-resnet-t", ["attention-resnet-taught", "attention-resnet-tuned"]),
        ("mien predict a.jpg --model mien-p", ["mien-plus"]),
        ("mien stress mien-1 --split Pr", ["PrivateTest"]),
        ("mien evaluate runs/", []),  # the shell offers files
    ],
)
def test_shells_complete_the_values_that_are_known(line: str, known: list[str]) -> None:
    words = line.split()
    asked = {"_MIEN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    code = "import sys; from mien.__main__ import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=False)
    assert done.stdout.split() == known
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("tta", set(TTA)),
        ("calibration", set(CALIBRATIONS)),
        ("split", {*map(str, Split), ALL}),
        ("precision", set(PRECISIONS)),
        ("detector", set(DETECTORS)),
    ],
)
def test_shells_complete_the_values_that_mien_takes(option: str, values: set[str]) -> None:
    takers = [(command, each) for command in COMMANDS.values() for each in command.params if each.name == option]
    assert takers
    for command, each in takers:
        context = command.make_context("mien", [], resilient_parsing=True)
        assert {item.value for item in each.shell_complete(context, "")} == values
