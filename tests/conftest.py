"""Shared fixtures: the public-domain example image, synthetic faces, and the real data if present."""

import os
import signal

# The nets of the tests are tiny: one thread is as fast, and does not slow down on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import typer.testing
from numpy.typing import NDArray
from PIL import Image, ImageDraw

pytest.register_assert_rewrite("support")  # before its first import

from support.paths import DATA, ROOT

if TYPE_CHECKING:
    from mien.lab.data import FaceSet

# Typer builds all commands again for each call of its runner, which takes longer than many of the calls.
typer.testing._get_command = cache(typer.testing._get_command)  # type: ignore[attr-defined]

# A background shell makes its programs ignore SIGINT, and nohup SIGHUP. Ignored signals are inherited by the programs
# that the tests start and stop; handlers are not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Files of few but long tests. They run first, so that no process is left with one of them when the others have ended.
LONG = (
    *("train/test_devices.py", "search/test_study.py", "train/test_loop.py", "gan/test_train.py", "lab/test_record.py"),
    *("export/test_release.py", "export/test_onnx.py", "recipe/test_schema.py", "nets/test_nets.py", "test_bundled.py"),
    *("web/test_interaction.py", "web/test_camera.py", "web/test_page.py", "web/test_served.py", "test_docs.py"),
    *("commands/test_models_benchmark.py", "commands/test_train.py", "commands/test_serve.py", "lab/test_ensemble.py"),
    *("commands/test_audit.py", "commands/test_stress.py", "lab/train/test_phases.py", "video/test_tracker.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not str(item.path).endswith(LONG))


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """NASA's portrait of Eileen Collins as scikit-image ships it (public domain), RGB uint8 [512, 512, 3]."""
    with Image.open(ROOT / "examples" / "astronaut.png") as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture(scope="session")
def fer2013_parquet() -> Path:
    """The real FER-2013 table, from $MIEN_DATA or beside the checkout; skips the test if it is absent."""
    for path in (DATA, DATA / "fer2013.parquet", DATA / "fer2013" / "fer2013.parquet"):
        if path.is_file():
            return path
    pytest.skip(f"FER-2013 is not here: set MIEN_DATA to the folder of fer2013.parquet (looked in {DATA})")


@pytest.fixture(scope="session")
def fer2013_faces(fer2013_parquet: Path, tmp_path_factory: pytest.TempPathFactory) -> "FaceSet":
    """All faces of the real table, decoded once for all worker processes. The tests must not change them."""
    import torch
    from filelock import FileLock

    from mien.lab.data import load_fer2013

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    kept = folder / "fer2013.pt"
    with FileLock(folder / "fer2013.lock"):
        if not kept.exists():
            torch.save(load_fer2013(fer2013_parquet), kept)
    faces: FaceSet = torch.load(kept, weights_only=False)
    return faces


@pytest.fixture(scope="session")
def fast_exports() -> None:
    """onnxscript parses the source of its 500 functions in every export; with this, once for all tests of a process."""
    values = pytest.importorskip("onnxscript.values", reason="the lab is not installed")
    functions = values.TracedOnnxFunction
    functions.function_ir = property(cache(functions.function_ir.fget))


@pytest.fixture(scope="session")
def draw_face() -> Callable[..., NDArray[np.uint8]]:
    """A function that draws a cartoon face, uint8 [size, size]."""
    return _draw_face


def _draw_face(size: int = 48, *, seed: int = 0) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    scale = size / 48
    canvas = Image.new("L", (size, size), int(generator.integers(30, 90)))
    draw = ImageDraw.Draw(canvas)

    def ellipse(cx: float, cy: float, rx: float, ry: float, shade: int) -> None:
        draw.ellipse([scale * v for v in (cx - rx, cy - ry, cx + rx, cy + ry)], fill=shade)

    ellipse(24, 26, 17, 22, int(generator.integers(150, 220)))
    for x in (16, 32):
        ellipse(x, 19, 4, 2.2, 245)
        ellipse(x + generator.uniform(-1, 1), 19, 1.8, 1.8, 20)
    ellipse(24, 28, 2, 3, 130)
    smile = generator.uniform(-4, 4)
    points = [(24 + x, 37 + smile * (x / 8) ** 2 * -1) for x in np.linspace(-8, 8, 9)]
    draw.line([(scale * x, scale * y) for x, y in points], fill=40, width=max(1, int(2 * scale)))
    return np.asarray(canvas)


@pytest.fixture
def largest_file() -> Iterator[Callable[[int], None]]:
    """Sets the number of bytes at which the system refuses to write more to a file, as on a full disk."""
    resource = pytest.importorskip("resource", reason="this system has no limit for the size of files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
