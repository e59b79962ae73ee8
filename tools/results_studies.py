"""The parts of docs/results.md that tell of studies, and of what is still to be trained.

A study is a family of recipes; its figures come from results/studies/, where `mien compare --grid FAMILY --keep` wrote
them. The axis of a family whose steps add up, as an ablation, is told step by step.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from markdown import table
from queue_file import PLACES, is_done, read_queue

Json = dict[str, Any]

# Families whose settings stand in an order, each with one thing more than the one before.
STEPS = ("hybrid-ablation", "hybrid-ablation-narrow")
_MANY = 4  # values of an axis, beyond which not every pair of them is told
FIGURES = {"accuracy": "accuracy", "balanced_accuracy": "balanced", "macro_f1": "macro F1"}


def sections(results: Path) -> list[str]:
    """One section a study."""
    studies = [json.loads(path.read_text("utf-8")) for path in sorted((results / "studies").glob("*.json"))]
    return [block for said in studies for block in _study(said)]


def families(results: Path) -> set[str]:
    """The families that there is a study of."""
    return {path.stem for path in (results / "studies").glob("*.json")}


def left(results: Path) -> list[str]:
    """What results/queue.toml still wants, and what it costs."""
    wanted = [each for each in read_queue() if not is_done(each, results)]
    title = "## Still to be trained"
    if not wanted:
        return [title, "Nothing: every training of `results/queue.toml` is done."]
    families: dict[tuple[str, str, float, str], int] = {}
    for each in wanted:
        key = (each.member.partition("/")[0], each.on, each.minutes, each.why)
        families[key] = families.get(key, 0) + 1
    lines = [
        [f"`{name}`", str(count), on, f"{count * minutes:g} min", why]
        for (name, on, minutes, why), count in families.items()
    ]
    totals = {on: sum(each.minutes for each in wanted if each.on == on) for on in PLACES}
    said = (
        "`results/queue.toml` in its order of worth; `python tools/reproduce.py` trains it and goes on where it was "
        "stopped. " + ", ".join(f"{minutes:g} minutes on one {on}" for on, minutes in totals.items() if minutes) + "."
    )
    return [title, said, table(("recipe", "runs", "on", "cost, estimated", "for"), lines)]


def _study(said: Json) -> list[str]:
    split, n = said["split"], {setting["figures"]["n"] for setting in said["settings"]}
    faces = " or ".join(f"{count:,}" for count in sorted(n, reverse=True))
    about = f"{len(said['settings'])} settings, judged on {faces} faces of {split}."
    if said["missing"]:
        about += f" Not trained: {', '.join(said['missing'])}."
    if any(each.get("agrees_with_voters") is not None for each in said["settings"]):
        about += " Voters: of faces on which most of ten FER+ voters agree, the share read as they say."
    if any(each.get("milliseconds") for each in said["settings"]):
        about += f" Milliseconds: of one face on one thread of {said['provenance']['machine'].partition(',')[0]}."
    parts = [f"## Study `{said['family']}`", about, _settings(said)]
    parts += _steps(said) if said["family"] in STEPS else _effects(said)
    return [*parts, _confusions(said)]


def _settings(said: Json) -> str:
    heads = [*said["axes"], "accuracy", "95 % interval", "balanced", "macro F1", "log loss"]
    voted = any(each.get("agrees_with_voters") is not None for each in said["settings"])
    timed = any(each.get("milliseconds") for each in said["settings"])
    heads += [*(["voters"] if voted else []), *(["ms fp32", "ms int8"] if timed else []), "seeds"]
    return table(heads, [_setting(each, voted=voted, timed=timed) for each in said["settings"]])


def _setting(each: Json, *, voted: bool, timed: bool) -> list[str]:
    f = each["figures"]
    low, high = f["interval"]
    shares = [f"{100 * f[key]:.1f} %" for key in ("balanced_accuracy", "macro_f1")]
    accuracy = [f"{100 * f['accuracy']:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}"]
    share = each.get("agrees_with_voters")
    voters = ["–" if share is None else f"{100 * share:.1f} %"] if voted else []
    ms = each.get("milliseconds") or {}
    times = [f"{ms[precision]:.2f}" if precision in ms else "–" for precision in ("fp32", "int8")] if timed else []
    return [*each["setting"], *accuracy, *shares, f"{f['log_loss']:.3f}", *voters, *times, str(len(each["models"]))]


def _steps(said: Json) -> list[str]:
    """What each step adds to the one before it: negated effects, which are told of the earlier over the later."""
    (axis, names), *_ = said["axes"].items()
    found = {(e["first"], e["second"], e["figure"]): e for e in said["effects_on_own_classes"] if e["axis"] == axis}
    lines = [
        [f"+ {step}", *(cell for figure in FIGURES for cell in _added(found.get((before, step, figure))))]
        for before, step in pairwise(names)
    ]
    heads = ["step", *(cell for name in FIGURES.values() for cell in (name, "95 % interval"))]
    told = "What each step adds, in points. **Bold**: more than noise of the faces that it was judged on."
    return [told + _chance(said, "step"), table(heads, lines)]


def _chance(said: Json, what: str) -> str:
    several = max(len(setting["models"]) for setting in said["settings"]) > 1
    return "" if several else f" One seed a {what}: chance in training is not in the intervals."


def _added(effect: Json | None) -> list[str]:
    if effect is None:
        return ["–", "–"]
    high, low = (-100 * edge for edge in effect["interval"])
    value = f"{-100 * effect['value']:+.1f}"
    return [f"**{value}**" if low > 0 or high < 0 else value, f"{low:+.1f} to {high:+.1f}"]


def _effects(said: Json) -> list[str]:
    """Main effects on the faces that all settings share; of an axis of many values, its first over the rest."""
    few = {axis: values[0] if len(values) > _MANY else None for axis, values in said["axes"].items()}
    main = [e for e in said["effects_on_shared_faces"] if e["within"] is None and few[e["axis"]] in (None, e["first"])]
    contrasts = dict.fromkeys((e["axis"], e["first"], e["second"], e["matched"]) for e in main)
    found = {(e["axis"], e["first"], e["second"], e["figure"]): e for e in main}
    lines = []
    for axis, first, second, matched in contrasts:
        effects = [found[axis, first, second, figure] for figure in ("accuracy", "macro_f1")]
        lines.append([f"{axis}: {first} over {second}", *(cell for e in effects for cell in _plain(e)), str(matched)])
    heads = ["effect", "accuracy", "95 % interval", "macro F1", "95 % interval", "matched settings"]
    told = (
        "Main effects on the faces and classes that all settings share, in points. **Bold**: more than noise of the "
        "faces that they were judged on."
    )
    told += f" Of more than {_MANY} values, the first against each other one." if any(few.values()) else ""
    return [told + _chance(said, "setting"), table(heads, lines)] if lines else []


def _plain(effect: Json) -> list[str]:
    low, high = (100 * edge for edge in effect["interval"])
    value = f"{100 * effect['value']:+.1f}"
    return [f"**{value}**" if low > 0 or high < 0 else value, f"{low:+.1f} to {high:+.1f}"]


def _confusions(said: Json) -> str:
    lines = [
        [*each["setting"], *(f"{c['label']} as {c['read_as']} {100 * c['share']:.1f} %" for c in each["confusions"])]
        for each in said["settings"]
    ]
    heads = [*said["axes"], *(f"{place}. most confused" for place in range(1, len(lines[0]) - len(said["axes"]) + 1))]
    return table(heads, lines)
