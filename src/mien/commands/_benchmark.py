"""The measurements of ``mien benchmark``, and the drawn face that they read."""

import hashlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
from mien.infer import CHUNK, PRECISIONS, Classifier, bundled_models, find_model
from mien.reader import Reader

_NOISE = 3.0  # standard deviation, of 255, like a camera's noise; without it a JPEG file is smaller than a photograph's
_SIZES_WH = ((640, 480), (1280, 720), (4000, 3000))
_BATCH = 64  # crops that are classified together
_STREAM = 32  # images that are read one after another

_TIME_IMPORT = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
_PRINT_MEMORY = """
from mien.__main__ import main
from mien._measure import peak_memory_mb
try:
    main()
finally:
    print(peak_memory_mb())
"""

_Timed = Callable[..., list[float]]


class Measurement(NamedTuple):
    """One measured value.

    Attributes:
        key: Its key in JSON.
        name: What was measured, for people.
        value: The value.
        unit: Its unit.
    """

    key: str
    name: str
    value: float
    unit: str


def measure(
    image: Path | None, *, model: str, detector: str, threads: int, seconds: float, providers: Sequence[str] = ("cpu",)
) -> Iterator[Measurement]:
    """Measure start, crops, detector, whole images and memory.

    Args:
        image: An image with a face; ``None`` draws one.
        model: Name of an embedded model, or path of an ONNX file.
        detector: Name of a detector.
        threads: Threads for whole images; 0 uses all cores. Crops always use one.
        seconds: Time for each measurement, which has at least five runs after a warm-up; 0 means one run.
        providers: Execution providers of ONNX Runtime for whole images.

    Yields:
        The measurements, each when it is finished.

    Raises:
        MienError: The detector finds no face in ``image``.
    """
    runs = 5 if seconds else 1
    timed = partial(median_ms, seconds=seconds, least=runs, warm_up=2 if seconds else 1)
    face = draw_face() if image is None else decode(image).pixels
    reader = Reader(model, detector=detector, threads=threads, providers=providers)
    if not reader.read(_embed(face, _SIZES_WH[0])).faces:
        raise MienError("the detector finds no face in the image; name another image")
    yield from _measure_start(face, ("--model", str(find_model(model)), "--detector", detector), runs)
    yield from _measure_crops(model, timed)
    yield from _measure_images(face, reader, timed)


def providers_here() -> str:
    """Return the execution providers that ONNX Runtime offers here."""
    return ", ".join(ort.get_available_providers())


def check_models() -> Iterator[dict[str, str]]:
    """Read a drawn face with every file of every embedded model.

    Yields:
        Name, precision, SHA-256, the reading, and the milliseconds of one face.

    Raises:
        MienError: A model cannot be opened, or its reading is not what a sound installation gives.
    """
    photo = _embed_jpeg(draw_face(), _SIZES_WH[0])
    for name in bundled_models():
        for precision in PRECISIONS:
            if not (find_model(name).parent / PRECISIONS[precision]).is_file():
                continue
            reader, path = Reader(name, precision=precision), find_model(name, precision=precision)
            faces = reader.read(photo).faces
            if len(faces) != 1 or reader.read(photo).faces[0].probs != faces[0].probs:
                raise MienError(f"{name} ({precision}) reads a drawn face wrongly; install mien and onnxruntime again")
            (milliseconds,) = median_ms(partial(reader.model, faces[0].crop[None]), seconds=0, least=5)
            yield {
                "model": name,
                "precision": precision,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "reads": f"{faces[0].top} {faces[0].confidence:.4f}",
                "milliseconds": f"{milliseconds:.2f}",
            }


