"""Every net: shapes, gradients, sizes, operations, options, and the numbers of its document."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mien._emotions import CLASS_SETS, SEVEN
from mien._errors import RecipeError
from mien.lab import nets
from mien.lab import recipe as recipes
from mien.lab.nets import count_macs, count_parameters, hybrid_resnet50, to_meta
from mien.lab.nets._layers import Block, Bottleneck, Branched, DenseHead, EncoderBlock, PooledHead, drop_branch
from mien.lab.recipe import DataConfig, NetConfig
from mien.lab.train.run import build_net

_BUILT: dict[str, nets.Net] = {}


def meta_net(name: str, *, channels: int = 3, classes: int = 1000, **options) -> nets.Net:
    """The net on the meta device, where counting costs nothing; each is built once, so no test may change it."""
    key = repr((name, channels, classes, options))
    if key not in _BUILT:
        with torch.device("meta"):
            _BUILT[key] = nets.build(name, channels=channels, classes=classes, **options).eval()
    return _BUILT[key]


def shape(net: torch.nn.Module, *images: int) -> tuple[int, ...]:
    """The shape of the output of a net for images of a shape."""
    return tuple(to_meta(net).eval()(torch.empty(*images, device="meta")).shape)


NARROWED = [name for name in nets.net_names() if "base" in nets.options(name)]


@pytest.fixture(
    params=[
        *nets.net_names(),
        *(pytest.param(f"{name} at full width", marks=pytest.mark.release) for name in NARROWED),
    ],
    scope="module",
)
def net(request) -> nets.Net:
    """A net at its start, narrow where it has an option for that: no test may change its weights."""
    torch.manual_seed(0)
    name, _, is_full = request.param.partition(" ")
    return nets.build(name, channels=1, classes=7, **({"base": 16} if name in NARROWED and not is_full else {}))


def test_the_first_logits_are_finite_and_differ_but_little_and_every_parameter_gets_a_gradient(net: nets.Net) -> None:
    """A net with vanishing or exploding activations would start from equal, or from very large, logits."""
    logits = net.train()(torch.randn(4, 1, 48, 48))
    assert logits.shape == (4, 7)
    assert logits.isfinite().all()
    assert 1e-4 < logits.std(dim=0).mean() < 5
    logits.square().sum().backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


@torch.no_grad()
def test_forward_is_head_of_features_for_any_batch(net: nets.Net) -> None:
    x = torch.randn(2, 1, 48, 48)
    together = net.eval()(x)
    features = net.features(x)
    assert features.ndim == 4
    assert torch.equal(together, net.head(features))
    torch.testing.assert_close(together[1:], net(x[1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", nets.net_names())
def test_parameters_and_macs_are_reported(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    net = meta_net(name, channels=1, classes=7)
    with capsys.disabled():
        print(f"\n{name}: {count_parameters(net):,} parameters, {count_macs(net, 48) / 1e6:.1f} MMAC at 48 px", end="")
    assert count_parameters(net) > 1e5
    assert count_macs(net, 48) > 1e6


@pytest.mark.parametrize("name", nets.net_names())
def test_any_class_set_and_other_sizes_and_channels_are_taken(name: str) -> None:
    assert shape(meta_net(name, channels=3, classes=3), 2, 3, 64, 64) == (2, 3)


# The hybrid's branches depend on the class set, the other nets on its size alone.
@pytest.mark.parametrize(
    ("name", "classes"),
    [*((name, "eight") for name in nets.net_names()), *(("hybrid_resnet50", classes) for classes in CLASS_SETS)],
)
def test_a_recipe_of_any_size_and_class_set_builds_the_net_that_fits(name: str, classes: str) -> None:
    options = {"depth": 18, "base": 16} if name == "hybrid_resnet50" else {}
    recipe = replace(recipes.load("conv4"), data=DataConfig(classes=classes, size=96), net=NetConfig(name, options))
    with torch.device("meta"):
        net = to_meta(build_net(recipe)).eval()
        features = net.features(torch.empty(1, 1, 96, 96))
        assert net.head(features).shape == (1, len(CLASS_SETS[classes]))
    if isinstance(net.head, DenseHead):
        assert net.head.pool.output_size == features.shape[-1]


def test_a_recipe_can_keep_another_size_for_its_dense_layers() -> None:
    recipe = replace(recipes.load("conv4"), data=DataConfig(size=96), net=NetConfig("conv4", {"size": 48}))
    with torch.device("meta"):
        assert build_net(recipe).head.pool.output_size == 3


# Parameters and GMAC with 3 channels and 1000 classes, as published (or as torchvision and Keras count them).
PUBLISHED = [
    ("resnet", {"depth": 18, "stem": "imagenet"}, 224, 11_689_512, 1.81),
    ("resnet", {"depth": 34, "stem": "imagenet"}, 224, 21_797_672, 3.66),
    ("resnet", {"depth": 50, "stem": "imagenet"}, 224, 25_557_032, 4.09),
    ("vgg", {"depth": 16, "norm": False, "head": "dense", "size": 224}, 224, 138_357_544, 15.47),
    ("vgg", {"depth": 19, "norm": False, "head": "dense", "size": 224}, 224, 143_667_240, 19.63),
    ("alexnet", {"stem": "imagenet", "size": 224}, 224, 61_100_840, 0.71),
    ("efficientnet", {"variant": 0, "stem": "imagenet"}, 224, 5_288_548, 0.39),
    ("efficientnet", {"variant": 0, "stem": "imagenet", "lite": True}, 224, 4_652_008, 0.39),
    ("efficientnet", {"variant": 1, "stem": "imagenet"}, 240, 7_794_184, 0.69),
    ("efficientnet", {"variant": 2, "stem": "imagenet"}, 288, 9_109_994, 1.09),
    ("efficientnet", {"variant": 3, "stem": "imagenet"}, 300, 12_233_232, 1.83),
    ("mobilenetv3_small", {"stem": "imagenet", "head": "dense"}, 224, 2_542_856, 0.06),
    ("xception", {"stem": "imagenet"}, 299, 22_855_952, 8.36),
]


@pytest.mark.parametrize(("name", "options", "size", "published", "gmacs"), PUBLISHED)
def test_standard_nets_are_the_published_ones(name, options, size, published, gmacs) -> None:
    net = meta_net(name, **options)
    assert count_parameters(net) == published
    with FlopCounterMode(display=False) as counter:
        shape(net, 1, 3, size, size)
    assert round(counter.get_total_flops() / 2e9, 2) == gmacs


def test_mien_can_be_resnet18() -> None:
    wide = meta_net("mien", stem=64, widths=(64, 128, 256, 512), depths=(2,) * 4, strides=(1, 2, 2, 2))
    assert [p.shape for p in wide.parameters()] == [p.shape for p in meta_net("resnet", depth=18).parameters()]


def test_lenet_can_be_lenet_5() -> None:
    five = meta_net("lenet", channels=1, classes=10, widths=(6, 16), hidden=(120, 84), size=32)
    assert count_parameters(five) == 61_706


@pytest.mark.parametrize(("name", "depth"), [("resnet", 18), ("resnet", 50), ("hybrid_resnet50", 50)])
def test_a_resnet_that_starts_as_its_shortcuts_has_a_smaller_first_gradient(name: str, depth: int) -> None:
    norms = []
    for zero_init in (False, True):
        torch.manual_seed(0)
        net = nets.build(name, channels=1, classes=3, depth=depth, base=8, zero_init_residual=zero_init)
        images = torch.rand(16, 1, 48, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
        torch.nn.functional.cross_entropy(net(images), torch.arange(16) % 3).backward()
        norms.append(torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm())
        branches = [m for m in net.modules() if isinstance(m, Block | Bottleneck)]
        ends = [(m.second if isinstance(m, Block) else m.third)[1].weight for m in branches]
        assert len(ends) == (8 if depth == 18 else 16)
        assert all(bool((end == 0).all()) == zero_init for end in ends)
    assert norms[1] < norms[0] / 2


def test_attention_resnet_has_the_printed_parameters_but_for_one_misprint() -> None:
    net = meta_net("attention_resnet", classes=7)
    names = ("stem", "stage1", "stage2", "stage3", "stage4", "attention")
    counted = [count_parameters(net.features.get_submodule(name)) for name in names]
    assert counted == [9_408 + 128, 73_984, 230_144, 919_040, 3_673_600 - 512, 513]
    assert count_parameters(net.head) == 3_591
    assert count_parameters(net) == 4_910_408 - 512
    deep = meta_net("attention_resnet", classes=7, depth=2)
    assert [len(deep.features.get_submodule(f"stage{i}")) for i in (1, 2, 3, 4)] == [2, 2, 2, 2]


def test_resnet18_64_keeps_the_resolution_until_the_pooling() -> None:
    net = meta_net("resnet18_64", channels=1, classes=6)
    assert shape(net.features, 1, 1, 64, 64) == (1, 512, 8, 8)
    assert net.head.dropout.p == 0.3


def test_conv4_has_four_convolutions_and_three_dense_layers() -> None:
    net = meta_net("conv4", channels=1, classes=7)
    convolutions = [m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions == [64, 128, 256, 512]
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in net.modules()) == 4
    assert sum(isinstance(m, torch.nn.Linear) for m in net.modules()) == 3


def test_vgg_at_48_pixels_starts_its_dense_head_from_512_values() -> None:
    net = meta_net("vgg", channels=1, classes=6, depth=19, head="dense")
    assert next(m for m in net.head.modules() if isinstance(m, torch.nn.Linear)).in_features == 512


@pytest.mark.parametrize("name", ["resnet", "efficientnet", "xception", "mobilenetv3_small", "attention_resnet"])
def test_the_small_stem_leaves_a_larger_map(name: str) -> None:
    built = [meta_net(name, channels=1, classes=7, stem=stem) for stem in ("imagenet", "small")]
    sides = [shape(net.features, 1, 1, 48, 48)[-1] for net in built]
    assert sides[0] == 2
    assert sides[1] >= 3


@pytest.mark.parametrize("name", ["resnet", "attention_resnet", "hybrid_resnet50", "vgg"])
def test_half_of_the_base_is_about_a_quarter_of_the_net(name: str) -> None:
    whole, half = (meta_net(name, channels=1, classes=7, base=base) for base in (64, 32))
    assert count_parameters(half) < 0.45 * count_parameters(whole)  # the hybrid's transformer keeps its width
    assert count_macs(half, 64) < 0.3 * count_macs(whole, 64)
    assert type(half) is type(whole)


def test_the_half_stem_halves_the_image() -> None:
    assert shape(meta_net("resnet", channels=1, classes=7, stem="half").features, 1, 1, 48, 48)[2:] == (3, 3)


def test_only_the_nets_whose_documents_ask_for_dense_layers_have_no_pooled_head() -> None:
    dense = {
        name for name in nets.net_names() if not isinstance(meta_net(name, channels=1, classes=7).head, PooledHead)
    }
    assert dense == {"alexnet", "conv4", "hybrid_resnet50", "lenet"}


@pytest.mark.parametrize(
    ("option", "module"),
    [
        ({"adapter": False}, "features.adapter"),
        ({"attention": "none"}, "features.channel features.spatial"),
        ({"attention": "channel"}, "features.spatial"),
        ({"attention": "spatial"}, "features.channel"),
        ({"transformer": False}, "head.encoder"),
        ({"branches": []}, "head.branches"),
    ],
)
def test_each_module_of_the_hybrid_can_be_switched_off_alone(option: dict, module: str) -> None:
    small = {"channels": 1, "classes": 7, "depth": 18, "base": 16}
    whole, ablated = (meta_net("hybrid_resnet50", **small, **changed) for changed in ({}, option))
    gone = {name for name, _ in whole.named_parameters()} - {name for name, _ in ablated.named_parameters()}
    assert gone
    assert {".".join(name.split(".")[:2]) for name in gone} == set(module.split())
    assert shape(ablated, 2, 1, 64, 64) == (2, 7)


def test_the_hybrid_can_have_a_resnet18_backbone() -> None:
    torch.manual_seed(0)
    net = nets.build("hybrid_resnet50", channels=1, classes=7, depth=18, base=16, stem="half", width=32).eval()
    assert net.features(torch.zeros(1, 1, 48, 48)).shape == (1, 128, 3, 3)
    assert net(torch.rand(2, 1, 48, 48)).shape == (2, 7)
    assert count_parameters(meta_net("hybrid_resnet50", depth=18)) < count_parameters(
        meta_net("hybrid_resnet50", depth=34)
    )


def test_the_hybrid_without_transformer_and_branches_has_the_pooled_head() -> None:
    net = meta_net("hybrid_resnet50", channels=1, classes=7, transformer=False, branches=[])
    assert isinstance(net.head, PooledHead)


@torch.no_grad()
def test_each_branch_of_the_hybrid_computes_the_logits_of_its_own_classes() -> None:
    torch.manual_seed(0)
    head = nets.build("hybrid_resnet50", channels=1, classes=7, depth=18, base=16).head.eval()
    features = torch.rand(2, 128, 2, 2)
    before = head(features)
    head.branches[0][-1].bias += 1
    changed = (head(features) - before).abs().amax(dim=0) > 0.5
    assert changed.nonzero().flatten().tolist() == [SEVEN.index(name) for name in hybrid_resnet50.BRANCHES[0]]


@pytest.mark.parametrize(
    ("classes", "groups"),
    [
        ("seven", [[3, 5, 6], [0, 1, 2, 4]]),
        ("six-no-neutral", [[3, 5], [0, 1, 2, 4]]),
        ("three", [[2], [0, 1]]),
        ("eight", [[1, 2, 0], [3, 4, 5, 6, 7]]),
    ],
)
def test_the_branches_of_the_hybrid_follow_the_class_set(classes: str, groups: list[list[int]]) -> None:
    emotions = CLASS_SETS[classes]
    net = meta_net("hybrid_resnet50", channels=1, classes=len(emotions), emotions=emotions)
    assert [branch[-1].out_features for branch in net.head.branches] == [len(group) for group in groups]
    assert hybrid_resnet50._groups(hybrid_resnet50.BRANCHES, len(emotions), emotions) == groups


def test_branches_can_be_named_by_index_as_well() -> None:
    by_index = meta_net("hybrid_resnet50", classes=7, branches=[[0, 1], [2]])
    assert [branch[-1].out_features for branch in by_index.head.branches] == [2, 1, 4]


@torch.no_grad()
def test_without_adapter_the_grey_channel_is_repeated_three_times() -> None:
    grey = torch.rand(1, 1, 4, 4)
    assert torch.equal(hybrid_resnet50.Duplicate()(grey), grey.repeat(1, 3, 1, 1))


@torch.no_grad()
def test_the_transformer_is_that_of_torch() -> None:
    """With the same weights, torch's own encoder layer gives the same tokens."""
    torch.manual_seed(0)
    mine = EncoderBlock(32, 4, hidden=64).eval()
    reference = torch.nn.TransformerEncoderLayer(32, 4, dim_feedforward=64, batch_first=True).eval()
    reference.self_attn.in_proj_weight.copy_(mine.project.weight)
    reference.self_attn.in_proj_bias.zero_()
    pairs = [(reference.self_attn.out_proj, mine.join), (reference.linear1, mine.think[0])]
    pairs += [(reference.linear2, mine.think[3]), (reference.norm1, mine.norms[0]), (reference.norm2, mine.norms[1])]
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(2, 9, 32)
    torch.testing.assert_close(mine(tokens), reference(tokens), rtol=1e-4, atol=1e-5)


