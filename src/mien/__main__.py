"""The command line: names the commands, each a module of ``mien.commands``, and turns their errors into lines."""

import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import mien
from mien._errors import MienError
from mien.commands.audit import audit_command
from mien.commands.benchmark import benchmark_command
from mien.commands.compare import compare_command
from mien.commands.evaluate import evaluate_command
from mien.commands.explain import explain_command
from mien.commands.models import models_command
from mien.commands.predict import predict_command
from mien.commands.prepare import prepare_command
from mien.commands.recipes import recipes_command
from mien.commands.runs import ensemble_command, export_command, logits_command, record_command
from mien.commands.search import search_command
from mien.commands.serve import serve_command
from mien.commands.stress import stress_command
from mien.commands.synthesize import synthesize_command
from mien.commands.track import track_command
from mien.commands.train import train_command

_WRONG = 2  # as typer answers for a wrong argument
_STOPPED = 130  # 128 + SIGINT, as shells count
_PIPE_CLOSED = 141  # 128 + SIGPIPE


class _CommandGroup(TyperGroup):
    """Turns what a command raises into one line on standard error and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()  # a full disk shows here at the latest, where it can still be said
        except MienError as error:
            raise _fail(str(error), _WRONG) from error
        except KeyboardInterrupt as error:
            raise _fail("stopped", getattr(error, "status", _STOPPED)) from error
        except OSError as error:
            _silence_output()
            if isinstance(error, BrokenPipeError):  # whoever read the output has seen enough
                raise typer.Exit(_PIPE_CLOSED) from error
            reason = (error.strerror or str(error)).lower()
            raise _fail(f"{error.filename or 'standard output'}: cannot be used ({reason})", _WRONG) from error


app = typer.Typer(
    cls=_CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: tuple[Callable[..., None], ...] = (  # in the order in which `mien --help` lists them
    predict_command,
    track_command,
    models_command,
    serve_command,
    benchmark_command,
    prepare_command,
    recipes_command,
    train_command,
    search_command,
    synthesize_command,
    logits_command,
    ensemble_command,
    record_command,
    audit_command,
    export_command,
    stress_command,
    explain_command,
    evaluate_command,
    compare_command,
)
for _command in _COMMANDS:
    app.command(_command.__name__.removesuffix("_command"))(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mien {mien.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """mien reads facial expressions in pictures, on this machine alone."""


def main() -> None:
    """Run the command line; always leaves by ``SystemExit`` with its status."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may hold bytes that the terminal's encoding lacks: they are spelled out, not refused.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:  # as after `mien ... >&-`
        _fail("standard output is closed; send it to a file or to /dev/null", _WRONG)
        raise SystemExit(_WRONG)
    try:
        app(prog_name="mien")
    except SystemExit as error:
        if any(thread.name == "mien-frames" for thread in threading.enumerate()):
            # It hangs in the network or in a driver; FFmpeg may crash when Python is taken down around it.
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(error.code if isinstance(error.code, int) else bool(error.code))
        raise


def _fail(message: str, status: int) -> typer.Exit:
    with contextlib.suppress(OSError):
        print("mien: " + " ".join(message.split()), file=sys.stderr)
    return typer.Exit(status)


def _silence_output() -> None:
    """Python flushes standard output once more when it ends, and would complain once more: it goes nowhere now."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
