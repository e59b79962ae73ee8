"""The files of a comparison or a study: ``comparison.json``, ``table.csv`` and ``report.html``."""

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from mien._format import csv_cell
from mien._metrics import HEADLINE
from mien.lab.compare.compare import Comparison, mean_metrics, over_seeds
from mien.lab.compare.latency import BATCHES
from mien.lab.compare.report import comparison_page
from mien.lab.compare.study import MOST_CONFUSED, Study, confusions
from mien.lab.files import file_set, save_json, save_text
from mien.lab.metrics import compute_metrics


def write_comparison(
    found: Comparison, folder: Path, provenance: Mapping[str, str], *, metrics_folder: Path | None = None
) -> None:
    """Write ``comparison.json``, ``table.csv`` and ``report.html``.

    Args:
        found: The comparison or study.
        folder: Where the files are written.
        provenance: Command, commit, data and machine, as ``mien.lab.provenance.provenance`` gives them.
        metrics_folder: A folder that also gets the metrics: ``SPLIT.json``, or ``FAMILY.json`` of a study.

    Raises:
        OutputError: A file cannot be written.

    Example:
        >>> from mien.lab.compare import compare
        >>> from mien.lab.provenance import provenance
        >>> found = compare(["mien-0", "mien-1"], Path("faces"), None)  # doctest: +SKIP
        >>> write_comparison(found, Path("reports"), provenance(found.faces.sha256))  # doctest: +SKIP
    """
    text, values, name = comparison_page(found, provenance), comparison_values(found), found.split
    metrics = values
    if isinstance(found, Study):
        name, metrics = found.family, {"split": found.split} | study_values(found)
        values = values | {"study": study_values(found)}
    origin = {"provenance": dict(provenance)}
    with file_set(folder) as draft:
        save_json(draft / "comparison.json", values | origin)
        save_text(draft / "table.csv", _csv(found))
        save_text(draft / "report.html", text)
    if metrics_folder:
        save_json(metrics_folder / f"{name}.json", metrics | origin)


