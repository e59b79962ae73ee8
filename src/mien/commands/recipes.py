"""``mien recipes``: what can be trained, and one recipe explained."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from mien.commands import _options
from mien.commands._extra import needs_lab

Rows = Sequence[tuple[str, ...]]

_GAP = 3  # cells between two columns
_LEAST = 20  # cells of a column that is shortened or folded, where it has so many
_LISTED = ("recipe", "net", "classes", "size", "document", "claims", "about")


def recipes_command(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Explain this one: a shipped recipe, FAMILY/MEMBER or the path of a .toml file."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes, as `mien train` takes them: section.key=value.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every key of the recipe, also those at their defaults.")
    ] = False,
    as_json: _options.JsonOption = False,
) -> None:
    """List the recipes, or explain RECIPE: what it reproduces, its net and cost, phases, members and search space."""
    with needs_lab():
        from mien.lab.recipe import recipe_names
        from mien.lab.recipe_summary import explanation, summary

    if recipe is None:
        rows = sorted((summary(name) for name in recipe_names()), key=lambda row: (row["document"] or "~", row["name"]))
        _print_json({"recipes": rows}) if as_json else _print_list(rows)
        return
    told = explanation(recipe, overrides or (), whole=everything)
    _print_json({key: value for key, value in told.items() if key != "text"}) if as_json else _print_one(told)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_list(rows: list[dict[str, Any]]) -> None:
    table = [
        (
            row["name"],
            ", ".join(row["net"]),
            ", ".join(row["classes"]),
            ", ".join(map(str, row["size"])),
            f"{row['document']} {row['variant']}".strip(),
            headline(row["metrics"]),
            f"{row['about']} ({row['members']} members)" if row["members"] else row["about"],
        )
        for row in rows
    ]
    print_table(_LISTED, table, keep=(0, 5, 4, 1, 3, 2, 6))
    if sys.stdout.isatty():
        print("mien recipes NAME explains one, mien train NAME trains it")


def headline(figures: dict[str, float]) -> str:
    """The figure that a claim is known by: accuracy, else the first; empty where nothing is claimed."""
    if not figures:
        return ""
    key = "accuracy" if "accuracy" in figures else next(iter(figures))
    return f"{_words(key)} {_figure(key, figures[key])}"


def _words(key: str) -> str:
    return key.replace("_", " ").replace(".", " ").replace("f1", "F1")


def _figure(key: str, value: float) -> str:
    return f"{value:.3f}" if "loss" in key else f"{100 * value:.2f} %"


def _print_one(told: dict[str, Any]) -> None:
    claim, net = told["claim"], told["net"]
    print(f"{told['name']}\n")
    _print_words(told["about"])
    if claim["document"]:
        _print_line("reproduces", f"document {claim['document']}, {claim['variant']}")
    else:
        _print_line("reproduces", "nothing published: our own")
    if claim["metrics"]:
        claimed = ", ".join(f"{_words(key)} {_figure(key, value)}" for key, value in claim["metrics"].items())
        _print_line("claimed", claimed)
    for key in ("split", "cost"):
        if claim[key]:
            _print_line({"split": "claimed on", "cost": "costs"}[key], claim[key])
    _print_line("net", f"{net['name']}: {_net(net)} at {net['size']} px")
    _print_phases(told["phases"])
    _print_members(told["members"])
    _print_search(told["search"])
    what = "" if told["shown"] == told["name"] else f" of {told['shown']}"
    print(f"\nthe recipe{what}, as far as it differs from the defaults (--all: whole)\n")
    print(told["text"].partition('"""')[2].partition('"""')[2].strip() or told["text"].strip())


def _net(net: dict[str, Any]) -> str:
    return f"{net['parameters'] / 1e6:.2f} M parameters, {net['macs'] / 1e6:,.0f} MMAC a face"


def _print_line(key: str, text: str) -> None:
    _print_words(text, indent=f"{key:12}")


def _print_words(text: str, *, indent: str = "", hang: int | None = None) -> None:
    """``text`` folded to the terminal, further lines below it or ``hang`` cells in; one line where nobody looks."""
    import shutil
    import textwrap

    width = min(shutil.get_terminal_size().columns, 110) if sys.stdout.isatty() else 10_000
    after = " " * (len(indent) if hang is None else hang)
    print(textwrap.fill(text, width, initial_indent=indent, subsequent_indent=after))
    if not indent:
        print()


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
            _print_words(", ".join(phase["freeze"]), indent=f"frozen in {phase['name'] or 'it'}: ", hang=4)


def _print_members(members: list[dict[str, Any]]) -> None:
    if not members:
        return
    from mien.lab.recipe.text import toml_value

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


def _print_search(space: dict[str, Any]) -> None:
    if not space:
        return
    from mien.lab.recipe.text import toml_value

    print()
    print_table(("searched by mien search", "over"), [(key, toml_value(value)) for key, value in space.items()])


def print_table(heads: tuple[str, ...], rows: Rows, *, fold: tuple[int, ...] = (), keep: tuple[int, ...] = ()) -> None:
    """A table for people; where standard output is no terminal, tab-separated values below their names.

    Columns of ``fold``, by number, may break into lines. With ``keep`` none does: it names all columns, the most
    important first; those stay that the terminal has room for, and the last of them is shortened.
    """
    if not sys.stdout.isatty():
        for row in (heads, *rows):
            print("\t".join(row))
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from mien.commands._terminal import TableConsole

    console = TableConsole(highlight=False)
    if keep:
        heads, rows = _cut(heads, rows, console.width, keep)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for place, head in enumerate(heads):
        least = min(_LEAST, max(len(row[place]) for row in (heads, *rows))) if place in fold else None
        fixed = bool(keep) or place not in (*fold, len(heads) - 1)
        table.add_column(head, overflow="fold", no_wrap=fixed, min_width=least)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _cut(
    heads: tuple[str, ...], rows: Rows, width: int, keep: tuple[int, ...]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns that ``width`` cells have room for, in their order; the last of ``keep`` may be shortened."""
    *others, last = keep
    widths = [_GAP + max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    room, kept = width, list[int]()
    for place in others:
        if widths[place] <= room or not kept:
            kept.append(place)
            room -= widths[place]
    if len(kept) == len(others) and room >= min(widths[last], _GAP + _LEAST):
        kept.append(last)
    places = sorted(kept)
    return tuple(heads[p] for p in places), [
        tuple(_shorten(row[p], room - _GAP) if p == last else row[p] for p in places) for row in rows
    ]


def _shorten(text: str, cells: int) -> str:
    return text if len(text) <= cells else f"{text[: cells - 1]}\u2026"
