"""Facts about a recipe without training it, as plain values, for `mien recipes`."""

from collections.abc import Sequence
from typing import Any

import torch

from mien.lab.nets import count_macs, count_parameters
from mien.lab.recipe import Recipe, dump, load, members, search_space
from mien.lab.recipe.load import as_toml, differences
from mien.lab.train.run import build_net
from mien.lab.train.schedule import build_schedule

_PHASE_KEYS = ("epochs", "optimizer", "lr", "schedule", "weight_decay", "batch_size")


def summary(name: str) -> dict[str, Any]:
    """Summarise a recipe file in one row.

    Args:
        name: A shipped recipe or the path of a TOML file.

    Returns:
        Plain values; of a family, every value that its members have.

    Raises:
        RecipeError: There is no such recipe.

    Example:
        >>> summary("conv4")["metrics"]["accuracy"]
        0.518
    """
    all_members = members(name)
    recipes = [load(member) for member in all_members]
    first = recipes[0]
    return {
        "name": name,
        "net": list(dict.fromkeys(recipe.net.name for recipe in recipes)),
        "classes": list(dict.fromkeys(recipe.data.classes for recipe in recipes)),
        "size": list(dict.fromkeys(recipe.data.size for recipe in recipes)),
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

    Example:
        >>> explanation("conv4")["phases"][0]["epochs"]
        15
    """
    family = is_family(name)
    loaded = {member: load(member, overrides) for member in (members(name) if family else (name,))}
    recipe = next(iter(loaded.values()))
    costs: dict[str, dict[str, Any]] = {}
    for each in loaded.values():  # most members of a family have the same net
        if _net_key(each) not in costs:
            costs[_net_key(each)] = _cost(each)
    rows = [{"name": m, "differs": differences(r, recipe), "net": costs[_net_key(r)]} for m, r in loaded.items()]
    return {
        "name": name,
        "about": " ".join(recipe.about.split()),
        "claim": dump(recipe)["claim"],
        "shown": recipe.name,
        "net": costs[_net_key(recipe)],
        "phases": _phases(recipe),
        "members": rows if family else [],
        "search": search_space(name),
        "recipe": dump(recipe),
        "text": as_toml(recipe, whole=whole),
    }


def is_family(name: str) -> bool:
    """Return whether a name is that of a whole family.

    Args:
        name: A shipped recipe, the path of a TOML file, or a member of a family.

    Returns:
        False for a single recipe and for a member.

    Raises:
        RecipeError: There is no such recipe.
    """
    return (name.endswith(".toml") or "/" not in name) and members(name) != (name,)


def first_sentence(text: str) -> str:
    """Return the beginning of a description, to its first full stop or colon.

    Args:
        text: The description.

    Returns:
        One line without the full stop.
    """
    words = " ".join(text.split())
    ends = [at for at in (words.find(". "), words.find(": ")) if at > 0]
    return words[: min(ends)] if ends else words.rstrip(".")


def _net_key(recipe: Recipe) -> str:
    """What the cost of a recipe's net depends on."""
    return repr((recipe.net.name, recipe.net.options, recipe.data.classes, recipe.data.size))


def _cost(recipe: Recipe) -> dict[str, Any]:
    """Name, parameters and multiply-accumulates per face of the net, which is built without memory for its weights."""
    with torch.device("meta"):
        net = build_net(recipe)
    macs = count_macs(net, recipe.data.size)
    return {"name": recipe.net.name, "size": recipe.data.size, "parameters": count_parameters(net), "macs": macs}


def _phases(recipe: Recipe) -> list[dict[str, Any]]:
    found = []
    for segment in build_schedule(recipe):
        config, phase = segment.config, segment.phase
        found.append(
            {"name": phase.name}
            | {key: getattr(config, key) for key in _PHASE_KEYS}
            | {
                "size": segment.size,
                "freeze": list(phase.freeze),
                "dropout": phase.dropout if phase.dropout >= 0 else None,
                "fallback": dict(config.fallback),
            }
        )
    return found
