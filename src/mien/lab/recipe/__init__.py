"""Recipes: one TOML file is one published training. Read strictly, overridden by dotted flags, saved resolved.

load -> Recipe (schema) -> dump; members, axes -> the recipes of a family; search_space -> what `mien search` varies
"""

from mien.lab.recipe.load import axes, dump, load, members, parse, put, recipe_names, search_space
from mien.lab.recipe.schema import (
    Claim,
    DataConfig,
    ExtraData,
    LossConfig,
    MinorityConfig,
    NetConfig,
    Phase,
    Recipe,
    TargetConfig,
    TrainConfig,
    change,
    check_train,
    fold_recipes,
    minority_augment,
)

__all__ = [
    "Claim",
    "DataConfig",
    "ExtraData",
    "LossConfig",
    "MinorityConfig",
    "NetConfig",
    "Phase",
    "Recipe",
    "TargetConfig",
    "TrainConfig",
    "axes",
    "change",
    "check_train",
    "dump",
    "fold_recipes",
    "load",
    "members",
    "minority_augment",
    "parse",
    "put",
    "recipe_names",
    "search_space",
]
