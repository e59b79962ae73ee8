"""How much of a head's tilt should stay in its crop: mien-0 on PublicTest faces that the detector finds.

    python tools/compare_tilts.py path/of/fer2013 [--faces 1000] [--model mien-0]

Each face is enlarged to 192 pixels on a flat background, found, cut out and read. The columns say how the reading does
against the label and against the reading of the original crop. The number in `_framing.py` comes from here.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mien._face import Detection
from mien.detect import open_detector
from mien.extract import extract
from mien.infer import Classifier, find_model
from mien.lab.data import Split, find_fer2013, load_fer2013

SIDE, BORDER = 192, 104  # pixels
TILTS = (0.0, 5.0, 10.0, 15.0, 20.0, 180.0)  # degrees; 0 removes every rotation, 180 none
Pixels = NDArray[np.uint8]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--faces", type=int, default=1000)
    parser.add_argument("--model", default="mien-0")
    words = parser.parse_args()
    public = load_fer2013(find_fer2013(words.data)).split(Split.PUBLIC_TEST)
    chosen = np.random.default_rng(0).choice(len(public), words.faces, replace=False)
    images, labels = public.images.numpy()[chosen], public.labels.numpy()[chosen]
    classifier = Classifier(find_model(words.model))
    pictures = [surround(image) for image in images]
    found = find(pictures)
    rows = list(found)
    originals, labels = classifier(images[rows])[0], labels[rows]
    table = Table("tilt that stays", "accuracy", "log loss", "agrees with the original", "total variation")
    table.add_row("original crops", *against_labels(originals, labels), "", "")
    for tilt in TILTS:
        framing = replace(classifier.framing, tilt=tilt)
        crops = [extract(pictures[row], [found[row]], size=classifier.size, framing=framing)[0][0] for row in rows]
        probs = classifier(np.stack(crops))[0]
        agrees = (probs.argmax(1) == originals.argmax(1)).mean()
        distance = np.abs(probs - originals).sum(1).mean() / 2
        table.add_row(f"{tilt:g} degrees", *against_labels(probs, labels), f"{agrees:.1%}", f"{distance:.3f}")
    Console().print(table, f"{len(rows)} of {len(images)} faces found")


def surround(face: Pixels) -> Pixels:
    """The face at ``SIDE`` pixels amid a border of its mean grey, RGB."""
    canvas = np.full((SIDE + 2 * BORDER,) * 2, round(float(face.mean())), np.uint8)
    enlarged = Image.fromarray(face).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    canvas[BORDER : BORDER + SIDE, BORDER : BORDER + SIDE] = np.asarray(enlarged)
    return np.repeat(canvas[..., None], 3, axis=2)


def find(pictures: list[Pixels]) -> dict[int, Detection]:
    """The largest face of each picture in which there is one of about the right size."""
    detector = open_detector(threshold=0.5)
    answers = ((row, detector(picture)) for row, picture in enumerate(track(pictures, "finding", transient=True)))
    return {row: faces[0] for row, faces in answers if faces and faces[0].box.width > 0.4 * SIDE}


def against_labels(probs: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[str, str]:
    """Accuracy and log loss as text."""
    right = (probs.argmax(1) == labels).mean()
    return f"{right:.1%}", f"{-np.log(probs[np.arange(len(labels)), labels]).mean():.3f}"


if __name__ == "__main__":
    main()
