"""Measures the framing of FER-2013's faces, and which crops of detected faces match it best.

    python tools/measure_framing.py points DATA [--faces 1500] [--detector blazeface] [--background PHOTO]
    python tools/measure_framing.py tilts DATA [--faces 1000] [--model mien-0]

DATA is FER-2013 in any form that `mien train` reads. The constants of src/mien/_framing.py come from here.

`points` enlarges training faces and pastes each onto a flat border of its own median grey and onto a photograph, as it
is and mirrored, and runs the detector: four images per face. It prints, in units of the crop's side:

- the medians of the key points;
- how far the crops of several methods are from those of FER-2013: mean distance of the four corners, median and 90th
  percentile. FER-2013 leaves heads tilted, mien does not: the second pair of columns ignores the tilt.

`tilts` enlarges PublicTest faces to 192 pixels on a flat background, detects, crops and classifies them. For several
limits of the head's tilt in the crop it compares the predictions with the labels and with those of the original crops.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mien._errors import MienError
from mien._face import Box, Detection, KeyPoints
from mien._framing import FER2013, Framing
from mien.detect import Detector, open_detector
from mien.extract import extract
from mien.infer import Classifier, find_model
from mien.lab.data import Split, find_fer2013, load_fer2013

ROOT = Path(__file__).resolve().parent.parent
SIDE = 192  # pixels of an enlarged face
CANVAS = 480  # pixels of the image around it
BORDER = 104  # pixels around a face whose tilt is measured
TILTS = (0.0, 5.0, 10.0, 15.0, 20.0, 180.0)  # degrees; 0 removes every rotation, 180 none
OFFSET = (CANVAS - SIDE) // 2
NEAR = 0.3  # of the side: a detection with a centre further away is another face
Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
# Detections and a framing -> affines [N, 2, 3] from the crop's unit square.
Estimator = Callable[[Sequence[Detection], Framing], Array]


@dataclass(frozen=True, eq=False)
class Measures:
    """Measures of every detection."""

    turn: Array  # rotation matrices of the tilt, [N, 2, 2]
    eyes: Array  # side of the crop, [N], estimated from the eyes,
    mouth: Array  # from the distance of eyes and mouth,
    squares: Array  # by least squares over four points,
    box: Array  # and from the box
    anchors: Array  # centre of the eyes, nose, mouth, centre of the box in the image, [N, 4, 2]
    places: Array  # the same points in the crop, [4, 2]


def main() -> None:
    """Read the command line and run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    points = commands.add_parser("points", help="key points and crops")
    points.add_argument("data", type=Path, help="FER-2013")
    points.add_argument("--faces", type=int, default=1500, help="training faces to use")
    points.add_argument("--detector", default="blazeface", choices=("blazeface", "yunet"))
    # Lower than for unknown images: here the place of the face is known, and uncertain detections count too.
    points.add_argument("--threshold", type=float, default=0.5, help="lowest score of a detection")
    points.add_argument("--background", type=Path, default=ROOT / "examples" / "astronaut.png")
    points.add_argument("--seed", type=int, default=0)
    tilts = commands.add_parser("tilts", help="tilt of the head in the crop")
    tilts.add_argument("data", type=Path, help="FER-2013")
    tilts.add_argument("--faces", type=int, default=1000, help="PublicTest faces to use")
    tilts.add_argument("--model", default="mien-0")
    arguments = parser.parse_args()
    try:
        (report_points if arguments.command == "points" else report_tilts)(arguments)
    except MienError as error:
        sys.exit(f"error: {error}")


def report_points(arguments: argparse.Namespace) -> None:
    """Run the detector and print the tables."""
    detector = open_detector(arguments.detector, threshold=arguments.threshold)
    faces, sha256 = sample(arguments.data, arguments.faces, arguments.seed)
    found = detect_all(detector, faces, background(arguments.background))
    share = f"{len(found) / (4 * len(faces)):.1%} of {4 * len(faces)} images"
    console = Console()
    console.print(f"{len(faces)} training faces, seed {arguments.seed}, data sha256 {sha256[:16]}")
    console.print(f"{arguments.detector}, score from {arguments.threshold}: found in {share}")
    framing = median_framing(found)
    for table in (points_table(found), framing, deviation_table(found, framing)):
        console.print(table)


def sample(path: Path, count: int, seed: int) -> tuple[NDArray[np.uint8], str]:
    """``count`` training faces, uint8 ``[N, 48, 48]``, and the sha256 of the data."""
    data = load_fer2013(path)
    rows = np.flatnonzero(data.usage.numpy() == list(Split).index(Split.TRAINING))
    chosen = np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False)
    return data.images.numpy()[chosen], data.sha256


def background(path: Path) -> Image.Image:
    """The upper right of a photograph, where the example has no face, at the size of the canvas."""
    with Image.open(path) as photograph:
        grey = photograph.convert("L")
    side = min(grey.size) * 2 // 5
    return grey.crop((grey.width - side, 0, grey.width, side)).resize((CANVAS, CANVAS))


