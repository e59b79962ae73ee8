"""A comparison as files: ``comparison.json`` for programs, ``table.csv`` for spreadsheets, ``report.html`` to read."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mien._metrics import HEADLINE
from mien.lab.compare.compare import Comparison, over_seeds
from mien.lab.compare.latency import Latency
from mien.lab.compare.report import comparison_page, int8_bytes, ranking
from mien.lab.files import save_text


def write_comparison(comparison: Comparison, folder: Path, provenance: Mapping[str, str]) -> None:
    """Write the three files to ``folder``. Raises ``OutputError``."""
    page = comparison_page(comparison, provenance)
    save_json(folder / "comparison.json", as_json(comparison) | {"provenance": dict(provenance)})
    save_text(folder / "table.csv", as_csv(table_rows(comparison)))
    save_text(folder / "report.html", page)


def keep_comparison(comparison: Comparison, folder: Path, provenance: Mapping[str, str]) -> Path:
    """Write the figures alone to ``folder`` as ``SPLIT.json``. Raises ``OutputError``."""
    path = folder / f"{comparison.split}.json"
    save_json(path, as_json(comparison) | {"provenance": dict(provenance)})
    return path


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything but the faces, as plain values."""
    common, d = comparison.common, comparison.disagreement
    return {
        "split": comparison.split,
        "data_sha256": comparison.faces.sha256,
        "warnings": comparison.warnings(),
        "models": [_model(comparison, place) for place in range(len(comparison.entries))],
        "common": {
            "n": len(common.rows),
            "clean": int(common.clean.sum()),
            "emotions": list(map(str, common.emotions)),
            "narrowed": common.narrowed,
        },
        "pairs": [_pair(comparison, place) for place in range(len(comparison.pairs))],
        "disagreement": {
            "models": [c.name for c in comparison.entries],
            "differ": d.differ.tolist(),
            "double_fault": d.double_fault.tolist(),
            **{key: getattr(d, key) for key in ("oracle", "all_right", "all_wrong", "majority", "mean")},
        },
        "seeds": over_seeds(comparison),
        "measured_on": dict(comparison.latencies.setting) if comparison.latencies else None,
    }


def _model(comparison: Comparison, place: int) -> dict[str, Any]:
    c = comparison.entries[place]
    said: dict[str, Any] = {
        "name": c.name,
        "recipe": c.recipe,
        "seed": c.seed,
        "source": portable(c.source),
        "answers": c.kind,
        "precision": c.precision,
        "emotions": list(map(str, c.emotions)),
        "labels": c.selection.protocol,
        "left_out": dict(c.selection.account),
        "parameters": c.parameters,
        "macs": c.macs,
        "int8_bytes": int8_bytes(comparison, place),
        "figures": comparison.metrics[place],
        "common": comparison.common_metrics[place],
        "claim": dict(c.claim) | ({"metrics": dict(c.claim["metrics"])} if c.claim else {}),
    }
    return said | ({"cost": _cost(comparison.latencies.each[place])} if comparison.latencies else {})


def _cost(cost: Latency) -> dict[str, Any]:
    timings = [
        {"precision": precision, "batch": batch, "ms_a_face": asdict(timing)}
        for (precision, batch), timing in cost.timings.items()
    ]
    return {"timings": timings, "bytes": dict(cost.bytes), "graph": cost.graph, "not_timed": cost.reason}


def _pair(comparison: Comparison, place: int) -> dict[str, Any]:
    pair = comparison.pairs[place]
    names = [comparison.entries[each].name for each in (pair.first, pair.second)]
    return asdict(pair) | {
        "first": names[0],
        "second": names[1],
        "emotions": list(map(str, pair.emotions)),
        "accuracy_differs": pair.accuracy_differs,
        "f1_differs": pair.f1_differs,
    }


def table_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row a model, the best first: what ``table.csv`` holds."""
    rows = []
    for place in ranking(comparison):
        c, own = comparison.entries[place], comparison.metrics[place]
        row: dict[str, Any] = {"model": c.name, "recipe": c.recipe, "seed": c.seed, "split": comparison.split}
        row |= {"classes": len(c.emotions), "faces": own["all"]["n"]}
        for key in HEADLINE:
            low, high = own["all"]["intervals"][key]
            row |= {key: own["all"][key], f"{key}_low": low, f"{key}_high": high}
        row |= {"clean_accuracy": own["clean"]["accuracy"] if "clean" in own else None}
        row |= {"common_accuracy": comparison.common_metrics[place]["accuracy"]}
        row |= {"parameters": c.parameters, "macs": c.macs, "int8_bytes": int8_bytes(comparison, place)}
        rows.append(row | {"precision": c.precision} | _milliseconds(comparison, place))
    return rows


def _milliseconds(comparison: Comparison, place: int) -> dict[str, Any]:
    if comparison.latencies is None:
        return {}
    timings = comparison.latencies.each[place].timings
    return {
        f"ms_{precision}_batch_{batch}": timings[precision, batch].ms if (precision, batch) in timings else None
        for precision in ("fp32", "int8", "as it is")
        for batch in (1, 64)
    }


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """``rows`` with a line of headings; what is not known stays empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def save_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values to ``path``, atomically. Raises ``OutputError``."""
    save_text(path, json.dumps(content, indent=1) + "\n")


def portable(source: str) -> str:
    """A path as it was given; of an absolute one its last name alone."""
    return f".../{Path(source).name}" if Path(source).is_absolute() else source
