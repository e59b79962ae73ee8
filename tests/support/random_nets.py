"""Nets of every architecture with random weights, for the tests of export."""

import torch

from mien.lab import nets
from mien.lab.export.calibrate import Calibration
from mien.lab.nets._layers import conv_norm

PROVENANCE = {
    "command": "mien train",
    "commit": "abc",
    "data_sha256": "0" * 64,
    "machine": "here",
    "torch": "2",
    "date": "d",
}
CALIBRATION = Calibration(scale=(0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1), offset=(0.3, -0.2, 0.1, 0, 0, -0.1, -0.1))


def randomised(net: nets.Net) -> nets.Net:
    """Give the batch norms random statistics, as after training, instead of the identity."""
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


# Nets with other heads or blocks than the default, and small versions of expensive defaults.
VARIANTS = {
    "alexnet": {"hidden": (64, 32)},
    "conv4": {"widths": (16, 16, 32, 32), "hidden": (64, 32)},
    "mien reparam": {"block": "reparam", "stem": 16, "widths": (16, 32), "depths": (1, 1), "strides": (2, 2)},
    "vgg dense": {"depth": 11, "head": "dense", "hidden": (64,), "last_pool": False},
    "mobilenetv3_small dense": {"head": "dense"},
    "mobilenetv3_small start": {"head": "dense"},
}


def variant(case: str) -> nets.Net:
    torch.manual_seed(0)
    options = {"transformer": False} if case.endswith("branches") else VARIANTS.get(case, {})
    net = nets.build(case.split()[0], channels=1, classes=7, **options)
    if case == "mobilenetv3_small start":  # all kinds of layers that the net has, in four of its eleven blocks
        net.features.blocks, net.features.last[0] = net.features.blocks[:4], conv_norm(40, 576, kernel=1)
    return randomised(net)
