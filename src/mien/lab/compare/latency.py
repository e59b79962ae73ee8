"""Latency of each model: all are timed in the same minutes, on one thread, through the same ONNX Runtime.

A file of the contract is timed as it is. Of recorded predictions and of runs the graph of the recipe is exported with
fresh weights: time and size do not depend on what the weights are, and no run has to be at hand.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import class_set
from mien._errors import MienError
from mien._framing import FER2013
from mien._measure import environment, median_ms
from mien._progress import Progress, no_progress
from mien.infer import PRECISIONS, Classifier
from mien.lab.compare.entries import ModelEntry
from mien.lab.export.calibrate import Calibration
from mien.lab.export.onnx import contract_metadata, export_fp32, export_int8
from mien.lab.recipe import Recipe, dump, parse
from mien.lab.train.run import build_net

BATCHES = (1, 64)
_ROUNDS = 5
_SECONDS = 0.15  # of one model in one round
_CROPS_FOR_RANGES = 32  # for an int8 graph that is only timed

Crops = NDArray[np.uint8]
Call = Callable[[Crops], object]


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a face: ``ms`` of the round that was disturbed least, the fastest; the median and slowest round."""

    ms: float
    median: float
    slowest: float


@dataclass(frozen=True)
class Latency:
    """Latency of one model: ``timings`` by precision and batch, ``bytes`` of its files, ``graph`` in words.

    ``reason`` says why it, or its int8 file, was not timed.
    """

    timings: Mapping[tuple[str, int], Timing] = field(default_factory=dict)
    bytes: Mapping[str, int] = field(default_factory=dict)
    graph: str = ""
    reason: str = ""

    def timing(self, precision: str, batch: int) -> Timing | None:
        """The time of one face in batches of this size; ``None`` where it was not timed."""
        return self.timings.get((precision, batch))


@dataclass(frozen=True)
class Latencies:
    """One ``Latency`` for each entry, in their order, and the ``setting`` that they were measured in."""

    each: tuple[Latency, ...]
    setting: Mapping[str, str]


def measure_latency(
    entries: Sequence[ModelEntry],
    *,
    seconds: float = _SECONDS,
    rounds: int = _ROUNDS,
    progress: Progress = no_progress,
) -> Latencies:
    """Time every entry, all of them in each of ``rounds``, so that a slow minute slows all.

    A model that cannot be timed has a reason instead. ``progress`` is called before each step.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    with TemporaryDirectory(prefix="mien-compare-") as folder:
        prepared: dict[tuple[str, ...], _Prepared] = {}
        of_each = []
        for place, entry in enumerate(entries):
            key = _same_graph(entry, place)
            if key not in prepared:
                progress(f"{entry.name}: graph")
                prepared[key] = _prepare(entry, Path(folder) / str(place))
            of_each.append(prepared[key])
        progress("timing")
        timed = _time(list(prepared.values()), seconds, rounds)
    latencies = dict(zip(prepared, timed, strict=True))
    return Latencies(tuple(latencies[_same_graph(c, place)] for place, c in enumerate(entries)), _setting(load, rounds))


@dataclass(frozen=True)
class _Prepared:
    calls: Mapping[str, Call]
    size: int
    latency: Latency


def _same_graph(entry: ModelEntry, place: int) -> tuple[str, ...]:
    """What entries of one recipe share: seeds of it have one graph."""
    recipe = _recipe(entry)
    if recipe is None:
        return ("file", str(place))
    said = dump(recipe)
    return "recipe", str(said["net"]), str(said["data"]["classes"]), str(said["data"]["size"])


def _recipe(entry: ModelEntry) -> Recipe | None:
    if entry.model is not None and entry.model.trained is not None:
        return entry.model.trained.recipe
    return parse(entry.plan, where=entry.source) if entry.plan is not None else None


def _prepare(entry: ModelEntry, folder: Path) -> _Prepared:
    recipe = _recipe(entry)
    try:
        return _of_recipe(recipe, folder) if recipe else _of_file(entry)
    except Exception as error:  # the exporter raises whatever its parts raise; one net must not cost the whole report
        return _Prepared({}, 1, Latency(reason=f"cannot be exported ({_line(error)})"))


def _of_recipe(recipe: Recipe, folder: Path) -> _Prepared:
    files = {precision: folder / name for precision, name in PRECISIONS.items()}
    emotions, size = class_set(recipe.data.classes), recipe.data.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_net(recipe).eval().requires_grad_(False)
    same = Calibration((1.0,) * len(emotions), (0.0,) * len(emotions))
    metadata = contract_metadata(recipe.name, emotions, size, FER2013, recipe.name, {"commit": "", "data_sha256": ""})
    export_fp32(net, files["fp32"], size=size, calibration=same, metadata=metadata)
    reason = ""
    try:
        export_int8(files["fp32"], files["int8"], _crops(_CROPS_FOR_RANGES, size))
    except Exception as error:  # the quantiser raises whatever its parts raise
        reason = f"no int8 graph ({_line(error)})"
    there = {precision: path for precision, path in files.items() if path.is_file()}
    sizes = {precision: path.stat().st_size for precision, path in there.items()}
    calls = {precision: Classifier(path) for precision, path in there.items()}
    return _Prepared(calls, size, Latency({}, sizes, "exported from the recipe, weights as they start", reason))


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def _of_file(entry: ModelEntry) -> _Prepared:
    model = entry.model
    assert model is not None
    if "precision" not in model.about:  # somebody's file, with its adapter
        return _Prepared({entry.precision: model}, model.size, Latency({}, {}, "file as it is, through its adapter"))
    files = {model.about["precision"]: model.path}
    for precision, name in PRECISIONS.items():
        beside = model.path.parent / name
        if beside.is_file() and Classifier(beside).name == model.name:
            files.setdefault(precision, beside)
    sizes = {precision: path.stat().st_size for precision, path in files.items()}
    calls = {precision: Classifier(path) for precision, path in files.items()}
    return _Prepared(calls, model.size, Latency({}, sizes, "file as it is"))


def _time(prepared: Sequence[_Prepared], seconds: float, rounds: int) -> list[Latency]:
    taken: list[dict[tuple[str, int], list[float]]] = [{} for _ in prepared]
    failed = ["" for _ in prepared]
    for _ in range(rounds):
        for place, each in enumerate(prepared):
            try:
                _round(each, seconds, taken[place])
            except MienError as error:
                failed[place] = str(error)
    return [
        Latency(_over_rounds(times), each.latency.bytes, each.latency.graph, each.latency.reason or reason)
        for each, times, reason in zip(prepared, taken, failed, strict=True)
    ]


def _round(each: _Prepared, seconds: float, taken: dict[tuple[str, int], list[float]]) -> None:
    for precision, call in each.calls.items():
        for batch in BATCHES:
            crops = _crops(batch, each.size)
            (ms,) = median_ms(partial(call, crops), seconds=seconds, least=3, warm_up=1)
            taken.setdefault((precision, batch), []).append(ms / batch)


def _over_rounds(taken: Mapping[tuple[str, int], list[float]]) -> dict[tuple[str, int], Timing]:
    return {key: Timing(min(times), float(np.median(times)), max(times)) for key, times in taken.items()}


def _crops(count: int, size: int) -> Crops:
    return np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)


def _setting(load: float, rounds: int) -> dict[str, str]:
    said = environment("onnxruntime")
    busy = f"{load:.1f} when the measurement began" if load == load else "not known here"
    return {**said, "threads": "1", "batches": ", ".join(map(str, BATCHES)), "rounds": str(rounds), "load": busy}
