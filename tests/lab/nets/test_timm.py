"""Nets of timm: a clear line without timm, and the common contract with it."""

import importlib.util
import sys

import pytest
import torch

from mien._errors import MissingExtraError, RecipeError
from mien.lab import nets
from mien.lab.nets._layers import PooledHead


def timm_works() -> bool:
    """timm needs a torchvision that fits this torch; without one its import fails."""
    if importlib.util.find_spec("timm") is None:
        return False
    try:
        import timm  # noqa: F401
    except (ImportError, RuntimeError):
        return False
    return True


needs_timm = pytest.mark.skipif(not timm_works(), reason='timm is not installed (pip install "mien[hub]")')


def test_without_timm_one_line_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r'timm is not installed; run: pip install "mien\[hub\]"'):
        nets.build("timm/resnet18", channels=1, classes=7)


def test_the_options_of_a_timm_net_follow_the_recipes_size() -> None:
    assert nets.options("timm/resnet18") == ("size", "dropout")


@needs_timm
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100"])
def test_a_timm_net_fulfils_the_contract(name: str) -> None:
    torch.manual_seed(0)
    net = nets.build(f"timm/{name}", channels=1, classes=7, size=48, dropout=0.1)
    assert isinstance(net.head, PooledHead)
    x = torch.randn(4, 1, 48, 48)
    net.train()(x).square().sum().backward()
    assert net.head.linear.weight.grad.abs().sum() > 0
    assert next(net.features.parameters()).grad.abs().sum() > 0
    with torch.no_grad():
        features = net.eval().features(x)
        assert features.ndim == 4
        assert torch.equal(net(x), net.head(features))


@needs_timm
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", r"timm has no net 'resnet19'; did you mean 'resnet1"),
        ("vit_tiny_patch16_224", r"not \[N, K, h, w\]"),
    ],
)
def test_other_timm_nets_are_refused(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        nets.build(f"timm/{name}", channels=1, classes=7, size=224)
