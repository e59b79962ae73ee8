"""Finished runs -> one finished run, whose net is theirs side by side and whose logits are the mean of theirs.

Nets that err differently are often better together: the mean answer of several is right where most of them are. What
that costs is time, the sum of theirs, and no training.
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
from mien.lab.count import weightless
from mien.lab.files import save_state, save_text
from mien.lab.nets._layers import PooledHead
from mien.lab.provenance import provenance
from mien.lab.recipe import NetChoice, Recipe, dump
from mien.lab.train.checkpoint import line_of
from mien.lab.train.run import State, Trained, build, load_final

# Of each part's provenance.
_KEPT = ("machine", "torch", "command", "commit")


def join(runs: Sequence[Path], out: Path, *, name: str, about: str = "") -> Recipe:
    """Write the joined run of ``runs`` to the folder ``out``, as recipe ``name``; returns its recipe.

    That recipe is the first run's but for its net, name and ``about``. ``final.pt`` tells of every part, and the log
    holds the epochs of one after another, so that the cost is that of all. Raises ``DataError`` for fewer than two
    runs, for nets that cannot be joined, that learned from other faces or classes, and for a folder that holds a run.
    """
    if len(runs) < 2:
        raise DataError("one run is a net already; name two or more")
    if (out / "final.pt").exists() or (out / "checkpoint.pt").exists():
        raise DataError(f"{out}: holds a run already; name another --out, or remove the folder")
    trained = [load_final(run) for run in runs]
    _require_alike(runs, trained)
    parts = [{"name": t.recipe.net.name, **t.recipe.net.options} for t in trained]
    said = about or f"{_names(trained)} side by side: the mean of their logits, without further training."
    recipe = replace(trained[0].recipe, name=name, about=said, net=NetChoice("towers", {"parts": parts}))
    history = _histories(trained)
    origin = provenance(trained[0].provenance.get("data_sha256", "")) | {"parts": [_source(each) for each in trained]}
    weights = joined_state(trained)
    build(recipe).load_state_dict(weights)  # what is written can be read
    state = {"recipe": dump(recipe), "net": weights, "epoch": len(history), "history": history}
    save_text(out / "recipe.json", json.dumps(dump(recipe), indent=1) + "\n")
    save_text(out / "log.jsonl", "".join(line_of(record) for record in history))
    save_state(out / "final.pt", state | {"provenance": origin})
    return recipe


def joined_state(trained: Sequence[Trained]) -> dict[str, Tensor]:
    """The weights of ``towers`` that answer the mean of the logits of ``trained``."""
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


def _require_alike(runs: Sequence[Path], trained: Sequence[Trained]) -> None:
    """Raises ``DataError`` naming the first run that cannot stand beside the first one, and why."""
    first, place = trained[0], _place(trained[0])
    for run, each in zip(runs, trained, strict=True):
        if each.recipe.data != first.recipe.data:
            raise DataError(
                f"{run}: its recipe's [data] differs from that of {runs[0]}; runs of the same faces are joined"
            )
        if each.provenance.get("data_sha256") != first.provenance.get("data_sha256"):
            raise DataError(f"{run}: was trained on other faces than {runs[0]}; runs of the same faces are joined")
        if each.recipe.data.expand_first:
            raise DataError(f"{run}: has learned from test faces (data.expand_first); it is not joined")
        head = each.net.head
        if not isinstance(head, PooledHead):
            raise DataError(f"{run}: {each.recipe.net.name} has no pooled linear head, which alone can be joined")
        if _place(each) != place:
            raise DataError(f"{run}: its maps have {_place(each)} places a side, those of {runs[0]} {place}")


def _place(trained: Trained) -> int:
    """The side of the net's map of a face."""
    size, net = trained.recipe.data.size, weightless(trained.net)
    assert isinstance(net, nets.Net)
    return int(net.features(torch.empty(1, 1, size, size, device="meta")).shape[-1])


def _histories(trained: Sequence[Trained]) -> list[State]:
    """The records of all epochs, numbered through; the first of each net names it."""
    records: list[State] = []
    for each in trained:
        offset = len(records)
        for number, record in enumerate(each.history):
            named = {"net": _name(each)} if number == 0 else {}
            records.append({**record, "epoch": offset + number + 1, **named})
    return records


def _source(trained: Trained) -> dict[str, Any]:
    """What the card says of one part."""
    seconds = round(sum(record["seconds"] for record in trained.history))
    cost = {"epochs": len(trained.history), "seconds": seconds}
    kept = {key: trained.provenance[key] for key in _KEPT if key in trained.provenance}
    return {"recipe": trained.recipe.name, "seed": trained.recipe.seed, **cost, **kept}


def _name(trained: Trained) -> str:
    return f"{trained.recipe.name}, seed {trained.recipe.seed}"


def _names(trained: Sequence[Trained]) -> str:
    *most, last = [f"`{each.recipe.name}` (seed {each.recipe.seed})" for each in trained]
    return f"{', '.join(most)} and {last}"
