"""Takes BlazeFace short-range out of the MediaPipe wheel, converts it to ONNX and compares the two.

    python tools/blazeface.py [--wheel mediapipe-0.10.21-...whl] [--out src/mien/bundled/blazeface-short-range]

Needs `pip install onnx onnxruntime pillow ai-edge-litert`; the last one parses the TFLite file and runs the reference.
Without --wheel, `pip download` fetches the wheel. Nothing is written unless both files agree within 1e-3.

The ONNX file takes `image`, uint8 [N, H, W, 3] RGB, H and W multiples of 16 (the original: 128). It returns `boxes`,
float32 [N, A, 16]: for each anchor the offset of the box's centre, its width and height, and the offsets of six key
points, all in input pixels; and `scores`, float32 [N, A], 0..1. Scaling to [-1, 1] and the sigmoid are in the graph.
An operator or option that BlazeFace does not use ends the program: a silent loss would be worse.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mien._checksum import BLANK, KEY, fill_checksum

WHEEL = "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
MEMBER = "mediapipe/modules/face_detection/face_detection_short_range.tflite"
LICENSE_MEMBER = "mediapipe-0.10.21.dist-info/LICENSE"
TFLITE_SHA256 = "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel with pip; fixed tags, as the model is the same on every platform."""
    tags = ["--python-version=311", "--implementation=cp", "--abi=cp311", "--platform=manylinux_2_28_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", *tags]
    subprocess.run([*command, "--dest", str(folder), "mediapipe==0.10.21"], check=True)
    return folder / WHEEL


def read_wheel(wheel: Path) -> tuple[bytes, str]:
    """The TFLite file and the Apache licence's text; ends the program where the hash of the file is another one."""
    with zipfile.ZipFile(wheel) as archive:
        tflite = archive.read(MEMBER)
        licences = archive.read(LICENSE_MEMBER).decode()
    if hashlib.sha256(tflite).hexdigest() != TFLITE_SHA256:
        sys.exit(f"{wheel}: {MEMBER} is not the file this tool knows (sha256 {TFLITE_SHA256})")
    # The wheel appends the licence of one source file that is not used in this network.
    return tflite, licences.split("=" * 75)[0].rstrip() + "\n"


BLOCK = 16  # channels in one AVX-512 register
MISSING = "ai-edge-litert is not installed, so there is no reference to compare with; run: pip install ai-edge-litert"


@dataclass
class Graph:
    """The ONNX graph during the conversion; dictionaries are keyed by the index of the TFLite tensor."""

    constants: dict[int, NDArray[Any]]
    heads: set[int]  # results of the last convolutions, which keep their number of channels
    values: dict[int, str] = field(default_factory=dict)  # names of the ONNX values (NCHW)
    widths: dict[int, int] = field(default_factory=dict)  # channels of the ONNX values
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Append one node and return the name of its output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def keep(self, index: int, name: str, width: int) -> None:
        """Register the ONNX value of a tensor."""
        self.values[index], self.widths[index] = name, width

    def constant(self, array: NDArray[Any]) -> str:
        """Store a constant and return its name."""
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def convert(tflite: bytes) -> onnx.ModelProto:
    """Translate the TFLite network, operator by operator, from NHWC to NCHW."""
    model, names = load_tflite(tflite)
    source = model.subgraphs[0]
    shapes = [tuple(int(d) for d in tensor.shape) for tensor in source.tensors]
    # Old files such as this one set only the deprecated code.
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    kinds = [names[codes[operator.opcodeIndex]] for operator in source.operators]
    heads = {int(o.inputs[0]) for kind, o in zip(kinds, source.operators, strict=True) if kind == "RESHAPE"}
    graph = Graph(read_constants(model), heads)
    graph.keep(int(source.inputs[0]), add_input(graph), 3)
    for kind, operator in zip(kinds, source.operators, strict=True):
        if kind not in TRANSLATE:
            sys.exit(f"operator {kind} is not used in BlazeFace; this is another network")
        TRANSLATE[kind](graph, operator, shapes)
    boxes, logits = (graph.values[int(i)] for i in source.outputs)
    return finish(graph, boxes, logits)


