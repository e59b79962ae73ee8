"""The measurements of ``mien benchmark``, and the drawn portrait that they read."""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from mien._errors import MienError
from mien._measure import median_ms
from mien._session import open_session
from mien.decode import decode
from mien.infer import CHUNK, PRECISIONS, Classifier, find_model
from mien.reader import Reader

_GRAIN = 3.0  # standard deviation, of 255: as a camera's noise; without it a JPEG is unlike a photograph's in size


def draw_face(size: int = 512) -> NDArray[np.uint8]:
    """A drawn portrait, nobody's likeness, whose face detectors find as surely as a photograph's.

    RGB uint8 ``[size, size, 3]``; the face is a third as wide, about as in a video call.
    """
    unit = size / 100
    canvas = Image.new("RGB", (size, size), "#78879a")
    draw = ImageDraw.Draw(canvas)

    def oval(x: float, y: float, wide: float, high: float, color: str) -> None:
        draw.ellipse([unit * v for v in (x - wide, y - high, x + wide, y + high)], fill=color)

    def polygon(*corners: float, color: str) -> None:
        draw.polygon([unit * v for v in corners], fill=color)

    oval(50, 110, 37.5, 33, "#46506e")  # shoulders
    oval(50, 43.5, 19.8, 22, "#3c2a20")  # hair
    polygon(43.4, 66, 56.6, 66, 57.7, 84.7, 42.3, 84.7, color="#b98a6e")
    oval(50, 49.5, 16.5, 22, "#deb296")
    for x in (40.6, 59.4):
        oval(x, 45.5, 5.6, 2.6, "#c99a7e")
        oval(x, 46.2, 4.2, 1.5, "#f4f0ea")
        oval(x, 46.2, 1.5, 1.5, "#1e1612")
        polygon(x - 5.2, 42.2, x, 41.1, x + 5.2, 42.2, x + 5.2, 43.6, x, 42.5, x - 5.2, 43.6, color="#46301e")
        oval(50 + (x - 50) / 5.7, 55, 1.1, 0.8, "#8a5c48")
    oval(50, 62.7, 7.3, 2.6, "#a84e4a")
    oval(50, 62.5, 5.8, 0.9, "#f5f0eb")
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.5 * unit)))


