"""The hybrid of document 001 part by part, options of nets, and the count of their operations."""

import pytest
import torch

from mien._emotions import CLASS_SETS, SEVEN
from mien._errors import RecipeError
from mien.lab import nets
from mien.lab.count import macs, parameters, weightless
from mien.lab.nets import hybrid_resnet50
from mien.lab.nets._attention import EncoderBlock
from mien.lab.nets._net import PooledHead, drop_branch
from mien.lab.nets._reparam import Branched
from support.weightless_nets import on_paper


@pytest.fixture(params=nets.names())
def net(request) -> nets.Net:
    torch.manual_seed(0)
    return nets.build(request.param, channels=1, classes=7)


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
    whole, ablated = (on_paper("hybrid_resnet50", channels=1, classes=7, **o) for o in ({}, option))
    gone = {name for name, _ in whole.named_parameters()} - {name for name, _ in ablated.named_parameters()}
    assert gone
    assert {".".join(name.split(".")[:2]) for name in gone} == set(module.split())
    assert ablated(torch.empty(2, 1, 64, 64, device="meta")).shape == (2, 7)


def test_the_hybrid_can_stand_on_resnet18() -> None:
    torch.manual_seed(0)
    net = nets.build("hybrid_resnet50", channels=1, classes=7, depth=18, base=16, stem="half", width=32).eval()
    assert net.features(torch.zeros(1, 1, 48, 48)).shape == (1, 128, 3, 3)
    assert net(torch.rand(2, 1, 48, 48)).shape == (2, 7)
    assert parameters(on_paper("hybrid_resnet50", depth=18)) < parameters(on_paper("hybrid_resnet50", depth=34))


def test_the_hybrid_without_transformer_and_branches_has_the_pooled_head() -> None:
    net = on_paper("hybrid_resnet50", channels=1, classes=7, transformer=False, branches=[])
    assert isinstance(net.head, PooledHead)


@torch.no_grad()
def test_each_branch_of_the_hybrid_answers_for_its_own_classes() -> None:
    torch.manual_seed(0)
    head = nets.build("hybrid_resnet50", channels=1, classes=7).head.eval()
    features = torch.rand(2, 2048, 2, 2)
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
    net = on_paper("hybrid_resnet50", channels=1, classes=len(emotions), emotions=emotions)
    assert [branch[-1].out_features for branch in net.head.branches] == [len(group) for group in groups]
    assert hybrid_resnet50._groups(hybrid_resnet50.BRANCHES, len(emotions), emotions) == groups


def test_branches_can_be_named_by_index_as_well() -> None:
    by_index = on_paper("hybrid_resnet50", classes=7, branches=[[0, 1], [2]])
    assert [branch[-1].out_features for branch in by_index.head.branches] == [2, 1, 4]


@torch.no_grad()
def test_without_adapter_the_hybrid_sees_the_grey_channel_three_times() -> None:
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
    assert parameters(on_paper("resnet18-64")) == parameters(on_paper("resnet18_64"))


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
        ("mien", {"block": "plane"}, "block is one of 'residual', 'plain', 'reparam', not 'plane'"),
        ("mien", {"block": "plain", "squeeze": True}, "squeeze and drop_path need block 'residual', not 'plain'"),
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
    assert macs(one, 48) == 48 * 48 * (9 * 16 + 2 * 9 * 16 * 16) + 16 * 7
    assert one.training
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    assert not any(module._forward_hooks for module in one.modules())


def test_macs_of_attention_are_counted() -> None:
    block = EncoderBlock(32, 4, hidden=64)
    tokens = torch.nn.Sequential(torch.nn.Conv2d(1, 32, 1), torch.nn.Flatten(2), Swap(), block)
    places, linear = 6 * 6, 3 * 32 * 32 + 32 * 32 + 2 * 32 * 64
    assert macs(tokens, 6) == places * (32 + linear) + 2 * places * places * 32


class Swap(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)


def test_a_weightless_twin_shares_nothing_with_its_net() -> None:
    net = nets.build("lenet", channels=1, classes=7, norm=True)
    twin = weightless(net)
    assert {t.device.type for t in [*twin.parameters(), *twin.buffers()]} == {"meta"}
    assert {t.device.type for t in [*net.parameters(), *net.buffers()]} == {"cpu"}
    assert [p.shape for p in twin.parameters()] == [p.shape for p in net.parameters()]


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