def load_tflite(tflite: bytes) -> tuple[Any, dict[int, str]]:
    """The parsed flatbuffer, and the names of the operators by code."""
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        sys.exit(MISSING)
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    return schema.ModelT.InitFromPackedBuf(bytearray(tflite), 0), names


def read_constants(model: Any) -> dict[int, NDArray[Any]]:
    """The tensors with data in the file, by index: float32 (0), float16 (1) or int32 (2)."""
    kinds = {0: np.float32, 1: np.float16, 2: np.int32}
    found = {}
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data) > 0:
            found[index] = np.frombuffer(bytes(bytearray(data)), kinds[tensor.type]).reshape(tensor.shape)
    return found


def add_input(graph: Graph) -> str:
    """uint8 NHWC -> float32 NCHW in [-1, 1], as in MediaPipe."""
    planes = graph.add("Transpose", ["image"], perm=[0, 3, 1, 2])
    real = graph.add("Cast", [planes], to=TensorProto.FLOAT)
    scaled = graph.add("Mul", [real, graph.constant(np.float32(2 / 255))])
    return graph.add("Sub", [scaled, graph.constant(np.float32(1))])


def add_dequantize(graph: Graph, operator: Any, _shapes: list[tuple[int, ...]]) -> None:
    """DEQUANTIZE: convert the float16 weights to float32 once instead of at every call."""
    graph.constants[int(operator.outputs[0])] = graph.constants[int(operator.inputs[0])].astype(np.float32)


def add_convolution(graph: Graph, operator: Any, shapes: list[tuple[int, ...]]) -> None:
    """CONV_2D (kernel OHWI) and DEPTHWISE_CONV_2D (kernel 1HWC), widened to whole blocks of channels."""
    image, kernel, bias = (int(i) for i in operator.inputs)
    result = int(operator.outputs[0])
    options = operator.builtinOptions
    plain_options(options, "dilationWFactor", "dilationHFactor")
    depthwise = hasattr(options, "depthMultiplier")
    weights = graph.constants[kernel].transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
    geometry = window(options, shapes[image], shapes[result], weights.shape[2:])
    inside = 1 if depthwise else graph.widths[image]
    outside = weights.shape[0] if result in graph.heads else whole_blocks(weights.shape[0])
    weights, offsets = (with_zeros(w, outside, inside) for w in (weights, graph.constants[bias]))
    inputs = [graph.values[image], graph.constant(weights), graph.constant(offsets)]
    name = graph.add("Conv", inputs, group=outside if depthwise else 1, **geometry)
    graph.keep(result, name, outside)


