"""Latency of each model, measured in turns on one thread of ONNX Runtime.

A file of the contract is timed as it is. For recorded predictions and runs, the graph of the recipe is exported with
initial weights: time and size do not depend on the values of the weights, and the run need not be there.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from mien._emotions import class_set
from mien._errors import MienError, first_line
from mien._framing import FER2013
from mien._measure import environment, median_ms
from mien._progress import Progress, no_progress
from mien.infer import PRECISIONS, Classifier
from mien.lab.compare.entries import ModelEntry
from mien.lab.export.calibrate import Calibration
from mien.lab.export.onnx import contract_metadata, export_fp32, export_int8
from mien.lab.models import Model
from mien.lab.recipe import Recipe, dump, parse
from mien.lab.train.run import build_net

BATCHES = (1, 64)

_CROPS_FOR_RANGES = 32  # random crops that calibrate an int8 graph which is only timed


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds per face over several rounds.

    Attributes:
        ms: The fastest round, which was disturbed least.
        median: The median of the rounds.
        slowest: The slowest round.
    """

    ms: float
    median: float
    slowest: float


@dataclass(frozen=True)
class Latency:
    """Latency of one model.

    Attributes:
        timings: (precision, batch size) -> milliseconds per face; what was not timed is missing.
        bytes: Precision -> size of its file.
        graph: Which graph was timed, for people.
        reason: Why the model, or its int8 file, was not timed.
    """

    timings: Mapping[tuple[str, int], Timing] = field(default_factory=dict)
    bytes: Mapping[str, int] = field(default_factory=dict)
    graph: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Latencies:
    """Latency of several models, measured together.

    Attributes:
        each: One for each model.
        setting: Machine, threads, batches and rounds, term -> text.
    """

    each: tuple[Latency, ...]
    setting: Mapping[str, str]


def measure_latency(
    entries: Sequence[ModelEntry], *, seconds: float = 0.15, rounds: int = 5, progress: Progress = no_progress
) -> Latencies:
    """Measure the latency of models in turns, so that a slow period of the machine affects all of them.

    Args:
        entries: The models.
        seconds: Time for one model and batch size in one round.
        rounds: Number of rounds.
        progress: Called before each step.

    Returns:
        The latencies; a model that cannot be timed has a reason instead.
    """
    load = f"{os.getloadavg()[0]:.1f} when the measurement began" if hasattr(os, "getloadavg") else "not known here"
    keys = [_graph_key(entry, place) for place, entry in enumerate(entries)]
    with TemporaryDirectory(prefix="mien-compare-") as folder:
        graphs: dict[tuple[str, ...], _Graph] = {}
        for place, (key, entry) in enumerate(zip(keys, entries, strict=True)):
            if key not in graphs:
                progress(f"{entry.name}: graph")
                graphs[key] = _prepare(entry, Path(folder) / str(place))
        progress("timing")
        timed = _time(list(graphs.values()), seconds, rounds)
    latencies = dict(zip(graphs, timed, strict=True))
    setting = {"threads": "1", "batches": ", ".join(map(str, BATCHES)), "rounds": str(rounds), "load": load}
    return Latencies(tuple(latencies[key] for key in keys), environment("onnxruntime") | setting)


@dataclass(frozen=True)
class _Graph:
    calls: Mapping[str, Classifier | Model]
    size: int
    latency: Latency


def _recipe(entry: ModelEntry) -> Recipe | None:
    if entry.model is not None and entry.model.trained is not None:
        return entry.model.trained.recipe
    return None if entry.recorded_recipe is None else parse(entry.recorded_recipe, where=entry.source)


def _graph_key(entry: ModelEntry, place: int) -> tuple[str, ...]:
    """Equal for models with the same graph, such as seeds of one recipe."""
    recipe = _recipe(entry)
    if recipe is None:
        return ("file", str(place))
    values = dump(recipe)
    return "recipe", str(values["net"]), str(values["data"]["classes"]), str(values["data"]["size"])


def _prepare(entry: ModelEntry, folder: Path) -> _Graph:
    recipe = _recipe(entry)
    try:
        if recipe is not None:
            return _export(recipe, folder)
        assert entry.model is not None
        return _of_files(entry.model)
    except Exception as error:  # the exporter raises errors of many classes; one net must not stop the whole report
        return _Graph({}, 1, Latency(reason=f"cannot be exported ({first_line(error)})"))


def _export(recipe: Recipe, folder: Path) -> _Graph:
    files = {precision: folder / name for precision, name in PRECISIONS.items()}
    emotions, size = class_set(recipe.data.classes), recipe.data.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_net(recipe).eval().requires_grad_(False)
    identity = Calibration((1.0,) * len(emotions), (0.0,) * len(emotions))
    metadata = contract_metadata(recipe.name, emotions, size, FER2013, recipe.name, {"commit": "", "data_sha256": ""})
    export_fp32(net, files["fp32"], size=size, calibration=identity, metadata=metadata)
    reason = ""
    try:
        export_int8(files["fp32"], files["int8"], _random_crops(_CROPS_FOR_RANGES, size))
    except Exception as error:  # the quantiser raises errors of many classes
        reason = f"no int8 graph ({first_line(error)})"
    return _open_files(files, size, "exported from the recipe, initial weights", reason)


def _of_files(model: Model) -> _Graph:
    precision = model.about.get("precision")
    if precision is None:  # a foreign file
        return _Graph({"as it is": model}, model.size, Latency(graph="file as it is, through its adapter"))
    files = {precision: model.path}
    for other, name in PRECISIONS.items():
        beside = model.path.parent / name
        if beside.is_file() and Classifier(beside).name == model.name:
            files.setdefault(other, beside)
    return _open_files(files, model.size, "file as it is")


def _open_files(files: Mapping[str, Path], size: int, graph: str, reason: str = "") -> _Graph:
    there = {precision: path for precision, path in files.items() if path.is_file()}
    calls = {precision: Classifier(path) for precision, path in there.items()}
    sizes = {precision: path.stat().st_size for precision, path in there.items()}
    return _Graph(calls, size, Latency({}, sizes, graph, reason))


def _time(graphs: Sequence[_Graph], seconds: float, rounds: int) -> list[Latency]:
    taken: list[dict[tuple[str, int], list[float]]] = [{} for _ in graphs]
    failures = ["" for _ in graphs]
    for _ in range(rounds):
        for place, graph in enumerate(graphs):
            try:
                for (precision, call), batch in product(graph.calls.items(), BATCHES):
                    crops = _random_crops(batch, graph.size)
                    (ms,) = median_ms(partial(call, crops), seconds=seconds, least=3, warm_up=1)
                    taken[place].setdefault((precision, batch), []).append(ms / batch)
            except MienError as error:
                failures[place] = str(error)
    latencies = []
    for graph, times, failure in zip(graphs, taken, failures, strict=True):
        timings = {key: Timing(min(ms), float(np.median(ms)), max(ms)) for key, ms in times.items()}
        latencies.append(replace(graph.latency, timings=timings, reason=graph.latency.reason or failure))
    return latencies


def _random_crops(count: int, size: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)
