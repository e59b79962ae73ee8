"""Is a face in a photograph read like the same face as a tight crop? A test of detector and extraction.

    python benchmarks/paste.py --data DATA [--model mien-0] [--faces 200] [--split PublicTest] [--json FILE]

Faces of FER-2013 (PublicTest or Training, never PrivateTest) are enlarged, rotated and pasted with a feathered edge
into a photograph, at random positions away from its own faces. The reading of the pasted face is compared with that of
the original 48x48 crop: how often the top emotion agrees, and the mean total variation distance of the probabilities
(0: equal, 1: disjoint). Faces that were not found count only for "found".

Two rows separate the causes: "enlarged, not pasted" uses neither detector nor background, so its loss is due to
resampling; "hard edge" pastes without feathering. The last columns compare both readings with the labels: if the
accuracies are about equal, the readings differ on ambiguous faces. A FER-2013 face ends at its brow and chin, and a
face without a head is hard to find in a busy photograph: "found" describes this test, not photographs in general.
"""

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mien._errors import MienError
from mien._face import Box, Detection, Face
from mien._measure import environment
from mien.decode import decode
from mien.detect import open_detector
from mien.extract import extract
from mien.lab.data import Split, load_fer2013
from mien.lab.significance import wilson_interval
from mien.reader import Reader
from pasted import CONDITIONS, Pasted, Pixels, blow_up, enlarge, paste

ROOT = Path(__file__).resolve().parent.parent
NEAR = 0.3  # of the side: a face with a more distant centre is another one
SMALLEST = 24  # pixels; the smallest face that the detector looks for


def main() -> None:
    """Measure every condition and print or write the table."""
    arguments = parse()
    try:
        report = measure(arguments)
    except MienError as error:
        sys.exit(f"error: {error}")
    Console().print(to_table(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="FER-2013, in any form that `mien train` reads")
    parser.add_argument("--model", default="mien-0", help="an embedded model's name or the path of an ONNX file")
    parser.add_argument("--precision", default="int8", choices=("int8", "fp32"))
    parser.add_argument("--detector", default="blazeface")
    parser.add_argument("--background", type=Path, default=ROOT / "examples" / "astronaut.png")
    parser.add_argument("--split", default="PublicTest", choices=("PublicTest", "Training"))
    parser.add_argument("--faces", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Results of every condition, with all that is needed to reproduce them."""
    # The astronaut's own face is large: without `min_face` the detector would leave out small ones beside it.
    detector = open_detector(arguments.detector, min_face=SMALLEST)
    reader = Reader(arguments.model, detector=detector, precision=arguments.precision)
    faces, labels, data_sha256 = sample(arguments)
    photograph = enlarge(decode(arguments.background).pixels)
    taken = [detection.box for detection in reader.detector(photograph)]
    originals = read_crops(reader, faces)
    rows = [compare("enlarged, not pasted", originals, list(read_crops(reader, blow_up(faces))), labels)]
    for condition in track(CONDITIONS, "pasting", transient=True):
        generator = np.random.default_rng(arguments.seed)
        readings = [
            find(reader, paste(face, photograph, condition, taken=taken, generator=generator)) for face in faces
        ]
        rows.append(compare(condition.name, originals, readings, labels))
    return {
        "command": " ".join(["python", "benchmarks/paste.py", *sys.argv[1:]]),
        "model": reader.model.name,
        "model_sha256": hashlib.sha256(reader.model.path.read_bytes()).hexdigest(),
        "precision": reader.model.metadata["precision"],
        "detector": arguments.detector,
        "split": arguments.split,
        "faces": len(faces),
        "seed": arguments.seed,
        "data_sha256": data_sha256,
        "background": arguments.background.name,
        "background_sha256": hashlib.sha256(arguments.background.read_bytes()).hexdigest(),
        "machine": environment("mien", "numpy", "onnxruntime", "pillow"),
        "rows": rows,
    }


def sample(arguments: argparse.Namespace) -> tuple[Pixels, NDArray[np.int64], str]:
    """Faces of the split, uint8 ``[N, 48, 48]``, their labels, and the sha256 of the data."""
    data = load_fer2013(arguments.data)
    rows = np.flatnonzero(data.usage.numpy() == list(Split).index(Split(arguments.split)))
    chosen = np.random.default_rng(arguments.seed).choice(rows, min(arguments.faces, len(rows)), replace=False)
    return data.images.numpy()[chosen], data.labels.numpy()[chosen], data.sha256


def read_crops(reader: Reader, faces: Pixels) -> NDArray[np.float32]:
    """Probabilities ``[N, C]`` of whole images, each taken as one crop."""
    whole = [Detection(Box(0, 0, *face.shape[::-1]), 1.0, None) for face in faces[:1]]
    size = reader.model.size
    crops = [extract(np.repeat(face[..., None], 3, axis=2), whole, size=size)[0][0] for face in faces]
    return reader.model(np.stack(crops))[0]


def find(reader: Reader, pasted: Pasted) -> NDArray[np.float32] | None:
    """The probabilities of the face that was pasted; ``None`` when it was not found."""

    def distance(face: Face) -> float:
        middle = ((face.box.x1 + face.box.x2) / 2, (face.box.y1 + face.box.y2) / 2)
        return math.dist(middle, pasted.centre) / pasted.side

    near = [face for face in reader.read(pasted.pixels).faces if distance(face) < NEAR]
    if not near:
        return None
    return np.array(list(min(near, key=distance).probs.values()), np.float32)


def compare(
    name: str,
    originals: NDArray[np.float32],
    readings: list[NDArray[np.float32] | None],
    labels: NDArray[np.int64],
) -> dict[str, Any]:
    """Share found; of these, agreement of the top emotion with its 95 % interval (Wilson), mean total variation
    distance, and the accuracy of both readings against the labels (seven classes).
    """
    found = [row for row, reading in enumerate(readings) if reading is not None]
    pairs = [(originals[row], readings[row]) for row in found]
    agree = sum(int(o.argmax() == r.argmax()) for o, r in pairs)
    right = [[int(p.argmax() == labels[row]) for p in pair] for row, pair in zip(found, pairs, strict=True)]
    distances = [float(np.abs(o - r).sum() / 2) for o, r in pairs]
    return {
        "condition": name,
        "found": len(pairs) / len(readings),
        "agreement": agree / len(pairs) if pairs else None,
        "interval": [round(float(edge), 4) for edge in wilson_interval(agree, len(pairs))] if pairs else None,
        "total_variation": float(np.mean(distances)) if pairs else None,
        "accuracy_original": float(np.mean([o for o, _ in right])) if pairs else None,
        "accuracy": float(np.mean([r for _, r in right])) if pairs else None,
    }


def to_table(report: dict[str, Any]) -> Table:
    """The results as a table."""
    title = (
        f"{report['model']} ({report['precision']}), {report['detector']}: {report['faces']} {report['split']} faces"
    )
    heads = ("pasted", "found", "top emotion agrees", "95 %", "total variation", "right", "right, original")
    table = Table(*heads, title=title)
    for row in report["rows"]:
        if row["agreement"] is None:
            table.add_row(row["condition"], "0 %")
            continue
        low, high = row["interval"]
        shares = (f"{row['found']:.1%}", f"{row['agreement']:.1%}", f"{low:.1%} to {high:.1%}")
        accuracies = (f"{row['accuracy']:.1%}", f"{row['accuracy_original']:.1%}")
        table.add_row(row["condition"], *shares, f"{row['total_variation']:.3f}", *accuracies)
    return table


if __name__ == "__main__":
    main()