def comparison_values(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values for a JSON file, without faces.

    Args:
        found: The comparison.

    Returns:
        Models with their metrics, paired tests, disagreement, and means over seeds.
    """
    common, d = found.common, found.disagreement
    names = [c.name for c in found.entries]
    return {
        "split": found.split,
        "data_sha256": found.faces.sha256,
        "warnings": found.warnings(),
        "models": [_model(found, place) for place in range(len(names))],
        "common": {
            "n": len(common.rows),
            "clean": int(common.clean.sum()),
            "emotions": list(map(str, common.emotions)),
            "narrowed": common.narrowed,
        },
        "pairs": [
            asdict(pair)
            | {"first": names[pair.first], "second": names[pair.second], "emotions": list(map(str, pair.emotions))}
            | {"accuracy_differs": pair.accuracy_differs, "f1_differs": pair.f1_differs}
            for pair in found.pairs
        ],
        "disagreement": {
            "models": names,
            "differ": d.differ.tolist(),
            "double_fault": d.double_fault.tolist(),
            **{key: getattr(d, key) for key in ("oracle", "all_right", "all_wrong", "majority", "mean")},
        },
        "seeds": over_seeds(found),
        "measured_on": dict(found.latencies.setting) if found.latencies else None,
    }


def study_values(study: Study) -> dict[str, Any]:
    """Return a study as plain values for a JSON file.

    Args:
        study: The study.

    Returns:
        Settings with their metrics and confusions, effects, and missing members.
    """
    return {
        "family": study.family,
        "axes": {axis: list(values) for axis, values in study.axes.items()},
        "settings": [
            {
                "setting": list(setting),
                "models": [study.entries[place].name for place in places],
                "metrics": mean_metrics([study.metrics[place]["all"] for place in places]),
                "agrees_with_voters": study.voters[setting],
                "milliseconds": _milliseconds(study, places[0]),
                "confusions": [
                    {"label": label, "read_as": predicted, "share": share}
                    for label, predicted, share in confusions(study, places)[:MOST_CONFUSED]
                ],
            }
            for setting, places in study.settings.items()
        ],
        "effects_on_own_classes": [asdict(effect) for effect in study.own],
        "effects_on_shared_faces": [asdict(effect) for effect in study.shared],
        "missing": dict(study.missing),
    }


def _model(found: Comparison, place: int) -> dict[str, Any]:
    c = found.entries[place]
    values = {
        "name": c.name,
        "recipe": c.recipe,
        "seed": c.seed,
        "source": _portable(Path(c.source)),
        "predictions": c.kind,
        "precision": c.precision,
        "calibration": {"own": c.calibration or None, "compared": "vector" if c.own else c.calibration or None},
        "emotions": list(map(str, c.emotions)),
        "labels": c.selection.protocol,
        "left_out": dict(c.selection.account),
        "parameters": c.parameters,
        "macs": c.macs,
        "int8_bytes": found.int8_bytes(place),
        "metrics": found.metrics[place],
        "common": found.common_metrics[place],
        "claim": dict(c.claim) | ({"metrics": dict(c.claim["metrics"])} if c.claim else {}),
    }
    if c.own:
        values["own"] = compute_metrics(c.own.probs, c.own.labels, c.own.emotions)
    if found.latencies:
        latency = found.latencies.each[place]
        timings = [
            {"precision": precision, "batch": batch, "ms_a_face": asdict(timing)}
            for (precision, batch), timing in latency.timings.items()
        ]
        values["cost"] = {
            "timings": timings,
            "bytes": dict(latency.bytes),
            "graph": latency.graph,
            "not_timed": latency.reason,
        }
    return values


def _milliseconds(study: Study, place: int) -> dict[str, float] | None:
    """Milliseconds per face by precision; ``None`` where nothing was timed."""
    if study.latencies is None:
        return None
    timings = study.latencies.each[place].timings
    return {precision: timings[precision, 1].ms for precision in ("fp32", "int8") if (precision, 1) in timings}


def _csv(found: Comparison) -> str:
    """One line for each model, the best first."""
    rows = []
    for place in found.ranking:
        c, metrics = found.entries[place], found.metrics[place]
        row: dict[str, Any] = {}
        if isinstance(found, Study):
            setting = next(setting for setting, places in found.settings.items() if place in places)
            row = dict(zip(found.axes, setting, strict=True))
        row |= {"model": c.name, "recipe": c.recipe, "seed": c.seed, "split": found.split}
        row |= {"classes": len(c.emotions), "faces": metrics["all"]["n"]}
        for key in HEADLINE:
            low, high = metrics["all"]["intervals"][key]
            row |= {key: metrics["all"][key], f"{key}_low": low, f"{key}_high": high}
        row["clean_accuracy"] = metrics["clean"]["accuracy"] if "clean" in metrics else None
        row["common_accuracy"] = found.common_metrics[place]["accuracy"]
        row |= {"parameters": c.parameters, "macs": c.macs, "int8_bytes": found.int8_bytes(place)}
        row |= {"precision": c.precision, "calibration": "vector" if c.own else c.calibration}
        if found.latencies:
            timings = found.latencies.each[place].timings
            for precision, batch in product(("fp32", "int8", "as it is"), BATCHES):
                timing = timings.get((precision, batch))
                row[f"ms_{precision}_batch_{batch}"] = timing.ms if timing else None
        rows.append(row)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_cell(value) for key, value in row.items()} for row in rows)
    return stream.getvalue()


def _portable(source: Path) -> str:
    """A path without the folders of this machine: what follows ``results``, else the last part of an absolute path."""
    if not source.is_absolute():
        return str(source)
    if "results" in source.parts:
        return Path(*source.parts[source.parts.index("results") :]).as_posix()
    return f".../{source.name}"
