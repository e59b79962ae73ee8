"""Finished runs -> one finished run whose logits are the mean of theirs.

Nets that make different mistakes are often better together. The ensemble needs no training and costs the sum of their
times.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mien._errors import DataError
from mien.lab import nets
from mien.lab.complexity import to_meta
from mien.lab.files import save_state, save_text
from mien.lab.nets._layers import PooledHead
from mien.lab.provenance import provenance
from mien.lab.recipe import NetConfig, Recipe, dump
from mien.lab.train.logging import EpochRecord, write_log
from mien.lab.train.run import Trained, build_net, load_final

__all__ = ["combine_runs", "ensemble_state"]

# What the provenance of the ensemble keeps of each member's.
_KEPT = ("machine", "torch", "command", "commit")


def combine_runs(runs: Sequence[Path], out: Path, *, name: str, about: str = "") -> Recipe:
    """Combine finished runs into one run whose net is their ensemble.

    The recipe of the new run is that of the first run except for its net, name and ``about``. Its ``final.pt`` records
    the origin of every member. Its log holds the epochs of all members, so that its cost is the sum of theirs.

    Args:
        runs: Folders of two or more finished runs.
        out: Folder of the new run.
        name: Name of the new recipe.
        about: Description of the new recipe; by default it names the members.

    Returns:
        The recipe of the new run.

    Raises:
        DataError: There are fewer than two runs, their nets, data or classes do not fit each other, or ``out`` holds a
            run already.
    """
    if len(runs) < 2:
        raise DataError("an ensemble needs at least two runs")
    if (out / "final.pt").exists() or (out / "checkpoint.pt").exists():
        raise DataError(f"{out}: holds a run already; choose another folder, or remove this one")
    trained = [load_final(run) for run in runs]
    _check_compatible(runs, trained)
    parts = [{"name": t.recipe.net.name, **t.recipe.net.options} for t in trained]
    about = about or f"Ensemble of {_list_names(trained)}: the mean of their logits, without further training."
    recipe = replace(trained[0].recipe, name=name, about=about, net=NetConfig("ensemble", {"parts": parts}))
    history = _concatenate_histories(trained)
    origin = provenance(trained[0].provenance.get("data_sha256", "")) | {"parts": [_source(each) for each in trained]}
    weights = ensemble_state(trained)
    build_net(recipe).load_state_dict(weights)  # fails here rather than when the file is read
    state = {
        "recipe": dump(recipe),
        "net": weights,
        "epoch": len(history),
        "history": [record.to_dict() for record in history],
    }
    save_text(out / "recipe.json", json.dumps(dump(recipe), indent=1) + "\n")
    write_log(out, history)
    save_state(out / "final.pt", state | {"provenance": origin})
    return recipe


def ensemble_state(trained: Sequence[Trained]) -> dict[str, Tensor]:
    """Build the weights of the net ``ensemble`` whose logits are the mean of the members' logits.

    Args:
        trained: The members; their nets have pooled linear heads.

    Returns:
        A state dictionary.
    """
    state: dict[str, Tensor] = {}
    heads = []
    for number, each in enumerate(trained):
        own = each.net.state_dict()
        heads.append((own["head.linear.weight"], own["head.linear.bias"]))
        for key, value in own.items():
            if key.startswith("features."):
                state[f"features.parts.{number}.{key.removeprefix('features.')}"] = value.contiguous()
    weights, biases = zip(*heads, strict=True)
    state["head.linear.weight"] = torch.cat(weights, dim=1) / len(trained)
    state["head.linear.bias"] = torch.stack(biases).mean(0)
    return state


def _check_compatible(runs: Sequence[Path], trained: Sequence[Trained]) -> None:
    """Raise ``DataError`` naming the first run that does not fit the first one, and why."""
    first, side = trained[0], _map_side(trained[0])
    for run, each in zip(runs, trained, strict=True):
        if each.recipe.data != first.recipe.data:
            raise DataError(f"{run}: [data] of its recipe differs from that of {runs[0]}; members need the same faces")
        if each.provenance.get("data_sha256") != first.provenance.get("data_sha256"):
            raise DataError(f"{run}: was trained on other faces than {runs[0]}; members need the same faces")
        if each.recipe.data.expand_first:
            raise DataError(f"{run}: has learned from validation faces (data.expand_first); it cannot be a member")
        head = each.net.head
        if not isinstance(head, PooledHead):
            raise DataError(f"{run}: {each.recipe.net.name} has no pooled linear head, which members need")
        if _map_side(each) != side:
            raise DataError(f"{run}: its maps are {_map_side(each)} cells wide, those of {runs[0]} {side}")


def _map_side(trained: Trained) -> int:
    size, net = trained.recipe.data.size, to_meta(trained.net)
    assert isinstance(net, nets.Net)
    return int(net.features(torch.empty(1, 1, size, size, device="meta")).shape[-1])


def _concatenate_histories(trained: Sequence[Trained]) -> list[EpochRecord]:
    """The records of all epochs, numbered consecutively; the first record of each member names it."""
    records: list[EpochRecord] = []
    for each in trained:
        offset = len(records)
        for number, record in enumerate(each.history):
            name = _name(each) if number == 0 else record.net
            records.append(replace(record, epoch=offset + number + 1, net=name))
    return records


def _source(trained: Trained) -> dict[str, Any]:
    """What the model card says of one member."""
    seconds = round(sum(record.seconds for record in trained.history))
    cost = {"epochs": len(trained.history), "seconds": seconds}
    kept = {key: trained.provenance[key] for key in _KEPT if key in trained.provenance}
    return {"recipe": trained.recipe.name, "seed": trained.recipe.seed, **cost, **kept}


def _name(trained: Trained) -> str:
    return f"{trained.recipe.name}, seed {trained.recipe.seed}"


def _list_names(trained: Sequence[Trained]) -> str:
    *most, last = [f"`{each.recipe.name}` (seed {each.recipe.seed})" for each in trained]
    return f"{', '.join(most)} and {last}"
