"""``mien models``: the embedded models and the detectors, with the metrics of their cards."""

import json
import sys
from typing import Annotated, Any

import typer

from mien._format import percent_interval
from mien._metrics import HEADLINE, format_metric, metric_name
from mien.commands import _options
from mien.commands._terminal import TableConsole, new_table, print_json

# Rows of the table: key in a card, name, and how the value is formatted.
_ROWS = {
    "labels": ("labels and emotions (other labels are another task)", "text"),
    "accuracy.private": ("accuracy, PrivateTest", "metric"),
    "accuracy.interval": ("95 % interval", "interval"),
    "accuracy.private_clean": ("accuracy, PrivateTest without copies", "metric"),
    "looks.looks": ("looks at PrivateTest, of the family, at export", "count"),
    "accuracy.public": ("accuracy, PublicTest", "metric"),
    **{key: (metric_name(key), "metric") for key in HEADLINE[1:]},
    "parameters": ("parameters", "count"),
    "macs": ("multiply-adds per crop", "count"),
    "files.int8": ("int8 file", "bytes"),
    "files.fp32": ("fp32 file", "bytes"),
}


def models_command(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print the card of this model.")] = None,
    as_json: _options.JsonOption = False,
) -> None:
    """List the embedded models with the metrics of their cards, and the detectors."""
    if name is not None:
        print_json(_read_card(name)) if as_json else _print_card(name)
        return
    from mien.detect import DETECTORS
    from mien.infer import bundled_models

    cards = [_read_card(bundled) for bundled in bundled_models()]
    if as_json:
        print_json({"models": cards, "detectors": list(DETECTORS)})
        return
    console, table = TableConsole(highlight=False), new_table()
    table.add_column("model")
    for card in cards:
        table.add_column(str(card["name"]), justify="right")
    for key, (row_name, kind) in _ROWS.items():
        values = [_value(card, key) for card in cards]
        if any(value is not None for value in values):
            table.add_row(row_name, *(_format(key, value, kind) for value in values))
    console.print(table if cards else "no classifier is embedded; --model takes the path of an ONNX file")
    console.print(f"detectors: {', '.join(DETECTORS)}    (--detector; the first is the default)", style="dim")


def _read_card(name: str) -> dict[str, Any]:
    """The card of an embedded model and the sizes of its files in bytes; the metadata of a file without a card."""
    from mien._errors import ModelError
    from mien.infer import PRECISIONS, Classifier, find_model

    model = find_model(name)
    folder, path = model.parent, model.parent / "card.json"
    if not path.is_file():
        return dict(Classifier(model).metadata)
    try:
        card: Any = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: the card is no JSON ({error}); install mien again") from error
    if not isinstance(card, dict):
        raise ModelError(f"{path}: the card is no JSON object; install mien again")
    emotions = card.get("emotions", ())
    voted = {"labels": "FER+ majority, 8" if "contempt" in emotions else f"FER-2013, {len(emotions)}"}
    sizes = {key: (folder / file).stat().st_size for key, file in PRECISIONS.items() if (folder / file).is_file()}
    return {"name": name, **(voted if emotions else {}), **card, "files": sizes}


def _print_card(name: str) -> None:
    from rich.markdown import Markdown

    from mien.infer import find_model

    path = find_model(name).parent / "card.md"
    if not path.is_file():
        print_json(_read_card(name))
        return
    text, console = path.read_text("utf-8"), TableConsole()
    console.print(Markdown(text)) if console.is_terminal else sys.stdout.write(text)


def _value(card: dict[str, Any], key: str) -> Any:
    value: Any = card
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _format(key: str, value: Any, kind: str) -> str:
    if kind == "text":
        return str(value)
    if kind == "interval" and isinstance(value, list) and len(value) == 2:
        return f"{percent_interval(value)} %"
    if not isinstance(value, int | float):
        return "-"
    if kind == "metric":
        return format_metric(key.split(".")[0], value)
    if kind == "bytes":
        return f"{value / 1e6:.2f} MB"
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}"