def whole_blocks(channels: int) -> int:
    """The next multiple of a block.

    Zero channels change no result. They avoid conversions between the blocked layout of ONNX Runtime's kernels and the
    plain layout of Pad, which took a third of the time.
    """
    return -(-channels // BLOCK) * BLOCK


def with_zeros(weights: NDArray[Any], outside: int, inside: int) -> NDArray[Any]:
    """Weights [O, I, h, w] or offsets [O], padded with zeros to the given numbers of channels."""
    missing = [outside - weights.shape[0], *([inside - weights.shape[1]] if weights.ndim > 1 else [])]
    return np.pad(weights, [(0, m) for m in missing] + [(0, 0)] * (weights.ndim - len(missing)))


def add_pooling(graph: Graph, operator: Any, shapes: list[tuple[int, ...]]) -> None:
    """MAX_POOL_2D."""
    image, result = int(operator.inputs[0]), int(operator.outputs[0])
    options = operator.builtinOptions
    geometry = window(options, shapes[image], shapes[result], (options.filterHeight, options.filterWidth))
    graph.keep(result, graph.add("MaxPool", [graph.values[image]], **geometry), graph.widths[image])


def window(
    options: Any, before: tuple[int, ...], after: tuple[int, ...], kernel: tuple[int, ...]
) -> dict[str, list[int]]:
    """Kernel, strides and pads. Pads follow from the shapes: none for VALID; for SAME an odd pixel goes to the end."""
    plain_options(options)
    strides = [options.strideH, options.strideW]
    total = [max((after[1 + i] - 1) * strides[i] + kernel[i] - before[1 + i], 0) for i in (0, 1)]
    begin = [t // 2 for t in total]
    return {
        "kernel_shape": [int(k) for k in kernel],
        "strides": strides,
        "pads": begin + [t - b for t, b in zip(total, begin, strict=True)],
    }


def plain_options(options: Any, *ones: str) -> None:
    """End the program at a fused activation or a dilation, which BlazeFace does not have."""
    activation = getattr(options, "fusedActivationFunction", 0)  # an operator may come without options at all
    if activation != 0 or any(getattr(options, name) != 1 for name in ones):
        sys.exit("an operator with a fused activation or a dilation; this is another network")


def add_sum(graph: Graph, operator: Any, _shapes: list[tuple[int, ...]]) -> None:
    """ADD."""
    plain_options(operator.builtinOptions)
    first, second = (int(i) for i in operator.inputs)
    name = graph.add("Add", [graph.values[first], graph.values[second]])
    graph.keep(int(operator.outputs[0]), name, graph.widths[first])


def add_relu(graph: Graph, operator: Any, _shapes: list[tuple[int, ...]]) -> None:
    """RELU."""
    image = int(operator.inputs[0])
    graph.keep(int(operator.outputs[0]), graph.add("Relu", [graph.values[image]]), graph.widths[image])


def add_padding(graph: Graph, operator: Any, shapes: list[tuple[int, ...]]) -> None:
    """PAD: a shortcut gets more channels, filled with zeros.

    The last block often has them already. Otherwise a convolution that copies the channels keeps the blocked layout.
    """
    image, pads = (int(i) for i in operator.inputs)
    if graph.constants[pads][:3].any() or graph.constants[pads][3, 0] != 0:
        sys.exit("only channels after the last are padded in BlazeFace; this is another network")
    result = int(operator.outputs[0])
    before, after = graph.widths[image], whole_blocks(shapes[result][3])
    name = graph.values[image]
    if after != before:
        copy = np.eye(after, before, dtype=np.float32)[:, :, None, None]
        name = graph.add("Conv", [name, graph.constant(copy)], kernel_shape=[1, 1])
    graph.keep(result, name, after)


def add_reshape(graph: Graph, operator: Any, shapes: list[tuple[int, ...]]) -> None:
    """RESHAPE of a head: the anchors of one cell are adjacent, so the channels are moved to the end first."""
    result = int(operator.outputs[0])
    last = graph.add("Transpose", [graph.values[int(operator.inputs[0])]], perm=[0, 2, 3, 1])
    size = graph.constant(np.array([0, -1, shapes[result][2]], np.int64))
    graph.values[result] = graph.add("Reshape", [last, size])


def add_concatenation(graph: Graph, operator: Any, _shapes: list[tuple[int, ...]]) -> None:
    """CONCATENATION of the heads' anchors."""
    plain_options(operator.builtinOptions)
    if operator.builtinOptions.axis != 1:
        sys.exit("the heads are not joined along the anchors; this is another network")
    inputs = [graph.values[int(i)] for i in operator.inputs]
    graph.values[int(operator.outputs[0])] = graph.add("Concat", inputs, axis=1)


TRANSLATE = {
    "DEQUANTIZE": add_dequantize,
    "CONV_2D": add_convolution,
    "DEPTHWISE_CONV_2D": add_convolution,
    "MAX_POOL_2D": add_pooling,
    "ADD": add_sum,
    "RELU": add_relu,
    "PAD": add_padding,
    "RESHAPE": add_reshape,
    "CONCATENATION": add_concatenation,
}


def finish(graph: Graph, boxes: str, logits: str) -> onnx.ModelProto:
    """Name the outputs, declare the shapes, check the model."""
    flat = graph.add("Squeeze", [logits, graph.constant(np.array([2], np.int64))])
    graph.nodes.append(helper.make_node("Sigmoid", [flat], ["scores"], name="scores"))
    graph.nodes.append(helper.make_node("Identity", [boxes], ["boxes"], name="boxes"))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 3])
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", "A", 16]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", "A"]),
    ]
    body = helper.make_graph(graph.nodes, "blazeface-short-range", [image], outputs, graph.weights)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], producer_name="mien")
    model.ir_version = 8
    notes = {
        "name": "blazeface-short-range",
        "licence": "Apache-2.0",
        "origin": f"mediapipe==0.10.21, {MEMBER}",
        "origin_sha256": TFLITE_SHA256,
        KEY: BLANK,  # the last one
    }
    helper.set_model_props(model, notes)
    onnx.checker.check_model(model, full_check=True)
    return model


