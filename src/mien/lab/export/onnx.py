"""Export of a net to ONNX files that mien reads: calibrated fp32, int8 and half-precision weights, with metadata."""

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mien._checksum import BLANK, KEY
from mien._emotions import Emotion
from mien._errors import ModelError
from mien._framing import Framing
from mien.infer import CONTRACT, Classifier
from mien.lab.export.calibrate import Calibration
from mien.lab.files import save_bytes
from mien.lab.inference import MEAN, STD
from mien.lab.nets._layers import Branched, Net, PooledHead
from mien.lab.nets._pullback import pull

LARGE = 4096  # values; smaller tensors, such as biases and constants, are not stored in half precision
PARITY = 1e-4  # largest difference of a probability between torch and the fp32 file
FEATURES = "features"  # name of the value between the two halves of the net
CALIBRATION_FACES = 1024  # faces of the training set on which the int8 ranges are measured


class Contract(nn.Module):
    """A calibrated net with the inputs and outputs of the exported file.

    ``forward(crops uint8 [N, S, S]) -> (probs float32 [N, C], maps float32 [N, C, h, w])``. The features are those of
    the net with folded batch norms. The head computes probabilities and maps.

    Args:
        net: A net with the two halves ``features`` and ``head``.
        calibration: The calibration of its logits.

    Raises:
        ModelError: If the net has no such halves; in the first call, if the gradient of its head is unknown.
    """

    def __init__(self, net: nn.Module, calibration: Calibration) -> None:
        super().__init__()
        if not isinstance(net, Net):
            raise ModelError("only nets of two halves, features and head, can be exported: see mien.lab.nets")
        head = net.head
        self.features = fold_norms(net.features)
        self.head = PooledMaps(head, calibration) if isinstance(head, PooledHead) else HeadMaps(head, calibration)
        self.scale, self.offset = 1 / (255 * STD), MEAN / STD
        self.eval().requires_grad_(False)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Predict faces.

        Args:
            crops: Grey faces, uint8 ``[N, S, S]``.

        Returns:
            Probabilities ``[N, C]``, and maps ``[N, C, h, w]``: logits by place, whose mean is the calibrated logit.
        """
        probs, maps = self.head(self.compute_features(crops))
        return probs, maps

    def compute_features(self, crops: Tensor) -> Tensor:
        """Compute the features of faces.

        Args:
            crops: Grey faces, uint8 ``[N, S, S]``.

        Returns:
            ``[N, K, h, w]``.
        """
        features: Tensor = self.features(crops.unsqueeze(1).float() * self.scale - self.offset)
        return features


class PooledMaps(nn.Module):
    """A pooled linear head that also returns class activation maps (CAM; Zhou et al., CVPR 2016).

    The linear layer is applied at every place of the features instead of to their mean. Both orders give the same
    logits, because pooling and the linear layer commute. The linear calibration becomes part of that layer.

    Args:
        head: The head.
        calibration: The calibration of its logits.
    """

    def __init__(self, head: PooledHead, calibration: Calibration) -> None:
        super().__init__()
        linear = head.linear
        self.maps = nn.Conv2d(linear.in_features, linear.out_features, 1)
        with torch.no_grad():
            scale, offset = torch.tensor(calibration.scale), torch.tensor(calibration.offset)
            self.maps.weight.copy_((linear.weight * scale[:, None])[:, :, None, None])
            self.maps.bias.copy_(linear.bias * scale + offset)  # type: ignore[union-attr]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute probabilities and maps.

        Args:
            features: ``[N, K, h, w]``.

        Returns:
            Probabilities ``[N, C]`` and maps ``[N, C, h, w]``.
        """
        maps = self.maps(features)
        return torch.softmax(maps.mean(dim=(2, 3)), dim=1), maps


