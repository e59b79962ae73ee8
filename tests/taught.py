"""Teachers for tests: a short recipe, and two little nets that it trained."""

from pathlib import Path

from losses import SHORT
from mien.lab import recipe as recipes
from mien.lab.data import FaceSet, Split
from mien.lab.recipe import Recipe
from mien.lab.train.fit import Devices, fit

CPU = Devices("cpu")


def short(*more: str) -> Recipe:
    """Eight epochs of a small net, with ``more`` overrides."""
    return recipes.load("mien-plain", [*SHORT, "optimise.epochs=8", "optimise.ema=0", *more])


def training(faces: FaceSet) -> FaceSet:
    """What teachers answer for."""
    return faces.split(Split.TRAINING)


def two_runs(folder: Path, faces: FaceSet) -> list[Path]:
    """Two finished runs of different seeds in ``folder``, a little trained."""
    places = [folder / f"seed-{seed}" for seed in (0, 1)]
    for seed, place in enumerate(places):
        assert fit(recipes.with_seed(short(), seed), faces, place, devices=CPU)
    return places
