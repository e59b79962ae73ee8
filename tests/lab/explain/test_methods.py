"""Saliency maps of every method, compared with formulas and with Captum."""

from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam

from mien._emotions import SEVEN
from mien._errors import MienError, ModelError
from mien._framing import FER2013
from mien.infer import Classifier
from mien.lab import nets
from mien.lab.explain import METHODS, saliency_maps
from mien.lab.export.calibrate import Calibration
from mien.lab.export.onnx import contract_metadata, export_fp32
from mien.lab.inference import normalise
from mien.lab.nets._layers import PooledHead
from support.explained_faces import random_crops

pytestmark = pytest.mark.usefixtures("fast_exports")


def make(name: str, **options) -> nets.Net:
    torch.manual_seed(0)
    return nets.build(name, channels=1, classes=7, **options).eval()


def net_input(crops: np.ndarray) -> torch.Tensor:
    return normalise(torch.from_numpy(crops).unsqueeze(1).float() / 255, crops.shape[-1])


@pytest.mark.parametrize("name", nets.net_names())
def test_every_net_is_explained_by_every_method(name: str) -> None:
    narrow = {"stem": "small", "base": 16, "width": 32}
    options = {key: value for key, value in narrow.items() if type(value) is type(nets.default(name, key))}
    net, crops = make(name, **options), random_crops()
    places = net.features(net_input(crops)).shape[2:]
    for method in METHODS:
        maps = saliency_maps(net, crops, [3, 5], method=method, steps=2)
        assert maps.dtype == np.float32
        assert maps.shape == (2, *((48, 48) if method == "integrated-gradients" else places))
        assert np.isfinite(maps).all()
        if method != "grad-cam++":  # all of its weights may be negative and set to 0
            assert np.ptp(maps) > 0 or maps[0].size == 1
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("name", ["mien", "resnet", "vgg"])
def test_grad_cam_of_a_pooled_linear_head_is_the_class_activation_map(name: str) -> None:
    net, crops = make(name, **({"base": 16} if name != "mien" else {})), random_crops(3)
    assert isinstance(net.head, PooledHead)
    with torch.no_grad():
        features = net.features(net_input(crops))
        activation = torch.einsum("nkhw,k->nhw", features, net.head.linear.weight[4])
    places = activation[0].numel()
    for method in ("grad-cam", "hires-cam"):
        np.testing.assert_allclose(
            places * saliency_maps(net, crops, 4, method=method), activation, rtol=1e-3, atol=1e-5
        )
    as_exported = saliency_maps(net, crops, 4, method="map") - net.head.linear.bias[4].item()
    np.testing.assert_allclose(as_exported, activation, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lenet", {"widths": (16, 16), "hidden": (32,)}),
        ("mien", {"stem": 16, "widths": (32,), "depths": (1,), "strides": (2,)}),
    ],
)
def test_hires_cam_is_the_map_of_the_exported_file_except_for_a_constant(
    name: str, options: dict, tmp_path: Path
) -> None:
    net, crops, even = make(name, **options), random_crops(3), Calibration((1.0,) * 7, (0.0,) * 7)
    provenance = {"command": "", "commit": "", "data_sha256": "", "machine": "", "torch": "", "date": ""}
    metadata = contract_metadata(name, SEVEN, 48, FER2013, name, provenance)
    export_fp32(net, tmp_path / "m.onnx", size=48, calibration=even, metadata=metadata)
    exported = Classifier(tmp_path / "m.onnx")(crops)[1][:, 2]
    np.testing.assert_allclose(saliency_maps(net, crops, 2, method="map"), exported, rtol=1e-2, atol=1e-4)
    ours = saliency_maps(net, crops, 2, method="hires-cam") * exported[0].size
    centred = [m - m.mean(axis=(1, 2), keepdims=True) for m in (ours, exported)]
    np.testing.assert_allclose(*centred, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(("name", "layer"), [("conv4", "features"), ("resnet", "features"), ("lenet", "features.3")])
def test_grad_cam_is_captums(name: str, layer: str) -> None:
    net, crops, target = make(name), random_crops(3), [1, 0, 6]
    theirs = LayerGradCam(net, net.get_submodule(layer)).attribute(net_input(crops), torch.tensor(target))
    ours = saliency_maps(net, crops, target, method="grad-cam", layer=layer)
    np.testing.assert_allclose(ours, theirs.squeeze(1).detach(), rtol=1e-4, atol=1e-7)


def test_grad_cam_plus_plus_by_hand() -> None:
    """With one place of one channel, the formula is g^2 / (2 g^2 + a g^3) * g * a."""

    class Tiny(nets.Net):
        def __init__(self) -> None:
            super().__init__(torch.nn.Identity(), torch.nn.Flatten())

    net = Tiny()
    net.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    crop = np.full((1, 1, 1), 255, np.uint8)
    a = net_input(crop).item()
    expected = 1 / (2 + a) * a
    assert saliency_maps(net.eval(), crop, 0, method="grad-cam++").item() == pytest.approx(expected, rel=1e-5)


def test_integrated_gradients_sum_to_the_logit_minus_that_of_mean_grey() -> None:
    net, crops = make("lenet"), random_crops(2)
    x = net_input(crops)
    with torch.no_grad():
        wanted = net(x)[:, 3] - net(torch.zeros_like(x))[:, 3]
    maps = saliency_maps(net, crops, 3, method="integrated-gradients", steps=200)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), wanted, rtol=0.02, atol=1e-3)


def test_a_map_depends_neither_on_the_batch_nor_changes_the_net() -> None:
    net, crops = make("conv4"), random_crops(5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    together, alone = saliency_maps(net, crops, 2), saliency_maps(net, crops, 2, batch_size=1)
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert saliency_maps(net, crops[:0], 2).shape[0] == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "gradcam"}, MienError, r"unknown method 'gradcam'; did you mean 'grad-cam'\?"),
        ({"target": 7}, MienError, "is class 7; the net has 7"),
        ({"target": [-1, 3]}, MienError, "is class -1; the net has 7"),
        ({"target": [1, 2, 3]}, MienError, "one for each of the 2 images"),
        ({"layer": "featurse"}, ModelError, "no layer 'featurse'; similar are features"),
        ({"layer": "head.layers"}, ModelError, "without places"),
        ({"method": "map", "layer": "features.0"}, MienError, "map has no layer to choose"),
    ],
)
def test_wrong_arguments_are_errors(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        saliency_maps(make("lenet"), random_crops(), options.pop("target", 0), **options)


def test_a_net_in_training_mode_is_refused() -> None:
    with pytest.raises(ModelError, match=r"call net\.eval\(\)"):
        saliency_maps(make("lenet").train(), random_crops(), 0)