def test_stochastic_depth_drops_whole_branches_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    branch = torch.ones(4000, 2, 1, 1)
    dropped = drop_branch(branch, 0.25, training=True)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert drop_branch(branch, 0.25, training=False) is branch


def test_a_name_may_have_dashes() -> None:
    assert count_parameters(meta_net("resnet18-64")) == count_parameters(meta_net("resnet18_64"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18-46", {}, r"unknown net 'resnet18-46'; did you mean 'resnet18_64'\?"),
        ("resnet", {"depth": 101}, "depth is one of 18, 34, 50, not 101"),
        ("resnet", {"stem": "big"}, "stem is one of 'small', 'half', 'imagenet', not 'big'"),
        ("resnet", {"base": 0}, "base is the width of the first stage, at least 1, not 0"),
        ("vgg", {"head": "flat"}, "head is one of 'pooled', 'dense', not 'flat'"),
        ("efficientnet", {"variant": 9}, "variant is one of 0, 1, 2, 3, not 9"),
        ("alexnet", {"stem": "imagenet"}, "images of 48 px are too small for this net"),
        ("attention_resnet", {"depth": 0}, "at least 1, not 0"),
        ("hybrid_resnet50", {"branches": [[0, 1], [1, 3]]}, "branches name a class twice"),
        ("hybrid_resnet50", {"branches": [["happy", "glad"]]}, "a class of branches is one of 'angry', .*, not 'glad'"),
        ("hybrid_resnet50", {"branches": [[7]]}, "a class of branches is one of 0, .*, not 7"),
        ("mien", {"strides": [[], 2, 2]}, r"strides is \[\[\], 2, 2\]; it must be a list, each value an integer"),
        ("mien", {"strides": [True, 2, 2]}, "it must be a list, each value an integer"),
        ("mien", {"widths": [48, 96, 0]}, "widths is from 1 to [0-9]+, not 0"),
        ("mien", {"dropout": True}, "dropout is True; it must be a number"),
        ("mien", {"block": "plane"}, "block is one of 'residual', 'plain', 'reparam', not 'plane'"),
        ("mien", {"block": "plain", "squeeze": True}, "squeeze and drop_path need block 'residual', not 'plain'"),
        ("mien", {"drop_path": 1}, "drop_path is from 0 to below 1, not 1"),
        ("timm/resnet18", {"drop_path_rate": 3.0}, "drop_path_rate is from 0 to below 1, not 3.0"),
        ("hybrid_resnet50", {"depth": 101}, "depth is one of 18, 34, 50, not 101"),
        ("hybrid_resnet50", {"heads": 7}, "cannot be divided among 7 heads"),
    ],
)
def test_a_wrong_option_is_one_clear_error(name: str, options: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        nets.build(name, channels=1, classes=7, **options)


def test_macs_are_counted_by_hand_and_counting_changes_nothing() -> None:
    one = nets.build("mien", channels=1, classes=7, stem=16, widths=(16,), depths=(1,), strides=(1,)).train()
    before = {name: value.clone() for name, value in one.state_dict().items()}
    assert count_macs(one, 48) == 48 * 48 * (9 * 16 + 2 * 9 * 16 * 16) + 16 * 7
    assert one.training
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    assert not any(module._forward_hooks for module in one.modules())


def test_macs_of_attention_are_counted() -> None:
    block = EncoderBlock(32, 4, hidden=64)
    tokens = torch.nn.Sequential(torch.nn.Conv2d(1, 32, 1), torch.nn.Flatten(2), Swap(), block)
    places, linear = 6 * 6, 3 * 32 * 32 + 32 * 32 + 2 * 32 * 64
    assert count_macs(tokens, 6) == places * (32 + linear) + 2 * places * places * 32


class Swap(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)


def test_a_meta_copy_shares_nothing_with_its_net() -> None:
    net = nets.build("lenet", channels=1, classes=7, norm=True)
    copied = to_meta(net)
    assert {t.device.type for t in [*copied.parameters(), *copied.buffers()]} == {"meta"}
    assert {t.device.type for t in [*net.parameters(), *net.buffers()]} == {"cpu"}
    norms = {id(p) for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d) for p in module.parameters()}
    assert norms
    assert [p.shape for p in copied.parameters()] == [p.shape for p in net.parameters() if id(p) not in norms]


