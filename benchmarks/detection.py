"""Recall of the detector, boxes without a face, and time.

    python benchmarks/detection.py IMAGES [--detector NAME] [--min-face 24] [--fer fer2013.parquet] [--extras DIR]
        [--variants] [--beside-yunet face_detection_yunet_2023mar.onnx]

IMAGES is a folder of JPEG files with `reference-boxes.json`: by file name a list of `[x, y, w, h, score]`. A face
counts as found when its box and one of ours, paired one to one from the best pair down, share IoU >= 0.3 (a chin more
or less makes 0.5 of the boxes of two detectors). Sizes are the widths of the reference boxes. Images whose name
begins with `masked` are counted separately. `--extras` saves every box without a reference, to be checked by eye.

The constants of the detector were tuned on such images, so small differences between two versions are luck there.
`--variants` counts on the mirrored, scaled and shifted images, which show the same people but other pixels.
`--beside-yunet` compares the CPU time of one core with that of YuNet in OpenCV (`opencv-python-headless`, below 5),
in turns in one run, both on decoded images. The last table has the CPU time of each step.
"""

import argparse
import io
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien import Reader
from mien import reader as reader_module
from mien.decode import decode
from mien.detect import THRESHOLD, Detector, open_detector
from mien.detect.candidates import overlaps
from mien.detect.tiles import Pyramid

SAME = 0.3  # intersection over union
WIDTHS = (40, 24)  # pixels
FRAMES_WH = ((640, 480), (1280, 720), (4000, 3000))
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "astronaut.png"
Boxes = NDArray[np.float64]


class Row(NamedTuple):
    """One image's result. `counts` holds (found, there) for each of WIDTHS."""

    name: str
    counts: tuple[tuple[int, int], ...]
    boxes: int
    extras: Boxes
    milliseconds: float


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--detector", default="blazeface")
    parser.add_argument("--min-face", type=float, help="pixels; the detector's own choice when not given")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--fer", type=Path, help="fer2013.parquet: also the share of 500 training faces that is found")
    parser.add_argument("--extras", type=Path, help="folder to save boxes without a reference in")
    parser.add_argument("--variants", action="store_true", help="count on changed images instead")
    parser.add_argument("--beside-yunet", type=Path, metavar="ONNX", help="YuNet's file: compare the CPU time")
    options = parser.parse_args()
    detector = open_detector(
        options.detector, threshold=options.threshold, min_face=options.min_face, threads=options.threads
    )
    if options.beside_yunet is not None:
        print_beside(detector, options.images, options.beside_yunet, options.threshold)
        return
    rows = measure_folder(detector, options.images, options.extras, variants if options.variants else unchanged)
    print_recall(rows)
    if options.variants:
        return
    if options.fer is not None:
        print_fer(detector, options.fer)
    print_times(detector, options.images)
    print_steps(options.images)


Variant = tuple[str, NDArray[np.uint8], list[list[float]]]


def unchanged(name: str, pixels: NDArray[np.uint8], reference: list[list[float]]) -> Iterator[Variant]:
    """The image itself with its reference boxes."""
    yield name, pixels, reference


def variants(name: str, pixels: NDArray[np.uint8], reference: list[list[float]]) -> Iterator[Variant]:
    """The mirrored image, two sizes, and the image without its first rows and columns, with their reference boxes."""
    image, boxes = Image.fromarray(pixels), np.array(reference, float).reshape(-1, 5)[:, :4]
    wide = boxes[:, 0] + boxes[:, 2]
    mirrored = np.column_stack([image.width - wide, boxes[:, 1:]])
    yield f"{name} mirror", np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)), five(mirrored)
    for scale in (0.85, 1.15):
        size = round(image.width * scale), round(image.height * scale)
        yield f"{name} x{scale}", np.asarray(image.resize(size, Image.Resampling.LANCZOS)), five(boxes * scale)
    yield f"{name} shift", pixels[5:, 3:], five(boxes - [3, 5, 0, 0])


def five(boxes: Boxes) -> list[list[float]]:
    """Boxes with a score, as in the reference."""
    return [[*box, 1.0] for box in boxes.tolist()]


def measure_folder(
    detector: Detector, folder: Path, extras: Path | None, versions: Callable[..., Iterator[Variant]]
) -> list[Row]:
    """One row per image or variant."""
    references = json.loads((folder / "reference-boxes.json").read_text(encoding="utf-8"))
    rows = []
    for path in sorted(folder.glob("*.jpg")):
        for name, pixels, reference in versions(path.name, read(path), references.get(path.name, [])):
            row = measure(detector, name, pixels, reference)
            rows.append(row)
            if extras is not None:
                save_extras(extras, row, pixels)
    return rows


