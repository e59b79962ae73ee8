"""Signals at any moment: an orderly end, one line, and no traceback, also during imports."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mien._signals import GracefulStop, exit_status, interrupt, set_handlers
from support.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals differ on Windows")

EXAMPLE = ROOT / "examples" / "astronaut.png"
# The program, which gets a signal when it imports a module.
SIGNAL_AT_IMPORT = """
import os, sys
from mien.__main__ import main
_, module, number, *words = sys.argv
sys.argv[1:] = words

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), int(number))

sys.meta_path.insert(0, Finder())
main()
"""


@pytest.mark.parametrize(
    ("module", "number"), [("typer", signal.SIGINT), ("onnxruntime.capi", signal.SIGTERM), ("rich.box", signal.SIGHUP)]
)
def test_a_signal_during_an_import_is_one_line(module: str, number: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNAL_AT_IMPORT, module, str(int(number)), "predict", str(EXAMPLE)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (128 + number, "mien: stopped\n")


@pytest.fixture
def _interrupting() -> Iterator[None]:
    """The handlers of the program, in this process."""
    before = set_handlers(interrupt)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_interrupting")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_first_signal_ends_the_input_and_the_second_interrupts(number: signal.Signals, status: int) -> None:
    called = []
    with GracefulStop(lambda: called.append(1)) as signals:
        read = []
        for item in signals.until_stopped(range(5)):
            read.append(item)
            if item == 2:
                signal.raise_signal(number)
        assert (read, called) == ([0, 1, 2], [1])
        assert signals.error is not None
        assert exit_status(signals.error) == status
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as stopped:
        signal.raise_signal(number)
    assert exit_status(stopped.value) == status


@pytest.mark.usefixtures("_interrupting")
def test_a_signal_interrupts_at_once_while_standard_input_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdin", stdin)
    with GracefulStop() as signals:
        items = signals.until_stopped([stdin.buffer])
        next(items)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulStop() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.error is None
    finally:
        signal.signal(signal.SIGHUP, before)
