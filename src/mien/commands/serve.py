"""``mien serve``: an HTTP and WebSocket server, for this machine only by default."""

import dataclasses
import ipaddress
import logging
import os
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from mien._errors import MienError
from mien.bundled import DEFAULT_MODEL
from mien.commands import _options

_HOST = "127.0.0.1"


def serve_command(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free port, which is printed.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than 127.0.0.1 admit other machines.")
    ] = _HOST,
    token: Annotated[
        str | None, typer.Option(envvar="MIEN_TOKEN", show_envvar=True, help="The token that every request must send.")
    ] = None,
    model: _options.ModelOption = DEFAULT_MODEL,
    precision: _options.PrecisionOption = "int8",
    detector: _options.DetectorOption = "blazeface",
    abstain: _options.AbstainOption = None,
    min_quality: _options.MinQualityOption = 0.0,
    device: _options.DeviceOption = "cpu",
    threads: _options.ThreadsOption = 0,
    queue: Annotated[int, typer.Option(help="Images accepted at a time; more are refused with 503.")] = 128,
    max_bytes: Annotated[int, typer.Option(help="Bytes of a request body, and of one frame of a stream.")] = 32 * 2**20,
    max_pixels: Annotated[int, typer.Option(help="Width x height of an image.")] = 50_000_000,
    max_images: Annotated[int, typer.Option(help="Images in one request.")] = 16,
    timeout: Annotated[float, typer.Option(help="Seconds for a request to arrive, and again for its response.")] = 30.0,
    memory: Annotated[
        int, typer.Option(help="Bytes of memory for bodies, frames and images together, without the models.")
    ] = 2**30,
    connections: Annotated[int, typer.Option(help="Connections open at the same time.")] = 512,
    streams: Annotated[int, typer.Option(help="Streams open at the same time; 0 refuses all.")] = 16,
    per_address: Annotated[
        float, typer.Option(help="Share of connections and streams for one address; 1 behind a proxy.")
    ] = 0.5,
    idle: Annotated[float, typer.Option(help="Seconds without a frame after which a stream is closed.")] = 60.0,
    batch_wait: Annotated[float, typer.Option(min=0, max=100, help="Milliseconds to wait for more crops.")] = 0.0,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another server name; repeatable.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A site (https://example.org) whose pages may use the server; repeatable."),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The folder dist of onnxruntime-web, with which the page reads images."),
    ] = None,
    log: Annotated[bool, typer.Option("--log", help="Log only path, status and time of each request.")] = False,
) -> None:
    """Start a server: images over HTTP, frames over a WebSocket, and a web page.

    Each of the cores of --threads reads one image at a time.
    Ctrl-C and SIGTERM end it after the accepted requests are finished, within 5 seconds.
    Exit status: 0 stopped by SIGTERM, 130 by Ctrl-C, 2 a wrong argument or a port in use.
    """
    from mien.serve import Access, Limits, create_app
    from mien.serve.app import check_runtime
    from mien.serve.server import FewLines, Server, bind, return_large_blocks

    limits = Limits(
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        max_images=max_images,
        timeout=timeout,
        queue=queue,
        memory=memory,
        connections=connections,
        streams=streams,
        per_address=per_address,
        idle=idle,
    )
    if token is None and os.environ.get("MIEN_TOKEN") == "":
        raise MienError("MIEN_TOKEN is set, but empty; give it a token, or unset it to serve without one")
    if runtime is not None:  # else only the browser would report it
        check_runtime(runtime)
    access = Access(token, {host, *(allow_host or ())}, frozenset(allow_origin or ()))
    with bind(host, port) as listener:
        if not _is_local(listener):
            access = dataclasses.replace(access, hosts={*access.hosts, socket.gethostname()})
            if token is None:
                _print(f"WARNING: every machine that reaches {host} may send images; set --token or $MIEN_TOKEN")
            _print(f"warning: other machines reach {host} unencrypted; put a proxy with TLS in front of the server")
        reader = _options.open_reader(
            model, detector=detector, precision=precision, device=device, abstain=abstain, min_quality=min_quality
        )
        app = create_app(
            reader,
            threads=threads or os.cpu_count() or 1,
            limits=limits,
            access=access,
            batch_wait=batch_wait / 1000,
            log_requests=log,
            runtime=runtime,
        )
        address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        server = Server(app, started=lambda: _print(f"{address} (model {reader.model.name}; Ctrl-C stops)"))
        handler = logging.StreamHandler()
        handler.addFilter(FewLines())
        logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING, handlers=[handler])
        return_large_blocks()
        warnings.simplefilter("ignore")  # Pillow's, about damaged images that anyone may send
        logging.getLogger("mien.serve").setLevel(logging.INFO if log else logging.WARNING)
        server.run(sockets=[listener])
    _print("stopped")
    status = 130 if server.signal == signal.SIGINT else 0
    if not app.state.service.engine.close():
        os._exit(status)  # an image is still decoded, and Python would wait for its thread
    raise typer.Exit(status)


def _is_local(listener: socket.socket) -> bool:
    """Whether only this machine reaches a socket. Its address says so: a name, also this machine's, may be local."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _print(message: str) -> None:
    print(f"mien serve: {message}", file=sys.stderr, flush=True)
