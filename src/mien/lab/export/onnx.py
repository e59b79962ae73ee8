"""From a finished run to files of the contract: fp32 and int8, with everything they must say written into them."""

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mien._emotions import Emotion
from mien._errors import ModelError
from mien._framing import Framing
from mien.infer import CONTRACT, Classifier
from mien.lab.export.calibrate import Calibration
from mien.lab.inference import MEAN, STD
from mien.lab.nets._layers import Branched, Net, PooledHead
from mien.lab.nets._pullback import pull


class Contract(nn.Module):
    """``forward(crops uint8 [N, S, S]) -> (probs float32 [N, C], maps float32 [N, C, h, w])``.

    ``features`` are those of the net, without batch norms; ``answers`` is its head, which gives probabilities and maps.
    Raises ``ModelError`` for a net that is no ``Net``, and at the first call for a head whose gradient is unknown.
    """

    def __init__(self, net: nn.Module, calibration: Calibration) -> None:
        super().__init__()
        if not isinstance(net, Net):
            raise ModelError("only nets of two halves, features and head, can be exported: see mien.lab.nets")
        head = net.head
        self.features = fold_norms(net.features)
        self.answers = PooledMaps(head, calibration) if isinstance(head, PooledHead) else HeadMaps(head, calibration)
        self.scale, self.offset = 1 / (255 * STD), MEAN / STD
        self.eval().requires_grad_(False)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """``probs`` sum to 1 over C; ``maps`` are logits by place, whose mean is the calibrated logit."""
        probs, maps = self.answers(self.see(crops))
        return probs, maps

    def see(self, crops: Tensor) -> Tensor:
        """The features ``[N, K, h, w]``."""
        features: Tensor = self.features(crops.unsqueeze(1).float() * self.scale - self.offset)
        return features


class PooledMaps(nn.Module):
    """The pooled linear head: class activation maps (Zhou et al., CVPR 2016).

    The linear layer is applied at every place of the features instead of to their mean; both orders give the same
    logits, since pooling and the linear layer commute. The calibration is linear, too, and becomes part of that layer.
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
        """Probabilities ``[N, C]`` and maps ``[N, C, h, w]`` of features ``[N, K, h, w]``."""
        maps = self.maps(features)
        return torch.softmax(maps.mean(dim=(2, 3)), dim=1), maps


class HeadMaps(nn.Module):
    """Any other head: HiResCAM (Draelos & Carin, arXiv:2011.08891), gradient times activation summed over channels.

    What that sum leaves of the logit (for a head of linear layers and rectifiers its biases, as far as they are passed
    on) belongs to no place, and is spread evenly over all. Of a pooled linear head these would be the maps above.
    """

    def __init__(self, head: nn.Module, calibration: Calibration) -> None:
        super().__init__()
        self.head = copy.deepcopy(head).eval()
        self.register_buffer("scale", torch.tensor(calibration.scale))
        self.register_buffer("offset", torch.tensor(calibration.offset))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities ``[N, C]`` and maps ``[N, C, h, w]`` of features ``[N, K, h, w]``."""
        maps = hires_maps(self.head, features)
        scale, offset = self.get_buffer("scale"), self.get_buffer("offset")
        maps = maps * scale[:, None, None] + offset[:, None, None]
        return torch.softmax(maps.mean(dim=(2, 3)), dim=1), maps


def hires_maps(head: nn.Module, features: Tensor) -> Tensor:
    """HiResCAM of every class, ``[N, C, h, w]``: their mean is the logit that ``head`` gives ``[N, K, h, w]``."""
    logits, back = pull(head, features)
    n, classes = logits.shape
    one_each = torch.eye(classes, dtype=logits.dtype, device=logits.device).expand(n, classes, classes)
    places = features.shape[2] * features.shape[3]
    maps = places * torch.einsum("nckhw,nkhw->nchw", back(one_each), features)
    return maps + (logits - maps.mean(dim=(2, 3)))[:, :, None, None]


def fold_norms(module: nn.Module) -> nn.Module:
    """A copy of ``module`` in eval mode as it computes fastest: the same answers by fewer layers.

    Batch norms are folded into the convolutions before them, branched convolutions into a single one.
    """
    folded = copy.deepcopy(module).eval()
    for parent in list(folded.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Branched):
                setattr(parent, name, child.fused())
        if isinstance(parent, nn.Sequential):
            _fold_children(parent)
    return folded


