"""Write the golden readings, tests/golden/*.json: mien in Python and mien in the browser must both reproduce them.

    python tools/write_golden.py

The images are derived from examples/astronaut.png with integer arithmetic only, so that they are the same on every
machine; the files hold their sha256. Boxes are in pixels; probabilities are those of the embedded int8 model.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien._face import Face
from mien.reader import Reader

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "tests" / "golden"
HEAD = (128, 0, 320, 192)  # pixels of the example, x1 y1 x2 y2: the head
TURN = (12, 5, 13)  # cosine and sine of 22.6 degrees: 12 / 13 and 5 / 13
Pixels = NDArray[np.uint8]


def main() -> None:
    """Read every image and write its file."""
    FOLDER.mkdir(exist_ok=True)
    reader = Reader()
    model = hashlib.sha256(reader.model.path.read_bytes()).hexdigest()
    for name, make in IMAGES.items():
        pixels = make(example())
        golden = {
            "image": name,
            "sha256": digest(pixels),
            "size_wh": [pixels.shape[1], pixels.shape[0]],
            "model": reader.model.name,
            "model_sha256": model,
            "faces": [values(face) for face in reader.read(pixels).faces],
        }
        (FOLDER / f"{name}.json").write_text(json.dumps(golden, indent=1) + "\n", "utf-8")
        print(f"{name}: {len(golden['faces'])} faces")


def example() -> Pixels:
    """The astronaut, RGB uint8 [512, 512, 3]."""
    with Image.open(ROOT / "examples" / "astronaut.png") as image:
        return np.asarray(image.convert("RGB"))


def digest(pixels: Pixels) -> str:
    """The sha256 of the pixels of an image."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def values(face: Face) -> dict[str, Any]:
    """The values of a face that are compared: box, score, key points, probabilities, affine of the crop."""
    assert face.points is not None
    return {
        "box": [round(v, 3) for v in face.box],
        "score": round(face.score, 5),
        "points": [[round(v, 3) for v in point] for point in face.points if point is not None],
        "probs": {str(emotion): round(value, 6) for emotion, value in face.probs.items()},
        "to_image": [[round(float(v), 6) for v in row] for row in face.to_image],
        "quality": face.quality.to_dict(),
    }


def shrink(pixels: Pixels, factor: int) -> Pixels:
    """Means of blocks of ``factor`` x ``factor`` pixels, rounded half up."""
    height, width = (side // factor for side in pixels.shape[:2])
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    total = blocks.sum(axis=(1, 3), dtype=np.int64)
    return ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)


def tilt(pixels: Pixels, *, clockwise: bool = True) -> Pixels:
    """Rotated by 22.6 degrees about the centre, with integer interpolation; edges are repeated."""
    cosine, sine, unit = TURN
    sine = sine if clockwise else -sine
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width] - np.array([height // 2, width // 2])[:, None, None]
    across = np.clip(cosine * x + sine * y + unit * (width // 2), 0, unit * (width - 1))
    down = np.clip(cosine * y - sine * x + unit * (height // 2), 0, unit * (height - 1))
    left, top = across // unit, down // unit
    right, low = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    share_x, share_y = (across % unit)[..., None], (down % unit)[..., None]
    wide = pixels.astype(np.int64)
    upper = wide[top, left] * (unit - share_x) + wide[top, right] * share_x
    lower = wide[low, left] * (unit - share_x) + wide[low, right] * share_x
    total = upper * (unit - share_y) + lower * share_y
    return ((total + unit * unit // 2) // (unit * unit)).astype(np.uint8)


def several(pixels: Pixels) -> Pixels:
    """Six heads of three sizes, some mirrored and tilted, on a plain background."""
    x1, y1, x2, y2 = HEAD
    head = pixels[y1:y2, x1:x2]
    canvas = np.full((520, 760, 3), (96, 104, 112), np.uint8)
    parts = [
        (head, 20, 30),
        (tilt(head), 250, 60),
        (head[:, ::-1], 500, 20),
        (shrink(head, 2), 60, 330),
        (tilt(shrink(head[:, ::-1], 2), clockwise=False), 300, 350),
        (shrink(head, 3), 560, 380),
    ]
    for part, left, top in parts:
        canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
    return canvas


def no_face(pixels: Pixels) -> Pixels:
    """A colour gradient of the same size, without a face."""
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    return np.stack([x // 2, y // 2, (x + y) // 4], axis=2).astype(np.uint8)


def dark(pixels: Pixels) -> Pixels:
    """Mirrored, at two fifths of the brightness."""
    return (pixels[:, ::-1].astype(np.int64) * 2 // 5).astype(np.uint8)


def sour(pixels: Pixels) -> Pixels:
    """With the mouth flipped upside down."""
    changed = pixels.copy()
    changed[137:165, 202:252] = changed[137:165, 202:252][::-1]
    return changed


def tight(pixels: Pixels) -> Pixels:
    """Only the face, which fills the image."""
    return pixels[70:185, 170:285].copy()


def wide(pixels: Pixels) -> Pixels:
    """Enlarged three times to 1536 x 1536 pixels, which the detector reduces first."""
    return pixels.repeat(3, axis=0).repeat(3, axis=1)


IMAGES: dict[str, Callable[[Pixels], Pixels]] = {
    "astronaut": lambda pixels: pixels,
    "half": lambda pixels: shrink(pixels, 2),
    "third": lambda pixels: shrink(pixels, 3),
    "tilted": tilt,
    "lying": lambda pixels: np.rot90(pixels).copy(),
    "dark": dark,
    "sour": sour,
    "tight": tight,
    "wide": wide,
    "several": several,
    "no_face": no_face,
}


if __name__ == "__main__":
    main()