def detect_all(detector: Detector, faces: NDArray[np.uint8], photograph: Image.Image) -> list[Detection]:
    """The detections of each face in its four images, in units of the face's side."""
    found = []
    for face in faces:
        image = Image.fromarray(face)
        flat = Image.new("L", (CANVAS, CANVAS), int(np.median(face)))
        for canvas in (flat, photograph):
            for pasted in (image, ImageOps.mirror(image)):
                found += detect_one(detector, pasted, canvas)
    return found


def detect_one(detector: Detector, face: Image.Image, background: Image.Image) -> list[Detection]:
    """The detection of the pasted face, as a list of one or none."""
    canvas = background.copy()
    canvas.paste(face.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (OFFSET, OFFSET))
    for detection in detector(np.asarray(canvas.convert("RGB"))):
        unit = to_unit(detection)
        middle = ((unit.box.x1 + unit.box.x2) / 2, (unit.box.y1 + unit.box.y2) / 2)
        if math.dist(middle, (0.5, 0.5)) < NEAR:
            return [unit]
    return []


def to_unit(detection: Detection) -> Detection:
    """The detection in units of the pasted face, whose corners are at 0 and 1."""
    box = Box(*((value - OFFSET) / SIDE for value in detection.box))
    assert detection.points is not None
    four = detection.points[:4]
    return Detection(box, detection.score, KeyPoints(*(((x - OFFSET) / SIDE, (y - OFFSET) / SIDE) for x, y in four)))


def as_array(found: Sequence[Detection]) -> Array:
    """The four points of each detection, ``[N, 4, 2]``."""
    return np.array([d.points[:4] for d in found if d.points is not None])


def median_framing(found: Sequence[Detection]) -> Framing:
    """The framing from the medians of the points, to three places; its tilt comes from `tilts`."""
    points = ((round(float(x), 3), round(float(y), 3)) for x, y in np.median(as_array(found), axis=0))
    return Framing(*points, tilt=FER2013.tilt)


def points_table(found: Sequence[Detection]) -> Table:
    """Median and spread (half of the middle 68 %) of points and box."""
    boxes = np.array([d.box for d in found])
    centers, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    values = np.concatenate([as_array(found), centers[:, None], sides[:, None]], axis=1)
    median, low, high = (np.percentile(values, q, axis=0) for q in (50, 16, 84))
    table = Table("point", "x", "y", "spread x", "spread y")
    names = ("right eye", "left eye", "nose", "mouth", "box centre", "box width, height")
    for name, middle, spread in zip(names, median, (high - low) / 2, strict=True):
        table.add_row(name, *(f"{v:.3f}" for v in (*middle, *spread)))
    return table


def deviation_table(found: Sequence[Detection], framing: Framing) -> Table:
    """Distance of each estimator's crops from those of FER-2013."""
    table = Table("crop by", "median", "90 %", "without tilt: median", "90 %")
    for name, estimate in ESTIMATORS.items():
        affines = estimate(found, framing)
        numbers = [np.percentile(deviation(affines, tilt), q) for tilt in (True, False) for q in (50, 90)]
        table.add_row(name, *(f"{v:.4f}" for v in numbers))
    return table


