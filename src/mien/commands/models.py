"""``mien models``: the embedded models and the detectors, with the metrics of their cards."""

import json
import sys
from typing import Annotated, Any

import typer

from mien._format import percent_interval
from mien._metrics import HEADLINE, format_metric, metric_name
from mien.commands import _options

# Rows of the table: key in a card, name, and how the value is formatted.
_ROWS = {
    "accuracy.private": ("accuracy, PrivateTest", "metric"),
    "accuracy.interval": ("95 % interval", "interval"),
    "accuracy.private_clean": ("accuracy, PrivateTest without copies", "metric"),
    "accuracy.public": ("accuracy, PublicTest", "metric"),
    **{key: (metric_name(key), "metric") for key in HEADLINE[1:]},
    "parameters": ("parameters", "count"),
    "macs": ("multiply-adds a crop", "count"),
    "files.int8": ("int8 file", "bytes"),
    "files.fp32": ("fp32 file", "bytes"),
}


def models_command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print the card of this model.")] = None,
    as_json: _options.JsonOption = False,
) -> None:
    """List the embedded models with the metrics of their cards, and the detectors."""
    if name is not None:
        _print_json(read_card(name)) if as_json else _print_card(name)
        return
    from mien.detect import DETECTORS
    from mien.infer import bundled_models

    cards = [read_card(bundled) for bundled in bundled_models()]
    if as_json:
        _print_json({"models": cards, "detectors": list(DETECTORS)})
    else:
        _print_table(cards, DETECTORS)


def read_card(name: str) -> dict[str, Any]:
    """Read the card of an embedded model, and the sizes of its files in bytes.

    A model file without a card gives its metadata. Raises ``ModelError``
    for an unknown name or a card that is no JSON object.
    """
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
    sizes = {key: (folder / file).stat().st_size for key, file in PRECISIONS.items() if (folder / file).is_file()}
    return {"name": name, **card, "files": sizes}


def _print_card(name: str) -> None:
    from rich.markdown import Markdown

    from mien.commands._terminal import TableConsole
    from mien.infer import find_model

    path = find_model(name).parent / "card.md"
    if not path.is_file():
        _print_json(read_card(name))
        return
    text = path.read_text("utf-8")
    console = TableConsole()
    console.print(Markdown(text)) if console.is_terminal else sys.stdout.write(text)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(cards: list[dict[str, Any]], detectors: tuple[str, ...]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from mien.commands._terminal import TableConsole

    console = TableConsole(highlight=False)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("model")
    for card in cards:
        table.add_column(str(card["name"]), justify="right")
    for key, (words, kind) in _ROWS.items():
        values = [_value(card, key) for card in cards]
        if any(value is not None for value in values):
            table.add_row(words, *(_cell(key, value, kind) for value in values))
    console.print(table if cards else "no classifier is embedded; --model takes the path of an ONNX file")
    console.print(f"detectors: {', '.join(detectors)}    (--detector; the first is the default)", style="dim")


def _value(card: dict[str, Any], key: str) -> Any:
    value: Any = card
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _cell(key: str, value: Any, kind: str) -> str:
    if kind == "interval" and isinstance(value, list) and len(value) == 2:
        return f"{percent_interval(value)} %"
    if not isinstance(value, int | float):
        return "-"
    if kind == "metric":
        return format_metric(key.split(".")[0], value)
    if kind == "bytes":
        return f"{value / 1e6:.2f} MB"
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:,.0f}"
