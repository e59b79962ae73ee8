"""``mien serve``: an HTTP and WebSocket server, for this machine only by default."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien._errors import MienError, MissingExtraError
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options

if TYPE_CHECKING:
    from mien.serve.auth import Access


def serve_command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free port, which is printed.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; any but 127.0.0.1 admits other machines.")] = (
        "127.0.0.1"
    ),
    token: Annotated[
        str | None, typer.Option(envvar="MIEN_TOKEN", show_envvar=True, help="The token that every request must send.")
    ] = None,
    model: _options.ModelOption = DEFAULT_MODEL,
    precision: _options.PrecisionOption = "int8",
    detector: _options.DetectorOption = "blazeface",
    abstain: _options.AbstainOption = 0.0,
    threads: Annotated[int, typer.Option(min=0, help="Images read at the same time; 0: one for each core.")] = 0,
    queue: Annotated[int, typer.Option(help="Images accepted at a time; more are answered with 503.")] = 128,
    max_bytes: Annotated[int, typer.Option(help="Bytes of a request's body, and of a stream's frame.")] = 32 * 2**20,
    max_pixels: Annotated[int, typer.Option(help="Width x height of an image.")] = 50_000_000,
    max_images: Annotated[int, typer.Option(help="Images in one request.")] = 16,
    timeout: Annotated[float, typer.Option(help="Seconds for a request to arrive, and again for its response.")] = 30.0,
    streams: Annotated[int, typer.Option(help="Streams open at the same time; 0 refuses all.")] = 8,
    idle: Annotated[float, typer.Option(help="Seconds without a frame after which a stream is closed.")] = 60.0,
    batch_wait: Annotated[
        float, typer.Option(min=0, max=100, help="Milliseconds to wait for crops of other requests.")
    ] = 0.0,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name of this server; repeatable.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A site (https://example.org) whose pages may use the server; repeatable."),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="ONNX Runtime Web (its npm package's dist), with which the page reads images."
        ),
    ] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Log path, status and time of each request; nothing else.")
    ] = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM, then finish all accepted requests.

    Exit status: 0 stopped by SIGTERM, 130 by Ctrl-C, 2 a wrong argument or a port in use.
    """
    try:
        from mien.serve import Limits, create_app
        from mien.serve.server import Server, bind
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "mien":
            raise
        raise MissingExtraError(error.name, "serve") from error
    import os
    import signal

    from mien.reader import Reader

    limits = Limits(
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_images=max_images,
        timeout=timeout,
        queue=queue,
        streams=streams,
        idle=idle,
    )
    access = _access(host, token, allow_host or [], allow_origin or [])
    with bind(host, port) as listener:
        _warn(host, token)
        reader = Reader(model, detector=detector, precision=precision, abstain=abstain)
        app = create_app(
            reader,
            threads=threads or os.cpu_count() or 1,
            limits=limits,
            access=access,
            batch_wait=batch_wait / 1000,
            log_requests=log,
            runtime=_runtime(runtime),
        )
        address = _address(host, listener.getsockname()[1])
        server = Server(app, started=lambda: _say(f"{address} (model {reader.model.name}; Ctrl-C stops)"))
        _log(lines=log)
        server.run(sockets=[listener])
    _say("stopped")
    raise typer.Exit(130 if server.signal == signal.SIGINT else 0)


def _access(host: str, token: str | None, hosts: list[str], origins: list[str]) -> "Access":
    """Rules of access. Raises ``MienError`` for a token or origin that could never match."""
    import os
    import socket

    from mien.serve.auth import Access

    if token is None and os.environ.get("MIEN_TOKEN") == "":
        raise MienError("MIEN_TOKEN is set, but empty; give it a token, or unset it to serve without one")
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        raise MienError("the token must be printable ASCII without spaces, and not empty")
    for origin in origins:
        scheme, _, rest = origin.partition("://")
        if scheme not in ("http", "https") or not rest or "/" in rest:
            raise MienError(
                f"--allow-origin {origin}: an origin is a scheme and a name only, such as https://example.org"
            )
    names = {name.lower() for name in hosts}
    if not _is_local(host):
        names |= {host.lower(), socket.gethostname().lower()}
    return Access(token, frozenset(names), frozenset(origins))


def _runtime(folder: Path | None) -> Path | None:
    """Raises ``MienError`` for a folder without the runtime, which else only the browser would report."""
    if folder is not None and not (folder / "ort.wasm.min.mjs").is_file():
        raise MienError(f"--runtime {folder}: no ort.wasm.min.mjs in it; name onnxruntime-web's dist folder")
    return folder


def _warn(host: str, token: str | None) -> None:
    if _is_local(host):
        return
    if token is None:
        _say(f"WARNING: every machine that reaches {host} may send images; set a token with --token or $MIEN_TOKEN")
    _say(f"warning: other machines reach {host} unencrypted; put a proxy with TLS in front of the server")


def _is_local(host: str) -> bool:
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _log(*, lines: bool) -> None:
    import logging

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("mien.serve").setLevel(logging.INFO if lines else logging.WARNING)


def _say(message: str) -> None:
    print(f"mien serve: {message}", file=sys.stderr, flush=True)
