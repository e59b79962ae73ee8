"""The program ``mien``: handles signals, then imports and runs the commands of ``mien.commands``."""

import contextlib
import io
import os
import sys
import threading
import warnings
from types import FrameType

from mien._signals import exit_status, interrupt, set_handlers


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: Always, with the exit status.
    """
    if sys.stderr is None:  # closed, as by `mien ... 2>&-`; another file or process would get its number
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (until the end)
        os.set_inheritable(sys.stderr.fileno(), True)
    ended: list[int] = []  # the exit status, as soon as all files are closed

    def handle(number: int, frame: FrameType | None) -> None:
        if ended:
            os._exit(ended[0])
        interrupt(number, frame)

    set_handlers(handle)
    try:
        ended.append(_run())
    except KeyboardInterrupt as error:  # during the imports, or a second signal while a command ends
        print("mien: stopped", file=sys.stderr)
        ended.append(exit_status(error))
    if any(thread.name.startswith(("mien-frames", "mien-decode")) for thread in threading.enumerate()):
        # The thread is blocked by a network, a driver or a pipe. FFmpeg may crash if Python shuts down around it.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ended[0])
    raise SystemExit(ended[0])


def _run() -> int:
    """Run one command; return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A file name may have characters that the terminal's encoding lacks: print them as escapes.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:  # as after `mien ... >&-`
        print("mien: standard output is closed; send it to a file or to /dev/null", file=sys.stderr)
        return 2
    if not os.environ.get("COLUMNS", "0").strip("0"):
        os.environ.pop("COLUMNS", None)  # 0 is a terminal of unknown width, but rich would print nothing at all
    # Pillow warns of metadata of images that it reads all the same.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    from mien.commands import app

    try:
        app(prog_name="mien")
    except SystemExit as error:
        cause = getattr(error.__context__, "__cause__", None)
        if isinstance(cause, KeyboardInterrupt) and not hasattr(cause, "__notes__"):
            raise cause from None  # it came outside of a command, where typer ends without a line
        return error.code if isinstance(error.code, int) else int(bool(error.code))
    return 0


if __name__ == "__main__":
    main()