@pytest.mark.parametrize("block", ["plain", "reparam"])
def test_the_other_blocks_of_the_mien_family_learn_with_every_parameter(block: str) -> None:
    torch.manual_seed(0)
    net = nets.build(
        "mien", channels=1, classes=7, block=block, stem=16, widths=(16, 32), depths=(2, 1), strides=(2, 2)
    )
    logits = net.train()(torch.randn(4, 1, 48, 48))
    assert 1e-4 < logits.std(dim=0).mean() < 5
    logits.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(("inputs", "outputs", "stride"), [(8, 8, 1), (8, 16, 1), (8, 8, 2)])
@torch.no_grad()
def test_a_branched_convolution_is_one_convolution_in_eval_mode(inputs: int, outputs: int, stride: int) -> None:
    torch.manual_seed(0)
    branched = Branched(inputs, outputs, stride=stride).double()
    for _ in range(3):  # batch norms with statistics of their own
        branched.train()(torch.randn(8, inputs, 6, 6, dtype=torch.double) * 3 + 1)
    for layer in branched.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.uniform_(-1, 1)
            layer.bias.uniform_(-1, 1)
    x = torch.randn(2, inputs, 9, 9, dtype=torch.double)
    fused = branched.eval().fused()
    assert type(fused) is torch.nn.Conv2d
    torch.testing.assert_close(fused(x), branched(x), rtol=1e-12, atol=1e-12)
    assert (branched.straight is None) == (inputs != outputs or stride > 1)


