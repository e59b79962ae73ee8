"""Recipes are read strictly, changed by dotted overrides, and survive a round trip."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mien._emotions import CLASS_SETS, SEVEN
from mien._errors import RecipeError
from mien.lab import nets, recipe
from mien.lab.data import FaceSet
from mien.lab.data.custom import read_custom
from mien.lab.data.datasets import mix_sets
from mien.lab.data.weighting import class_weights
from mien.lab.recipe import Recipe
from mien.lab.train.batches import batches
from mien.lab.train.devices import Devices
from mien.lab.train.loop import prepare_training
from mien.lab.train.run import build_net, open_run
from mien.lab.train.schedule import build_schedule, freeze, set_train_mode
from support.synthetic_faces import cartoon_set

MINIMAL = 'name = "x"\nabout = "y"\n'
MEMBERS = [member for name in recipe.recipe_names() for member in recipe.members(name)]
DOCUMENTED = [name for name in MEMBERS if recipe.load(name).claim.document]


@cache
def on_meta(name: str, classes: int, options: str) -> nets.Net:
    """The net of recipes without memory; ``options`` are JSON."""
    with torch.device("meta"):
        return nets.build(name, channels=1, classes=classes, **json.loads(options))


@pytest.mark.parametrize("name", MEMBERS)
def test_every_shipped_recipe_loads_builds_and_survives_a_round_trip(name: str) -> None:
    loaded = recipe.load(name)
    assert loaded.name == name
    assert loaded.about.strip()
    assert recipe.parse(recipe.dump(loaded), where="test") == loaded
    net = on_meta(loaded.net.name, len(CLASS_SETS[loaded.data.classes]), json.dumps(loaded.net.options))
    assert isinstance(net, nets.Net)
    for stage in build_schedule(loaded):
        freeze(net, stage.phase.freeze)  # refuses a module that the net does not have
        assert any(parameter.requires_grad for parameter in net.parameters())


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_recipe_of_a_document_says_what_it_reproduces_and_why_it_differs(name: str) -> None:
    loaded = recipe.load(name)
    words = " ".join(loaded.about.split())
    assert loaded.claim.document in ("000", "001", "002", "003", "004")
    assert f"document {loaded.claim.document}" in words
    assert loaded.claim.split
    assert "figure" in words or "ublished" in words or "claim" in words or loaded.claim.document == "004"
    if loaded.claim.variant == "faithful":
        assert not name.endswith(("-tuned", "-scratch"))
        assert "osen here" in words or "stand here" in words or "is chosen" in words
    else:
        assert loaded.claim.variant == "tuned"
        assert "Tuned" in words or "conv4-ideas" in name


def test_own_recipes_claim_nothing() -> None:
    own = [recipe.load(name) for name in MEMBERS if name not in DOCUMENTED]
    assert own
    for loaded in own:
        assert (loaded.claim.variant, dict(loaded.claim.metrics)) == ("own", {})


@pytest.mark.parametrize("name", [name for name in recipe.recipe_names() if recipe.search_space(name)])
def test_every_key_of_a_search_space_is_one_of_the_recipe(name: str) -> None:
    for key, values in recipe.search_space(name).items():
        for value in values if isinstance(values, list) else (values["low"], values["high"]):
            assert recipe.load(recipe.members(name)[0], [f"{key}={value}"])


# Recipes that between them have every net, optimiser, loss, class set and other feature of all recipes.
STEPPING = [
    "alexnet",
    "attention-resnet-leaky",
    "attention-resnet-tuned",
    "baseline-cnn",
    "conv4-ideas/no-disgust",
    "conv4-ideas/trimmed",
    "conv4-tuned",
    "efficientnet-b3-tuned",
    "hybrid-ablation-narrow/backbone",
    "hybrid-ablation/gan",
    "hybrid-resnet50",
    "hybrid-resnet50-reduced",
    "hybrid-resnet50-tuned",
    "imagenet-lite",
    "mien-1-long",
    "mien-2",
    "mien-contrast",
    "mien-oval",
    "mien-plus",
    "mien-regions",
    "mien-words",
    "mobilenetv3-small-tuned",
    "resnet18-64-tuned",
    "shape/halved",
    "shape/plain",
    "speedrun-muon",
    "teacher-squeeze",
    "vgg-vs-resnet/resnet50-48-three-sgd",
    "vgg-vs-resnet/vgg16-48-three-sgd",
    "vgg16",
    "xception-tuned",
]


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(28, 14, 7))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, draw_face: Callable[..., Any]) -> Path:
    """Faces of disgust in a labelled folder, as `mien synthesize` leaves them."""
    folder = tmp_path_factory.mktemp("synthetic")
    (folder / "disgust").mkdir()
    for seed in range(4):
        Image.fromarray(draw_face(seed=seed)).save(folder / "disgust" / f"{seed}.png")
    return folder


def cheap(name: str, *, width: int = 16) -> Recipe:
    """The recipe with a narrow net, small batches of small faces, without what must be trained or fetched first."""
    table = recipe.dump(recipe.load(name))
    table["train"] |= {"batch_size": 8, "accumulate_steps": 1}
    table["data"]["size"] = min(48, table["data"]["size"])
    table["target"] |= {"distillation": 0.0, "teachers": ()}
    table["net"]["weights"] = ""
    net, options = table["net"]["name"], table["net"]["options"]
    if "base" in nets.options(net):
        options["base"] = width
    if net == "alexnet" or options.get("head") == "dense":
        options["hidden"] = [64, 64]
    if net.startswith("mien"):
        options |= {"stem": width, "widths": [width] * len(options["widths"])}
    return recipe.parse(table, where=name)


def features(value: Any, default: Any, key: str) -> Iterator[str]:
    """The keys of a recipe that are not at their defaults: with the value, unless it is a number."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from features(each, default.get(name) if isinstance(default, dict) else None, f"{key}.{name}")
    elif isinstance(value, tuple) and any(isinstance(each, dict) for each in value):
        for each in value:
            yield from features(each, default[0] if default else {}, key)
    elif value != default:
        yield f"{key}={value}" if isinstance(value, str | bool) else key


