"""The commands of ``mien``, a module each: arguments in, one call of the library, results out.

``app`` runs them, with one line on standard error for each failure.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import mien
from mien._errors import MienError, MissingExtraError
from mien._signals import exit_status
from mien.commands._options import protected
from mien.commands._terminal import echo
from mien.commands.audit import audit_command
from mien.commands.benchmark import benchmark_command, doctor_command
from mien.commands.compare import compare_command
from mien.commands.data_sets import prepare_command, synthesize_command
from mien.commands.distribute import distribute_command
from mien.commands.evaluate import evaluate_command
from mien.commands.explain import explain_command
from mien.commands.models import models_command
from mien.commands.predict import predict_command
from mien.commands.recipes import recipes_command
from mien.commands.runs import ensemble_command, export_command, logits_command, record_command
from mien.commands.search import search_command
from mien.commands.serve import serve_command
from mien.commands.stress import stress_command
from mien.commands.track import track_command
from mien.commands.train import train_command

_WRONG = 2  # as typer returns for a wrong argument
_PIPE_CLOSED = 141  # 128 + SIGPIPE
_LEAST_COLUMNS = 80  # a narrower terminal gets help as lines: the boxes of rich cut off the names of options


class _CommandGroup(TyperGroup):
    """Turns every expected error of a command into one line on standard error and an exit status."""

    def make_context(self, *words: Any, **settings: Any) -> Any:
        with _errors_as_lines(None):  # --help, --version and the completion of shells do their work here
            return super().make_context(*words, **settings)

    def invoke(self, ctx: Any) -> Any:
        with _errors_as_lines(ctx):
            return super().invoke(ctx)


@contextlib.contextmanager
def _errors_as_lines(ctx: Any) -> Iterator[None]:
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # a full disk is noticed here at the latest
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # where rich prints, which ends with status 1 then
            raise typer.Exit(_PIPE_CLOSED) from error
        raise
    except MienError as error:
        raise _fail(str(error), _WRONG) from error
    except ModuleNotFoundError as error:  # commands import the packages of their extra when they run
        extra = "serve" if ctx and ctx.invoked_subcommand == "serve" else "lab"
        raise _fail(str(MissingExtraError(error.name or "torch", extra)), _WRONG) from error
    except KeyboardInterrupt as error:
        error.add_note("printed")
        raise _fail("stopped", exit_status(error)) from error
    except OSError as error:
        name = error.filename or _name_of_output()
        # Python flushes standard output once more when it ends; the same error must not be printed again then.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader of the output has stopped reading, as `head` does
            raise typer.Exit(_PIPE_CLOSED) from error
        reason = (error.strerror or str(error)).lower()
        raise _fail(f"{name}: cannot be used ({reason})", _WRONG) from error


app = typer.Typer(
    cls=_CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if shutil.get_terminal_size().columns >= _LEAST_COLUMNS else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_GROUPS: dict[str, tuple[Callable[..., None], ...]] = {  # in the order in which `mien --help` lists them
    "Read": (
        predict_command,
        track_command,
        distribute_command,
        serve_command,
        models_command,
        benchmark_command,
        doctor_command,
    ),
    "Train": (
        recipes_command,
        train_command,
        search_command,
        logits_command,
        ensemble_command,
        record_command,
        export_command,
    ),
    "Data": (prepare_command, synthesize_command, audit_command),
    "Evaluate": (evaluate_command, compare_command, explain_command, stress_command),
}
for _group, _commands in _GROUPS.items():
    for _command in _commands:
        app.command(_command.__name__.removesuffix("_command"), rich_help_panel=_group)(protected(_command))


def _print_version(requested: bool) -> None:
    if requested:
        print(f"mien {mien.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """mien reads facial expressions in images and videos, on this machine alone."""


def _name_of_output() -> str:
    """What an error without the name of a file is of."""
    try:
        sys.stdout.flush()
    except OSError:
        return "standard output"
    try:
        os.getcwd()  # noqa: PTH109
    except OSError:
        return "the current folder"  # it was removed
    # With PYTHONUNBUFFERED nothing is left to flush after the error.
    return "standard output" if getattr(sys.stdout, "write_through", False) else "a file"


def _fail(message: str, status: int) -> typer.Exit:
    with contextlib.suppress(OSError):
        echo(f"mien: {message}", err=True)
    return typer.Exit(status)
