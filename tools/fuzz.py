"""Coverage-guided fuzzing of everything that reads bytes from strangers, with Atheris (libFuzzer).

    python tools/fuzz.py                         # every target, 60 seconds each
    python tools/fuzz.py image video --seconds 600
    python tools/fuzz.py image --replay FILE     # run one input again

A target may raise `MienError` alone. Any other exception, a crash, 25 seconds for one input or 2 GB of memory is a
finding: its input is kept in the folder `fuzz/`, and the exit status is 1. What is found becomes a test.
"""

import argparse
import asyncio
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FINDINGS = Path("fuzz")
ROOT = Path(__file__).parents[1]
SECONDS, MEGABYTES = 25, 2048  # for one input, and for a process
# Above all statuses that a client can cause; 500 and 504 are faults of the server.
STATUSES = {200, 400, 401, 403, 404, 405, 408, 411, 413, 415, 422, 429, 431, 503}

Run = Callable[[bytes], None]


def image() -> tuple[Run, list[bytes]]:
    """Bytes of an image file."""
    from hostile_corpus import noise, tiff
    from mien.decode import decode

    seeds = [noise(name) for name in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")]
    return lambda data: _discard(decode(data, max_pixels=1_000_000)), [
        *seeds,
        noise("JPEG", progressive=True),
        tiff([]),
    ]


def recipe() -> tuple[Run, list[bytes]]:
    """TOML of a recipe, up to its net on the meta device."""
    import torch

    from mien.lab import recipe as recipes
    from mien.lab.train.run import build_net

    def run(path: Path) -> None:
        for member in recipes.members(str(path))[:3]:
            with torch.device("meta"):
                build_net(recipes.load(member))

    folder = ROOT / "src" / "mien" / "lab" / "recipes"
    return _by_file(run, "recipe.toml"), [path.read_bytes() for path in sorted(folder.glob("*.toml"))[:20]]


def adapter() -> tuple[Run, list[bytes]]:
    """TOML that describes a foreign model."""
    from mien.lab.models import read_adapter

    seed = b'model = "m.onnx"\nlabels = ["happy", "sad", "-"]\nsize = 48\nmean = 0.5\nstd = [0.5, 0.5, 0.5]\n'
    return _by_file(lambda path: _discard(read_adapter(path)), "adapter.toml"), [seed]


def model() -> tuple[Run, list[bytes]]:
    """Bytes of an ONNX file, graph and metadata."""
    import numpy as np

    from mien.infer import Classifier

    def run(path: Path) -> None:
        Classifier(path)(np.zeros((2, 48, 48), np.uint8))

    sys.path.insert(0, str(ROOT / "tests"))
    from support.onnx_models import write_model

    with tempfile.TemporaryDirectory() as folder:
        seeds = [write_model(Path(folder) / "m.onnx", size=size).read_bytes() for size in (16, 48)]
    return _by_file(run, "model.onnx"), seeds


def checkpoint() -> tuple[Run, list[bytes]]:
    """Bytes of the state of a training."""
    import torch

    from mien.lab.files import load_state

    stream = io.BytesIO()
    torch.save({"epoch": 1, "net": {"weight": torch.zeros(3)}, "history": [{}]}, stream)
    return _by_file(lambda path: _discard(load_state(path)), "final.pt"), [stream.getvalue()]


def video() -> tuple[Run, list[bytes]]:
    """Bytes of a video file, its first frames."""
    from itertools import islice

    import av
    import numpy as np

    from mien.video import open_source

    def run(path: Path) -> None:
        with open_source(path) as source:
            for _ in islice(source, 5):
                pass

    seeds = []
    for kind, codec in (("mp4", "libx264"), ("matroska", "libx264"), ("avi", "mpeg4")):
        stream = io.BytesIO()
        with av.open(stream, "w", format=kind) as container:
            track = container.add_stream(codec, rate=10)
            track.width, track.height, track.pix_fmt = 32, 32, "yuv420p"
            for level in (0, 120, 240):
                pixels = np.full((32, 32, 3), level, np.uint8)
                container.mux(track.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(track.encode(None))
        seeds.append(stream.getvalue())
    return _by_file(run, "video.mp4"), seeds


def table() -> tuple[Run, list[bytes]]:
    """A CSV table of pixels."""
    from mien.lab.data import load_fer2013

    pixels = " ".join(["7"] * 2304)
    seeds = [f"emotion,pixels,Usage\n3,{pixels},Training\n0,{pixels},PublicTest\n".encode()]
    return _by_file(lambda path: _discard(load_fer2013(path, official=False)), "pixels.csv"), seeds


def request() -> tuple[Run, list[bytes]]:
    """The query, content type and body of a request: the first two lines, and the rest."""
    app, loop = _server()

    async def ask(query: bytes, kind: bytes, body: bytes) -> int:
        sent = [{"type": "http.request", "body": body, "more_body": False}]
        received: list[dict[str, Any]] = []
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        scope = _scope("http", "/v1/predict", query, headers)

        async def receive() -> dict[str, Any]:
            return sent.pop(0) if sent else await asyncio.Event().wait()

        async def send(message: dict[str, Any]) -> None:
            received.append(message)

        await app(scope, receive, send)
        return int(received[0]["status"])

    def run(data: bytes) -> None:
        query, _, rest = data.partition(b"\n")
        kind, _, body = rest.partition(b"\n")
        status = loop.run_until_complete(ask(query, kind, body))
        if status not in STATUSES:
            raise AssertionError(f"HTTP {status}")

    from hostile_corpus import noise

    png = noise("PNG")
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + png + b"\r\n--b--\r\n"
    octets = b"maps=true&threshold=0.5\napplication/octet-stream\n" + png
    return run, [octets, b"\nmultipart/form-data; boundary=b\n" + part, b"\napplication/json\n{}"]


def message() -> tuple[Run, list[bytes]]:
    """Messages of a WebSocket: lines, text if they begin with a brace, else binary."""
    app, loop = _server()

    async def talk(frames: list[bytes]) -> None:
        sent: list[dict[str, Any]] = [{"type": "websocket.connect"}]
        for frame in frames:
            text = frame.startswith(b"{")
            sent.append(
                {
                    "type": "websocket.receive",
                    **({"text": frame.decode("utf-8", "replace")} if text else {"bytes": frame}),
                }
            )
        sent.append({"type": "websocket.disconnect", "code": 1000})

        async def receive() -> dict[str, Any]:
            return sent.pop(0) if sent else {"type": "websocket.disconnect", "code": 1000}

        async def send(_: dict[str, Any]) -> None:
            return

        await asyncio.wait_for(app(_scope("websocket", "/v1/stream", b"", []), receive, send), SECONDS)

    def run(data: bytes) -> None:
        loop.run_until_complete(talk(data.split(b"\n")[:20]))

    from hostile_corpus import noise

    return run, [b'{"maps": true}\n' + noise("JPEG").replace(b"\n", b""), b'{"token": "x"}', b"{}\n{"]


TARGETS = {each.__name__: each for each in (image, recipe, adapter, model, checkpoint, video, table, request, message)}


def _discard(_: object) -> None:
    return


def _by_file(run: Callable[[Path], None], name: str) -> Run:
    """A target that reads a file."""
    folder = Path(tempfile.mkdtemp(prefix="mien-fuzz-"))

    def write_and_run(data: bytes) -> None:
        (folder / name).write_bytes(data)
        run(folder / name)

    return write_and_run


def _server() -> tuple[Any, asyncio.AbstractEventLoop]:
    """The application, started, and the loop that runs it."""
    from mien import Reader
    from mien.serve import Limits, create_app

    app = create_app(Reader("mien-0"), limits=Limits(max_bytes=100_000, max_pixels=100_000))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(app.router.lifespan_context(app).__aenter__())
    return app, loop


def _scope(kind: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    client = {"client": ("127.0.0.1", 5), "server": ("127.0.0.1", 80), "http_version": "1.1", "subprotocols": []}
    scheme, host = ("http" if kind == "http" else "ws"), [(b"host", b"127.0.0.1")]
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "method": "POST",
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": host + headers,
        **client,
    }


def fuzz_here(name: str, words: list[str]) -> None:
    """Fuzz one target in this process, which libFuzzer ends.

    Args:
        name: The target.
        words: Arguments of libFuzzer; the last is the folder of its corpus.
    """
    import atheris

    with atheris.instrument_imports(include=["mien", "PIL", "fastapi", "starlette", "python_multipart"]):
        from mien._errors import MienError

        run, seeds = TARGETS[name]()
    for number, seed in enumerate(seeds):
        (Path(words[-1]) / f"seed-{number}").write_bytes(seed)

    def one(data: bytes) -> None:
        try:
            run(data)
        except MienError:
            return

    atheris.Setup([sys.argv[0], *words], one)
    atheris.Fuzz()


def fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own.

    Args:
        name: The target.
        seconds: For how long.

    Returns:
        Whether nothing was found.
    """
    FINDINGS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        limits = [f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}", "-max_len=100000"]
        artifacts = f"-artifact_prefix={FINDINGS}/{name}-"
        command = [sys.executable, __file__, "--here", name, "--", *limits, artifacts, corpus]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        lines = done.stderr.splitlines()
        last = next((line for line in reversed(lines) if line.startswith("Done ")), "")
        covered = next((line.split("cov: ")[1].split()[0] for line in reversed(lines) if "cov: " in line), "0")
        print(f"{name:12} {last or f'ended with status {done.returncode}'}, {covered} branches reached", flush=True)
        if done.returncode:
            print("\n".join(line for line in lines[-60:] if not line.startswith("#")))
    return done.returncode == 0


def main() -> int:
    """Fuzz the targets one after the other.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--replay", type=Path, help="run one input of the one target named")
    parser.add_argument("--here", metavar="TARGET", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        fuzz_here(given.here, given.targets)
    unknown = [name for name in given.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    if given.replay:
        TARGETS[given.targets[0]]()[0](given.replay.read_bytes())
        return 0
    found = [name for name in given.targets or TARGETS if not fuzz(name, given.seconds)]
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
