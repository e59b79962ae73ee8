"""The recipes of the five documents have the documented values, phases, frozen layers, and heads."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from mien._emotions import CLASS_SETS
from mien.lab import nets, recipe
from mien.lab.recipe import Recipe
from mien.lab.recipe.load import differences
from mien.lab.train.optim import build_optimizer
from mien.lab.train.schedule import build_schedule, freeze, is_inside, set_train_mode


def at(chosen: Recipe, key: str) -> Any:
    """The value of a dotted key; of a free table, its item."""
    value: Any = chosen
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


# Every row of the table of docs/reference/systems.md: recipe or family -> document.
SYSTEMS = {
    "resnet18-64": "000",
    "lenet": "000",
    "alexnet": "000",
    "vgg16": "000",
    "hybrid-resnet50": "001",
    "baseline-cnn": "001",
    "efficientnet-b3": "001",
    "xception": "001",
    "mobilenetv3-small": "001",
    "vgg-vs-resnet": "002",
    "attention-resnet": "003",
    "conv4": "004",
}
TUNED = {
    "resnet18-64-tuned": "000",
    "hybrid-resnet50-meant": "001",
    "hybrid-resnet50-scratch": "001",
    "hybrid-resnet50-tuned": "001",
    "hybrid-ablation": "001",
    "efficientnet-b3-tuned": "001",
    "xception-tuned": "001",
    "mobilenetv3-small-tuned": "001",
    "attention-resnet-tuned": "003",
    "conv4-ideas": "004",
}
SURVEY = ("resnet18-64", "lenet", "alexnet", "vgg16")
RIVALS = ("baseline-cnn", "efficientnet-b3", "xception", "mobilenetv3-small")
# What the documents print: recipe, dotted key, value.
FACTS: list[tuple[str, str, Any]] = [
    *((name, "data.classes", "six-no-neutral") for name in SURVEY),
    *((name, "train.optimizer", "adam") for name in SURVEY),
    ("resnet18-64", "train.lr", 1e-3),
    *((name, "train.weight_decay", 1e-4) for name in SURVEY),
    *((name, "train.schedule", "plateau") for name in SURVEY),
    *((name, "train.fallback.optimizer", "sgd") for name in SURVEY),
    *((name, "loss.name", "cross-entropy") for name in SURVEY),
    *((name, "target.class_weight_power", 1.0) for name in SURVEY),
    *((name, "net.options.dropout", 0.3) for name in SURVEY),
    ("resnet18-64", "data.size", 64),
    ("hybrid-resnet50", "data.size", 224),
    ("hybrid-resnet50", "net.weights", "imagenet"),
    ("hybrid-resnet50", "net.options.width", 512),
    ("hybrid-resnet50", "net.options.heads", 8),
    ("hybrid-resnet50", "net.options.dropout", 0.3),
    ("hybrid-resnet50", "train.optimizer", "adamw"),
    ("efficientnet-b3", "data.size", 300),
    ("xception", "data.size", 299),
    ("mobilenetv3-small", "data.size", 224),
    *((name, "data.classes", "seven") for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "loss.name", "cross-entropy") for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "target.class_weight_power", 1.0) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.rotate", 35) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.shear", 0.4228) for name in ("hybrid-resnet50", *RIVALS)),  # tan(0.4 rad)
    *((name, "augment.zoom", 0.4) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.shift", 0.25) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.brightness", 0.5) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.flip", 0.5) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.padding_mode", "zeros") for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "minority.oversample", 3) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "minority.augment.rotate", 35) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "minority.augment.shear", 0.4663) for name in ("hybrid-resnet50", *RIVALS)),  # tan(25 degrees)
    *((name, "data.size", 224) for name in ("attention-resnet", "attention-resnet-leaky")),
    *((name, "data.expand", 0.3) for name in ("attention-resnet", "attention-resnet-leaky")),
    *((name, "loss.name", "focal") for name in ("attention-resnet", "attention-resnet-leaky")),
    *((name, "train.optimizer", "adamw") for name in ("attention-resnet", "attention-resnet-leaky")),
    *((name, "train.schedule", "plateau") for name in ("attention-resnet", "attention-resnet-leaky")),
    *((name, "net.options.dropout", 0.5) for name in ("attention-resnet", "attention-resnet-leaky")),
    ("attention-resnet", "data.expand_first", False),
    ("attention-resnet", "data.exclude_leaked", True),
    ("attention-resnet-leaky", "data.expand_first", True),
    ("attention-resnet-leaky", "data.exclude_leaked", False),
    ("conv4", "train.optimizer", "adam"),
    ("conv4", "train.lr", 1e-3),
    ("conv4", "train.batch_size", 64),
    ("conv4", "train.epochs", 15),
    ("conv4", "loss.name", "cross-entropy"),
    ("conv4", "augment.flip", 0),
    ("conv4", "data.classes", "seven"),
]
RECALLS_003 = (63.43, 51.41, 47.37, 87.89, 63.04, 78.37, 67.66)
RECALLS_004 = (46.7, 14.4, 34.8, 71.0, 47.7, 57.4, 47.6)
# Printed metrics in percent: recipe -> metrics.
CLAIMS: dict[str, dict[str, float]] = {
    **{name: {} for name in (*SURVEY, "efficientnet-b3", "xception", "mobilenetv3-small")},
    "hybrid-resnet50": {
        "balanced_accuracy": 58.87,
        "macro_f1": 57.37,
        "log_loss": 105.6,
        "recall.happy": 83.09,
        "recall.disgust": 55,
        "confusion.fear.surprise": 26,
        "confusion.neutral.sad": 25,
    },
    "baseline-cnn": {"balanced_accuracy": 45.20, "macro_f1": 43.80, "log_loss": 145.2},
    "attention-resnet": {
        "accuracy": 69.41,
        "macro_f1": 68,
        "balanced_accuracy": 66,
        "macro_precision": 72,
        "weighted_precision": 70,
        "weighted_f1": 69,
        **{f"recall.{e}": value for e, value in zip(CLASS_SETS["seven"], RECALLS_003, strict=True)},
        **{f"precision.{e}": value for e, value in zip(CLASS_SETS["seven"], (63, 94, 58, 88, 56, 78, 63), strict=True)},
        **{f"f1.{e}": value for e, value in zip(CLASS_SETS["seven"], (63, 66, 52, 88, 59, 78, 65), strict=True)},
    },
    "conv4": {
        "accuracy": 51.80,
        **{f"recall.{e}": value for e, value in zip(CLASS_SETS["seven"], RECALLS_004, strict=True)},
    },
}


@pytest.mark.parametrize(("name", "document"), [*SYSTEMS.items(), *TUNED.items()])
def test_every_published_system_is_here(name: str, document: str) -> None:
    for member in recipe.members(name):
        claim = recipe.load(member).claim
        assert claim.document == document
        assert claim.variant == ("faithful" if name in SYSTEMS else "tuned")


@pytest.mark.parametrize(("name", "key", "value"), FACTS, ids=lambda part: str(part))
def test_the_recipe_has_the_values_of_the_document(name: str, key: str, value: Any) -> None:
    assert at(recipe.load(name), key) == value


@pytest.mark.parametrize(("name", "percent"), CLAIMS.items())
def test_the_claims_are_the_printed_metrics(name: str, percent: dict[str, float]) -> None:
    claimed = recipe.load(name).claim.metrics
    assert claimed == pytest.approx({key: value / 100 for key, value in percent.items()})


@pytest.mark.parametrize("document", ["000", "001", "002", "003", "004"])
def test_recipes_of_one_system_claim_the_same(document: str) -> None:
    families = {
        "000": SURVEY[:1],
        "001": ("hybrid-resnet50", *(f"hybrid-resnet50-{n}" for n in ("meant", "scratch", "tuned")), "hybrid-ablation"),
        "002": ("vgg-vs-resnet",),
        "003": ("attention-resnet", "attention-resnet-leaky"),
        "004": ("conv4", "conv4-ideas"),
    }[document]
    claims = [recipe.load(member).claim.metrics for name in families for member in recipe.members(name)]
    assert all(claim == claims[0] for claim in claims)
    assert (claims[0] == {}) == (document in ("000", "002"))


def first(name: str) -> Recipe:
    """The recipe, or the first member of the family."""
    return recipe.load(recipe.members(name)[0])


def on_meta(chosen: Recipe) -> nn.Module:
    """The recipe's net without memory: names and shapes."""
    classes = len(CLASS_SETS[chosen.data.classes])
    with torch.device("meta"):
        return nets.build(chosen.net.name, channels=1, classes=classes, **chosen.net.options)


