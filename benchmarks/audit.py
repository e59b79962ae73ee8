"""Audit 100,000 synthetic faces: seconds, memory, and whether every planted copy is found.

    python benchmarks/audit.py [--faces 100000] [--folder DIR]

The faces are a folder of PNG files, read and audited as `mien audit` does, without label errors. They are smooth
noise with the spectrum of FER-2013's images, so fingerprints take as long as on real faces. Exact copies, near copies
(cut, with other brightness, compressed), mirror images and blank images are planted among them. The limits are 300 s
and 4 GB on two cores. CPU time is printed beside wall time, because other work on the machine makes the latter longer.
"""

import argparse
import io
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._emotions import SEVEN
from mien.lab.audit import audit, audit_counts, audit_page, audit_rows, exclude_list, load_faces
from mien.lab.audit.duplicates import NEAR_DUPLICATE, correlations
from mien.lab.files import save_text
from mien.lab.provenance import machine

SIDE = 48
SHARES = {"exact": 0.02, "near": 0.01, "mirrored": 0.005, "blank": 0.001}  # of the faces
_SMOOTH = 1.6  # the exponent at which amplitudes fall with frequency; FER-2013's do so with 1.5 to 1.7


def main() -> int:
    """Make the faces, audit them, print. Returns 1 if a planted image was not found or a limit was exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="folder for the synthetic faces; default: a temporary one")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        planted = make(folder / "faces", options.faces)
        results = measure(folder / "faces", planted)
    print(json.dumps(results, indent=1))
    if options.out:
        save_text(options.out, json.dumps(results, indent=1) + "\n")
    return 0 if results["all_found"] and results["seconds"] <= 300 and results["peak_gb"] <= 4 else 1


def make(folder: Path, count: int) -> dict[str, list[tuple[int, int]]]:
    """Write ``count`` faces; returns the planted pairs by kind, as rows (blanks with themselves)."""
    generator = np.random.default_rng(0)
    numbers = {kind: max(1, round(share * count)) for kind, share in SHARES.items()}
    plain = count - sum(numbers.values())
    labels = np.arange(count) % len(SEVEN)
    for emotion in SEVEN:
        (folder / emotion).mkdir(parents=True, exist_ok=True)
    images = np.concatenate([noise(min(4096, plain - start), generator) for start in range(0, plain, 4096)])
    sources = generator.choice(plain, count - plain, replace=False)
    kinds = np.repeat(list(numbers), list(numbers.values()))
    made = np.stack([copy(str(kind), images[at], generator) for kind, at in zip(kinds, sources, strict=True)])
    whole = np.concatenate([images, made])
    place = rows(labels)
    for row, (image, label) in enumerate(zip(whole, labels, strict=True)):
        Image.fromarray(image).save(folder / SEVEN[label] / f"{row:07d}.png", compress_level=1)
    pairs: dict[str, list[tuple[int, int]]] = {kind: [] for kind in numbers}
    for row, (kind, source) in enumerate(zip(kinds, sources, strict=True), start=plain):
        first = row if kind == "blank" else int(source)
        one, two = sorted((int(place[first]), int(place[row])))
        pairs[str(kind)].append((one, two))
    return pairs


def rows(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row at which each face is read: folders come in the order of their names."""
    names = np.array([str(SEVEN[label]) for label in labels])
    place = np.empty(len(labels), np.int64)
    place[np.lexsort((np.arange(len(labels)), names))] = np.arange(len(labels))
    return place


def noise(count: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 ``[count, SIDE, SIDE]`` whose amplitude falls with frequency as that of faces."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]) * SIDE
    amplitude = 1 / np.maximum(frequency, 1) ** _SMOOTH
    amplitude[0, 0] = 0
    waves = generator.normal(size=(count, *amplitude.shape)) + 1j * generator.normal(size=(count, *amplitude.shape))
    images = np.fft.irfft2(waves * amplitude, s=(SIDE, SIDE))
    images *= generator.uniform(30, 70, (count, 1, 1)) / images.std(axis=(1, 2), keepdims=True)
    return (images + generator.uniform(90, 160, (count, 1, 1))).clip(0, 255).astype(np.uint8)


def copy(kind: str, image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return a copy of ``image`` of one kind; near copies have a correlation above 0.99 with it."""
    if kind == "blank":
        return np.full_like(image, int(generator.integers(256)))
    if kind == "near":
        lit = (image * generator.uniform(0.8, 0.95) + generator.uniform(0, 10)).clip(0, 255).astype(np.uint8)
        drawn = compressed(lit, quality=int(generator.integers(80, 96)))
        return drawn if correlations(image[None], drawn[None])[0] > NEAR_DUPLICATE else lit
    return np.ascontiguousarray(image[:, ::-1]) if kind == "mirrored" else image


def compressed(image: NDArray[np.uint8], *, quality: int) -> NDArray[np.uint8]:
    """``image`` after JPEG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def measure(folder: Path, planted: dict[str, list[tuple[int, int]]]) -> dict[str, Any]:
    """Read and audit the folder as the command does; return seconds, memory, and the planted images that were found."""
    started, used = time.monotonic(), time.process_time()
    faces = load_faces(folder)
    read, read_cpu = time.monotonic() - started, time.process_time() - used
    found = audit(faces)
    text, excluded = exclude_list(found, ("blank", "duplicates"))
    written = audit_page(found, excluded, provenance={}), audit_counts(found), text
    seconds, cpu = time.monotonic() - started, time.process_time() - used
    lists = audit_rows(found)
    near = {(a, b) for a, b, _ in lists["near_pairs"]}
    mirrored = {(a, b) for a, b, _ in lists["mirrored_pairs"]}
    first = faces.rows.numpy()[found.duplicates.first]
    blank = set(lists["near_blank"])
    hits = {
        "exact": sum(first[a] == first[b] for a, b in planted["exact"]),
        "near": sum(pair in near or first[pair[0]] == first[pair[1]] for pair in planted["near"]),
        "mirrored": sum(pair in mirrored for pair in planted["mirrored"]),
        "blank": sum(a in blank for a, _ in planted["blank"]),
    }
    return {
        "faces": len(faces),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "of_them_reading": round(read, 1),
        "of_them_reading_cpu": round(read_cpu, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "report_kb": len(written[0]) // 1024,
        "planted": {kind: len(pairs) for kind, pairs in planted.items()},
        "found": {kind: int(n) for kind, n in hits.items()},
        "near_pairs_in_all": len(near),
        "all_found": all(hits[kind] == len(pairs) for kind, pairs in planted.items()),
        "machine": machine(),
    }


if __name__ == "__main__":
    sys.exit(main())
