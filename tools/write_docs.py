"""Write the generated parts of the docs; a test holds them fresh.

    python tools/write_docs.py            write them
    python tools/write_docs.py --check    exit 1 and name the pages that are not fresh

docs/cli.md comes from the program, docs/models.md from the models' cards, the tables of docs/recipes.md from the code
that reads recipes, and the tables of the README from the card of the default model and from the files that
`mien benchmark --json` and `benchmarks/paste.py --json` wrote into results/.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import typer

import recipe_keys
import results_pace
import side_by_side
import write_results
from live_figures import live
from markdown import table
from mien.__main__ import app
from mien.bundled import BUNDLED, DEFAULT_MODEL
from mien.infer import bundled_models

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"

SPEED = {
    "one crop: probabilities and map, one core": ("crop_ms_int8_batch_1", "{:.2f} ms"),
    "the same in batches of 64": ("crop_ms_int8_batch_64", "{:.2f} ms"),
    "the same, fp32": ("crop_ms_fp32_batch_64", "{:.2f} ms"),
    "crops a second, one core": ("crops_per_second_int8", "{:,.0f}"),
    "share of a plain ONNX Runtime loop": ("share_of_plain_int8", "{:.0f} %"),
    "detection, 1280x720 with one face": ("detect_ms_1280x720", "{:.1f} ms"),
    "JPEG to reading, 640x480": ("read_ms_640x480", "{:.1f} ms"),
    "JPEG to reading, 1280x720": ("read_ms_1280x720", "{:.1f} ms"),
    "JPEG to reading, 4000x3000": ("read_ms_4000x3000", "{:.0f} ms"),
    "`import mien`": ("import_s", "{:.2f} s"),
    "cold `mien predict photo.jpg`, 640x480": ("cold_predict_s_640x480", "{:.2f} s"),
    "its peak memory": ("cold_predict_memory_mb_640x480", "{:.0f} MB"),
}


def command_line() -> str:
    """docs/cli.md: every command with its arguments and options, from the program itself."""
    group: Any = typer.main.get_command(app)
    parts = ["# The command line", "Written by `make docs` from the program itself; do not edit."]
    parts.append(
        "Exit status: 0 fine; 1 some files failed, the others were read; 2 wrong use, or none was read; 130 stopped."
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
        rows.append((names, text, f"`{parameter.default}`" if plain else ""))
    return table(("option", "meaning", "default"), rows)


def models() -> str:
    """docs/models.md: the cards of the embedded models, one after another."""
    parts = ["# The embedded models", "Written by `make docs` from the models' own cards; do not edit."]
    cards = [json.loads((BUNDLED / name / "card.json").read_text()) for name in bundled_models()]
    parts += side_by_side.side_by_side(cards, RESULTS)
    for name in bundled_models():
        card = (BUNDLED / name / "card.md").read_text().strip()
        parts.append(re.sub(r"^#", "##", card, flags=re.MULTILINE))
    return "\n\n".join(parts) + "\n"


def readme() -> str:
    """README.md with the tables between its markers written anew."""
    return _marked(
        "README.md", {"figures": _figures(), "speed": _speed(), "live": live(RESULTS / "live"), "paste": _paste()}
    )


def recipes() -> str:
    """docs/recipes.md with its list of recipes and its tables of keys written anew."""
    heads = ("recipe", "document", "net", "size", "epochs")
    parts = []
    for heading, kind in recipe_keys.sections():
        words = inspect.cleandoc(kind.__doc__ or "").replace("``", "`")
        parts += [f"### `{heading}`" if heading else "### Above all sections", words]
        parts.append(table(("key", "default", "meaning"), recipe_keys.keys(kind)))
    return _marked("docs/recipes.md", {"shipped": table(heads, recipe_keys.shipped()), "keys": "\n\n".join(parts)})


def _marked(page: str, parts: Mapping[str, str]) -> str:
    """The text of ``page`` with each of ``parts`` between its markers."""
    text = (ROOT / page).read_text()
    for name, part in parts.items():
        begin, end = f"<!-- {name}: written by make docs -->", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        text, count = pattern.subn(lambda _, b=begin, p=part, e=end: f"{b}\n{p}\n{e}", text)
        if count != 1:
            raise SystemExit(f"{page}: the markers of {name!r} stand {count} times in it, not once")
    return text


def _figures() -> str:
    card = json.loads((BUNDLED / DEFAULT_MODEL / "card.json").read_text())
    rows = []
    for part, name in (("all", "all 3,589 rows"), ("clean", "3,268 rows without a copy elsewhere")):
        f = card["judged"]["private"]["int8"][part]
        low, high = f["interval"]
        interval = f"{low:.1%} to {high:.1%}"
        shares = (f"{f[key]:.1%}" for key in ("balanced_accuracy", "macro_f1"))
        rows.append((name, f"**{f['accuracy']:.1%}**", interval, *shares, f"{f['log_loss']:.3f}", f"{f['ece']:.3f}"))
    heads = ("PrivateTest", "accuracy", "95 % interval", "balanced", "macro F1", "log loss", "calibration error")
    recalls = ", ".join(f"{emotion} {recall:.0%}" for emotion, recall in card["recall"].items())
    return f"{table(heads, rows)}\n\nRecall: {recalls}.\n\n{_voted()}"


def _voted() -> str:
    card = json.loads((BUNDLED / "mien-plus" / "card.json").read_text())
    f = card["judged"]["private"]["int8"]["all"]
    low, high = f["interval"]
    return (
        "`mien-plus` knows the eight emotions of FER+ and agrees with the majority of its ten voters on "
        f"{f['accuracy']:.1%} ({low:.1%} to {high:.1%}) of the {f['n']:,} faces of PrivateTest that have one; contempt "
        f"it hardly ever names (recall {f['recall']['contempt']:.0%})."
    )


def _speed() -> str:
    measured = json.loads((RESULTS / "benchmark.json").read_text())
    figures = measured["figures"]  # without those of an fp32 file where the model has none
    rows = [(name, shape.format(figures[key])) for name, (key, shape) in SPEED.items() if key in figures]
    machine, setting = measured["machine"], measured["setting"]
    where = f"{machine['processor']}, {machine['cores']} cores, onnxruntime {machine['onnxruntime']}"
    return f"{table(('what', 'median'), rows)}\n\n{where}; `mien benchmark --threads {setting['threads']}`."


def _paste() -> str:
    measured = json.loads((RESULTS / "paste" / f"{DEFAULT_MODEL}.json").read_text())
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


PAGES: Mapping[str, Callable[[], str | None]] = {
    **{f"docs/{ground.drawing}": partial(results_pace.draw, RESULTS, ground) for ground in results_pace.GROUNDS},
    "docs/cli.md": command_line,
    "docs/models.md": models,
    "docs/recipes.md": recipes,
    "docs/results.md": partial(write_results.page, RESULTS),
    "README.md": readme,
}


def main() -> int:
    """Write or check the pages; returns the exit status."""
    check, stale = "--check" in sys.argv[1:], []
    for name, write in PAGES.items():
        path, text = ROOT / name, write()
        if text is None:  # nothing was measured for it
            continue
        if check and (not path.is_file() or path.read_text() != text):
            stale.append(name)
        elif not check:
            path.write_text(text)
            print(name)
    if stale:
        print(f"not fresh: {', '.join(stale)}; run: make docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
