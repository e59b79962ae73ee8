"""The parts of docs/results.md that set accuracy against milliseconds, and their drawings.

Both come from what `mien compare RESULTS... --split PrivateTest --keep FOLDER` wrote, all models timed in the same
minutes: results/comparison has every trained system and the models that are judged by the labels of FER-2013,
results/agreed these and mien-plus, which is judged by voters, on the faces where both say the same.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from markdown import table
from mien.lab.compare.plots import Point, pareto_figure
from mien.lab.page import drawing

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ground:
    """A comparison in ``folder`` of results/, drawn as ``drawing`` of docs/, and the ``faces`` it is made on."""

    folder: str
    heading: str
    drawing: str
    alt: str
    faces: str

    def read(self, results: Path) -> Json | None:
        """What was kept of it, where its models were timed."""
        path = results / self.folder / "PrivateTest.json"
        said: Json | None = json.loads(path.read_text("utf-8")) if path.is_file() else None
        return said if said and said["measured_on"] else None


LABELLED = Ground(
    "comparison",
    "## Accuracy against milliseconds",
    "images/pace.svg",
    "Accuracy against milliseconds a face",
    "Accuracy on the {n:,} faces of {split} and the classes that all models know ({names}): that is the only fair "
    "ground for six classes beside seven, and easier than all seven. `mien-1-blend` is no longer a recipe: "
    "[experiments](experiments.md).",
)
AGREED = Ground(
    "agreed",
    "### Where labels and voters agree",
    "images/pace-agreed.svg",
    "Accuracy against milliseconds a face, where labels and voters agree",
    "`mien-plus` is judged by the majority of ten voters, all others by the labels of FER-2013. Accuracy on the {n:,} "
    "faces of {split} for which both are the same, and the classes that all models know ({names}): the faces that "
    "people do not quarrel about, a ground that suits a net which has learned from voters.",
)
GROUNDS = (LABELLED, AGREED)


def sections(results: Path) -> list[str]:
    """The sections, where there are comparisons with their times."""
    return [part for ground in GROUNDS for part in _section(ground, results)]


def _section(ground: Ground, results: Path) -> list[str]:
    said = ground.read(results)
    if said is None:
        return []
    common = said["common"]
    faces = ground.faces.format(n=common["n"], split=said["split"], names=", ".join(common["emotions"]))
    told = (
        f"One face at a time on one thread of {said['measured_on']['processor']}, ONNX Runtime, all models in the same "
        f"minutes. {faces} The graph of the figure is timed: int8 for an embedded model, fp32 for kept answers. "
        f"`{said['provenance']['command']}`."
    )
    slower = _beside(said, LABELLED.read(results)) if ground is not LABELLED else ""
    return [ground.heading, f"![{ground.alt}]({ground.drawing})", told + slower, _rows(said)]


def _beside(said: Json, other: Json | None) -> str:
    """A sentence that says how far two tables lie apart whose times were measured on different days."""
    if other is None:
        return ""
    before = {m["name"]: milliseconds(m, "int8") for m in other["models"]}
    now = {m["name"]: milliseconds(m, "int8") for m in said["models"]}
    ratios = [now[name] / ms for name, ms in before.items() if ms and now.get(name)]
    if not ratios:
        return ""
    return (
        f" The {len(ratios)} int8 files of the table above took {median(ratios):.2f} times as long here "
        f"(median; there {other['measured_on']['processor']}, {other['measured_on']['system']}, here "
        f"{said['measured_on']['processor']}, {said['measured_on']['system']}): compare times within one table."
    )


def draw(results: Path, ground: Ground) -> str | None:
    """The drawing of ``ground`` as SVG."""
    said = ground.read(results)
    if said is None:
        return None
    good = "accuracy on the common faces" if said["common"]["narrowed"] else "accuracy"
    figure, alt = pareto_figure(_points(said), label="milliseconds a face, one thread", good=good)
    return drawing(figure, alt=alt)


def _points(said: Json) -> list[Point]:
    found = [(model, milliseconds(model, model["precision"])) for model in said["models"]]
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
        times = [f"{ms:.2f}" if (ms := milliseconds(model, precision)) else "–" for precision in ("fp32", "int8")]
        size = f"{model['parameters'] / 1e6:.2f} M" if model["parameters"] else "–"
        lines.append([f"`{model['name']}`", *accuracy, *times, size])
    return table(["model", "accuracy", "95 % interval", "fp32, ms", "int8, ms", "parameters"], lines)


def milliseconds(model: Json, precision: str) -> float | None:
    """Of one face, as ``model`` of a comparison was timed; ``None`` where it was not."""
    timings = model["cost"]["timings"]
    return next((t["ms_a_face"]["ms"] for t in timings if (t["precision"], t["batch"]) == (precision, 1)), None)
