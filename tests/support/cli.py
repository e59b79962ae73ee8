"""The command line in this process, which spares the seconds in which a new process imports torch."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner

from mien.commands import app


def mien_here(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The result of ``mien WORDS`` in the folder ``cwd``; an exception that the command does not handle is raised."""
    argv = mock.patch.object(sys, "argv", ["mien", *words])
    with contextlib.chdir(cwd), mock.patch.dict(os.environ, environment), argv:
        done = CliRunner().invoke(app, words, prog_name="mien")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)
