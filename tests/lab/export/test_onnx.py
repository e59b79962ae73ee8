"""Every net as an ONNX file: torch's outputs at any batch size, and maps whose sums are the logits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mien._emotions import SEVEN
from mien._errors import ModelError
from mien._framing import FER2013
from mien.infer import Classifier
from mien.lab import nets
from mien.lab.export.onnx import Contract, HeadMaps, PooledMaps, contract_metadata, export_fp32, hires_maps
from mien.lab.inference import predict
from mien.lab.nets._layers import EncoderBlock
from mien.lab.nets._pullback import pull
from support.random_nets import CALIBRATION, PROVENANCE, VARIANTS, variant

pytestmark = pytest.mark.usefixtures("fast_exports")

# The heads whose maps come from gradients, and one that is pooled and linear.
HEADS = ["lenet", "hybrid_resnet50", "hybrid_resnet50 branches", "resnet", *VARIANTS]


# Attention and dense layers; pooled heads are exported by other tests (test_release, test_record). The export of
# a net takes seconds, so the others are checked before a release.
OFTEN = {"attention_resnet", "conv4"}
EXPORTED = [
    case if case in OFTEN else pytest.param(case, marks=pytest.mark.release)
    for case in sorted({*nets.net_names(), *VARIANTS})
]


@pytest.mark.parametrize("case", EXPORTED)
@torch.no_grad()
def test_every_net_exports_and_predicts_as_torch_in_any_batch(case: str, tmp_path: Path) -> None:
    net = variant(case)
    metadata = contract_metadata(case, SEVEN, 48, FER2013, case, PROVENANCE)
    export_fp32(
        net, tmp_path / "m.onnx", size=48, calibration=CALIBRATION, metadata=metadata
    )  # raises if the outputs differ
    classifier = Classifier(tmp_path / "m.onnx")
    crops = np.random.default_rng(0).integers(0, 256, (9, 48, 48), dtype=np.uint8)
    probs, maps = classifier(crops)
    logits = predict(net, torch.from_numpy(crops), 48)
    np.testing.assert_allclose(probs, torch.softmax(CALIBRATION(logits), 1).numpy(), atol=1e-4)
    np.testing.assert_allclose(maps.mean((2, 3)), CALIBRATION(logits).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", HEADS)
def test_maps_are_the_gradient_times_the_features_plus_a_rest_without_a_place(case: str) -> None:
    """HiResCAM by autograd, for every head; for a pooled linear head it is the class activation map."""
    net = variant(case).double()
    features = net.features(torch.randn(2, 1, 48, 48, dtype=torch.double)).detach().requires_grad_()
    logits = net.head(features)
    gradients = [torch.autograd.grad(logits[:, c].sum(), features, retain_graph=True)[0] for c in range(7)]
    parts = torch.stack([(g * features).sum(dim=1) for g in gradients], dim=1).detach()
    places = parts[0, 0].numel()
    with torch.no_grad():
        maps = hires_maps(net.head, features)
    rest = logits.detach() - parts.sum(dim=(2, 3))
    torch.testing.assert_close(maps, places * parts + rest[:, :, None, None], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), logits.detach(), rtol=1e-9, atol=1e-12)
    assert parts.abs().max() > 0


@torch.no_grad()
def test_both_kinds_of_maps_of_a_pooled_head_are_equal() -> None:
    head = nets.build("resnet", channels=1, classes=7).head
    features = torch.rand(2, 512, 3, 3)
    by_layer, by_gradient = PooledMaps(head, CALIBRATION), HeadMaps(head, CALIBRATION)
    for one, other in zip(by_layer(features), by_gradient(features), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_the_maps_of_a_head_without_biases_have_no_rest() -> None:
    """Linear layers and rectifiers alone: gradient times activation is the whole logit (Draelos & Carin)."""
    head = variant("conv4").head
    for layer in head.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.bias.zero_()
    features = torch.rand(2, 32, 3, 3)
    logits, back = pull(head, features)
    gradients = back(torch.eye(7).expand(2, 7, 7))
    torch.testing.assert_close((gradients * features[:, None]).sum(dim=(2, 3, 4)), logits, rtol=1e-4, atol=1e-6)


def test_the_layers_of_a_head_know_their_gradients() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8, dtype=torch.double).mul(3).requires_grad_()
    for layer in (torch.nn.LayerNorm(8), torch.nn.Hardswish(), torch.nn.ReLU(), EncoderBlock(8, 2, hidden=16)):
        y = layer.double().eval()(x)
        wanted = torch.randn(3, 2, *y.shape[1:], dtype=torch.double)
        with torch.no_grad():
            got = pull(layer, x)[1](wanted)
        for c in range(2):
            expected = torch.autograd.grad(y, x, wanted[:, c], retain_graph=True)[0]
            torch.testing.assert_close(got[:, c], expected, rtol=1e-9, atol=1e-12)


def test_a_head_without_gradient_rule_is_refused() -> None:
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 7), torch.nn.Tanh())
    with pytest.raises(ModelError, match="no gradient rule for Tanh; give the net a pooled head"):
        Contract(nets.Net(torch.nn.Identity(), head), CALIBRATION)(torch.zeros(1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ModelError, match="only nets of two halves"):
        Contract(torch.nn.Identity(), CALIBRATION)


def test_a_dense_head_of_another_size_is_refused() -> None:
    with pytest.raises(ModelError, match=r"built for maps of 3x3, not 6x6; set the net's option size to data\.size"):
        Contract(variant("conv4"), CALIBRATION)(torch.zeros(1, 96, 96, dtype=torch.uint8))
