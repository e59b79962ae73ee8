"""Takes BlazeFace short-range out of the MediaPipe wheel, writes it as ONNX, and proves that both answer alike.

    python tools/convert_blazeface.py [--wheel mediapipe-0.10.21-...whl] [--out src/mien/bundled/blazeface-short-range]

Needs `pip install onnx onnxruntime pillow ai-edge-litert`; the last one reads the TFLite file and runs it as reference.
Without --wheel the wheel is fetched by `pip download`. Nothing is written unless the two files agree within 1e-3.

The ONNX file takes `image`, uint8 [N, H, W, 3] RGB, H and W multiples of 16 (the original: 128), and gives `boxes`,
float32 [N, A, 16]: per anchor the offset of the box's centre, its width and height, and the offsets of six key points,
all in input pixels; and `scores`, float32 [N, A], 0..1. Scaling to [-1, 1] and the sigmoid live in the graph.
"""

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

import onnx

from blazeface_graph import convert
from blazeface_origin import MEMBER, TFLITE_SHA256, WHEEL, fetch_wheel, read_wheel
from blazeface_twins import compare

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "src" / "mien" / "bundled" / "blazeface-short-range"
TOLERANCE = 1e-3  # input pixels for boxes, probability for scores, log-odds for logits


def main() -> None:
    """Fetch, convert, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="the MediaPipe wheel; downloaded with pip when not given")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = arguments.wheel or fetch_wheel(Path(folder))
        tflite, licence = read_wheel(wheel)
    model = convert(tflite)
    differences = compare(tflite, model)
    for name, value in differences.items():
        print(f"largest difference in {name}: {value:.2e}")
    if max(differences.values()) > TOLERANCE:
        sys.exit(f"the ONNX file differs from the TFLite file by more than {TOLERANCE}; nothing was written")
    write(arguments.out, model, licence, differences)
    print(f"wrote {arguments.out}")


def write(out: Path, model: onnx.ModelProto, licence: str, differences: dict[str, float]) -> None:
    """The four files of a bundled model."""
    out.mkdir(parents=True, exist_ok=True)
    data = model.SerializeToString()
    (out / "model.onnx").write_bytes(data)
    (out / "LICENSE").write_text(licence, encoding="utf-8")
    (out / "NOTICE").write_text(NOTICE, encoding="utf-8")
    equality = "\n".join(f"- largest difference in {name}: {value:.1e}" for name, value in differences.items())
    digest = hashlib.sha256(data).hexdigest()
    (out / "card.md").write_text(CARD.format(equality=equality, size=len(data), digest=digest), encoding="utf-8")


NOTICE = f"""\
BlazeFace short-range

Copyright The MediaPipe Authors (Google LLC).
Licensed under the Apache License, Version 2.0; see LICENSE beside this file.

Origin: the file {MEMBER}
of the Python wheel {WHEEL}
(https://github.com/google/mediapipe), sha256
{TFLITE_SHA256}.

Changed by the mien authors: translated from TFLite to ONNX by tools/convert_blazeface.py. The weights were widened from
float16 to float32, and channels that are always zero were added so that each layer fills whole vector registers. Added
to the graph: conversion of uint8 pixels to [-1, 1] before the first convolution, the sigmoid after the classifier, and
free sizes of batch and picture. Anchors, decoding and suppression are mien's.
"""
CARD = f"""\
# blazeface-short-range

Finds faces: a box, a score and six key points (right eye, left eye, nose, mouth, right ear, left ear) for each.

| | |
| --- | --- |
| network | BlazeFace, short range |
| paper | Bazarevsky et al., "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs", 2019 |
| origin | `mediapipe==0.10.21`, `{MEMBER}`, sha256 `{TFLITE_SHA256}` |
| licence | Apache-2.0 (LICENSE, NOTICE) |
| input | `image`: uint8 `[N, H, W, 3]`, RGB; H and W multiples of 16, 128 in the original |
| outputs | `boxes`: float32 `[N, A, 16]`, input pixels relative to the anchors; `scores`: float32 `[N, A]`, 0..1 |
| anchors | A = 896 for 128x128: two per cell of 8x8 pixels, then six per cell of 16x16 |
| file | {{size}} bytes, sha256 `{{digest}}` |
| made by | `python tools/convert_blazeface.py` |

## Equality with the original
Measured by the tool against the TFLite interpreter on 128x128 pictures: a photograph, its mirror image and crops,
noise, flat grey, black and white. For boxes in pixels, or in shares of the picture's largest offset where that is more
than 128.

{{equality}}

## What it can and cannot do
- It was made for selfies. In its input it sees faces wider than some 16 pixels, which is why mien searches larger
  pictures at several scales.
- Upright faces up to some 45 degrees of roll and half profile. Profiles, faces upside down and faces behind masks
  are missed more often.
- Hands, medals and folds of cloth are sometimes taken for faces, with scores up to about 0.8.
- It tells where a face is, never whose. Nothing about its errors by age, skin tone or gender was measured here.
"""


if __name__ == "__main__":
    main()
