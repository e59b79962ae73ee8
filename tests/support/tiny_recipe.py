"""A recipe that trains in a second: a small net on 16 px, with batch norms and dropout unless a test changes them."""

from typing import Any

import torch

from mien.lab.recipe import Recipe, parse

BASE: dict[str, dict[str, Any]] = {
    "data": {"size": 16},
    "augment": {"rotate": 10.0, "shift": 0.05},
    "net": {
        "name": "lenet",
        "options": {"widths": [8, 8], "kernel": 3, "hidden": [16], "size": 16, "norm": True, "dropout": 0.2},
    },
    "train": {"lr": 0.05, "epochs": 3, "batch_size": 28, "ema_decay": 0.9, "precision": "32-true"},
}


def tiny(*, options: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """``options`` change the net's, tables change keys of their section, other values replace the section."""
    table: dict[str, Any] = {"name": "tiny", "about": "for tests", **{key: dict(base) for key, base in BASE.items()}}
    table["net"]["options"] = {**table["net"]["options"], **(options or {})}
    for key, change in changes.items():
        table[key] = {**table.get(key, {}), **change} if isinstance(change, dict) else change
    return parse(table, where="tiny")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two states are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
