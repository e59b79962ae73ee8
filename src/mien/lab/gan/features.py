"""What `mien-0` sees in a face: its probabilities and its pooled features, from the embedded file alone.

The features are no output of the contract. The maps are made by a convolution over them, so the graph is opened, the
input of that convolution averaged over the face and named as one output more. No torch weights are needed.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor

from mien._emotions import Emotion
from mien._errors import ModelError
from mien.bundled import BUNDLED
from mien.infer import PRECISIONS, Classifier
from mien.lab.data import FaceSet
from mien.lab.judge.judge import crops_of

# The model that judges, in fp32, so that rounding blurs no distance.
JUDGE = BUNDLED / "mien-0" / PRECISIONS["fp32"]
# Faces read at once.
CHUNK = 64


class Seen(NamedTuple):
    """``probs`` float32 ``[N, C]`` in the order of ``Eye.emotions``; ``features`` float32 ``[N, D]``."""

    probs: Tensor
    features: Tensor


class Eye:
    """A classifier of the contract, opened to its features. ``emotions`` are its classes, ``name`` is its name."""

    def __init__(self, path: Path = JUDGE, *, threads: int = 1) -> None:
        """Raises ``ModelError`` for a file that breaks the contract, or whose maps are no convolution of features."""
        classifier = Classifier(path)
        self.name, self.size = classifier.name, classifier.size
        self.emotions: tuple[Emotion, ...] = classifier.emotions
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        graph = _with_features(onnx.load(path), path).SerializeToString()
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, faces: FaceSet) -> Seen:
        """Look at ``faces``, on the CPU."""
        crops: NDArray[np.uint8] = crops_of(faces, self.size)
        parts = [self._run(crops[i : i + CHUNK]) for i in range(0, len(crops), CHUNK)]
        probs, features = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Seen(torch.from_numpy(probs), torch.from_numpy(features))

    def _run(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        probs, features = self._session.run(["probs", "features"], {"crops": np.ascontiguousarray(crops)})
        return probs, features


def _with_features(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """``model`` with the output ``features`` ``[N, D]``: what its maps are made of, averaged over the places."""
    graph = model.graph
    makers = [node for node in graph.node if "maps" in node.output and node.op_type == "Conv"]
    if not makers:
        raise ModelError(f"{path}: its maps are not made by a convolution, so it has no features to compare faces by")
    axes = helper.make_tensor("mien_axes", onnx.TensorProto.INT64, [2], [2, 3])
    graph.initializer.append(axes)
    graph.node.append(helper.make_node("ReduceMean", [makers[0].input[0], "mien_axes"], ["features"], keepdims=0))
    graph.output.append(helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, None))
    return model