def test_the_recipes_that_take_a_step_have_every_feature() -> None:
    """A recipe with a feature that no other has is added to STEPPING."""
    defaults = recipe.dump(recipe.parse({"name": "x", "about": "y", "phases": [{"name": "z"}]}, where="test"))
    found: dict[str, set[str]] = {}
    for name in MEMBERS:
        table = recipe.dump(recipe.load(name))
        net, options = table["net"]["name"], dict(table["net"]["options"])
        found[name] = {net, *features({k: x for k, x in options.items() if k not in ("base", "hidden")}, {}, net)}
        for phase in table["phases"]:
            del phase["name"]
        for section in ("data", "target", "loss", "augment", "minority", "train", "phases"):
            found[name].update(features(table[section], defaults[section], section))
    assert set().union(*found.values()) - set().union(*(found[name] for name in STEPPING)) == set()


@pytest.mark.parametrize("name", STEPPING)
def test_a_recipe_takes_a_step(name: str, faces: FaceSet, drawn: Path, tmp_path: Path) -> None:
    take_a_step(cheap(name), faces, drawn, tmp_path)


@pytest.mark.release
@pytest.mark.parametrize("name", MEMBERS)
def test_every_recipe_takes_a_step(name: str, faces: FaceSet, drawn: Path, tmp_path: Path) -> None:
    take_a_step(cheap(name, width=32), faces, drawn, tmp_path)


