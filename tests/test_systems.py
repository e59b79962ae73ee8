"""The five documents against the recipes: what a document says stands in the recipe that reproduces it."""

from typing import Any

import pytest

from mien._emotions import CLASS_SETS
from mien.lab import recipe
from support.recipe_values import at

# Every row of the table of docs/systems.md: recipe or family -> document.
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
    *((name, "optimise.name", "adam") for name in SURVEY),
    ("resnet18-64", "optimise.rate", 1e-3),
    *((name, "optimise.decay", 1e-4) for name in SURVEY),
    *((name, "optimise.schedule", "plateau") for name in SURVEY),
    *((name, "optimise.fallback.name", "sgd") for name in SURVEY),
    *((name, "loss.name", "cross-entropy") for name in SURVEY),
    *((name, "target.weights", 1.0) for name in SURVEY),
    *((name, "net.options.dropout", 0.3) for name in SURVEY),
    ("resnet18-64", "data.size", 64),
    ("hybrid-resnet50", "data.size", 224),
    ("hybrid-resnet50", "net.weights", "imagenet"),
    ("hybrid-resnet50", "net.options.width", 512),
    ("hybrid-resnet50", "net.options.heads", 8),
    ("hybrid-resnet50", "net.options.dropout", 0.3),
    ("hybrid-resnet50", "optimise.name", "adamw"),
    ("efficientnet-b3", "data.size", 300),
    ("xception", "data.size", 299),
    ("mobilenetv3-small", "data.size", 224),
    *((name, "data.classes", "seven") for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "loss.name", "cross-entropy") for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "target.weights", 1.0) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.rotate", 35) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.shear", 0.4228) for name in ("hybrid-resnet50", *RIVALS)),  # tan(0.4 rad)
    *((name, "augment.zoom", 0.4) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.shift", 0.25) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.light", 0.5) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.flip", 0.5) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "augment.fill", "zeros") for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "minority.repeat", 3) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "minority.augment.rotate", 35) for name in ("hybrid-resnet50", *RIVALS)),
    *((name, "minority.augment.shear", 0.4663) for name in ("hybrid-resnet50", *RIVALS)),  # tan(25 degrees)
    *((name, "data.size", 224) for name in ("attention-resnet", "attention-resnet-leaky")),
    *((name, "data.expand", 0.3) for name in ("attention-resnet", "attention-resnet-leaky")),
    *((name, "loss.name", "focal") for name in ("attention-resnet", "attention-resnet-leaky")),
    *((name, "optimise.name", "adamw") for name in ("attention-resnet", "attention-resnet-leaky")),
    *((name, "optimise.schedule", "plateau") for name in ("attention-resnet", "attention-resnet-leaky")),
    *((name, "net.options.dropout", 0.5) for name in ("attention-resnet", "attention-resnet-leaky")),
    ("attention-resnet", "data.expand_first", False),
    ("attention-resnet", "data.exclude_leaked", True),
    ("attention-resnet-leaky", "data.expand_first", True),
    ("attention-resnet-leaky", "data.exclude_leaked", False),
    ("conv4", "optimise.name", "adam"),
    ("conv4", "optimise.rate", 1e-3),
    ("conv4", "optimise.batch", 64),
    ("conv4", "optimise.epochs", 15),
    ("conv4", "loss.name", "cross-entropy"),
    ("conv4", "augment.flip", 0),
    ("conv4", "data.classes", "seven"),
]
RECALLS_003 = (63.43, 51.41, 47.37, 87.89, 63.04, 78.37, 67.66)
RECALLS_004 = (46.7, 14.4, 34.8, 71.0, 47.7, 57.4, 47.6)
# What the documents print, in percent: recipe -> figures.
CLAIMS: dict[str, dict[str, float]] = {
    **{name: {} for name in (*SURVEY, "efficientnet-b3", "xception", "mobilenetv3-small")},
    "hybrid-resnet50": {
        "balanced_accuracy": 58.87,
        "macro_f1": 57.37,
        "log_loss": 105.6,
        "recall.happy": 83.09,
        "recall.disgust": 55,
    },
    "baseline-cnn": {"balanced_accuracy": 45.20, "macro_f1": 43.80, "log_loss": 145.2},
    "attention-resnet": {
        "accuracy": 69.41,
        "macro_f1": 68,
        "balanced_accuracy": 66,
        "macro_precision": 72,
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
def test_what_the_document_says_stands_in_the_recipe(name: str, key: str, value: Any) -> None:
    assert at(recipe.load(name), key) == value


@pytest.mark.parametrize(("name", "percent"), CLAIMS.items())
def test_the_claims_are_the_printed_figures(name: str, percent: dict[str, float]) -> None:
    claimed = recipe.load(name).claim.figures
    assert claimed == pytest.approx({key: value / 100 for key, value in percent.items()})


@pytest.mark.parametrize("document", ["000", "001", "002", "003", "004"])
def test_recipes_of_one_system_claim_the_same(document: str) -> None:
    families = {
        "000": SURVEY[:1],
        "001": ("hybrid-resnet50", "hybrid-resnet50-scratch", "hybrid-resnet50-tuned", "hybrid-ablation"),
        "002": ("vgg-vs-resnet",),
        "003": ("attention-resnet", "attention-resnet-leaky"),
        "004": ("conv4", "conv4-ideas"),
    }[document]
    claims = [recipe.load(member).claim.figures for name in families for member in recipe.members(name)]
    assert all(claim == claims[0] for claim in claims)
    assert (claims[0] == {}) == (document in ("000", "002"))
