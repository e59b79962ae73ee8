"""What a run's folder tells without its weights: the records of its epochs, which one was kept, whether it is done."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mien._errors import DataError
from mien.lab.recipe import Recipe
from mien.lab.train.run import same_training, validated

Record = dict[str, Any]


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The records of ``log.jsonl``, none where there is no log; NaN for what was not finite.

    Raises ``DataError`` where it is damaged.
    """
    path = folder / "log.jsonl"
    if not path.is_file():
        return []
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); remove it and run the same command again") from error
    return [{key: math.nan if value is None else value for key, value in record.items()} for record in records]


def kept_epoch(recipe: Recipe, history: Sequence[Record]) -> Record:
    """The record of the epoch whose weights are the result, as ``recipe.keep`` says."""
    judged = [(validated(record, "accuracy"), record) for record in history]
    known = [pair for pair in judged if not math.isnan(pair[0])]
    if recipe.keep == "best" and known:
        return max(known, key=lambda pair: pair[0])[1]  # the first of equals, as the run keeps it
    return history[-1]


def is_finished(folder: Path, recipe: Recipe, data: str) -> bool:
    """Whether ``folder`` holds the finished run of this very recipe.

    What does not concern the training may have changed since (``same_training``). ``data`` is the sha256 of the faces:
    a run on others is not this one.
    """
    path = folder / "recipe.json"
    if not (path.is_file() and (folder / "final.pt").is_file()):
        return False
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        final = torch.load(folder / "final.pt", map_location="cpu", weights_only=True, mmap=True)  # reads no weight
        same = final["provenance"].get("data_sha256", data) == data
        return same and same_training(stored, recipe)
    except Exception:  # damaged, or of another version: the checkpoint decides
        return False