def test_blurred_strides_keep_the_weights_and_change_less_when_the_face_moves() -> None:
    torch.manual_seed(0)
    options = {"stem": 16, "widths": (16, 32), "depths": (1, 1), "strides": (2, 2), "dropout": 0.0}
    plain = nets.build("mien", channels=1, classes=7, **options).eval()
    blurred = nets.build("mien", channels=1, classes=7, blur=0.25, **options).eval()
    assert list(blurred.state_dict()) == list(plain.state_dict())
    blurred.load_state_dict(plain.state_dict())
    x = torch.zeros(16, 1, 52, 52)
    x[..., 10:42, 10:42] = torch.rand(16, 1, 32, 32)  # away from the edges
    with torch.no_grad():
        pooled = {
            net: [net.features(x[..., shift : shift + 48, :48]).mean(dim=(2, 3)) for shift in (0, 1)]
            for net in (plain, blurred)
        }
    change = {net: float((one - other).norm() / one.norm()) for net, (one, other) in pooled.items()}
    assert change[blurred] < 0.5 * change[plain]
    with pytest.raises(RecipeError, match="blur"):
        nets.build("mien", channels=1, classes=7, block="plain", blur=0.1)


def test_the_net_of_mien_2_fits_into_a_millisecond() -> None:
    recipe = recipes.load("mien-2")
    assert 186e6 < count_macs(build_net(recipe), recipe.data.size) <= 190e6
