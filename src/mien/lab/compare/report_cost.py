"""The section on what accuracy costs: milliseconds and parameters."""

from collections.abc import Mapping

from mien.lab.compare import words
from mien.lab.compare.compare import Comparison
from mien.lab.compare.cost import BATCHES, Cost, Timing
from mien.lab.compare.plots import Point, pareto
from mien.lab.page import columns, facts, note, paragraph, section, table
from mien.lab.page.blocks import Section


def cost_section(comparison: Comparison) -> Section:
    """Accuracy on the common faces against latency and against parameters; the measurement says how it was made."""
    plots, good = [], "accuracy on the common faces" if comparison.common.narrowed else "accuracy"
    timed = _points(comparison, [_own_ms(comparison, place) for place in range(len(comparison.contenders))])
    if timed:
        caption = "On the line: no other model is both faster and better. Lines through points: 95 % intervals."
        plots.append(pareto(timed, label="milliseconds a face, one thread, batch 1", good=good, caption=caption))
    sized = _points(comparison, [c.parameters and c.parameters / 1e6 for c in comparison.contenders])
    if sized:
        caption = "On the line: no other model is both smaller and better."
        plots.append(pareto(sized, label="millions of parameters", good=good, caption=caption))
    blocks = [columns(*plots)] if plots else []
    return section("What accuracy costs", *blocks, *_timings(comparison), *_left_out(comparison))


def _points(comparison: Comparison, costs: list[float | None]) -> list[Point]:
    return [
        Point(c.name, cost, f["accuracy"], (f["interval"][0], f["interval"][1]))
        for c, f, cost in zip(comparison.contenders, comparison.common_figures, costs, strict=True)
        if cost
    ]


def _own_ms(comparison: Comparison, place: int) -> float | None:
    """Of the graph whose accuracy is shown, and no faster sibling of it."""
    if comparison.costs is None:
        return None
    found = comparison.costs.each[place].timing(comparison.contenders[place].precision, 1)
    return found.ms if found else None


def _timings(comparison: Comparison) -> list[str]:
    if comparison.costs is None:
        return [paragraph("Nothing was timed (--no-latency).")]
    costs, setting = comparison.costs.each, comparison.costs.setting
    kinds = [k for k in ("fp32", "int8", "as it is") if any((k, 1) in cost.timings for cost in costs)]
    header = ["model", *(f"{kind}, batch {batch}" for kind in kinds for batch in BATCHES)]
    header += [f"{kind}, MB" for kind in kinds if kind != "as it is"] + ["graph"]
    rows = []
    for place in words.ranking(comparison):
        cost = costs[place]
        times = [_ms(cost.timing(kind, batch)) for kind in kinds for batch in BATCHES]
        sizes = [_mb(cost, kind) for kind in kinds if kind != "as it is"]
        rows.append([comparison.contenders[place].name, *times, *sizes, cost.graph or None])
    caption = (
        "Milliseconds a face: of the round that was disturbed least, in brackets the median and the slowest round."
    )
    said = {
        "machine": f"{setting['processor']}, {setting['cores']} cores; load {setting['load']}",
        "how": f"ONNX Runtime {setting['onnxruntime']}, {setting['threads']} thread, batches of {setting['batches']}; "
        f"{setting['rounds']} rounds in which the models take turns; random crops, which cost what faces cost",
        "graphs": "Kept answers and runs are timed as the graph that their recipe exports, with fresh weights: time "
        "and size do not depend on them. int8 graphs are timed and weighed, not judged, unless the answers are int8.",
    }
    return [*_busy(setting), table(header, rows, caption=caption), facts(said)]


def _busy(setting: Mapping[str, str]) -> list[str]:
    load = setting["load"].split()[0]
    if load.replace(".", "").isdigit() and float(load) > int(setting["cores"]) / 2:
        return [
            note(
                f"The machine was busy (load {load} on {setting['cores']} cores): milliseconds are "
                "too many, and models that lie close may change places. Measure again when it is idle."
            )
        ]
    return []


def _left_out(comparison: Comparison) -> list[str]:
    if comparison.costs is None:
        return []
    named = zip(comparison.contenders, comparison.costs.each, strict=True)
    reasons = {c.name: cost.reason for c, cost in named if cost.reason}
    return [paragraph("Not timed, or not in whole:"), facts(reasons)] if reasons else []


def _ms(timing: Timing | None) -> str | None:
    return f"{timing.ms:.2f} ({timing.median:.2f}, {timing.slowest:.2f})" if timing else None


def _mb(cost: Cost, kind: str) -> str | None:
    return f"{cost.bytes[kind] / 1e6:.1f}" if kind in cost.bytes else None
