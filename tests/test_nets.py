"""One sweep over every net of the folder: a net that is added is tested without writing a test."""

import pytest
import torch

from mien.lab import nets
from mien.lab.card import count_macs


@pytest.fixture(params=nets.names())
def net(request) -> nets.Net:
    torch.manual_seed(0)
    return nets.build(request.param, channels=1, classes=7)


def test_logits_are_finite_and_of_the_right_shape(net: nets.Net) -> None:
    logits = net.train()(torch.randn(4, 1, 48, 48))
    assert logits.shape == (4, 7)
    assert logits.isfinite().all()


def test_every_parameter_gets_a_gradient(net: nets.Net) -> None:
    net.train()(torch.randn(8, 1, 48, 48)).square().sum().backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


@torch.no_grad()
def test_forward_is_head_of_features_whatever_the_batch(net: nets.Net) -> None:
    x = torch.randn(5, 1, 48, 48)
    together = net.eval()(x)
    assert torch.equal(together, net.head(net.features(x)))
    alone = torch.cat([net(one[None]) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_resnet18_and_vgg16_have_the_published_convolutions() -> None:
    """ResNet-18 has 11,689,512 parameters with 3 channels, a 7x7 stem and 1000 classes; its body is ours."""
    small = nets.build(
        "mien", channels=3, classes=1000, stem=64, widths=(64, 128, 256, 512), depths=(2,) * 4, strides=(1, 2, 2, 2)
    )
    stem = 64 * 3 * (7 * 7 - 3 * 3)
    assert sum(p.numel() for p in small.parameters()) + stem == 11_689_512
    vgg = nets.build("vgg", channels=3, classes=1000, depth=16)
    published = (
        14_714_688  # VGG16's 13 convolutions with biases; batch norm has one shift and one scale where they have a bias
    )
    widths = sum(m.num_features for m in vgg.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert sum(p.numel() for p in vgg.features.parameters()) - widths == published


def test_macs_are_counted_by_hand() -> None:
    one = nets.build("mien", channels=1, classes=7, stem=16, widths=(16,), depths=(1,), strides=(1,))
    expected = 48 * 48 * (9 * 16 + 2 * 9 * 16 * 16) + 16 * 7
    assert count_macs(one.eval(), 48) == expected
