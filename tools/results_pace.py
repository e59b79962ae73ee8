"""The part of docs/results.md that sets accuracy against milliseconds, and its drawing.

Both come from results/comparison/PrivateTest.json, where `mien compare RESULTS... --split PrivateTest --keep
results/comparison` wrote every trained system and the default model, timed in the same minutes. mien-plus, judged on
other labels, has no place there.
"""

import json
from pathlib import Path
from typing import Any

from markdown import table
from mien.lab.compare.plots import Point, pareto_figure
from mien.lab.page import drawing

Json = dict[str, Any]

DRAWING = "images/pace.svg"  # as docs/ name it


def sections(results: Path) -> list[str]:
    """The section, where there is a comparison with its times."""
    said = _read(results)
    if said is None:
        return []
    common = said["common"]
    names, command = ", ".join(common["emotions"]), said["provenance"]["command"]
    told = (
        f"One face at a time on one thread of {said['measured_on']['processor']}, ONNX Runtime, all models in the same "
        f"minutes. Accuracy on the {common['n']:,} faces of {said['split']} and the classes that all models know "
        f"({names}): that is the only fair ground for six classes beside seven, and easier than all seven. "
        f"The graph of the figure is timed: int8 for an embedded model, fp32 for kept answers. `{command}`."
    )
    picture = f"![Accuracy against milliseconds a face]({DRAWING})"
    return ["## Accuracy against milliseconds", picture, told, _rows(said)]


def draw(results: Path) -> str | None:
    """The drawing as SVG."""
    said = _read(results)
    if said is None:
        return None
    good = "accuracy on the common faces" if said["common"]["narrowed"] else "accuracy"
    figure, alt = pareto_figure(_points(said), label="milliseconds a face, one thread", good=good)
    return drawing(figure, alt=alt)


def _read(results: Path) -> Json | None:
    path = results / "comparison" / "PrivateTest.json"
    said: Json | None = json.loads(path.read_text("utf-8")) if path.is_file() else None
    return said if said and said["measured_on"] else None


def _points(said: Json) -> list[Point]:
    found = [(model, _ms(model, model["precision"])) for model in said["models"]]
    return [
        Point(m["name"], ms, m["common"]["accuracy"], (m["common"]["interval"][0], m["common"]["interval"][1]))
        for m, ms in found
        if ms
    ]


def _rows(said: Json) -> str:
    lines = []
    for model in sorted(said["models"], key=lambda m: -m["common"]["accuracy"]):
        low, high = model["common"]["interval"]
        accuracy = [f"**{100 * model['common']['accuracy']:.1f} %**", f"{100 * low:.1f} to {100 * high:.1f}"]
        times = [f"{ms:.2f}" if (ms := _ms(model, precision)) else "–" for precision in ("fp32", "int8")]
        size = f"{model['parameters'] / 1e6:.2f} M" if model["parameters"] else "–"
        lines.append([f"`{model['name']}`", *accuracy, *times, size])
    return table(["model", "accuracy", "95 % interval", "fp32, ms", "int8, ms", "parameters"], lines)


def _ms(model: Json, precision: str) -> float | None:
    timings = model["cost"]["timings"]
    return next((t["ms_a_face"]["ms"] for t in timings if (t["precision"], t["batch"]) == (precision, 1)), None)
