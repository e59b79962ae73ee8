"""An fp32 file at half its size: its weights are stored in half precision, and cast when the file is opened."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Smaller tensors, as biases and constants, stay as they are: they weigh nothing.
LARGE = 1024


def store_half(path: Path) -> None:
    """Store the large fp32 weights of the ONNX file ``path`` as fp16, each with a cast back to fp32.

    The arithmetic stays fp32: ONNX Runtime casts the weights once, when it opens the file. Each keeps 11 significant
    bits, so it is rounded by at most 1 part in 2048; below 6e-5 the steps are 6e-8. Weights beyond the range of fp16
    stay in fp32.
    """
    model = onnx.load(path)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < LARGE:
            continue
        values = numpy_helper.to_array(weight)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name, stored = weight.name, f"{weight.name}.half"
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
