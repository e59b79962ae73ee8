"""Recipes: one TOML file is one published training. Read strictly, overridden by dotted flags, saved resolved.

load -> Recipe (schema) -> dump; members, axes -> the recipes of a family; search_space -> what `mien search` varies
"""

from mien.lab.recipe.optimise import Optimise, Phase, check_optimise
from mien.lab.recipe.read import change, nearest
from mien.lab.recipe.schema import (
    Claim,
    Data,
    Loss,
    Minority,
    NetChoice,
    Recipe,
    Source,
    Target,
    minority_augment,
    with_seed,
)
from mien.lab.recipe.shipped import axes, dump, load, members, names, parse, put, search_space

__all__ = [
    "Claim",
    "Data",
    "Loss",
    "Minority",
    "NetChoice",
    "Optimise",
    "Phase",
    "Recipe",
    "Source",
    "Target",
    "axes",
    "change",
    "check_optimise",
    "dump",
    "load",
    "members",
    "minority_augment",
    "names",
    "nearest",
    "parse",
    "put",
    "search_space",
    "with_seed",
]
