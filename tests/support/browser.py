"""The page as a static site: built, served locally, and opened in Chromium."""

import fcntl
import functools
import io
import math
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.paths import ROOT

WEB = ROOT / "web"
# Debian's, or the one of the machines of CI.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TYPES = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm"}
PATIENCE = 60_000  # milliseconds: a busy machine compiles 14 MB of WebAssembly slowly


class Files(SimpleHTTPRequestHandler):
    """Static files with the content types that browsers require."""

    extensions_map = TYPES

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def need_runtime() -> None:
    """Skip the test if the page cannot be built."""
    if shutil.which("node") is None or not (WEB / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("the page needs node and the packages of web/package-lock.json: run `make web`")


def build() -> Path:
    """web/dist of this checkout; skips the test if it cannot be built."""
    need_runtime()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    with (WEB / "node_modules" / ".test-run").open("a+", encoding="utf-8") as built:
        # Once in a run: a second worker must not delete the site while the first one serves it.
        fcntl.flock(built, fcntl.LOCK_EX)
        built.seek(0)
        if built.read() != run:
            subprocess.run(["node", WEB / "build.mjs"], check=True, capture_output=True)
            built.truncate(0)
            built.write(run)
    return WEB / "dist"


@contextmanager
def serving(folder: Path, handler: type[Files] = Files) -> Iterator[str]:
    """Serve ``folder`` and give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def playing() -> Iterator[Any]:
    """Playwright; skips the test if it or Chromium is absent. Only one at a time in a process."""
    api = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright (pip)")
    if CHROMIUM is None:
        pytest.skip("the page is tested in Chromium, which is not installed")
    with api.sync_playwright() as player:
        yield player


@contextmanager
def chromium(player: Any, *flags: str) -> Iterator[Any]:
    """A headless Chromium."""
    browser = player.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *flags])
    try:
        yield browser
    finally:
        browser.close()


def wait_until(page: Any, condition: str) -> None:
    """Wait for a JavaScript expression. Playwright would compile it in the page, which the page's policy forbids."""
    for _ in range(600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)  # milliseconds
    raise AssertionError(f"never true: {condition}")


class Visit:
    """An open page, its console messages, and its requests to other addresses."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        """``options`` are those of Playwright's contexts."""
        self.context = browser.new_context(accept_downloads=True, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.address = address
        self.said: list[str] = []
        self.strayed: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.context.on("request", lambda request: self._check(request.url))
        self.page.goto(address)

    def _check(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self.strayed.append(url)

    def ready(self) -> "Visit":
        """Wait until the networks are loaded."""
        self.page.locator("#where", has_text="in this browser").wait_for()
        return self

    def read(self, *files: dict[str, Any]) -> None:
        """Choose files and wait for their cards or errors."""
        before = self.done()
        self.page.set_input_files("#files", list(files))
        self.page.locator("#total", has_text=f"{before + len(files)} image").wait_for()
        self.page.locator("#busy").wait_for(state="hidden")

    def done(self) -> int:
        """Number of images read or refused so far."""
        words = self.page.locator("#total").text_content() or ""
        return int(words.split()[0]) if words else 0

    def saved(self, button: str) -> bytes:
        """The file that a button downloads."""
        with self.page.expect_download() as download:
            self.page.locator(button).first.click()
        return Path(download.value.path()).read_bytes()

    def close(self) -> None:
        """Close the page; it must have logged nothing and requested nothing from elsewhere."""
        self.context.close()
        assert self.said == []
        assert self.strayed == []


def camera_video(path: Path, *, frames: int = 60) -> Path:
    """A motion JPEG for the fake camera: the example image, moving."""
    with Image.open(ROOT / "examples" / "astronaut.png") as image:
        portrait = image.convert("RGB").resize((480, 480))
    stream = io.BytesIO()
    for index in range(frames):
        turn = 2 * math.pi * index / frames
        frame = Image.new("RGB", (640, 480), (70, 80, 90))
        frame.paste(portrait, (80 + round(16 * math.sin(turn)), round(8 * math.cos(turn))))
        frame.save(stream, "JPEG", quality=88)
    path.write_bytes(stream.getvalue())
    return path