def draw_face(size: int = 512) -> NDArray[np.uint8]:
    """Draw a portrait of an invented person, in which detectors find the face as reliably as in a photograph.

    Args:
        size: Width and height of the image, in pixels. The face is a third as wide, about as in a video call.

    Returns:
        RGB uint8 ``[size, size, 3]``.
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


def _embed(face: NDArray[np.uint8], size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """An image of ``size_wh`` with the face in its middle, as large as fits, on a blurred background, with noise."""
    source = Image.fromarray(face)
    canvas = source.resize((32, 24), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(4)).resize(size_wh)
    scale = min(size_wh[0] / source.width, size_wh[1] / source.height)
    fitted = source.resize((round(source.width * scale), round(source.height * scale)), Image.Resampling.BICUBIC)
    canvas.paste(fitted, ((size_wh[0] - fitted.width) // 2, (size_wh[1] - fitted.height) // 2))
    noise = _NOISE * np.random.default_rng(0).standard_normal((size_wh[1], size_wh[0], 1), np.float32)
    return np.asarray(np.clip(np.asarray(canvas) + noise, 0, 255), np.uint8)


def _embed_jpeg(face: NDArray[np.uint8], size_wh: tuple[int, int]) -> bytes:
    """The image of ``_embed`` as a JPEG file."""
    stream = io.BytesIO()
    Image.fromarray(_embed(face, size_wh)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _measure_start(face: NDArray[np.uint8], options: tuple[str, ...], runs: int) -> Iterator[Measurement]:
    for key, statement in (("import_s", "import mien"), ("import_reader_s", "from mien import Reader")):
        seconds = [float(_run_python("-c", _TIME_IMPORT.format(statement))[1]) for _ in range(runs)]
        yield Measurement(key, statement, statistics.median(seconds), "s")
    with tempfile.TemporaryDirectory(prefix="mien-") as folder:
        for size_wh in (_SIZES_WH[0], _SIZES_WH[-1]):
            photo, size = Path(folder) / "photo.jpg", _size_name(size_wh)
            photo.write_bytes(_embed_jpeg(face, size_wh))
            command = ("predict", str(photo), "--json", *options)
            median = statistics.median(_run_python("-m", "mien", *command)[0] for _ in range(runs))
            yield Measurement(f"cold_predict_s_{size}", f"mien predict photo.jpg from the shell, {size}", median, "s")
            memory = _run_python("-c", _PRINT_MEMORY, *command)[1].splitlines()[-1]
            if memory != "None":
                name = f"peak memory of that command, {size}"
                yield Measurement(f"cold_predict_memory_mb_{size}", name, float(memory), "MB")


def _measure_crops(model: str, timed: _Timed) -> Iterator[Measurement]:
    paths = [find_model(model)]
    if not Path(model).is_file():  # an embedded model has a file for each precision
        paths = [path for name in PRECISIONS.values() if (path := paths[0].parent / name).is_file()]
    for path in paths:
        classify, session = Classifier(path), open_session(path)
        kind = classify.metadata["precision"]
        crops = np.random.default_rng(0).integers(0, 256, (4 * _BATCH, classify.size, classify.size), dtype=np.uint8)
        # Not in turns: a batch of 64 pushes the weights out of the cache, and single crops do not.
        (one,), (batch,) = timed(partial(classify, crops[:1])), timed(partial(classify, crops[:_BATCH]))
        ours, plain = timed(partial(classify, crops), partial(_bare_loop, session, crops))
        yield Measurement(f"crop_ms_{kind}_batch_1", f"one crop, {kind}, alone", one, "ms")
        name = f"one crop, {kind}, in a batch of {_BATCH}"
        yield Measurement(f"crop_ms_{kind}_batch_{_BATCH}", name, batch / _BATCH, "ms")
        yield Measurement(f"crops_per_second_{kind}", f"crops per second, {kind}", 1000 * len(crops) / ours, "1/s")
        name = f"throughput relative to a bare ONNX Runtime loop, {kind}"
        yield Measurement(f"share_of_plain_{kind}", name, 100 * plain / ours, "%")


def _bare_loop(session: ort.InferenceSession, crops: NDArray[np.uint8]) -> None:
    for start in range(0, len(crops), CHUNK):
        session.run(None, {"crops": crops[start : start + CHUNK]})


def _measure_images(face: NDArray[np.uint8], reader: Reader, timed: _Timed) -> Iterator[Measurement]:
    small = np.asarray(Image.fromarray(face).resize((128, 128), Image.Resampling.BOX))
    (one,) = timed(partial(reader.detector, small))
    yield Measurement("detect_ms_128x128", "detector, 128x128", one, "ms")
    for size_wh in _SIZES_WH:
        photo, size = _embed_jpeg(face, size_wh), _size_name(size_wh)
        pixels, count = decode(photo).pixels, len(reader.read(photo).faces)
        detect, whole = timed(partial(reader.detector, pixels), partial(reader.read, photo))
        yield Measurement(f"detect_ms_{size}", f"detector, {size}", detect, "ms")
        name = f"JPEG to reading, {size}, {count} {'face' if count == 1 else 'faces'}, {len(photo) // 1000:,} kB"
        yield Measurement(f"read_ms_{size}", name, whole, "ms")
    photo, size = _embed_jpeg(face, _SIZES_WH[1]), _size_name(_SIZES_WH[1])
    (stream,) = timed(lambda: list(reader.read_many([photo] * _STREAM)))
    rate = 1000 * _STREAM / stream
    yield Measurement(f"images_per_second_{size}", f"images per second, one after another, {size}", rate, "1/s")


def _size_name(size_wh: tuple[int, int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"


def _run_python(*arguments: str) -> tuple[float, str]:
    """Seconds and output of a new Python process that imports this mien, installed or not."""
    here = str(Path(__file__).parent.parent.parent)
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    command = [sys.executable, *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise MienError(f"a new Python process with {' '.join(arguments[:3])!r} failed: {last}")
    return seconds, done.stdout
