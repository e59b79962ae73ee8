"""A trained net becomes files of the contract: the same answers as torch, in any batch, in fp32 and int8."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from faces import cartoon_set
from mien._emotions import SEVEN
from mien._errors import ModelError
from mien._framing import FER2013
from mien.infer import Classifier
from mien.lab import nets
from mien.lab.calibrate import Calibration
from mien.lab.contract import Contract, fold_norms
from mien.lab.data import FaceSet
from mien.lab.export import describe, export_fp32
from mien.lab.fit import fit, predict
from mien.lab.nets._net import PooledHead
from mien.lab.release import release
from mien.lab.run import load_final
from test_fit import LEARNING, small

PROVENANCE = {
    "command": "mien train",
    "commit": "abc",
    "data_sha256": "0" * 64,
    "machine": "here",
    "torch": "2",
    "date": "d",
}
CALIBRATION = Calibration(scale=(0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1), offset=(0.3, -0.2, 0.1, 0, 0, -0.1, -0.1))


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(196, 350, 350))


@pytest.fixture(scope="module")
def run(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fit(
        small(*LEARNING),
        faces,
        folder,
        accelerator="cpu",
        provenance=PROVENANCE,
    )
    return folder


@pytest.fixture(scope="module")
def released(run: Path, faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "tiny"
    release(load_final(run), faces, folder, final=True)
    return folder


def randomised(net: nets.Net) -> nets.Net:
    """Batch norms as training leaves them, not the identity that they start as."""
    generator = torch.Generator().manual_seed(1)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            for values, low, high in (
                (layer.running_mean, -1, 1),
                (layer.running_var, 0.5, 2),
                (layer.weight.data, 0.5, 1.5),
            ):
                values.copy_(torch.rand(values.shape, generator=generator) * (high - low) + low)
    return net.eval()


def has_pooled_head(name: str) -> bool:
    with torch.device("meta"):
        return isinstance(nets.build(name, channels=1, classes=7).head, PooledHead)


POOLED = [name for name in nets.names() if has_pooled_head(name)]


@pytest.mark.parametrize("name", POOLED)
@torch.no_grad()
def test_every_net_exports_and_answers_as_torch_in_any_batch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = randomised(nets.build(name, channels=1, classes=7))
    metadata = describe(name, SEVEN, 48, FER2013, name, PROVENANCE)
    export_fp32(
        net, tmp_path / "m.onnx", size=48, calibration=CALIBRATION, metadata=metadata
    )  # raises where answers differ
    classifier = Classifier(tmp_path / "m.onnx")
    crops = np.random.default_rng(0).integers(0, 256, (9, 48, 48), dtype=np.uint8)
    probs, maps = classifier(crops)
    logits = predict(net, torch.from_numpy(crops), 48)
    np.testing.assert_allclose(probs, torch.softmax(CALIBRATION(logits), 1).numpy(), atol=1e-4)
    np.testing.assert_allclose(maps.mean((2, 3)), CALIBRATION(logits).numpy(), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_folding_batch_norm_changes_no_answer() -> None:
    net = randomised(nets.build("vgg", channels=1, classes=7, depth=11))
    x = torch.randn(3, 1, 48, 48)
    folded = fold_norms(net.features)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    torch.testing.assert_close(folded(x), net.features(x), rtol=1e-3, atol=1e-4)


def test_a_release_is_complete_and_says_everything(released: Path, run: Path) -> None:
    assert {p.name for p in released.iterdir()} == {"model.onnx", "model-fp32.onnx", "card.md", "card.json", "LICENSE"}
    int8, fp32 = Classifier(released / "model.onnx"), Classifier(released / "model-fp32.onnx")
    assert (int8.metadata["precision"], fp32.metadata["precision"]) == ("int8", "fp32")
    assert int8.emotions == SEVEN
    assert int8.framing == FER2013
    card = json.loads((released / "card.json").read_text())
    assert json.loads(int8.metadata["accuracy"])["accuracy"] == round(card["accuracy"]["private"], 4)
    assert card["judged"]["private"]["int8"]["all"]["n"] == 350
    assert card["parameters"] == sum(p.numel() for p in load_final(run).net.parameters())
    text = (released / "card.md").read_text()
    assert "PrivateTest, clean, int8" in text
    assert "cannot know what anybody" in text


def test_int8_is_quantised_smaller_and_close(released: Path, faces: FaceSet) -> None:
    operators = {node.op_type for node in onnx.load(released / "model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    crops = faces.images[546:].numpy()
    int8, fp32 = (Classifier(released / name)(crops)[0] for name in ("model.onnx", "model-fp32.onnx"))
    assert np.abs(int8 - fp32).mean() < 0.02
    assert (int8.argmax(1) == fp32.argmax(1)).mean() > 0.95
    alone = np.concatenate([Classifier(released / "model.onnx")(crop[None])[0] for crop in crops[:8]])
    np.testing.assert_allclose(alone, int8[:8], atol=1e-6)


def test_only_the_final_release_touches_the_test_split(run: Path, faces: FaceSet, tmp_path: Path) -> None:
    card = release(load_final(run), faces, tmp_path / "draft")
    assert set(card["judged"]) == {"public"}
    assert "PrivateTest, all" not in (tmp_path / "draft" / "card.md").read_text()
    blind = faces.select(faces.usage < 2)
    assert release(load_final(run), blind, tmp_path / "blind")["accuracy"] == card["accuracy"]


def test_a_refused_release_leaves_the_folder_as_it_was(
    released: Path, run: Path, faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in released.iterdir()}
    monkeypatch.setattr("mien.lab.release.INT8_LOSS", -100)
    with pytest.raises(ModelError, match="int8 loses"):
        release(load_final(run), faces, released)
    assert {path.name: path.read_bytes() for path in released.iterdir()} == before


def test_the_calibration_is_in_the_graph(released: Path, run: Path, faces: FaceSet) -> None:
    card = json.loads((released / "card.json").read_text())
    logits = predict(load_final(run).net, faces.images[:50], 48)
    expected = torch.softmax(Calibration(**card["calibration"])(logits), 1).numpy()
    np.testing.assert_allclose(
        Classifier(released / "model-fp32.onnx")(faces.images[:50].numpy())[0], expected, atol=1e-3
    )


@pytest.mark.parametrize("name", [name for name in nets.names() if name not in POOLED])
def test_a_net_without_a_pooled_head_is_refused(name: str) -> None:
    with torch.device("meta"):
        net = nets.build(name, channels=1, classes=7)
    with pytest.raises(ModelError, match="pooled linear head"):
        Contract(net, CALIBRATION)


def test_a_file_that_disagrees_with_its_net_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = randomised(nets.build("mien", channels=1, classes=7, stem=16, widths=(16,), depths=(1,), strides=(2,)))
    monkeypatch.setattr("mien.lab.export.PARITY", 1e-12)
    with pytest.raises(ModelError, match="probabilities differ from torch"):
        export_fp32(
            net,
            tmp_path / "m.onnx",
            size=48,
            calibration=CALIBRATION,
            metadata=describe("x", SEVEN, 48, FER2013, "x", PROVENANCE),
        )
