"""Recipes that train in seconds on synthetic faces, and runs that they made."""

from dataclasses import replace
from pathlib import Path

from mien.lab import recipe as recipes
from mien.lab.data import FaceSet, Split
from mien.lab.recipe import Recipe
from mien.lab.train import loop
from mien.lab.train.devices import Devices
from mien.lab.train.loop import fit
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import tiny

CPU = Devices("cpu")

# No width below 16: oneDNN 3.12, which torch 2.13 brings, crashes on some AVX-512 processors in the backward pass of a
# 1x1 convolution of stride 2 over fewer channels (4, 8 and 12 were tried) in channels_last.
SHORT = [
    "net.options.stem=16",
    "net.options.widths=[16,16,16]",
    "train.batch_size=35",
    "train.epochs=6",
    "train.optimizer=adamw",
    "train.lr=0.01",
    "augment.random_erasing=0",
]

# A net of one block, for tests that need a training but not its result.
ONE_BLOCK = ["net.options.stem=16", "net.options.widths=[16]", "net.options.depths=[1]", "net.options.strides=[2]"]

# The same as a recipe file without its name.
ONE_BLOCK_RECIPE = """
about = "A net of one block for cartoons."
[data]
size = 16
[net.options]
stem = 16
widths = [16]
depths = [1]
strides = [2]
[train]
optimizer = "adamw"
lr = 3e-3
batch_size = 28
epochs = 2
ema_decay = 0
precision = "32-true"
"""

# The file pair.toml: a family of two members.
FAMILY = f"""
name = "pair"
{ONE_BLOCK_RECIPE.replace('"32-true"', '"bf16-mixed"')}
[grid.rate.slow]
"train.lr" = 1e-4
[grid.rate.fast]
"train.lr" = 3e-3
"""

SMALL = [
    "net.options.stem=16",
    "net.options.widths=[16,32]",
    "net.options.depths=[1,1]",
    "net.options.strides=[2,2]",
    "train.batch_size=28",
    "train.precision=32-true",
    "train.lr=0.05",
]

# What learns the cartoons to the last face: they differ in their teeth alone and bear no strong distortion.
EPOCHS = 40
LEARNING = [
    f"train.epochs={EPOCHS}",
    "train.optimizer=adamw",
    "train.lr=0.005",
    "train.ema_decay=0.8",
    "augment.flip=0",
    "target.vote_weight=0",
    "target.class_weight_power=0",
    "augment.rotate=5",
    "augment.shift=0.05",
    "augment.scale=0.05",
    "augment.shear=0",
    "augment.blur_noise_share=0",
    "augment.brightness_shift=0",
    "augment.contrast=0.1",
    "augment.gamma=0",
    "augment.random_erasing=0",
    "augment.mixup=0",
    "target.label_smoothing=0",
    "net.options.dropout=0",
]


def small(*more: str) -> Recipe:
    return recipes.load("mien-0", [*SMALL, *more])


def short(*more: str) -> Recipe:
    """Eight epochs of a small net, with ``more`` overrides."""
    return recipes.load("mien-plain", [*SHORT, "train.epochs=8", "train.ema_decay=0", *more])


def train_and_save_often(folder: Path) -> None:
    """Twenty epochs of a tiny net, with a checkpoint after each of them."""
    loop.SAVE_EVERY = 0
    fit(tiny(train={"epochs": 20}), cartoon_set(), folder, devices=CPU)


def training(faces: FaceSet) -> FaceSet:
    """The faces that teachers predict."""
    return faces.split(Split.TRAINING)


def two_runs(folder: Path, faces: FaceSet) -> list[Path]:
    """Two finished runs of different seeds in ``folder``, a little trained."""
    places = [folder / f"seed-{seed}" for seed in (0, 1)]
    for seed, place in enumerate(places):
        assert fit(replace(short(), seed=seed), faces, place, devices=CPU)
    return places


def with_everything() -> Recipe:
    """A short run with every kind of auxiliary loss, and batches in parts."""
    return recipes.load(
        "mien-oval", [*SHORT, "loss.contrastive=0.2", "loss.text_alignment=0.5", "train.accumulate_steps=5"]
    )