def _fold_children(parent: nn.Sequential) -> None:
    for i, (first, second) in enumerate(zip(list(parent), list(parent)[1:], strict=False)):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            parent[i], parent[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()


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


# Largest difference of a probability between torch and the fp32 file.
PARITY = 1e-4


# The value of a file's graph between the two halves of its net.
FEATURES = "features"


# Faces of the training set that the int8 ranges are measured on.
CALIBRATION_FACES = 1024


def export_fp32(
    net: nn.Module, path: Path, *, size: int, calibration: Calibration, metadata: Mapping[str, str]
) -> None:
    """Write ``net`` to ``path`` as an fp32 file of the contract for crops of ``size`` pixels.

    Raises ``ModelError`` when the file's probabilities differ from torch's by more than ``PARITY``, or when a crop's
    answer depends on the batch it comes in.
    """
    module = Contract(net.cpu(), calibration)
    example = torch.zeros(2, size, size, dtype=torch.uint8)
    shapes = {"crops": {0: torch.export.Dim("n", min=1)}}
    with _quiet():
        program = torch.onnx.export(
            _Seen(module),
            (example,),
            input_names=["crops"],
            output_names=["probs", "maps", FEATURES],
            dynamic_shapes=shapes,
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    model.graph.output.pop()  # the features keep their name, but are no answer
    write_metadata(model, path, {**metadata, "precision": "fp32"})
    _check_parity(module, path, size)


def export_int8(fp32: Path, path: Path, faces: NDArray[np.uint8]) -> None:
    """Quantise the file ``fp32`` statically to int8: per channel, ranges measured on ``faces`` uint8 ``[N, S, S]``.

    All that follows the features, probabilities and maps, keeps fp32 arithmetic: there rounding costs most and, but for
    the widest dense heads, time least. Raises ``ModelError`` for a file without a value of that name.
    """
    model = onnx.load(fp32)
    answers = _after(model.graph, FEATURES)
    with _quiet():
        quantize_static(
            str(fp32),
            str(path),
            _Faces(faces),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Add", "Relu"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=answers,
        )
    said = {entry.key: entry.value for entry in model.metadata_props}
    write_metadata(onnx.load(path), path, {**said, "precision": "int8"})


def contract_metadata(
    name: str, emotions: tuple[Emotion, ...], size: int, framing: Framing, recipe: str, provenance: Mapping[str, str]
) -> dict[str, str]:
    """The metadata of the contract, but for the precision and the figures, which are known later."""
    return {
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


def write_metadata(model: onnx.ModelProto, path: Path, metadata: Mapping[str, str]) -> None:
    """Write ``model`` to ``path`` with exactly this metadata and nothing else that varies from export to export."""
    del model.metadata_props[:]
    for node in [
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
        *model.graph.initializer,
    ]:
        del node.metadata_props[:]
        node.doc_string = ""
    for key, value in sorted(metadata.items()):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


class _Seen(nn.Module):
    """The contract, and beside its answers the features that they come from."""

    def __init__(self, contract: Contract) -> None:
        super().__init__()
        self.contract = contract

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self.contract.see(crops)
        return *self.contract.answers(features), features


def _after(graph: onnx.GraphProto, value: str) -> list[str]:
    """The names of the nodes that compute with ``value``, near or far."""
    reached, names = {value}, []
    for node in graph.node:  # an ONNX graph is sorted: what a node needs stands before it
        if reached & set(node.input):
            reached |= set(node.output)
            names.append(node.name)
    if not names:
        raise ModelError(f"the file has no value {value!r}; export it again")
    return names


class _Faces(CalibrationDataReader):  # type: ignore[misc]
    """Hands the faces to ONNX Runtime's calibrator in batches."""

    def __init__(self, faces: NDArray[np.uint8], batch: int = 64) -> None:
        self.batches = iter([faces[i : i + batch] for i in range(0, len(faces), batch)])

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"crops": batch}


def _check_parity(module: Contract, path: Path, size: int) -> None:
    crops = torch.randint(0, 256, (64, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = module(crops)[0].numpy()
    classifier = Classifier(path)
    together = classifier(crops.numpy())[0]
    alone = np.concatenate([classifier(crop[None])[0] for crop in crops.numpy()])
    for what, difference in (
        ("torch", abs(together - expected).max()),
        ("its batch of one", abs(together - alone).max()),
    ):
        if not difference <= PARITY:
            raise ModelError(
                f"{path}: probabilities differ from {what} by {difference:.2g}, more than {PARITY:g}; not exported"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporters warn of their own inner workings and of packages mien does not use."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