def test_000_searches_the_five_hyperparameters_that_it_lists() -> None:
    space = recipe.search_space("resnet18-64")
    assert set(space) == {
        "train.lr",
        "train.weight_decay",
        "net.options.dropout",
        "train.batch_size",
        "train.optimizer",
    }
    chosen = recipe.load("resnet18-64")
    for key, values in space.items():
        published = at(chosen, key)
        inside = published in values if isinstance(values, list) else values["low"] <= published <= values["high"]
        assert inside, f"{key}: {published} is not in {values}"


def test_000_falls_back_to_sgd_with_momentum() -> None:
    (stage,) = build_schedule(recipe.load("resnet18-64"))
    assert stage.config.fallback == {"optimizer": "sgd", "momentum": 0.9}


def test_001_has_five_parts_in_three_phases() -> None:
    course = build_schedule(recipe.load("hybrid-resnet50"))
    assert [stage.config.epochs for stage in course] == [30, 15, 15, 20, 20]
    assert [stage.config.lr for stage in course] == [1e-5, 1e-5, 5e-6, 1e-6, 1e-7]
    assert course[0].config.schedule == "cosine"
    assert course[-1].phase.dropout == 0.3
    assert course[-1].config.weight_decays == {"head.branches": 1e-4}


# The Keras layers at which the blocks of ResNet-50 begin: conv4 (our stage3) and conv5 (our stage4).
KERAS_STARTS = {
    **{f"stage3.{block}": start for block, start in enumerate((81, 93, 103, 113, 123, 133))},
    **{f"stage4.{block}": start for block, start in enumerate((143, 155, 165))},
}