def deviation(affines: Array, tilt: bool) -> Array:
    """Mean distance of the corners from the unit square's; without ``tilt`` from those of the equally tilted square."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - 0.5
    linear, shift = affines[:, :, :2], affines[:, None, :, 2]
    ends = (corners + 0.5) @ linear.swapaxes(1, 2) + shift
    turn = linear / np.sqrt(np.linalg.det(linear))[:, None, None]
    targets = corners if tilt else corners @ turn.swapaxes(1, 2)
    mean: Array = np.linalg.norm(ends - 0.5 - targets, axis=2).mean(axis=1)
    return mean


def by_mien(found: Sequence[Detection], framing: Framing) -> Array:
    """The crops of mien."""
    return extract(np.zeros((1, 1, 3), np.uint8), found, size=1, framing=framing)[1]


def by_measure(side: Callable[[Measures], Array], weights: Sequence[float]) -> Estimator:
    """Tilt from the eyes, side from ``side``, place from eyes, nose, mouth and box with these ``weights``."""

    def estimate(found: Sequence[Detection], framing: Framing) -> Array:
        measures = measure(found, framing)
        linear = side(measures)[:, None, None] * measures.turn
        shift = (measures.anchors - measures.places @ linear.swapaxes(1, 2)).swapaxes(1, 2) @ np.array(weights)
        return np.concatenate([linear, shift[:, :, None]], axis=2)

    return estimate


def measure(found: Sequence[Detection], framing: Framing) -> Measures:
    """The measures of every detection."""
    points, boxes = as_array(found), np.array([d.box for d in found])
    frame = as_array([Detection(Box(0, 0, 1, 1), 1.0, KeyPoints(*astuple(framing)))])[0]
    eyes, level = points[:, 1] - points[:, 0], frame[1] - frame[0]
    angle = np.arctan2(eyes[:, 1], eyes[:, 0]) - math.atan2(level[1], level[0])
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], 1)
    upright = (points - points.mean(axis=1, keepdims=True)) @ turn
    centred = frame - frame.mean(axis=0)
    middle, middles = (boxes[:, :2] + boxes[:, 2:]) / 2, np.median((boxes[:, :2] + boxes[:, 2:]) / 2, axis=0)
    width = np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
    return Measures(
        turn=turn,
        eyes=np.linalg.norm(eyes, axis=1) / np.linalg.norm(level),
        mouth=(upright[:, 3] - upright[:, :2].mean(axis=1))[:, 1] / (centred[3] - centred[:2].mean(axis=0))[1],
        squares=(upright * centred).sum(axis=(1, 2)) / (centred**2).sum(),
        box=width / np.median(width),
        anchors=np.stack([points[:, :2].mean(axis=1), points[:, 2], points[:, 3], middle], axis=1),
        places=np.stack([frame[:2].mean(axis=0), frame[2], frame[3], middles]),
    )


ESTIMATORS: dict[str, Estimator] = {
    "mien": by_mien,
    "eyes": by_measure(lambda m: m.eyes, (1, 0, 0, 0)),
    "eyes, mouth from 0.8": by_measure(lambda m: np.maximum(m.eyes, 0.8 * m.mouth), (1, 0, 0, 0)),
    "eyes, mouth from 1.0": by_measure(lambda m: np.maximum(m.eyes, m.mouth), (1, 0, 0, 0)),
    "least squares, 4 points": by_measure(lambda m: m.squares, (0.5, 0.25, 0.25, 0)),
    "eyes and mouth by halves": by_measure(lambda m: (m.eyes + m.mouth) / 2, (0.5, 0, 0.5, 0)),
    "box": by_measure(lambda m: m.box, (0, 0, 0, 1)),
    "eyes and box by halves": by_measure(lambda m: (m.eyes + m.box) / 2, (0.5, 0, 0, 0.5)),
}


# Tilts


def report_tilts(arguments: argparse.Namespace) -> None:
    """Print accuracy and agreement for every tilt."""
    public = load_fer2013(find_fer2013(arguments.data)).split(Split.PUBLIC_TEST)
    chosen = np.random.default_rng(0).choice(len(public), arguments.faces, replace=False)
    faces, labels = public.images.numpy()[chosen], public.labels.numpy()[chosen]
    classifier = Classifier(find_model(arguments.model))
    images = [surround(face) for face in faces]
    found = find_faces(images)
    rows = list(found)
    originals, labels = classifier(faces[rows])[0], labels[rows]
    table = Table("tilt left in the crop", "accuracy", "log loss", "agrees with the original", "total variation")
    table.add_row("original crops", *against_labels(originals, labels), "", "")
    for tilt in TILTS:
        framing = replace(classifier.framing, tilt=tilt)
        crops = [extract(images[row], [found[row]], size=classifier.size, framing=framing)[0][0] for row in rows]
        probs = classifier(np.stack(crops))[0]
        agrees = (probs.argmax(1) == originals.argmax(1)).mean()
        distance = np.abs(probs - originals).sum(1).mean() / 2
        table.add_row(f"{tilt:g} degrees", *against_labels(probs, labels), f"{agrees:.1%}", f"{distance:.3f}")
    Console().print(table, f"{len(rows)} of {len(faces)} faces found")


def surround(face: Pixels) -> Pixels:
    """The face at ``SIDE`` pixels with a border of its mean grey, RGB."""
    canvas = np.full((SIDE + 2 * BORDER,) * 2, round(float(face.mean())), np.uint8)
    enlarged = Image.fromarray(face).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    canvas[BORDER : BORDER + SIDE, BORDER : BORDER + SIDE] = np.asarray(enlarged)
    return np.repeat(canvas[..., None], 3, axis=2)


def find_faces(images: Sequence[Pixels]) -> dict[int, Detection]:
    """Row -> the largest face, for the images with a face of about the right size."""
    detector = open_detector(threshold=0.5)
    detections = ((row, detector(image)) for row, image in enumerate(track(images, "detecting", transient=True)))
    return {row: faces[0] for row, faces in detections if faces and faces[0].box.width > 0.4 * SIDE}


def against_labels(probs: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[str, str]:
    """Accuracy and log loss as text."""
    right = (probs.argmax(1) == labels).mean()
    return f"{right:.1%}", f"{-np.log(probs[np.arange(len(labels)), labels]).mean():.3f}"


if __name__ == "__main__":
    main()