ROOT = Path(__file__).resolve().parent.parent
SIDE = 128  # pixels of the square input


def compare(tflite: bytes, model: onnx.ModelProto) -> dict[str, float]:
    """Largest differences between both files on a photograph, its flips and crops, and random images, in one batch."""
    import onnxruntime as ort

    images = sample_images()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    boxes, scores = session.run(["boxes", "scores"], {"image": images})
    expected_boxes, expected_logits = run_tflite(tflite, images)
    expected_scores = 1 / (1 + np.exp(-np.clip(expected_logits.astype(np.float64), -100, 100)))
    # A black image has offsets up to 11,898 px, where float32 has a resolution of 1e-3. So differences are relative to
    # the largest offset of the image where that is larger than the input.
    unit = np.maximum(1, np.abs(expected_boxes).max(axis=(1, 2), keepdims=True) / SIDE)
    # Where the float32 sigmoid saturates, the logit cannot be recovered from it.
    clear = np.abs(expected_logits) < 8
    logits = np.log(scores[clear].astype(np.float64)) - np.log1p(-scores[clear].astype(np.float64))
    return {
        "boxes (input pixels)": float((np.abs(boxes - expected_boxes) / unit).max()),
        "scores (probability)": float(np.abs(scores - expected_scores).max()),
        "logits within +-8": float(np.abs(logits - expected_logits[clear]).max()),
    }


def sample_images() -> NDArray[np.uint8]:
    """uint8 [N, 128, 128, 3]: the example photograph, crops of it, their mirror images, and three kinds of noise."""
    from PIL import Image

    with Image.open(ROOT / "examples" / "astronaut.png") as opened:
        photograph = opened.convert("RGB")
    areas = [(0, 0, 512, 512), (100, 0, 356, 256), (150, 30, 310, 190), (0, 256, 256, 512), (180, 60, 260, 140)]
    photographs = [np.asarray(photograph.resize((SIDE, SIDE), Image.Resampling.BOX, box=area)) for area in areas]
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
    for pixels in images:
        interpreter.set_tensor(image, (pixels[None].astype(np.float32) - 127.5) / 127.5)
        interpreter.invoke()
        boxes, logits = (interpreter.get_tensor(outputs[n])[0] for n in ("regressors", "classificators"))
        results.append((boxes.copy(), logits[:, 0].copy()))
    return np.stack([r[0] for r in results]), np.stack([r[1] for r in results])


OUT = ROOT / "src" / "mien" / "bundled" / "blazeface-short-range"
TOLERANCE = 1e-3  # input pixels for boxes, probability for scores, log-odds for logits


def main() -> None:
    """Download, convert, compare, write."""
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
    data = fill_checksum(model.SerializeToString())
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

Changed by the mien authors: translated from TFLite to ONNX by tools/blazeface.py. The weights were widened from
float16 to float32, and channels that are always zero were added so that each layer fills whole vector registers. Added
to the graph: conversion of uint8 pixels to [-1, 1] before the first convolution, the sigmoid after the classifier, and
free sizes of batch and image. Anchors, decoding and suppression are mien's.
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
| made by | `python tools/blazeface.py` |

## Equality with the original
Measured by the tool against the TFLite interpreter on 128x128 images: a photograph, its mirror image and crops, noise,
flat grey, black and white. Boxes: in pixels, or relative to the largest offset of the image where that is above 128.

{{equality}}

## What it can and cannot do
- It was made for selfies. In its input it sees faces wider than some 16 pixels, which is why mien searches larger
  images at several scales.
- Upright faces up to some 45 degrees of roll and half profile. Profiles, faces upside down and faces behind masks
  are missed more often.
- Hands, medals and folds of cloth are sometimes detected as faces, with scores up to about 0.8.
- It locates faces and does not identify people. Its errors by age, skin tone or gender were not measured here.
"""


if __name__ == "__main__":
    main()
