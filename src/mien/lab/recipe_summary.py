"""What there is to say of a recipe without training it: for `mien recipes`, as plain values."""

from collections.abc import Sequence
from typing import Any

import torch

from mien.lab.complexity import count_macs, count_parameters
from mien.lab.recipe import Recipe, dump, load, members, search_space
from mien.lab.recipe.text import as_toml, differences
from mien.lab.train.run import build_net
from mien.lab.train.schedule import build_schedule


def summary(name: str) -> dict[str, Any]:
    """Summarise a recipe file in one row.

    Args:
        name: A shipped recipe or the path of a TOML file.

    Returns:
        Plain values; of a family, every value that its members have.

    Raises:
        RecipeError: There is no such recipe.
    """
    all_members = members(name)
    recipes = [load(member) for member in all_members]
    first = recipes[0]
    return {
        "name": name,
        "net": _distinct([recipe.net.name for recipe in recipes]),
        "classes": _distinct([recipe.data.classes for recipe in recipes]),
        "size": _distinct([recipe.data.size for recipe in recipes]),
        "document": first.claim.document,
        "variant": first.claim.variant,
        "split": first.claim.split,
        "metrics": dict(first.claim.metrics),
        "cost": first.claim.cost,
        "about": first_sentence(first.about),
        "members": len(all_members) if is_family(name) else 0,
    }


def explanation(name: str, overrides: Sequence[str] = (), *, whole: bool = False) -> dict[str, Any]:
    """Describe one recipe or family in full: claim, net and cost, phases, members, search space.

    Args:
        name: A shipped recipe, the path of a TOML file, or a member of a family.
        overrides: ``section.key=value`` each.
        whole: Whether ``text`` also has the keys at their defaults.

    Returns:
        Plain values; of a family, all but ``members`` is that of its first member.

    Raises:
        RecipeError: The recipe or a key is unknown.
    """
    family = is_family(name)
    all_members = members(name) if family else (name,)
    recipe = load(all_members[0], overrides)
    return {
        "name": name,
        "about": " ".join(recipe.about.split()),
        "claim": dump(recipe)["claim"],
        "shown": recipe.name,
        "net": _cost(recipe),
        "phases": _phases(recipe),
        "members": [_member(member, recipe, overrides) for member in all_members] if family else [],
        "search": search_space(name),
        "recipe": dump(recipe),
        "text": as_toml(recipe, whole=whole),
    }


def is_family(name: str) -> bool:
    """Whether ``name`` is that of a family as a whole. Raises ``RecipeError`` where there is no such recipe."""
    return (name.endswith(".toml") or "/" not in name) and members(name) != (name,)


def first_sentence(text: str) -> str:
    """The beginning of an ``about``, to its first full stop or colon."""
    words = " ".join(text.split())
    ends = [at for at in (words.find(". "), words.find(": ")) if at > 0]
    return words[: min(ends)] if ends else words.rstrip(".")


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _member(name: str, first: Recipe, overrides: Sequence[str]) -> dict[str, Any]:
    recipe = load(name, overrides)
    return {"name": name, "differs": differences(recipe, first), "net": _cost(recipe)}


def _cost(recipe: Recipe) -> dict[str, Any]:
    """Name, parameters and multiply-accumulates of one face, counted without building anything in memory."""
    with torch.device("meta"):
        net = build_net(recipe)
    macs = count_macs(net, recipe.data.size)
    return {"name": recipe.net.name, "size": recipe.data.size, "parameters": count_parameters(net), "macs": macs}


def _phases(recipe: Recipe) -> list[dict[str, Any]]:
    found = []
    for segment in build_schedule(recipe):
        config, phase = segment.config, segment.phase
        found.append(
            {
                "name": phase.name,
                "epochs": config.epochs,
                "optimizer": config.optimizer,
                "lr": config.lr,
                "schedule": config.schedule,
                "weight_decay": config.weight_decay,
                "batch_size": config.batch_size,
                "size": segment.size,
                "freeze": list(phase.freeze),
                "dropout": phase.dropout if phase.dropout >= 0 else None,
                "fallback": dict(config.fallback),
            }
        )
    return found
