"""Write the generated pages and tables of the docs; a test checks that they are up to date.

    python tools/docs_pages.py            write them
    python tools/docs_pages.py --check    exit 1 and name the pages that are out of date

docs/reference/commands.md comes from the program, docs/models.md from the models' cards, the tables of
docs/reference/recipes.md from the code that reads recipes, the colours of the web page from mien/_emotions.py, and all
measurements from results/, where the commands and benchmarks write them.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

import docs_claims
import docs_results
import docs_robustness
import docs_scale
from docs_tables import (
    AGREED,
    RESULTS,
    ROOT,
    Json,
    looks_at,
    looks_cell,
    milliseconds,
    read_card,
    replace_marked,
    table,
    write_pages,
)
from mien._emotions import UNSURE_COLOR, Emotion
from mien._format import percent
from mien.bundled import BUNDLED, DEFAULT_MODEL
from mien.commands import app
from mien.infer import bundled_models
from mien.lab.files import load_json
from mien.lab.recipe import Recipe, load, members, recipe_names
from mien.lab.recipe.load import toml_value
from mien.lab.robustness.report import format_estimate, format_ratio, robustness_row
from mien.lab.train.schedule import build_schedule

SPEED = {
    "one crop: probabilities and map, one core": ("crop_ms_int8_batch_1", "{:.2f} ms"),
    "the same in batches of 64": ("crop_ms_int8_batch_64", "{:.2f} ms"),
    "the same, fp32": ("crop_ms_fp32_batch_64", "{:.2f} ms"),
    "crops a second, one core": ("crops_per_second_int8", "{:,.0f}"),
    "throughput relative to a bare ONNX Runtime loop": ("share_of_plain_int8", "{:.0f} %"),
    "detection, 1280x720 with one face": ("detect_ms_1280x720", "{:.1f} ms"),
    "JPEG to reading, 640x480": ("read_ms_640x480", "{:.1f} ms"),
    "JPEG to reading, 1280x720": ("read_ms_1280x720", "{:.1f} ms"),
    "JPEG to reading, 4000x3000": ("read_ms_4000x3000", "{:.0f} ms"),
    "`import mien`": ("import_s", "{:.2f} s"),
    "cold `mien predict photo.jpg`, 640x480": ("cold_predict_s_640x480", "{:.2f} s"),
    "its peak memory": ("cold_predict_memory_mb_640x480", "{:.0f} MB"),
}


def command_line() -> str:
    """docs/reference/commands.md: every command with its arguments and options, from the program itself."""
    group: Any = typer.main.get_command(app)
    parts = ["# The command line", "Written by `make docs` from the program itself; do not edit."]
    parts.append(
        "Exit status: 0 success; 1 some files failed, the others were read; 2 wrong usage, or no file was read; "
        "130 stopped by Ctrl-C, 143 by SIGTERM."
    )
    for name, command in sorted(group.commands.items()):
        parts += [f"## mien {name}", command.help or "", _options(command)]
    return "\n\n".join(parts) + "\n"


def _options(command: Any) -> str:
    rows = []
    for parameter in command.params:
        names = ", ".join(f"`{o}`" for o in (*parameter.opts, *parameter.secondary_opts) if o.startswith("-"))
        names = names or f"`{(parameter.metavar or parameter.name.upper()).strip('[]')}`"
        plain = isinstance(parameter.default, str | int | float) and parameter.default not in (False, "")
        text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
        shown = parameter.show_default if isinstance(parameter.show_default, str) else ""
        rows.append((names, text, shown or (f"`{parameter.default}`" if plain else "")))
    return table(("option", "meaning", "default"), rows)


def models() -> str:
    """docs/models.md: the embedded models side by side, then their cards."""
    parts = ["# The embedded models", "Written by `make docs` from the models' own cards; do not edit."]
    parts += _side_by_side([read_card(name) for name in bundled_models()])
    for name in bundled_models():
        card = (BUNDLED / name / "card.md").read_text("utf-8").strip()
        parts.append(re.sub(r"^#", "##", card, flags=re.MULTILINE))
    return "\n\n".join(parts) + "\n"


def _side_by_side(cards: Sequence[Json]) -> list[str]:
    """The section, where there are two models or more; a dash marks a missing measurement."""
    if len(cards) < 2:
        return []
    names = [card["name"] for card in cards]
    columns = [
        _measured(card) | _people(card) | _paste(RESULTS / "paste" / f"{card['name']}.json")
        | _stress(RESULTS / "stress" / f"{card['name']}.json", card["name"]) | _cost(card)
        for card in cards
    ]  # fmt: skip
    wanted = list(dict.fromkeys(key for column in columns for key in column))
    rows = [(key, *(column.get(key, "–") for column in columns)) for key in wanted]
    note = (
        "int8 files. Corrupted: mean over 19 corruptions of PublicTest faces in five strengths "
        "([stress](how-to/stress.md)). "
        "Pasted: faces of PublicTest pasted into a photograph, detected and cropped again (`benchmarks/paste.py`). "
        "Milliseconds: one face, one thread, all in the same minutes ([results](results.md))."
    )
    return ["## Side by side", table(("", *(f"`{name}`" for name in names)), rows), note]


def _measured(card: Json) -> dict[str, str]:
    private = card["metrics"]["private"]["int8"]  # an embedded model is a final one
    whole, clean = private["all"], private["clean"]
    low, high = whole["interval"]
    voted = "contempt" in whole["recall"]
    return {
        "evaluated on": f"{whole['n']:,} faces, " + ("majority of FER+" if voted else "labels of FER-2013"),
        "PrivateTest accuracy": f"**{percent(whole['accuracy'], 2)}** ({percent(low)} to {percent(high)})",
        "looks at PrivateTest, of the family": looks_cell(card["name"]),
        "without copies": percent(clean["accuracy"], 2),
        "balanced accuracy, macro F1": f"{percent(whole['balanced_accuracy'])}, {percent(whole['macro_f1'])}",
        "log loss, calibration error": f"{whole['log_loss']:.3f}, {whole['ece']:.3f}",
    }


def _people(card: Json) -> dict[str, str]:
    results = card.get("additional", {}).get("private")
    if not results:
        return {}
    rows = {"with its mirror image": percent(results["flip"]["all"]["accuracy"], 2)}
    if results["votes"]:
        rows["agrees with the FER+ majority"] = percent(results["votes"]["majority"]["agreement"], 2)
        rows["log loss to the votes"] = f"{results['votes']['distribution']['log_loss']:.3f}"
    return rows


def _paste(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    by = {row["condition"]: row for row in load_json(path)["rows"]}
    shown = {"192 px": "192 px", "48 px": "48 px", "192 px, +30 degrees": "192 px, tilted by 30 degrees"}
    return {
        f"pasted, {words}: same top emotion, accuracy": f"{by[key]['agreement']:.0%}, {by[key]['accuracy']:.0%}"
        for key, words in shown.items()
    }


def _stress(path: Path, name: str) -> dict[str, str]:
    if not path.is_file():
        return {}
    model = next(m for m in load_json(path)["models"] if m["name"] == name)
    return {
        "corrupted accuracy": format_estimate("accuracy", model["mean"]["metrics"]["accuracy"]),
        "mean corruption error": format_ratio(model["corruption_error"]["mce"]),
        "predictions changed by corruption": percent(model["mean"]["flip_rate"]),
        "calibration error, clean → corrupted": robustness_row(model)[-1],
    }


def _cost(card: Json) -> dict[str, str]:
    rows = {"parameters, MMAC": f"{card['parameters'] / 1e6:.2f} M, {card['macs'] / 1e6:.0f}"}
    comparison = AGREED.read(RESULTS)  # it has all embedded models
    for model in comparison["models"] if comparison else []:
        if model["name"] == card["name"]:
            rows["milliseconds a face"] = f"{milliseconds(model, 'int8'):.2f}"
    return rows


def readme() -> str:
    """README.md with its tables."""
    parts = {"figures": _accuracy(), "speed": _speed(), "live": _live(RESULTS / "live"), "paste": _pasted()}
    return replace_marked(ROOT / "README.md", parts)


def _accuracy() -> str:
    card = read_card(DEFAULT_MODEL)
    rows = []
    for part, name in (("all", "all 3,589 rows"), ("clean", "3,268 rows without a copy elsewhere")):
        f = card["metrics"]["private"]["int8"][part]
        low, high = f["interval"]
        interval = f"{low:.1%} to {high:.1%}"
        shares = (f"{f[key]:.1%}" for key in ("balanced_accuracy", "macro_f1"))
        rows.append((name, f"**{f['accuracy']:.1%}**", interval, *shares, f"{f['log_loss']:.3f}", f"{f['ece']:.3f}"))
    heads = ("PrivateTest", "accuracy", "95 % interval", "balanced", "macro F1", "log loss", "calibration error")
    recalls = ", ".join(f"{emotion} {recall:.0%}" for emotion, recall in card["recall"].items())
    looks, figures = looks_at(DEFAULT_MODEL)
    seen = (
        f"PrivateTest was looked at {looks} times for the nets of mien ({figures} figures), so these figures may be "
        "too good: [all looks](docs/results.md#looks-at-privatetest)."
    )
    return f"{table(heads, rows)}\n\nRecall: {recalls}. {seen}\n\n{_voted()}"


def _voted() -> str:
    card = read_card("mien-plus")
    f = card["metrics"]["private"]["int8"]["all"]
    low, high = f["interval"]
    return (
        "Another task, not to be compared with the table: `mien-plus` knows the eight emotions of FER+ and agrees with "
        "the majority of its ten voters on "
        f"{f['accuracy']:.1%} ({low:.1%} to {high:.1%}) of the {f['n']:,} faces of PrivateTest that have one; it "
        f"hardly ever predicts contempt (recall {f['recall']['contempt']:.0%})."
    )


def _speed() -> str:
    """The figures of two hosts, and what they are."""
    fast, slow = (load_json(RESULTS / name) for name in ("benchmark.json", "benchmark-avx2.json"))
    both = [measured["figures"] for measured in (fast, slow)]  # without those of an fp32 file where the model has none
    rows = [(name, *(shape.format(f[key]) for f in both)) for name, (key, shape) in SPEED.items() if key in both[0]]
    heads = ("what", "AVX-512 VNNI", "AVX2")
    hosts = [
        f"{m['processor']}, {m['cores']} cores, onnxruntime {m['onnxruntime']}"
        for m in (fast["machine"], slow["machine"])
    ]
    where = " and ".join(dict.fromkeys(hosts))
    return f"{table(heads, rows)}\n\n{where}; `mien benchmark --threads {fast['setting']['threads']}`."


def _pasted() -> str:
    measured = load_json(RESULTS / "paste" / f"{DEFAULT_MODEL}.json")
    chosen = ("enlarged, not pasted", "96 px", "192 px", "192 px, +30 degrees", "384 px")
    rows = []
    for row in measured["rows"]:
        if row["condition"] in chosen:
            low, high = row["interval"]
            agreement = f"{row['agreement']:.0%} ({low:.0%} to {high:.0%})"
            right = f"{row['accuracy']:.0%} ({row['accuracy_original']:.0%})"
            rows.append((row["condition"], f"{row['found']:.0%}", agreement, f"{row['total_variation']:.2f}", right))
    heads = ("pasted face", "found", "same top emotion", "total variation", "accuracy (of the original crops)")
    return table(heads, rows)


def _live(folder: Path) -> str:
    """The table, and where it was measured."""
    track, serve, browser = (load_json(folder / f"{name}.json") for name in ("track", "serve", "browser"))
    rows = [*_track(track), *_serve(serve), *_browser(browser)]
    machine = track["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores; {browser['browser']}, {browser['runtime']}"
    commands = "`python benchmarks/track.py`, `serve_load.py`, `browser.py`"
    return f"{table(('what', 'measured'), rows)}\n\n{where}; read with `{track['model']}`; {commands}."


def _track(results: dict[str, Any]) -> list[tuple[str, str]]:
    parts = {part["part"]: part for part in results["speed"]}
    tracking = next(row for row in results["tracking"] if row["every"] == results["every"])
    growth = parts["reading only"]["memory_growth_mb"]
    video = f"video {results['size']}, one face"
    return [
        (f"{video}: tracked and read", f"{parts['reading only']['frames_per_second']:.0f} frames/s"),
        (f"{video}: with the annotated copy", f"{parts['annotated video']['frames_per_second']:.0f} frames/s"),
        (f"growth of memory over {results['frames']:,} frames", f"{growth:+.1f} MB"),
        (
            "four faces that move, cross and leave: recall, identity switches",
            f"{tracking['recall']:.1%}, {tracking['id_switches']}",
        ),
    ]


def _serve(results: dict[str, Any]) -> list[tuple[str, str]]:
    requests = sum(results["responses"]["statuses"].values())
    memory, overload = results["memory_mb"], results["overload"]
    width, height = results["image"]["size_wh"]
    return [
        (
            f"server, {results['clients']} clients, JPEG {width}x{height}: throughput relative to the pipeline "
            "without HTTP",
            f"{results['throughput_share']['median']:.0%}",
        ),
        (
            f"{requests:,} requests: wrong responses, 99th percentile",
            f"{results['responses']['wrong']}, {_ms(results['responses'])}",
        ),
        ("memory during these requests", f"{memory['medians'][0]:.0f} to {memory['medians'][-1]:.0f} MB"),
        (f"overload, queue of {overload['queue']}: 99th percentile", _ms(overload)),
    ]


def _browser(results: dict[str, Any]) -> list[tuple[str, str]]:
    steps = results["steps"]["followed"]
    wide, high = results["camera"]["size_wh"]
    return [
        (f"page, camera {wide}x{high}, one face", f"{results['camera']['frames_per_second']:.0f} frames/s"),
        ("processing time per frame", f"{steps['total']:.0f} ms"),
    ]


def _ms(results: dict[str, Any]) -> str:
    return f"{results['p99_ms']:.0f} ms"


def recipes() -> str:
    """docs/reference/recipes.md with its list of recipes and its tables of keys."""
    parts = []
    for heading, kind in _sections(Recipe):
        about = inspect.cleandoc(kind.__doc__ or "").replace("``", "`")
        parts += [f"### `{heading}`" if heading else "### Above all sections", about]
        parts.append(table(("key", "default", "meaning"), _keys(kind)))
    shipped = table(("recipe", "document", "net", "size", "epochs"), _shipped())
    return replace_marked(ROOT / "docs" / "reference/recipes.md", {"shipped": shipped, "keys": "\n\n".join(parts)})


def _sections(kind: type, path: str = "") -> Iterator[tuple[str, type]]:
    """Heading and dataclass of every section of a recipe file, the keys above all sections first."""
    if not path:
        yield "", kind
    for key, hint in get_type_hints(kind).items():
        if inner := _section(hint):
            yield (f"[{path}{key}]" if inner is hint else f"[[{path}{key}]]"), inner
            yield from _sections(inner, f"{path}{key}.")


def _section(hint: Any) -> Any:
    """The dataclass of a section or of a list of sections; ``None`` for a plain value."""
    return next(filter(is_dataclass, (hint, *get_args(hint))), None)


def _keys(kind: type) -> list[tuple[str, str, str]]:
    """Key, default and meaning of every plain value of a section."""
    comments, hints = _comments(kind), get_type_hints(kind)
    plain = [field for field in fields(kind) if not _section(hints[field.name])]
    return [(f"`{field.name}`", _default(field), comments.get(field.name, "")) for field in plain]


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return f"`{toml_value(field.default)}`"
    return f"`{toml_value(field.default_factory())}`" if field.default_factory is not MISSING else ""


def _comments(kind: type) -> dict[str, str]:
    """Field -> its comment in the source, which may continue on further lines."""
    found: dict[str, str] = {}
    key = ""
    for line in inspect.getsource(kind).splitlines():
        here = re.match(r"    (\w+): [^#]*(?:  # (.*))?$", line)
        further = re.match(r"    # (.*)$", line)
        if here:
            key = here[1]
            found[key] = here[2] or ""
        elif further and found.get(key):
            found[key] += f" {further[1]}"
        else:
            key = ""
    return {name: comment.replace("|", "\\|") for name, comment in found.items()}


def _shipped() -> list[Sequence[str]]:
    """Name, document, variant, net, size and length of every recipe file."""
    rows = []
    for name in recipe_names():
        all_members = members(name)
        first = load(all_members[0])
        family = f" ({len(all_members)} members)" if all_members != (name,) else ""
        document = f"{first.claim.document} {first.claim.variant}".strip()
        net = ", ".join(dict.fromkeys(load(member).net.name for member in all_members))
        size, epochs = f"{first.data.size} px", f"{build_schedule(first)[-1].last}"
        rows.append((f"`{name}`{family}", document, f"`{net}`", size, epochs))
    return rows


def page_colors() -> str:
    """src/mien/serve/page/colors.mjs: the emotions and their colours, from mien/_emotions.py."""
    colors = "".join(f'  {emotion}: "{emotion.color}",\n' for emotion in Emotion)
    return (
        "// Written by tools/docs_pages.py from mien/_emotions.py; do not edit.\n\n"
        f'export const COLORS = {{\n{colors}}};\nexport const UNSURE_COLOR = "{UNSURE_COLOR}";\n'
    )


def scale() -> str:
    """docs/scale.md: what `mien distribute` costs."""
    measured, cores = (load_json(RESULTS / name) for name in ("distribute.json", "cores.json"))
    return replace_marked(ROOT / "docs" / "scale.md", docs_scale.parts(measured, cores))


PAGES: Mapping[str, Callable[[], str | None]] = {
    **docs_results.PAGES,
    "docs/reference/commands.md": command_line,
    "src/mien/serve/page/colors.mjs": page_colors,
    "docs/models.md": models,
    "docs/reference/recipes.md": recipes,
    "docs/explanations/claims.md": lambda: replace_marked(
        ROOT / "docs" / "explanations/claims.md", docs_claims.parts(RESULTS / "claims")
    ),
    "docs/how-to/stress.md": lambda: replace_marked(
        ROOT / "docs" / "how-to/stress.md", docs_robustness.parts(RESULTS / "stress")
    ),
    "docs/scale.md": scale,
    "README.md": readme,
}

if __name__ == "__main__":
    sys.exit(write_pages(PAGES, check="--check" in sys.argv[1:]))
