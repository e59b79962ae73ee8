"""From a finished run to files of the contract: fp32 and int8, with everything they must say written into them."""

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
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from torch import nn

from mien._emotions import Emotion
from mien._errors import ModelError
from mien._framing import Framing
from mien.infer import CONTRACT, Classifier
from mien.lab.export.calibrate import Calibration
from mien.lab.export.contract import Contract

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


def describe(
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
