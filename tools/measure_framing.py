"""Measures how FER-2013 frames its faces, and how well a crop cut from key points repeats that framing.

    python tools/measure_framing.py DATA [--faces 1500] [--detector blazeface] [--background examples/astronaut.png]

DATA is FER-2013 in any form that `mien train` reads; only its training faces are looked at. Each face is enlarged and
laid on a flat border of its own median grey and on a photograph, as it is and mirrored, and the detector is run: four
pictures a face. Printed are, in units of the crop's side:

- the medians of the key points: the constant in src/mien/_framing.py;
- how far the crops of several ways to cut them lie from those that FER-2013 made: mean distance of the four corners,
  median and 90th percentile. FER-2013 leaves heads tilted, mien does not: the second pair sets the tilt aside.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from mien._errors import MienError
from mien._face import Box, Detection, KeyPoints
from mien._framing import FER2013, Framing
from mien.detect import Detector, open_detector
from mien.extract import extract
from mien.lab.data import Split, load_fer2013

ROOT = Path(__file__).resolve().parent.parent
SIDE = 192  # pixels of an enlarged face
CANVAS = 480  # pixels of the picture around it
OFFSET = (CANVAS - SIDE) // 2
NEAR = 0.3  # of the side: a detection whose centre is further off is another face
Array = NDArray[np.float64]
# Detections and a framing -> affines [N, 2, 3] from the crop's unit square.
Estimator = Callable[[Sequence[Detection], Framing], Array]


@dataclass(frozen=True, eq=False)
class Measures:
    """Of each detection: the tilt ``turn`` ``[N, 2, 2]`` and the crop's side as each part of the face has it ``[N]``.

    ``anchors`` ``[N, 4, 2]`` are eyes' middle, nose, mouth and box centre, ``places`` ``[4, 2]`` theirs in the crop.
    """

    turn: Array
    eyes: Array
    mouth: Array
    squares: Array
    box: Array
    anchors: Array
    places: Array


def main() -> None:
    """Sample, detect, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="FER-2013")
    parser.add_argument("--faces", type=int, default=1500, help="training faces to look at")
    parser.add_argument("--detector", default="blazeface", choices=("blazeface", "yunet"))
    # Lower than for unknown pictures: where the face is, is known here, and the doubtful faces belong to the measure.
    parser.add_argument("--threshold", type=float, default=0.5, help="score from which a detection counts")
    parser.add_argument("--background", type=Path, default=ROOT / "examples" / "astronaut.png")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        report(arguments)
    except MienError as error:
        sys.exit(f"error: {error}")


def report(arguments: argparse.Namespace) -> None:
    """Run the detector and print the tables."""
    detector = open_detector(arguments.detector, threshold=arguments.threshold)
    faces, sha256 = sample(arguments.data, arguments.faces, arguments.seed)
    found = detect_all(detector, faces, background(arguments.background))
    share = f"{len(found) / (4 * len(faces)):.1%} of {4 * len(faces)} pictures"
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
    """The upper right of a photograph, which holds no face in the example's case, in the canvas's size."""
    with Image.open(path) as picture:
        grey = picture.convert("L")
    side = min(grey.size) * 2 // 5
    return grey.crop((grey.width - side, 0, grey.width, side)).resize((CANVAS, CANVAS))


def detect_all(detector: Detector, faces: NDArray[np.uint8], photograph: Image.Image) -> list[Detection]:
    """What the detector finds of each face in its four pictures, in units of the face's side."""
    found = []
    for face in faces:
        image = Image.fromarray(face)
        flat = Image.new("L", (CANVAS, CANVAS), int(np.median(face)))
        for picture in (flat, photograph):
            for pasted in (image, ImageOps.mirror(image)):
                found += detect_one(detector, pasted, picture)
    return found


def detect_one(detector: Detector, face: Image.Image, picture: Image.Image) -> list[Detection]:
    """The pasted face as a list of one detection, or of none."""
    canvas = picture.copy()
    canvas.paste(face.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (OFFSET, OFFSET))
    for detection in detector(np.asarray(canvas.convert("RGB"))):
        unit = to_unit(detection)
        middle = ((unit.box.x1 + unit.box.x2) / 2, (unit.box.y1 + unit.box.y2) / 2)
        if math.dist(middle, (0.5, 0.5)) < NEAR:
            return [unit]
    return []


def to_unit(detection: Detection) -> Detection:
    """The detection in units of the pasted face, whose corners lie at 0 and 1."""
    box = Box(*((value - OFFSET) / SIDE for value in detection.box))
    assert detection.points is not None
    four = detection.points[:4]
    return Detection(box, detection.score, KeyPoints(*(((x - OFFSET) / SIDE, (y - OFFSET) / SIDE) for x, y in four)))


def as_array(found: Sequence[Detection]) -> Array:
    """The four points of each detection, ``[N, 4, 2]``."""
    return np.array([d.points[:4] for d in found if d.points is not None])


def median_framing(found: Sequence[Detection]) -> Framing:
    """The framing that the medians of the points make, to three places. Its tilt is chosen elsewhere."""
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
    """How far each estimator's crops lie from FER-2013's own."""
    table = Table("crop cut by", "median", "90 %", "tilt aside: median", "90 %")
    for name, estimate in ESTIMATORS.items():
        affines = estimate(found, framing)
        numbers = [np.percentile(deviation(affines, tilt), q) for tilt in (True, False) for q in (50, 90)]
        table.add_row(name, *(f"{v:.4f}" for v in numbers))
    return table


def deviation(affines: Array, tilt: bool) -> Array:
    """Mean distance of the corners from the unit square's, or (not ``tilt``) from those of the square tilted alike."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) - 0.5
    linear, shift = affines[:, :, :2], affines[:, None, :, 2]
    ends = (corners + 0.5) @ linear.swapaxes(1, 2) + shift
    turn = linear / np.sqrt(np.linalg.det(linear))[:, None, None]
    targets = corners if tilt else corners @ turn.swapaxes(1, 2)
    mean: Array = np.linalg.norm(ends - 0.5 - targets, axis=2).mean(axis=1)
    return mean


def by_mien(found: Sequence[Detection], framing: Framing) -> Array:
    """What mien does."""
    return extract(np.zeros((1, 1, 3), np.uint8), found, size=1, framing=framing)[1]


def by_measure(side: Callable[[Measures], Array], weights: Sequence[float]) -> Estimator:
    """Tilt from the eyes; the side from ``side``; the place from eyes, nose, mouth and box in these ``weights``."""

    def estimate(found: Sequence[Detection], framing: Framing) -> Array:
        measures = measure(found, framing)
        linear = side(measures)[:, None, None] * measures.turn
        shift = (measures.anchors - measures.places @ linear.swapaxes(1, 2)).swapaxes(1, 2) @ np.array(weights)
        return np.concatenate([linear, shift[:, :, None]], axis=2)

    return estimate


def measure(found: Sequence[Detection], framing: Framing) -> Measures:
    """The crop's side by each part of the face, and where each part lies in picture and crop."""
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

if __name__ == "__main__":
    main()