class HeadMaps(nn.Module):
    """Any other head with HiResCAM maps (Draelos & Carin, arXiv:2011.08891): gradient times activation over channels.

    The part of the logit that this sum does not explain (for linear layers and rectifiers: the biases, as far as they
    are passed on) has no place; it is distributed evenly. For a pooled linear head these are the maps of
    ``PooledMaps``.

    Args:
        head: The head.
        calibration: The calibration of its logits.
    """

    def __init__(self, head: nn.Module, calibration: Calibration) -> None:
        super().__init__()
        self.head = copy.deepcopy(head).eval()
        self.register_buffer("scale", torch.tensor(calibration.scale))
        self.register_buffer("offset", torch.tensor(calibration.offset))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Compute probabilities and maps.

        Args:
            features: ``[N, K, h, w]``.

        Returns:
            Probabilities ``[N, C]`` and maps ``[N, C, h, w]``.
        """
        maps = hires_maps(self.head, features)
        scale, offset = self.get_buffer("scale"), self.get_buffer("offset")
        maps = maps * scale[:, None, None] + offset[:, None, None]
        return torch.softmax(maps.mean(dim=(2, 3)), dim=1), maps


def hires_maps(head: nn.Module, features: Tensor) -> Tensor:
    """Compute the HiResCAM map of every class.

    Args:
        head: The head of a net.
        features: ``[N, K, h, w]``.

    Returns:
        ``[N, C, h, w]``; the mean of a map is the logit of its class.

    Raises:
        ModelError: If the gradient of the head is unknown.
    """
    logits, back = pull(head, features)
    n, classes = logits.shape
    one_each = torch.eye(classes, dtype=logits.dtype, device=logits.device).expand(n, classes, classes)
    places = features.shape[2] * features.shape[3]
    maps = places * torch.einsum("nckhw,nkhw->nchw", back(one_each), features)
    return maps + (logits - maps.mean(dim=(2, 3)))[:, :, None, None]


def fold_norms(module: nn.Module) -> nn.Module:
    """Fold batch norms into the convolutions before them, and branched convolutions into single ones.

    Args:
        module: Any module.

    Returns:
        A copy in eval mode, with the same outputs and fewer layers.
    """
    folded = copy.deepcopy(module).eval()
    for parent in list(folded.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Branched):
                setattr(parent, name, child.fused())
        if isinstance(parent, nn.Sequential):
            for i, (first, second) in enumerate(pairwise(list(parent))):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    parent[i], parent[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return folded


def store_half(path: Path) -> None:
    """Store the large fp32 weights of an ONNX file as fp16.

    The arithmetic is still fp32: ONNX Runtime computes the weights once, when it opens the file. Each weight has 11
    significant bits, so it is rounded by at most 1 part in 2048; below 6e-5 the steps are 6e-8. Weights beyond the
    range of fp16 are not changed.

    The high and the low bytes are stored apart, as archives compress them better so: all values with one high byte have
    equal steps, thus each is the first of them plus the low byte times the step.

    Args:
        path: The ONNX file, which is replaced.
    """
    model = onnx.load(path)
    high = np.arange(256, dtype=np.uint16) << 8
    with np.errstate(invalid="ignore"):  # infinity is no weight
        first = high.view(np.float16).astype(np.float32)
        step = (high + 1).view(np.float16).astype(np.float32) - first
    stored = [numpy_helper.from_array(first, "half.first"), numpy_helper.from_array(step, "half.step")]
    nodes = []
    for weight in list(model.graph.initializer):
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < LARGE:
            continue
        values = numpy_helper.to_array(weight)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name, halves = weight.name, values.astype("<f2").view(np.uint8).reshape(*values.shape, 2)
        model.graph.initializer.remove(weight)
        for i, part in enumerate(("low", "high")):
            stored.append(numpy_helper.from_array(halves[..., i].copy(), f"{name}.{part}"))
        nodes += [
            helper.make_node("Cast", [f"{name}.high"], [f"{name}.index"], to=TensorProto.INT32),
            helper.make_node("Gather", ["half.first", f"{name}.index"], [f"{name}.first"]),
            helper.make_node("Gather", ["half.step", f"{name}.index"], [f"{name}.step"]),
            helper.make_node("Cast", [f"{name}.low"], [f"{name}.count"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.count", f"{name}.step"], [f"{name}.rest"]),
            helper.make_node("Add", [f"{name}.first", f"{name}.rest"], [name]),
        ]
    model.graph.initializer.extend(stored)
    for node in reversed(nodes):
        model.graph.node.insert(0, node)
    write_metadata(model, path, read_metadata(model))


def export_fp32(
    net: nn.Module, path: Path, *, size: int, calibration: Calibration, metadata: Mapping[str, str]
) -> None:
    """Write a net as an fp32 ONNX file that mien reads.

    Args:
        net: The net.
        path: The file.
        size: Side of its crops in pixels.
        calibration: The calibration of its logits.
        metadata: What ``contract_metadata`` returns.

    Raises:
        ModelError: If a probability of the file differs from that of torch by more than ``PARITY``, or depends on the
            other faces of the batch.
    """
    module = Contract(copy.deepcopy(net).cpu(), calibration)  # the net stays on its device
    with _quiet():
        program = torch.onnx.export(
            _ContractWithFeatures(module),
            (torch.zeros(2, size, size, dtype=torch.uint8),),
            input_names=["crops"],
            output_names=["probs", "maps", FEATURES],
            dynamic_shapes={"crops": {0: torch.export.Dim("n", min=1)}},
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.graph.output.pop()  # the features have a name now, but are no output of the file
    write_metadata(model, path, {**metadata, "precision": "fp32"})
    _check_parity(module, path, size)


def export_int8(fp32: Path, path: Path, faces: NDArray[np.uint8]) -> None:
    """Quantise an fp32 file statically to int8, per channel.

    Everything after the features, which is probabilities and maps, keeps fp32 arithmetic: rounding costs most
    accuracy there and, except for the widest dense heads, int8 saves least time.

    Args:
        fp32: The file to quantise.
        path: The file to write.
        faces: Faces on which the ranges are measured, uint8 ``[N, S, S]``.

    Raises:
        ModelError: If the file has no value that is named ``features``.
    """
    model = onnx.load(fp32)
    with _quiet():
        quantize_static(
            str(fp32),
            str(path),
            _Faces(faces),
            quant_format=QuantFormat.QDQ,
            # ONNX Runtime drops a Relu or Clip that it knows, and rounds the values after it instead of those before.
            op_types_to_quantize=["Conv", "Add", "Relu", "Clip"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # The mean range of small batches. The range of all faces follows a few extreme values, and its steps are so
            # coarse that a shift of a twentieth of a pixel changes answers.
            extra_options={"CalibMovingAverage": True, "TensorQuantOverrides": _known_ranges(model.graph)},
            nodes_to_exclude=_nodes_after(model.graph, FEATURES),
        )
    write_metadata(onnx.load(path), path, {**read_metadata(model), "precision": "int8"})


def contract_metadata(
    name: str,
    emotions: tuple[Emotion, ...],
    size: int,
    framing: Framing,
    recipe: str,
    provenance: Mapping[str, str],
    *,
    family: str = "",
) -> dict[str, str]:
    """Return the metadata of an exported file, without its precision and metrics.

    Args:
        name: Name of the model.
        emotions: Its classes.
        size: Side of its crops in pixels.
        framing: Where eyes, nose and mouth are in its crops.
        recipe: Name of its recipe.
        provenance: ``commit`` and ``data_sha256`` of its training.
        family: Its family in the ledger of PrivateTest; empty leaves the key out.

    Returns:
        Key -> value.
    """
    return ({"family": family} if family else {}) | {
        "mien_contract": CONTRACT,
        "name": name,
        "emotions": json.dumps([str(e) for e in emotions]),
        "size": str(size),
        "framing": framing.to_json(),
        "recipe": recipe,
        "commit": provenance["commit"],
        "data_sha256": provenance["data_sha256"],
        "accuracy": "{}",
        "licence": "Apache-2.0",
    }


def read_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Return the metadata of an ONNX model without its checksum.

    Args:
        model: The model.

    Returns:
        Key -> value.
    """
    return {entry.key: entry.value for entry in model.metadata_props if entry.key != KEY}


