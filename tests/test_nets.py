"""Every net: shapes, gradients, sizes, and what its document says of it."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mien._emotions import CLASS_SETS
from mien.lab import nets
from mien.lab import recipe as recipes
from mien.lab.count import macs, parameters
from mien.lab.nets._net import DenseHead, PooledHead
from mien.lab.nets._residual import Block, Bottleneck
from mien.lab.recipe import Data, NetChoice
from mien.lab.train.run import build
from support.weightless_nets import on_paper


@pytest.fixture(params=nets.names())
def net(request) -> nets.Net:
    torch.manual_seed(0)
    return nets.build(request.param, channels=1, classes=7)


def test_logits_are_finite_and_of_the_right_shape_and_every_parameter_gets_a_gradient(net: nets.Net) -> None:
    logits = net.train()(torch.randn(4, 1, 48, 48))
    assert logits.shape == (4, 7)
    assert logits.isfinite().all()
    logits.square().sum().backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


@torch.no_grad()
def test_forward_is_head_of_features_whatever_the_batch(net: nets.Net) -> None:
    x = torch.randn(3, 1, 48, 48)
    together = net.eval()(x)
    features = net.features(x)
    assert features.ndim == 4
    assert torch.equal(together, net.head(features))
    alone = torch.cat([net(one[None]) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_training_starts_from_answers_that_differ_little_but_differ(net: nets.Net) -> None:
    """A net whose signal dies or explodes on its way would start from equal, or from wild, logits."""
    logits = net.train()(torch.randn(8, 1, 48, 48))
    assert 1e-4 < logits.std(dim=0).mean() < 5


@pytest.mark.parametrize("name", nets.names())
def test_parameters_and_macs_are_reported(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    net = on_paper(name, channels=1, classes=7)
    with capsys.disabled():
        print(f"\n{name}: {parameters(net):,} parameters, {macs(net, 48) / 1e6:.1f} MMAC at 48 px", end="")
    assert parameters(net) > 1e5
    assert macs(net, 48) > 1e6


@pytest.mark.parametrize("name", nets.names())
def test_any_class_set_and_other_sizes_and_channels_are_taken(name: str) -> None:
    for classes in (3, 6, 8):
        net = on_paper(name, channels=3, classes=classes)
        assert net(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, classes)


@pytest.mark.parametrize("classes", CLASS_SETS)
@pytest.mark.parametrize("name", nets.names())
def test_a_recipe_of_any_size_and_class_set_builds_the_net_that_fits(name: str, classes: str) -> None:
    recipe = replace(recipes.load("conv4"), data=Data(classes=classes, size=96), net=NetChoice(name))
    with torch.device("meta"):
        net = build(recipe).eval()
        features = net.features(torch.empty(1, 1, 96, 96))
        assert net.head(features).shape == (1, len(CLASS_SETS[classes]))
    if isinstance(net.head, DenseHead):
        assert net.head.pool.output_size == features.shape[-1]


def test_a_recipe_can_keep_another_size_for_its_dense_layers() -> None:
    recipe = replace(recipes.load("conv4"), data=Data(size=96), net=NetChoice("conv4", {"size": 48}))
    with torch.device("meta"):
        assert build(recipe).head.pool.output_size == 3


# Parameters and GMAC with 3 channels and 1000 classes, as published (or as torchvision and Keras count them).
PUBLISHED = [
    ("resnet", {"depth": 18, "stem": "imagenet"}, 224, 11_689_512, 1.81),
    ("resnet", {"depth": 34, "stem": "imagenet"}, 224, 21_797_672, 3.66),
    ("resnet", {"depth": 50, "stem": "imagenet"}, 224, 25_557_032, 4.09),
    ("vgg", {"depth": 16, "norm": False, "head": "dense", "size": 224}, 224, 138_357_544, 15.47),
    ("vgg", {"depth": 19, "norm": False, "head": "dense", "size": 224}, 224, 143_667_240, 19.63),
    ("alexnet", {"stem": "imagenet", "size": 224}, 224, 61_100_840, 0.71),
    ("efficientnet", {"variant": 0, "stem": "imagenet"}, 224, 5_288_548, 0.39),
    ("efficientnet", {"variant": 1, "stem": "imagenet"}, 240, 7_794_184, 0.69),
    ("efficientnet", {"variant": 2, "stem": "imagenet"}, 288, 9_109_994, 1.09),
    ("efficientnet", {"variant": 3, "stem": "imagenet"}, 300, 12_233_232, 1.83),
    ("mobilenetv3_small", {"stem": "imagenet", "head": "dense"}, 224, 2_542_856, 0.06),
    ("xception", {"stem": "imagenet"}, 299, 22_855_952, 8.36),
]


@pytest.mark.parametrize(("name", "options", "size", "published", "gmacs"), PUBLISHED)
def test_standard_nets_are_the_published_ones(name, options, size, published, gmacs) -> None:
    net = on_paper(name, **options)
    assert parameters(net) == published
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, size, size, device="meta"))
    assert round(counter.get_total_flops() / 2e9, 2) == gmacs


def test_mien_can_be_resnet18() -> None:
    wide = on_paper("mien", stem=64, widths=(64, 128, 256, 512), depths=(2,) * 4, strides=(1, 2, 2, 2))
    assert [p.shape for p in wide.parameters()] == [p.shape for p in on_paper("resnet", depth=18).parameters()]


def test_lenet_can_be_lenet_5() -> None:
    five = on_paper("lenet", channels=1, classes=10, widths=(6, 16), hidden=(120, 84), size=32)
    assert parameters(five) == 61_706


@pytest.mark.parametrize("depth", [18, 50])
def test_a_resnet_that_begins_as_its_shortcuts_has_a_calm_first_gradient(depth: int) -> None:
    norms = []
    for calm in (False, True):
        torch.manual_seed(0)
        net = nets.build("resnet", channels=1, classes=3, depth=depth, base=8, zero_init_residual=calm)
        images = torch.rand(16, 1, 48, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
        torch.nn.functional.cross_entropy(net(images), torch.arange(16) % 3).backward()
        norms.append(torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm())
        branches = [m for m in net.modules() if isinstance(m, Block | Bottleneck)]
        ends = [(m.second if isinstance(m, Block) else m.third)[1].weight for m in branches]
        assert len(ends) == (8 if depth == 18 else 16)
        assert all(bool((end == 0).all()) == calm for end in ends)
    assert norms[1] < norms[0] / 2


def test_attention_resnet_has_the_printed_parameters_but_for_one_misprint() -> None:
    net = on_paper("attention_resnet", classes=7)
    names = ("stem", "stage1", "stage2", "stage3", "stage4", "attention")
    counted = [parameters(net.features.get_submodule(name)) for name in names]
    assert counted == [9_408 + 128, 73_984, 230_144, 919_040, 3_673_600 - 512, 513]
    assert parameters(net.head) == 3_591
    assert parameters(net) == 4_910_408 - 512
    deep = on_paper("attention_resnet", classes=7, depth=2)
    assert [len(deep.features.get_submodule(f"stage{i}")) for i in (1, 2, 3, 4)] == [2, 2, 2, 2]


def test_resnet18_64_keeps_the_resolution_until_the_pooling() -> None:
    net = on_paper("resnet18_64", channels=1, classes=6)
    assert net.features(torch.empty(1, 1, 64, 64, device="meta")).shape == (1, 512, 8, 8)
    assert net.head.dropout.p == 0.3


def test_conv4_has_four_convolutions_and_three_dense_layers() -> None:
    net = on_paper("conv4", channels=1, classes=7)
    convolutions = [m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions == [64, 128, 256, 512]
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules()) == 4
    assert sum(isinstance(m, torch.nn.Linear) for m in net.modules()) == 3


def test_vgg_at_48_pixels_starts_its_dense_head_from_512_values() -> None:
    net = on_paper("vgg", channels=1, classes=6, depth=19, head="dense")
    assert next(m for m in net.head.modules() if isinstance(m, torch.nn.Linear)).in_features == 512


@pytest.mark.parametrize("name", ["resnet", "efficientnet", "xception", "mobilenetv3_small", "attention_resnet"])
def test_the_small_stem_leaves_a_map_to_look_at(name: str) -> None:
    face = torch.empty(1, 1, 48, 48, device="meta")
    sides = [
        on_paper(name, channels=1, classes=7, stem=stem).features(face).shape[-1] for stem in ("imagenet", "small")
    ]
    assert sides[0] == 2
    assert sides[1] >= 3


@pytest.mark.parametrize("name", ["resnet", "attention_resnet", "hybrid_resnet50", "vgg"])
def test_half_of_the_base_is_about_a_quarter_of_the_net(name: str) -> None:
    whole, half = (on_paper(name, channels=1, classes=7, base=base) for base in (64, 32))
    assert parameters(half) < 0.45 * parameters(whole)  # the hybrid's transformer keeps its width
    assert macs(half, 64) < 0.3 * macs(whole, 64)
    assert type(half) is type(whole)


def test_the_half_stem_halves_the_picture() -> None:
    assert nets.build("resnet", channels=1, classes=7, stem="half").features(torch.zeros(1, 1, 48, 48)).shape[2:] == (
        3,
        3,
    )


def test_only_the_nets_whose_documents_ask_for_dense_layers_have_no_pooled_head() -> None:
    dense = {name for name in nets.names() if not isinstance(on_paper(name, classes=7).head, PooledHead)}
    assert dense == {"alexnet", "conv4", "hybrid_resnet50", "lenet"}