def learning(net: nn.Module, frozen: Sequence[str], part: str) -> bool:
    """Whether all of ``part`` of the backbone learns, or none of it does."""
    freeze(net, frozen)
    found = {p.requires_grad for name, p in net.named_parameters() if is_inside(name, [f"features.backbone.{part}"])}
    assert len(found) == 1, f"{part} learns in part"
    return found.pop()


def test_001_unfreezes_the_layers_that_it_names_and_keeps_them_so() -> None:
    chosen = recipe.load("hybrid-resnet50")
    net = on_meta(chosen)
    free: list[set[str]] = []
    for stage, begins in zip(build_schedule(chosen)[1:4], (160, 140, 100), strict=True):
        frozen = stage.phase.freeze
        for block, start in KERAS_STARTS.items():
            if block != "stage4.1" or begins != 160:  # layer 160 lies inside of this block
                assert learning(net, frozen, block) == (start >= begins), f"{block} from {start}, layers {begins}-"
        freeze(net, frozen)
        free.append({name for name, parameter in net.named_parameters() if parameter.requires_grad})
    first, second, third = free
    assert first < second < third
    # Layers 155 to 160 are the first two convolutions of stage4.1, 161 and 162 its third with its norm.
    frozen = build_schedule(chosen)[1].phase.freeze
    assert [learning(net, frozen, f"stage4.1.{part}") for part in ("first", "second", "third")] == [False, False, True]
    for stage in (build_schedule(chosen)[0], build_schedule(chosen)[4]):
        freeze(net, stage.phase.freeze)
        assert not any(p.requires_grad for p in net.get_submodule("features.backbone").parameters())
        assert all(p.requires_grad for p in net.head.parameters())
        assert all(p.requires_grad for p in net.get_submodule("features.channel").parameters())