def write_metadata(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Write an ONNX model with new metadata and a checksum, and without what differs between two exports.

    Args:
        model: The model.
        path: The file.
        metadata: Key -> value.

    Raises:
        OutputError: If the file cannot be written.
    """
    graph = model.graph
    del model.metadata_props[:]
    for node in chain(graph.node, graph.input, graph.output, graph.value_info, graph.initializer):
        del node.metadata_props[:]
        node.doc_string = ""
    for key, value in (*sorted(metadata.items()), (KEY, BLANK)):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    save_bytes(path, model.SerializeToString())


class _ContractWithFeatures(nn.Module):
    """Also returns the features, so that they have a name in the file."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.contract = contract

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.contract.compute_features(crops)
        return *self.contract.head(features), features


def _nodes_after(graph: onnx.GraphProto, value: str) -> list[str]:
    """The names of the nodes that depend on ``value``."""
    reached, names = {value}, []
    for node in graph.node:  # in the order of an ONNX graph, the inputs of a node are computed before it
        if reached & set(node.input):
            reached |= set(node.output)
            names.append(node.name)
    if not names:
        raise ModelError(f"the file has no value {value!r}; export it again")
    return names


def _known_ranges(graph: onnx.GraphProto) -> dict[str, list[dict[str, NDArray[np.float32]]]]:
    """The ranges of values, or one end of them, that do not need calibration.

    Each of the normalised grey levels 0..255 has an int8 step of its own. Hard swish is 0 below -3, so no steps are
    spent there.
    """
    normalised = next(node.output[0] for node in graph.node if node.op_type == "Sub")
    low, high = (np.array((grey - MEAN) / STD, np.float32) for grey in (0, 1))
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for value in node.input:
            readers.setdefault(value, set()).add(node.op_type)
    swished = [value for value, types in readers.items() if types == {"HardSwish"}]
    return {normalised: [{"rmin": low, "rmax": high}]} | {v: [{"rmin": np.array(-3, np.float32)}] for v in swished}


class _Faces(CalibrationDataReader):  # type: ignore[misc]
    """Faces in batches, for the calibrator of ONNX Runtime."""

    def __init__(self, faces: NDArray[np.uint8]) -> None:
        self.batches = iter([faces[i : i + 32] for i in range(0, len(faces), 32)])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"crops": batch}


def _check_parity(module: Contract, path: Path, size: int) -> None:
    crops = torch.randint(0, 256, (64, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    classifier = Classifier(path)
    together = classifier(crops.numpy())[0]
    alone = np.concatenate([classifier(crop[None])[0] for crop in crops.numpy()])
    for what, probs in {"torch": module(crops)[0].numpy(), "its batch of one": alone}.items():
        difference = abs(together - probs).max()
        if not difference <= PARITY:
            raise ModelError(
                f"{path}: probabilities differ from {what} by {difference:.2g}, more than {PARITY:g}; not exported"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings of the exporters about their own code and about packages that mien does not use."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
