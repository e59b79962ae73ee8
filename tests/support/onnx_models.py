"""Small ONNX files that follow the model contract, or break it in one chosen place."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mien._emotions import SEVEN
from mien._framing import FER2013

TEMPERATURE = 1.5


def write_model(
    path: Path,
    *,
    size: int = 48,
    classes: int = len(SEVEN),
    input_type: int = TensorProto.UINT8,
    input_name: str = "crops",
    probs_name: str = "probs",
    batch: int | str = "n",
    softmax: bool = True,
    maps_output: bool = True,
    declared_classes: int | None = None,
    extra_input: bool = False,
    metadata: dict[str, str | None] | None = None,
) -> Path:
    """Write a classifier with seeded random weights to ``path``. ``metadata`` changes entries, ``None`` removes one."""
    graph = _graph(
        size, classes, input_name, probs_name, softmax, input_type, batch, maps_output, declared_classes, extra_input
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    said = {**_metadata(size), **(metadata or {})}
    helper.set_model_props(model, {key: value for key, value in said.items() if value is not None})
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def _metadata(size: int) -> dict[str, str | None]:
    return {
        "mien_contract": "1",
        "name": "tiny",
        "emotions": json.dumps([str(e) for e in SEVEN]),
        "size": str(size),
        "framing": FER2013.to_json(),
        "precision": "fp32",
        "recipe": "tests/support/onnx_models.py",
        "commit": "none",
        "data_sha256": "none",
        "accuracy": "{}",
        "licence": "Apache-2.0",
    }


def _graph(
    size: int,
    classes: int,
    input_name: str,
    probs_name: str,
    softmax: bool,
    input_type: int,
    batch: int | str,
    maps_output: bool,
    declared_classes: int | None,
    extra_input: bool,
) -> onnx.GraphProto:
    generator = np.random.default_rng(7)
    weights = {
        "axes": np.array([1], np.int64),
        "scale": np.array(1 / 255, np.float32),
        "features": generator.normal(0, 0.2, (4, 1, 8, 8)).astype(np.float32),
        "head": generator.normal(0, 1.0, (classes, 4, 1, 1)).astype(np.float32),
        "temperature": np.array(TEMPERATURE, np.float32),
    }
    nodes = [
        helper.make_node("Cast", [input_name], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "axes"], ["image"]),
        helper.make_node("Mul", ["image", "scale"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "features"], ["edges"], strides=[8, 8]),
        helper.make_node("Relu", ["edges"], ["features_out"]),
        helper.make_node("Conv", ["features_out", "head"], ["maps"]),
        helper.make_node("ReduceMean", ["maps"], ["logits"], axes=[2, 3], keepdims=0),
        helper.make_node("Div", ["logits", "temperature"], ["tempered"]),
        helper.make_node("Softmax" if softmax else "Identity", ["tempered"], [probs_name]),
    ]
    side = size // 8
    inputs = [helper.make_tensor_value_info(input_name, input_type, [batch, size, size])]
    if extra_input:
        inputs.append(helper.make_tensor_value_info("mood", TensorProto.FLOAT, [1]))
    outputs = [helper.make_tensor_value_info(probs_name, TensorProto.FLOAT, [batch, declared_classes or classes])]
    if maps_output:
        outputs.append(helper.make_tensor_value_info("maps", TensorProto.FLOAT, [batch, classes, side, side]))
    return helper.make_graph(
        nodes, "tiny", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in weights.items()]
    )