def test_001_as_meant_differs_in_phase_3_alone() -> None:
    literal, meant = (recipe.load(name) for name in ("hybrid-resnet50", "hybrid-resnet50-meant"))
    changed = differences(meant, literal)
    assert set(changed) == {"claim.variant", "phases"}
    assert literal.phases[:-1] == meant.phases[:-1]
    last, other = literal.phases[-1], meant.phases[-1]
    assert (last.name, last.freeze, last.size) == (other.name, other.freeze, other.size)
    assert (last.dropout, other.dropout) == (0.3, -1)  # of every dropout layer; of the class branches, as built
    assert other.train == {**last.train, "optimizer": "adam", "lr": 1e-5}


def phase_3(name: str, decay: float) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A small net of the recipe after two steps of its last phase, and its weights before."""
    small = ["net.options.depth=18", "net.options.base=16", "net.options.width=16", "net.options.heads=2"]
    chosen = recipe.load(name, [*small, "net.options.hidden=8"])
    torch.manual_seed(0)
    net = nets.build(chosen.net.name, channels=1, classes=7, **chosen.net.options)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    segment = build_schedule(chosen)[-1]
    config = replace(segment.config, weight_decays={"head.branches": decay}) if decay >= 0 else segment.config
    freeze(net, segment.phase.freeze)
    optimizer = build_optimizer(net, config)
    for step in range(2):
        torch.manual_seed(step)
        set_train_mode(net, segment.phase)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.randn(4, 1, 64, 64)), torch.tensor([0, 1, 3, 6])).backward()
        optimizer.step()
    return net, before


@pytest.mark.parametrize(
    ("name", "step", "decays"), [("hybrid-resnet50", 1e-7, False), ("hybrid-resnet50-meant", 1e-5, True)]
)
def test_001_the_decay_of_phase_3_acts_only_as_meant(name: str, step: float, decays: bool) -> None:
    net, before = phase_3(name, decay=-1)
    without, _ = phase_3(name, decay=0)
    after = dict(net.named_parameters())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items() if ".backbone." in key)
    weights = [key for key in after if key.startswith("head.branches") and after[key].ndim > 1]
    moved = max(float((after[key] - before[key]).abs().max().detach()) for key in weights)
    assert 0.9 * step < moved < 2.1 * step  # a step of Adam is the rate, whatever the gradient
    is_same = all(torch.equal(after[key], without.get_parameter(key)) for key in weights)
    assert is_same != decays
    rates = {key: module.p for key, module in net.named_modules() if isinstance(module, nn.Dropout)}
    assert {rate for key, rate in rates.items() if "branches" in key} == {0.3}
    assert {rate for key, rate in rates.items() if "encoder" in key} == {0.1 if decays else 0.3}


def test_001_ablation_adds_one_part_after_the_other() -> None:
    steps = [recipe.load(member) for member in recipe.members("hybrid-ablation")]
    names = [step.name.rpartition("/")[2] for step in steps]
    assert names == ["backbone", "attention", "transformer", "branches", "weights", "balanced", "gan"]
    parts = [
        [
            step.net.options.get("attention", "both") != "none",
            step.net.options.get("transformer", True),
            step.net.options.get("branches", [[0]]) != [],
            step.target.class_weight_power > 0,
            step.minority.classes != (),
            step.data.extra != (),
        ]
        for step in steps
    ]
    assert [sum(each) for each in parts] == list(range(7))
    assert all(each == sorted(each, reverse=True) for each in parts)
    counts = [sum(p.numel() for p in on_meta(step).parameters()) for step in steps]
    assert counts[0] < counts[1] < counts[2] < counts[3] == counts[6]


def test_002_is_architecture_x_classes_x_optimiser_at_48_px() -> None:
    members = recipe.members("vgg-vs-resnet")
    assert len(members) == 12
    wanted = {
        f"vgg-vs-resnet/{net}-{classes}-{optimiser}"
        for net in ("vgg16-48", "vgg19-48", "resnet50-48")
        for classes in ("three", "six")
        for optimiser in ("sgd", "adam")
    }
    assert set(members) == wanted
    for member in members:
        chosen = recipe.load(member)
        assert chosen.data.size == 48
        assert chosen.data.classes == ("three" if "-three-" in member else "six-no-disgust")
        assert chosen.train.optimizer == member.rpartition("-")[2]
        assert chosen.loss.name == "cross-entropy"
        assert chosen.train.schedule != "constant"


@pytest.mark.parametrize(("net", "depth"), [("vgg16-48", 16), ("vgg19-48", 19)])
def test_002_dense_head_starts_from_512_values(net: str, depth: int) -> None:
    built = on_meta(recipe.load(f"vgg-vs-resnet/{net}-six-sgd"))
    dense = [layer for layer in built.head.modules() if isinstance(layer, nn.Linear)]
    convolutions = [layer for layer in built.features.modules() if isinstance(layer, nn.Conv2d)]
    assert dense[0].in_features == 512
    assert len(dense) + len(convolutions) == depth


def test_003_gives_backbone_and_head_rates_of_their_own() -> None:
    rates = recipe.load("attention-resnet").train.lr_factors
    assert set(rates) == {"features", "head"}
    assert rates["features"] != rates["head"]


def test_003_has_about_4_9_million_parameters() -> None:
    chosen = recipe.load("attention-resnet")
    with torch.device("meta"):
        net = nets.build(chosen.net.name, channels=3, classes=7, **chosen.net.options)
    assert sum(p.numel() for p in net.parameters()) == 4_909_896  # printed: 4,910,408, with 512 too many in layer 4


def test_003_leaky_recipe_is_the_clean_one_but_for_the_leak() -> None:
    clean, leaky = (recipe.dump(recipe.load(name)) for name in ("attention-resnet", "attention-resnet-leaky"))
    changed = {key for key in clean["data"] if clean["data"][key] != leaky["data"][key]}
    assert changed == {"expand_first", "exclude_leaked"}
    assert {key for key in clean if clean[key] != leaky[key]} == {"name", "about", "data"}


def test_002_reduced_members_have_fewer_epochs_alone() -> None:
    members = zip(*(recipe.members(f"vgg-vs-resnet{end}") for end in ("", "-reduced")), strict=True)
    for whole, reduced in ((recipe.dump(recipe.load(name)) for name in names) for names in members):
        assert {key for key in whole if whole[key] != reduced[key]} == {"name", "about", "claim", "train"}
        assert reduced["train"] == whole["train"] | {"epochs": 8, "patience": 1}


def test_003_reduced_recipe_has_smaller_faces_and_fewer_epochs_alone() -> None:
    whole, reduced = (recipe.dump(recipe.load(f"attention-resnet{end}")) for end in ("", "-reduced"))
    assert {key for key in whole if whole[key] != reduced[key]} == {"name", "about", "claim", "data", "train"}
    assert reduced["data"] == whole["data"] | {"size": 128}
    assert reduced["train"] == whole["train"] | {"epochs": 20, "patience": 3}
    assert reduced["claim"] == whole["claim"] | {"variant": "tuned"}


def test_004_is_four_convolutions_and_three_dense_layers() -> None:
    net = on_meta(recipe.load("conv4"))
    convolutions = [layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert convolutions == [64, 128, 256, 512]
    assert sum(isinstance(layer, nn.Linear) for layer in net.modules()) == 3
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in net.modules()) == 4


def test_004_ideas_differ_from_the_published_net_in_the_idea_alone() -> None:
    published = recipe.load("conv4")
    ideas = {member.rpartition("/")[2]: recipe.load(member) for member in recipe.members("conv4-ideas")}
    assert list(ideas) == ["published", "trimmed", "no-disgust", "affine"]
    for name, idea in ideas.items():
        changed = {
            section for section, value in recipe.dump(idea).items() if value != recipe.dump(published)[section]
        } - {"name", "about", "claim"}
        assert changed == {"published": set(), "trimmed": {"data"}, "no-disgust": {"data"}, "affine": {"augment"}}[name]
    assert 200 <= ideas["trimmed"].data.max_per_class <= 300
    assert ideas["no-disgust"].data.classes == "six-no-disgust"
