"""The page at ``/``: static files, or a few lines where this installation has none."""

import os
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from mien._page import head
from mien.bundled import BUNDLED, DEFAULT_MODEL

PACKAGE = Path(__file__).parent.parent
FOLDER = PACKAGE / "serve" / "page"

# Files of the page that stand elsewhere in the package: their addresses, and where they are.
_CLASSIFIER = "models/classifier.onnx"
_ELSEWHERE = {
    "base.css": PACKAGE / "_page.css",
    "models/blazeface-short-range.onnx": BUNDLED / "blazeface-short-range" / "model.onnx",
    _CLASSIFIER: BUNDLED / DEFAULT_MODEL / "model.onnx",
}
# ONNX Runtime Web, of which a wheel has no room for: `make web` lays it into the page's folder.
_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")

# Files whose type Python does not know everywhere; a browser refuses a module or WebAssembly of another type.
_TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".webmanifest": "application/manifest+json",
}
# The page loads from here alone and talks to here alone; nobody may frame it. The last two let WebAssembly use threads.
_POLICY = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; worker-src 'self' blob:; frame-ancestors "
    "'none'; base-uri 'none'; form-action 'none'",
    "permissions-policy": "camera=(self), microphone=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cache-control": "no-cache",
}


def add_page(
    app: FastAPI,
    folder: Path | None = None,
    *,
    model: Path,
    abstain: float = 0.0,
    runtime: Path | None = None,
    token: bool = False,
) -> None:
    """Serve the page at ``/``, from ``folder`` or the one that comes with mien.

    ``model`` is the classifier that the server reads with: the page reads with the same file, unless it is somebody's
    own and a ``token`` guards the server, for the page's files need none; then it reads with the default model, and
    says so. ``abstain`` is where its threshold stands at first. ``runtime`` is the folder of ONNX Runtime Web (the
    ``dist`` of its npm package), by default ``runtime`` in ``folder``: without one the page sends pictures to the
    server instead of reading them itself. ``token`` tells the page that it must ask for one.
    """
    folder = folder or FOLDER
    if not (folder / "index.html").is_file():
        app.get("/", include_in_schema=False)(_plain)
        return
    runtime = runtime or folder / "runtime"
    files = _ELSEWHERE | {f"runtime/{name}": runtime / name for name in _RUNTIME}
    if not token or model.is_relative_to(BUNDLED):
        files[_CLASSIFIER] = model
    able = all((runtime / name).is_file() for name in _RUNTIME)
    said = {"server": True, "runtime": able, "token": token, "abstain": abstain}

    async def site(_: Request) -> Response:
        return JSONResponse(said, headers={"cache-control": "no-cache"})

    app.get("/site.json", include_in_schema=False)(site)
    # Not mounted: a mount at / would also answer for the API's paths when they are asked by a wrong method.
    app.router.default = _Site(folder, files)


class _Site(StaticFiles):
    """Static files with the right types and the page's policy."""

    def __init__(self, folder: Path, elsewhere: dict[str, Path]) -> None:
        super().__init__(directory=folder, html=True)
        self._elsewhere = elsewhere

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """A file of the folder, or one of those that stand elsewhere."""
        file = self._elsewhere.get(path.replace(os.sep, "/"))
        if file is None:
            return super().lookup_path(path)
        return (str(file), file.stat()) if file.is_file() else ("", None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await WebSocketClose()(scope, receive, send)
            return
        kind = _TYPES.get(Path(scope["path"]).suffix)

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                headers.update(_POLICY)
                if kind is not None and message["status"] == 200:
                    headers["content-type"] = kind
            await send(message)

        await super().__call__(scope, receive, send_with_policy)


async def _plain(_: Request) -> Response:
    return HTMLResponse(head("mien", "") + _PLAIN)


_PLAIN = """<body><main><h1>mien is here</h1>
<p>This installation has no page to try it with. What programs can ask: <a href="docs">docs</a>,
<a href="openapi.json">openapi.json</a>.</p></main></body></html>"""
