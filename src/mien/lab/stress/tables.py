"""The headline tables of docs/robustness.md from the files of results/stress."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mien._errors import DataError
from mien.lab.stress.spoilings import SPOILINGS
from mien.lab.stress.words import HEADLINE, gain, headline_row

START, END = "<!-- {name}: written by `python -m mien.lab.stress.tables` -->", "<!-- end of {name} -->"


def kept_models(folder: Path) -> list[Mapping[str, Any]]:
    """The models of all files in ``folder``, the best clean accuracy first. Raises ``DataError`` for none."""
    files = sorted(path for path in folder.glob("*.json") if not path.stem.startswith("groups"))
    models = [model for path in files for model in json.loads(path.read_text("utf-8"))["models"]]
    if not models:
        raise DataError(f"{folder}: holds no figures; write them with `mien stress MODEL --keep {folder}`")
    return sorted(models, key=lambda model: -model["clean"]["accuracy"]["value"])


def headline(models: Sequence[Mapping[str, Any]]) -> str:
    """A row a model: clean and spoilt accuracy, mean corruption, flips and calibration, as Markdown."""
    rows = [(f"`{model['name']}`", *headline_row(model)) for model in models]
    return _markdown(HEADLINE, rows)


def losses(models: Sequence[Mapping[str, Any]]) -> str:
    """A row a spoiling: what each model loses, mean of the five strengths, in points with intervals, as Markdown."""
    rows = [
        (s.name, *(gain(model["by_spoiling"][s.name]["accuracy"]) for model in models))
        for s in SPOILINGS
        if all(s.name in model["by_spoiling"] for model in models)
    ]
    return _markdown(("spoiling", *(f"`{model['name']}`" for model in models)), rows)


def strengths() -> str:
    """A row a spoiling: what it does and what its five strengths are, as Markdown."""
    rows = [(f"`{s.name}`", str(s.kind), s.does, s.unit, *(f"{amount:g}" for amount in s.amounts)) for s in SPOILINGS]
    return _markdown(("spoiling", "kind", "what happens", "unit", *"12345"), rows)


def groups(path: Path) -> str:
    """A row a gap of the groups in the file at ``path``, as Markdown."""
    model = json.loads(path.read_text("utf-8"))["models"][0]
    head = ("division", "figure", "gap", "largest", "smallest", "by chance and mix", "p, corrected")
    rows = []
    for division, judged in model["groups"].items():
        for figure, gap in judged["gaps"].items():
            low, high = gap["interval"]
            rows.append(
                (
                    division,
                    figure.replace("_", " "),
                    f"{gap['value']:.3f} ({low:.3f} to {high:.3f})",
                    gap["largest"],
                    gap["smallest"],
                    f"{gap['by_chance']:.3f}",
                    f"{gap['p_corrected']:.3f}",
                )
            )
    return _markdown(head, rows)


def filled(page: str, folder: Path) -> str:
    """``page`` with every table between its markers written anew from ``folder``."""
    models = kept_models(folder)
    parts = {"headline": headline(models), "losses": losses(models), "strengths": strengths()}
    parts["groups"] = groups(folder / "groups-mien-0.json")
    for name, table in parts.items():
        start, end = START.format(name=name), END.format(name=name)
        before, _, rest = page.partition(start)
        after = rest.partition(end)[2]
        if not rest or end not in rest:
            raise DataError(f"the page lacks the markers of {name}: {start} and {end}")
        page = f"{before}{start}\n\n{table}\n\n{end}{after}"
    return page


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    from mien.lab.checkpoint import save_text

    _PAGE = Path("docs/robustness.md")
    save_text(_PAGE, filled(_PAGE.read_text("utf-8"), Path("results/stress")))