def take_a_step(chosen: Recipe, faces: FaceSet, drawn: Path, tmp_path: Path) -> None:
    """Train one step, and check loss, logits and that the head has learned."""
    if chosen.data.extra:
        faces = mix_sets(faces, [(read_custom(drawn, label_map={}, emotions=SEVEN, side=48), 1.0)])
    task = prepare_training(chosen, faces, Devices("cpu").launch("32-true"))
    run = open_run(
        chosen, tmp_path, device=torch.device("cpu"), class_weights=class_weights(task.training, chosen.target)
    )
    optimiser = run.start_segment()
    set_train_mode(run.net, run.segment.phase)
    before = {key: value.clone() for key, value in run.net.head.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    views = batches(
        task.training,
        task.target,
        row_weights=task.row_weights,
        recipe=chosen,
        batch_size=8,
        teachers=task.teachers,
        generator=generator,
    )
    loss, logits = run.objective(*next(views))
    loss.backward()
    optimiser.step()
    assert torch.isfinite(loss)
    assert logits.shape == (8, len(CLASS_SETS[chosen.data.classes]))
    assert any(not torch.equal(before[key], value) for key, value in run.net.head.named_parameters())


def test_overrides_reach_sections_options_and_lists() -> None:
    changed = recipe.load(
        "mien-0", ["train.epochs=3", "net.options.widths=[16,32,48]", "augment.padding_mode=zeros", "seed=7"]
    )
    assert changed.train.epochs == 3
    assert changed.net.options["widths"] == [16, 32, 48]
    assert changed.augment.padding_mode == "zeros"
    assert changed.seed == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[train]\nepoch = 3", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("[trian]\nepochs = 3", "did you mean 'train'?"),
        ('[train]\nepochs = "3"', "epochs is of type int"),
        ("[train]\nepochs = true", "epochs is of type int"),
        ("[train]\nepochs = 0", "train.epochs is in [1, 1000000], not 0"),
        ('[data]\nclasses = "nine"', "data.classes are one of seven"),
        ('[augment]\npadding_mode = "wrap"', "augment.padding_mode"),
        ("[target]\ndistillation = 0.5", "target.teachers names no run"),
        ('[train]\noptimizer = "lion"', "train.optimizer"),
        ("train = 3", "is a section"),
        ("[augment]\nerasing_area = 0.1", "is a list"),
        ("[minority.augment]\nshrink = 0.5", "minority.augment cannot change mixup, cutmix and shrink"),
        ("= 3", "not valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path, text: str, says: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(MINIMAL + text)
    with pytest.raises(RecipeError, match=says.replace("?", r"\?").replace("[", r"\[")):
        recipe.load(str(path))


def test_unknown_recipes_files_and_overrides_are_named(tmp_path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'mien-0'"):
        recipe.load("mien0")
    with pytest.raises(RecipeError, match="no such recipe file"):
        recipe.load(str(tmp_path / "none.toml"))
    with pytest.raises(RecipeError, match=r"section\.key=value"):
        recipe.load("mien-0", ["epochs"])
    with pytest.raises(RecipeError, match="is not a section"):
        recipe.load("mien-0", ["name.x=1"])
    path = tmp_path / "short.toml"
    path.write_text('name = "x"\n')
    with pytest.raises(RecipeError, match=r"short\.toml: the key 'about' is missing"):
        recipe.load(str(path))


def test_unknown_nets_and_options_are_named() -> None:
    with pytest.raises(RecipeError, match="did you mean 'vgg'"):
        nets.build("vgg16", channels=1, classes=7)
    with pytest.raises(RecipeError, match="depht"):
        nets.build("vgg", channels=1, classes=7, depht=16)
    with pytest.raises(RecipeError, match="same length"):
        nets.build("mien", channels=1, classes=7, widths=[16])
    with pytest.raises(RecipeError, match="depth is one of"):
        nets.build("vgg", channels=1, classes=7, depth=12)


def test_classes_may_be_a_list_of_emotions_in_any_order() -> None:
    chosen = recipe.load("mien-0", ["data.classes=sad, happy"])
    assert build_net(chosen).head(torch.zeros(1, 192, 6, 6)).shape == (1, 2)
    for wrong in ("happy", "happy, happy", "happy, joy"):
        with pytest.raises(RecipeError, match="list of at least two of angry"):
            recipe.load("mien-0", [f"data.classes={wrong}"])
