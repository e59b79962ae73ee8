"""``mien recipes``: what can be trained, and the details of one recipe."""

import shutil
import sys
import textwrap
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mien._format import printable
from mien._metrics import format_metric, metric_name
from mien.commands import _options
from mien.commands._terminal import echo, print_json, print_table

_MAX_WIDTH = 110  # cells of a line of text
_MIN_TEXT = 12  # cells of a text beside its label


def recipes_command(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="Explain this one: a shipped recipe, FAMILY/MEMBER or the path of a .toml file.",
            autocompletion=_options.complete_recipe,
        ),
    ] = None,
    overrides: _options.OverridesArgument = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every key of the recipe, also those at their defaults.")
    ] = False,
    as_json: _options.JsonOption = False,
) -> None:
    """List the recipes, or explain RECIPE: what it reproduces, its net and cost, phases, members and search space."""
    from mien.lab.recipe import recipe_names
    from mien.lab.recipe_summary import explanation, summary

    if recipe is None:
        rows = sorted((summary(name) for name in recipe_names()), key=lambda row: (row["document"] or "~", row["name"]))
        print_json({"recipes": rows}) if as_json else _print_list(rows)
        return
    explained = explanation(recipe, overrides or (), whole=everything)
    if as_json:
        print_json({key: value for key, value in explained.items() if key != "text"})
    else:
        _print_recipe(explained)


def _print_list(rows: list[dict[str, Any]]) -> None:
    lines = [
        (
            row["name"],
            ", ".join(row["net"]),
            ", ".join(row["classes"]),
            ", ".join(map(str, row["size"])),
            f"{row['document']} {row['variant']}".strip(),
            _headline(row["metrics"]),
            f"{row['about']} ({row['members']} members)" if row["members"] else row["about"],
        )
        for row in rows
    ]
    heads = ("recipe", "net", "classes", "size", "document", "claims", "about")
    print_table(heads, lines, priority=(0, 5, 4, 1, 3, 2, 6))
    if sys.stdout.isatty():
        print("mien recipes NAME explains one, mien train NAME trains it")


def _headline(metrics: Mapping[str, float]) -> str:
    """The metric that a claim is known by: the accuracy, or else the first one."""
    key = "accuracy" if "accuracy" in metrics else next(iter(metrics), "")
    return _metrics({key: metrics[key]}) if key else ""


def _metrics(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{metric_name(key)} {format_metric(key, value, 2)}" for key, value in metrics.items())


def _print_recipe(explained: dict[str, Any]) -> None:
    claim, net = explained["claim"], explained["net"]
    echo(explained["name"])
    print()
    _print_folded("", explained["about"])
    print()
    source = f"document {claim['document']}, {claim['variant']}" if claim["document"] else "nothing published: our own"
    facts = {
        "reproduces": source,
        "claimed": _metrics(claim["metrics"]),
        "claimed on": claim["split"],
        "costs": claim["cost"],
        "net": f"{net['name']}: {net['parameters'] / 1e6:.2f} M parameters, {net['macs'] / 1e6:,.0f} MMAC per face "
        f"at {net['size']} px",
    }
    for name, text in facts.items():
        if text:
            _print_folded(f"{name:12}", text)
    _print_phases(explained["phases"])
    _print_members(explained["members"], explained["search"])
    which = "" if explained["shown"] == explained["name"] else f" of {explained['shown']}"
    print(f"\nthe recipe{which}, as far as it differs from the defaults (--all: whole)\n")
    text = explained["text"].partition('"""')[2].partition('"""')[2].strip() or explained["text"].strip()
    for line in text.split("\n"):
        echo(line)


def _print_folded(label: str, text: str, *, indent: int | None = None) -> None:
    """Print a text after its label, in a terminal on lines of its width; ``indent`` is that of the further lines."""
    width = min(shutil.get_terminal_size().columns, _MAX_WIDTH) if sys.stdout.isatty() else 10_000
    if width < 2 * len(label) + _MIN_TEXT:  # a narrow terminal
        label, indent = f"{label.strip()} " if label else "", 0
    further = " " * (len(label) if indent is None else indent)
    print(textwrap.fill(printable(text), width, initial_indent=label, subsequent_indent=further))


def _print_phases(phases: list[dict[str, Any]]) -> None:
    rows = [
        (
            phase["name"] or "-",
            str(phase["epochs"]),
            phase["optimizer"] + (f", then {phase['fallback'].get('optimizer', 'again')}" if phase["fallback"] else ""),
            f"{phase['lr']:g} {phase['schedule']}",
            f"{phase['weight_decay']:g}",
            str(phase["batch_size"]),
            f"{phase['size']} px",
        )
        for phase in phases
    ]
    print()
    print_table(("phase", "epochs", "optimizer", "lr", "weight_decay", "batch_size", "size"), rows, fold=(0,))
    for phase in phases:
        if phase["freeze"]:  # too long for a cell
            _print_folded(f"frozen in {phase['name'] or 'it'}: ", ", ".join(phase["freeze"]), indent=4)


def _print_members(members: list[dict[str, Any]], search: dict[str, Any]) -> None:
    """Print the members of a family and the search space of a recipe, if there are any."""
    from mien.lab.recipe.load import toml_value

    if members:
        rows = [
            (
                member["name"],
                f"{member['net']['parameters'] / 1e6:.2f} M",
                f"{member['net']['macs'] / 1e6:,.0f} M",
                ", ".join(f"{key}={toml_value(value)}" for key, value in member["differs"].items()) or "the first",
            )
            for member in members
        ]
        print()
        print_table(("member", "parameters", "MAC", "differs from the first in"), rows, fold=(3,))
    if search:
        print()
        print_table(("searched by mien search", "over"), [(key, toml_value(value)) for key, value in search.items()])