def read(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def measure(detector: Detector, name: str, pixels: NDArray[np.uint8], reference: list[list[float]]) -> Row:
    """Find the faces of one image and compare."""
    start = time.process_time()
    found = detector(pixels)
    milliseconds = (time.process_time() - start) * 1e3
    boxes = np.array([d.box for d in found]).reshape(-1, 4)
    wanted = np.array(reference, float).reshape(-1, 5)[:, :4]
    wanted[:, 2:] += wanted[:, :2]
    hit, matched = pair(wanted, boxes)
    widths = wanted[:, 2] - wanted[:, 0]
    counts = tuple((int(hit[widths >= w].sum()), int((widths >= w).sum())) for w in WIDTHS)
    return Row(name, counts, len(boxes), boxes[~matched], milliseconds)


def pair(wanted: Boxes, boxes: Boxes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of both lists have a partner, greedily from the best pair down."""
    hit, matched = np.zeros(len(wanted), bool), np.zeros(len(boxes), bool)
    if len(boxes) and len(wanted):
        shared = np.stack([overlaps(box, boxes)[0] for box in wanted])
        while shared.max() >= SAME:
            i, j = np.unravel_index(shared.argmax(), shared.shape)
            hit[i] = matched[j] = True
            shared[i], shared[:, j] = -1, -1
    return hit, matched


def save_extras(folder: Path, row: Row, pixels: NDArray[np.uint8]) -> None:
    """Each unmatched box with its surroundings."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (x1, y1, x2, y2) in enumerate(row.extras):
        margin = (x2 - x1) * 0.8
        area = tuple(round(float(v)) for v in (x1 - margin, y1 - margin, x2 + margin, y2 + margin))
        Image.fromarray(pixels).crop(area).resize((200, 200)).save(folder / f"{Path(row.name).stem}-{index}.png")


def print_recall(rows: list[Row]) -> None:
    """A line per image, then the sums, masked faces apart."""
    header = "".join(f"{f'>= {w} px':>14s}" for w in WIDTHS)
    print(f"{'image':16s}{header}{'boxes':>8s}{'extra':>8s}{'ms':>9s}")
    for row in rows:
        print_row(row.name, [row])
    print_row("all but masked", [r for r in rows if not r.name.startswith("masked")], with_share=True)
    print_row("masked", [r for r in rows if r.name.startswith("masked")], with_share=True)


def print_row(name: str, rows: list[Row], *, with_share: bool = False) -> None:
    """The sum of some rows."""
    cells = ""
    for k in range(len(WIDTHS)):
        found, there = (sum(r.counts[k][i] for r in rows) for i in (0, 1))
        part = f" {100 * found / there:.1f}%" if with_share and there else ""
        cells += f"{f'{found}/{there}{part}':>14s}"
    extras, boxes = sum(len(r.extras) for r in rows), sum(r.boxes for r in rows)
    print(f"{name:16s}{cells}{boxes:8d}{extras:8d}{sum(r.milliseconds for r in rows):9.1f}")


def print_fer(detector: Detector, parquet: Path) -> None:
    """Tight 48x48 crops: every 57th training face of FER-2013, 500 in all."""
    import pyarrow.compute
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(parquet, columns=["image", "usage"])
    training = table.filter(pyarrow.compute.equal(table["usage"], "Training"))["image"].to_pylist()
    files = training[::57][:500]
    faces = [len(detector(np.asarray(Image.open(io.BytesIO(file)).convert("RGB")))) for file in files]
    several = sum(n > 1 for n in faces)
    print(f"\nFER-2013 training crops: {sum(n > 0 for n in faces)} of {len(faces)} found, {several} with more than one")


def print_times(detector: Detector, folder: Path) -> None:
    """Medians for one face that fills a fifth of the height, for a group, and for a grey image."""
    group = next((p for p in sorted(folder.glob("group-6*")) if p.suffix == ".jpg"), None)
    print(f"\n{'median ms':16s}{'one face':>12s}{'group':>12s}{'no face':>12s}")
    for wide, high in FRAMES_WH:
        images = [one_face(wide, high), *([resized(read(group), wide, high)] if group else [])]
        images.append(np.full((high, wide, 3), 128, np.uint8))
        cells = "".join(f"{median_ms(detector, p):12.1f}" for p in images)
        print(f"{f'{wide}x{high}':16s}{cells}")


def print_beside(detector: Detector, folder: Path, model: Path, threshold: float) -> None:
    """CPU time of both detectors, the least of five calls in turns."""
    import cv2

    cv2.setNumThreads(1)
    print(f"{'image':16s}{'size':>12s}{'faces':>7s}{'ms':>8s}{'YuNet':>7s}{'ms':>8s}{'ratio':>7s}")
    for path in sorted(folder.glob("*.jpg")):
        pixels = decode(path).pixels
        (high, wide), bgr = pixels.shape[:2], np.ascontiguousarray(pixels[..., ::-1])
        yunet = cv2.FaceDetectorYN.create(str(model), "", (wide, high), threshold, 0.3, 5000)
        ours, theirs = least_ms(lambda: detector(pixels), lambda: yunet.detect(bgr))  # noqa: B023
        found = yunet.detect(bgr)[1]
        counts = len(detector(pixels)), 0 if found is None else len(found)
        cells = f"{f'{wide}x{high}':>12s}{counts[0]:7d}{ours:8.1f}{counts[1]:7d}{theirs:8.1f}{ours / theirs:7.2f}"
        print(f"{path.name:16s}{cells}")


def least_ms(*calls: Callable[[], object], rounds: int = 5) -> list[float]:
    """The least CPU time of each call, in turns, after one to warm up."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, taken in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            taken.append(time.process_time() - start)
    return [min(taken[1:]) * 1e3 for taken in times]


def print_steps(folder: Path) -> None:
    """CPU time of each step from file to reading: photographs with one face, and the crowds of the folder."""
    files = {f"{wide}x{high}": jpeg(one_face(wide, high)) for wide, high in FRAMES_WH[1:]}
    references = json.loads((folder / "reference-boxes.json").read_text(encoding="utf-8"))
    crowds = sorted((name for name in references if (folder / name).is_file()), key=lambda name: -len(references[name]))
    files |= {name: (folder / name).read_bytes() for name in crowds[:4]}
    reader, clock = Reader(), Clock()
    for name, step in (("decode", "decode"), ("decode_half", "decode"), ("extract", "crop")):
        clock.watch(reader_module, name, step)
    clock.watch(Pyramid, "__init__", "resize")
    clock.watch(Pyramid, "resize", "resize")
    clock.watch(reader.detector._session, "run", "network")  # type: ignore[attr-defined]
    steps = ("decode", "resize", "network", "crop", "rest", "classify", "all")
    print(f"\n{'CPU ms':16s}" + "".join(f"{step:>10s}" for step in steps))
    for name, file in files.items():
        rounds = [measure_steps(reader, clock, file) for _ in range(6)][1:]
        print(f"{name:16s}" + "".join(f"{statistics.median(each[step] for each in rounds):10.1f}" for step in steps))


def measure_steps(reader: Reader, clock: "Clock", file: bytes) -> dict[str, float]:
    """CPU milliseconds of each step of one reading."""
    clock.spent.clear()
    start = time.process_time()
    prepared = reader.prepare(file)
    middle = time.process_time()
    reader.classify([prepared])
    end = time.process_time()
    inside = {step: 1e3 * clock.spent[step] for step in ("decode", "resize", "network", "crop")}
    rest = 1e3 * (middle - start) - sum(inside.values())
    return {**inside, "rest": rest, "classify": 1e3 * (end - middle), "all": 1e3 * (end - start)}


class Clock:
    """CPU seconds spent in functions, by the step they belong to."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)

    def watch(self, owner: Any, name: str, step: str) -> None:
        """Replace a function by one that counts its time."""
        function = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            result = function(*args, **options)
            self.spent[step] += time.process_time() - start
            return result

        setattr(owner, name, timed)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG file with the noise of a camera, without which it would be smaller than a photograph's."""
    noise = np.random.default_rng(0).normal(0, 3, pixels.shape[:2])[..., None]
    stream = io.BytesIO()
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def one_face(wide: int, high: int) -> NDArray[np.uint8]:
    """The example photograph, as high as the frame, in its middle: a face of a fifth of the height."""
    canvas = Image.new("RGB", (wide, high), (96, 96, 96))
    with Image.open(EXAMPLE) as image:
        canvas.paste(image.convert("RGB").resize((high, high)), ((wide - high) // 2, 0))
    return np.asarray(canvas)


def resized(pixels: NDArray[np.uint8], wide: int, high: int) -> NDArray[np.uint8]:
    """The image at another size."""
    return np.asarray(Image.fromarray(pixels).resize((wide, high)))


def median_ms(detector: Detector, pixels: NDArray[np.uint8], *, budget_s: float = 1.5) -> float:
    """The median of as many calls as fit into the budget, at least three, after one to warm up."""
    detector(pixels)
    times: list[float] = []
    while len(times) < 3 or (sum(times) < budget_s and len(times) < 50):
        start = time.perf_counter()
        detector(pixels)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


if __name__ == "__main__":
    main()
