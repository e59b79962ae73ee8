"""Finished runs -> one finished run whose logits are the mean of theirs.

An ensemble of nets with different errors is often more accurate than each net. It needs no training, and its inference
takes the sum of their times.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mien._errors import DataError
from mien.lab import nets
from mien.lab.files import file_set, has_checkpoint, output_folder, save_json, save_state
from mien.lab.nets import to_meta
from mien.lab.nets._layers import PooledHead
from mien.lab.provenance import provenance
from mien.lab.recipe import NetConfig, Recipe, dump
from mien.lab.train.logging import EpochRecord, write_log
from mien.lab.train.run import Trained, build_net, load_final, net_hashes


def combine_runs(runs: Sequence[Path], out: Path, *, name: str, about: str = "") -> Recipe:
    """Combine finished runs into one run whose net is their ensemble.

    The recipe of the new run is that of the first run except for its net, name and ``about``. Its ``final.pt`` records
    the origin of every member. Its log holds the epochs of all members, so its cost is the sum of their costs.

    Args:
        runs: Folders of two or more finished runs.
        out: Folder of the new run.
        name: Name of the new recipe.
        about: Description of the new recipe; by default it names the members.

    Returns:
        The recipe of the new run.

    Raises:
        DataError: There are fewer than two runs, their nets, data or classes differ too much, or ``out`` holds a run.
    """
    if len(runs) < 2:
        raise DataError("an ensemble needs at least two runs")
    if (out / "final.pt").exists() or has_checkpoint(out):
        raise DataError(f"{out}: holds a run already; choose another folder, or remove this one")
    trained = [load_final(run) for run in runs]
    _check_compatible(runs, trained)
    parts = [{"name": t.recipe.net.name, **t.recipe.net.options} for t in trained]
    *most, last = [f"`{t.recipe.name}` (seed {t.recipe.seed})" for t in trained]
    about = about or f"Ensemble of {', '.join(most)} and {last}: the mean of their logits, without further training."
    recipe = replace(trained[0].recipe, name=name, about=about, net=NetConfig("ensemble", {"parts": parts}))
    history: list[EpochRecord] = []
    for each in trained:  # the first record of each member names it
        names = [f"{each.recipe.name}, seed {each.recipe.seed}", *(record.net for record in each.history[1:])]
        offset = len(history) + 1
        history += [replace(r, epoch=offset + i, net=names[i]) for i, r in enumerate(each.history)]
    origin = provenance(trained[0].provenance.get("data_sha256", "")) | {"parts": [_source(each) for each in trained]}
    weights = ensemble_state(trained)
    build_net(recipe).load_state_dict(weights)  # raises now if they do not fit
    state = {
        "recipe": dump(recipe),
        "net": weights,
        "epoch": len(history),
        "history": [record.to_dict() for record in history],
        "provenance": origin,
        "inputs": net_hashes(recipe),
    }
    with output_folder(out), file_set(out) as draft:
        save_json(draft / "recipe.json", dump(recipe))
        write_log(draft, history)
        save_state(draft / "final.pt", state)
    return recipe


def ensemble_state(trained: Sequence[Trained]) -> dict[str, Tensor]:
    """Return the weights of the net ``ensemble`` whose logits are the mean of the members' logits.

    Args:
        trained: The members; their nets have pooled linear heads.

    Returns:
        A state dictionary.
    """
    states = [each.net.state_dict() for each in trained]
    ensemble: dict[str, Tensor] = {}
    for number, state in enumerate(states):
        for key, value in state.items():
            if key.startswith("features."):
                ensemble[f"features.parts.{number}.{key.removeprefix('features.')}"] = value.contiguous()
    ensemble["head.linear.weight"] = torch.cat([s["head.linear.weight"] for s in states], dim=1) / len(states)
    ensemble["head.linear.bias"] = torch.stack([s["head.linear.bias"] for s in states]).mean(0)
    return ensemble


def _check_compatible(runs: Sequence[Path], trained: Sequence[Trained]) -> None:
    """Raise ``DataError`` for the first run that does not fit ``runs[0]``."""
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


def _source(trained: Trained) -> dict[str, Any]:
    """The origin of a member for the model card."""
    seconds = round(sum(record.seconds for record in trained.history))
    cost = {"epochs": len(trained.history), "seconds": seconds}
    keys = ("machine", "torch", "command", "commit")
    origin: dict[str, Any] = {key: trained.provenance[key] for key in keys if key in trained.provenance}
    return {"recipe": trained.recipe.name, "seed": trained.recipe.seed, **cost, **origin}
