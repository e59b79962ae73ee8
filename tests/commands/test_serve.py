"""`mien serve`: output, exit status and signals of the process, and wrong arguments."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("fastapi", reason="the extra mien[serve] is not installed")

from mien.bundled import DEFAULT_MODEL
from mien.commands import app
from support.cli import mien_here
from support.paths import ROOT

IMAGE = ROOT / "examples" / "astronaut.png"


def environment(**more: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if name != "MIEN_TOKEN"}
    return {**others, "PYTHONPATH": str(ROOT / "src"), **more}


@contextmanager
def started(
    *words: str, program: Sequence[str] = ("-m", "mien"), **more: str
) -> Iterator[tuple[subprocess.Popen[str], int, list[str]]]:
    """The process, its port, and the lines that it printed until it was ready."""
    process = subprocess.Popen(
        [sys.executable, *program, "serve", "--port", "0", *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(**more),
    )
    assert process.stderr is not None
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stderr:
            lines.append(line.rstrip())
            if match := re.search(r"http://(?:[\d.]+|\[::1\]):(\d+)", line):
                yield process, int(match[1]), lines
                break
        else:
            pytest.fail(f"mien serve ended: {lines}")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        process.stdout.close()


def run(*words: str, token: str | None = None) -> Result:
    """The command in this process; it must end by itself."""
    return CliRunner().invoke(app, ["serve", *words], env={"MIEN_TOKEN": token})


def post(port: int, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/v1/predict", IMAGE.read_bytes(), {"Content-Type": "image/png", **headers})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_the_server_in_order(number: signal.Signals, status: int) -> None:
    with started("--threads", "1", "--log") as (process, port, lines):
        assert lines[-1].startswith(f"mien serve: http://127.0.0.1:{port} (model {DEFAULT_MODEL}")
        assert post(port) == 200
        process.send_signal(number)
        assert process.wait(30) == status
        assert process.stderr is not None
        rest = process.stderr.read()
        assert re.search(r"POST /v1/predict 200 [\d.]+ ms", rest)
        assert rest.splitlines()[-1] == "mien serve: stopped"
        assert "Traceback" not in rest


def test_accepted_requests_are_finished_after_sigterm() -> None:
    """The request's last bytes come after the signal: it was accepted before."""
    data = IMAGE.read_bytes()
    with started("--threads", "1") as (process, port, _):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data[:-1000])
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            process.send_signal(signal.SIGTERM)
            with pytest.raises(TimeoutError):  # it waits for the rest
                connection.recv(1)
            connection.settimeout(30)
            connection.sendall(data[-1000:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert process.wait(30) == 0


def test_a_second_ctrl_c_does_not_wait() -> None:
    with started("--threads", "1", "--timeout", "60") as (process, port, _):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            for number in (signal.SIGTERM, signal.SIGTERM):
                process.send_signal(number)
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == "mien serve: stopped"


STUCK = """
import time, mien.reader, mien.serve.server
from mien.__main__ import main
mien.serve.server._STOP_SECONDS = 1
mien.reader.open_detector = lambda *_, **__: lambda pixels: time.sleep(1000)
main()
"""


def test_sigterm_ends_the_process_although_an_image_is_stuck() -> None:
    with started("--threads", "1", program=["-c", STUCK]) as (process, port, _):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            data = IMAGE.read_bytes()
            head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data)
            connection.settimeout(1)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            process.send_signal(signal.SIGTERM)
            connection.settimeout(30)
            assert connection.recv(100).startswith(b"HTTP/1.1 503 ")
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == "mien serve: stopped"


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "mien", "serve", "--port", str(port)],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == (f"mien: port {port} of 127.0.0.1 is in use; choose another port, or port 0 for a free one\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--host", "256.1.1.1"], "not an address of this machine"),
        (["--host", "192.0.2.1", "--port", "0"], "not an address of this machine"),
        (["--port", "0", "--model", "mien-9"], "unknown model 'mien-9'"),
        (["--port", "0", "--queue", "0"], "queue must be at least 1"),
        (["--port", "0", "--timeout", "nan"], "timeout must be a number"),
        (["--port", "0", "--token", ""], "the token must be printable ASCII"),
        (["--port", "0", "--allow-origin", "example.org"], "an origin is a scheme and a name only"),
        (["--port", "0", "--allow-host", "faces.example:80"], "a host is a whole name without scheme and port"),
    ],
)
def test_wrong_arguments_are_one_line_each(words: list[str], line: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert line in done.stderr
    lines = done.stderr.splitlines()
    assert [each for each in lines if each.startswith("mien: ")] == lines[-1:]
    assert "Traceback" not in done.stderr


def test_other_addresses_give_a_warning_and_the_token_comes_from_the_environment() -> None:
    with started("--host", "0.0.0.0") as (_, port, lines):
        assert "WARNING: every machine that reaches 0.0.0.0" in lines[0]
        assert "unencrypted" in lines[1]
        assert post(port) == 200
    with started("--host", "0.0.0.0", MIEN_TOKEN="abc") as (_, port, lines):
        assert not any("WARNING" in line or "abc" in line for line in lines)
        assert post(port) == 401
        assert post(port, Authorization="Bearer abc") == 200


def test_another_name_of_a_local_address_gives_no_warning() -> None:
    with started("--host", "127.1") as (_, port, lines):
        assert not any("machine" in line for line in lines)
        assert post(port, Host=f"127.1:{port}") == 200


def test_an_empty_token_in_the_environment_is_refused() -> None:
    done = run("--port", "0", token="")
    assert done.exit_code == 2
    assert done.stderr.startswith("mien: MIEN_TOKEN is set, but empty")


def test_without_the_extra_the_message_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mien.serve", "mien.serve.app"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    done = run("--port", "0")
    assert done.exit_code == 2
    assert done.stderr == 'mien: fastapi is not installed; run: pip install "mien[serve]"\n'


def test_only_the_pinned_runtime_is_served(tmp_path: Path) -> None:
    """The hashes are those of the version in web/package-lock.json, and any other file is refused."""
    from mien.serve import app as page

    lock = json.loads((ROOT / "web" / "package-lock.json").read_text("utf-8"))
    assert lock["packages"]["node_modules/onnxruntime-web"]["version"] == page.RUNTIME_VERSION
    (tmp_path / "ort.wasm.min.mjs").write_text("other code")
    done = mien_here("serve", "--runtime", str(tmp_path), "--port", "0", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"has no ort.wasm.min.mjs of onnxruntime-web {page.RUNTIME_VERSION}; install that version" in done.stderr
    installed = ROOT / "web" / "node_modules" / "onnxruntime-web" / "dist"
    if installed.is_dir():  # npm installs it only where its packages can be reached
        page.check_runtime(installed)
