"""Holds the ONNX file of BlazeFace against the TFLite file it was made from: both answer the same pictures."""

import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from blazeface_graph import MISSING

ROOT = Path(__file__).resolve().parent.parent
SIDE = 128  # pixels of the square input


def compare(tflite: bytes, model: onnx.ModelProto) -> dict[str, float]:
    """Largest differences over a photograph, its flips and crops, and random pictures, each as one of a batch."""
    import onnxruntime as ort

    images = sample_images()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    boxes, scores = session.run(["boxes", "scores"], {"image": images})
    expected_boxes, expected_logits = run_tflite(tflite, images)
    expected_scores = 1 / (1 + np.exp(-np.clip(expected_logits.astype(np.float64), -100, 100)))
    # A black picture drives offsets to 11,898 px, where float32 itself is 1e-3 coarse: what counts is the difference in
    # shares of the picture's largest offset where that is larger than the input.
    unit = np.maximum(1, np.abs(expected_boxes).max(axis=(1, 2), keepdims=True) / SIDE)
    # Where the float32 sigmoid saturates the logit cannot be got back from it.
    clear = np.abs(expected_logits) < 8
    logits = np.log(scores[clear].astype(np.float64)) - np.log1p(-scores[clear].astype(np.float64))
    return {
        "boxes (input pixels)": float((np.abs(boxes - expected_boxes) / unit).max()),
        "scores (probability)": float(np.abs(scores - expected_scores).max()),
        "logits within +-8": float(np.abs(logits - expected_logits[clear]).max()),
    }


def sample_images() -> NDArray[np.uint8]:
    """uint8 [N, 128, 128, 3]: the example photograph whole, mirrored and in pieces, and noise of three kinds."""
    from PIL import Image

    with Image.open(ROOT / "examples" / "astronaut.png") as opened:
        picture = opened.convert("RGB")
    areas = [(0, 0, 512, 512), (100, 0, 356, 256), (150, 30, 310, 190), (0, 256, 256, 512), (180, 60, 260, 140)]
    photographs = [np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX, box=area)) for area in areas]
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8) for _ in range(4)]
    smooth = [np.asarray(Image.fromarray(n[:8, :8]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for n in noise]
    flat = [np.full((SIDE, SIDE, 3), shade, np.uint8) for shade in (0, 128, 255)]
    return np.stack([*photographs, *(p[:, ::-1] for p in photographs), *noise, *smooth, *flat])


def run_tflite(tflite: bytes, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The reference: regressors [N, 896, 16] and logits [N, 896] of the original file."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        sys.exit(MISSING)
    interpreter = Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    image = interpreter.get_input_details()[0]["index"]
    outputs = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}
    results: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
    for picture in images:
        interpreter.set_tensor(image, (picture[None].astype(np.float32) - 127.5) / 127.5)
        interpreter.invoke()
        boxes, logits = (interpreter.get_tensor(outputs[n])[0] for n in ("regressors", "classificators"))
        results.append((boxes.copy(), logits[:, 0].copy()))
    return np.stack([r[0] for r in results]), np.stack([r[1] for r in results])