def embed(face: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture of ``size_wh``: ``face`` as large as fits in its middle, a blurred wall of itself behind, and grain."""
    source = Image.fromarray(face)
    canvas = source.resize((32, 24), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(4)).resize(size_wh)
    scale = min(size_wh[0] / source.width, size_wh[1] / source.height)
    fitted = source.resize((round(source.width * scale), round(source.height * scale)), Image.Resampling.BICUBIC)
    canvas.paste(fitted, ((size_wh[0] - fitted.width) // 2, (size_wh[1] - fitted.height) // 2))
    grain = _GRAIN * np.random.default_rng(0).standard_normal((size_wh[1], size_wh[0], 1), np.float32)
    grainy: NDArray[np.uint8] = np.clip(np.asarray(canvas) + grain, 0, 255).astype(np.uint8)
    return grainy


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """``pixels`` as the bytes of a JPEG file of quality 90."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


_SIZES_WH = ((640, 480), (1280, 720), (4000, 3000))


_BATCH = 64  # crops classified together


_STREAM = 32  # pictures in a row


_TIME_IMPORT = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


_TELL_MEMORY = """
from mien.__main__ import main
from mien._measure import peak_memory_mb
try:
    main()
finally:
    print(peak_memory_mb())
"""


Timed = Callable[..., list[float]]


class Figure(NamedTuple):
    """One measured value: its key in the JSON, what it is in words, the value and its unit."""

    key: str
    words: str
    value: float
    unit: str


def measure(image: Path | None, *, model: str, detector: str, threads: int, seconds: float) -> Iterator[Figure]:
    """Every figure of the benchmark. Raises ``MienError`` when ``image`` shows no face.

    Each takes about ``seconds`` and at least five runs after a warm-up; 0 means one run, to see that all works.
    """
    runs = 5 if seconds else 1
    timed = partial(median_ms, seconds=seconds, least=runs, warm_up=2 if seconds else 1)
    face = draw_face() if image is None else decode(image).pixels
    reader = Reader(model, detector=detector, threads=threads)
    if not reader.read(embed(face, _SIZES_WH[0])).faces:
        raise MienError("the picture shows no face that the detector finds; give another one with --image")
    yield from _starts(face, ("--model", str(find_model(model)), "--detector", detector), runs)
    yield from _crops(model, timed)
    yield from _pictures(face, reader, timed)


def _starts(face: NDArray[np.uint8], options: tuple[str, ...], runs: int) -> Iterator[Figure]:
    for key, statement in (("import_s", "import mien"), ("import_reader_s", "from mien import Reader")):
        taken = [float(_run("-c", _TIME_IMPORT.format(statement))[1]) for _ in range(runs)]
        yield Figure(key, statement, statistics.median(taken), "s")
    with tempfile.TemporaryDirectory(prefix="mien-") as folder:
        for size_wh in (_SIZES_WH[0], _SIZES_WH[-1]):
            photo = Path(folder) / "photo.jpg"
            photo.write_bytes(jpeg(embed(face, size_wh)))
            yield from _cold_starts(("predict", str(photo), "--json", *options), _name(size_wh), runs)


def _cold_starts(arguments: tuple[str, ...], name: str, runs: int) -> Iterator[Figure]:
    taken = [_run("-m", "mien", *arguments)[0] for _ in range(runs)]
    yield Figure(
        f"cold_predict_s_{name}", f"mien predict photo.jpg from the shell, {name}", statistics.median(taken), "s"
    )
    held = _run("-c", _TELL_MEMORY, *arguments)[1].splitlines()[-1]
    if held != "None":
        yield Figure(f"cold_predict_memory_mb_{name}", f"most memory of that command, {name}", float(held), "MB")


def _crops(model: str, timed: Timed) -> Iterator[Figure]:
    for path in _files(model):
        classify, session = Classifier(path), open_session(path)
        kind = classify.metadata["precision"]
        crops = np.random.default_rng(0).integers(0, 256, (4 * _BATCH, classify.size, classify.size), dtype=np.uint8)
        # Not in turns: a batch of 64 pushes the weights out of the cache, which one crop after the other does not.
        one, batch = *timed(partial(classify, crops[:1])), *timed(partial(classify, crops[:_BATCH]))
        ours, plain = timed(partial(classify, crops), partial(_plain_loop, session, crops))
        yield Figure(f"crop_ms_{kind}_batch_1", f"one crop, {kind}, alone", one, "ms")
        yield Figure(
            f"crop_ms_{kind}_batch_{_BATCH}", f"one crop, {kind}, in a batch of {_BATCH}", batch / _BATCH, "ms"
        )
        yield Figure(f"crops_per_second_{kind}", f"crops a second, {kind}", 1000 * len(crops) / ours, "1/s")
        words = f"speed beside the plain ONNX Runtime loop, {kind}"
        yield Figure(f"share_of_plain_{kind}", words, 100 * plain / ours, "%")


def _files(model: str) -> list[Path]:
    """The file itself, or every file of an embedded model, int8 first."""
    first = find_model(model)
    if Path(model).is_file():
        return [first]
    return [path for name in PRECISIONS.values() if (path := first.parent / name).is_file()]


def _plain_loop(session: ort.InferenceSession, crops: NDArray[np.uint8]) -> list[list[NDArray[np.float32]]]:
    starts = range(0, len(crops), CHUNK)
    return [session.run(None, {"crops": crops[start : start + CHUNK]}) for start in starts]


def _pictures(face: NDArray[np.uint8], reader: Reader, timed: Timed) -> Iterator[Figure]:
    small = np.asarray(Image.fromarray(face).resize((128, 128), Image.Resampling.BOX))
    (one,) = timed(partial(reader.detector, small))
    yield Figure("detect_ms_128x128", "detector, 128x128", one, "ms")
    for size_wh in _SIZES_WH:
        photo, name = jpeg(embed(face, size_wh)), _name(size_wh)
        pixels = decode(photo).pixels
        found = len(reader.read(photo).faces)
        detect, whole = timed(partial(reader.detector, pixels), partial(reader.read, photo))
        yield Figure(f"detect_ms_{name}", f"detector, {name}", detect, "ms")
        words = f"JPEG to reading, {name}, {found} {'face' if found == 1 else 'faces'}, {len(photo) // 1000:,} kB"
        yield Figure(f"read_ms_{name}", words, whole, "ms")
    photo = jpeg(embed(face, _SIZES_WH[1]))
    (stream,) = timed(lambda: list(reader.read_many([photo] * _STREAM)))
    words = f"pictures a second in a row, {_name(_SIZES_WH[1])}"
    yield Figure(f"pictures_per_second_{_name(_SIZES_WH[1])}", words, 1000 * _STREAM / stream, "1/s")


def _name(size_wh: tuple[int, int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"


def _run(*arguments: str) -> tuple[float, str]:
    """Seconds and output of a new Python that finds this mien, installed or not."""
    here = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    taken = time.perf_counter() - start
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise MienError(f"a new Python with {' '.join(arguments[:3])!r} failed: {last}")
    return taken, done.stdout
