"""``mien search``: the recipe's [search] space, tried out by Optuna, resumable and over several processes."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.commands import _options
from mien.commands._extra import needs_lab

_SHOWN = 10  # trials in the table at the end


def search(
    recipe: Annotated[str, typer.Argument(help="A recipe with a [search] section, or the path of a .toml file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes for every trial: section.key=value, as in data.fraction=0.1.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials in total, those of earlier calls included.", min=1)] = 20,
    data: _options.Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the search; default: runs/search/RECIPE.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that train at the same time.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the choices and of every trial's training.")] = 0,
    prune: Annotated[bool, typer.Option(help="Stop trials that lag behind the median of the others.")] = True,
    accelerator: _options.Accelerator = "auto",
) -> None:
    """Search RECIPE's [search] space with Optuna (TPE), judged on the validation faces; the same command goes on.

    Writes best.toml (a recipe), search.json, history.png and importance.png.
    """
    with needs_lab():
        from mien.lab.recipe import load
        from mien.lab.search.findings import write_findings
        from mien.lab.search.study import Plan
        from mien.lab.search.study import search as run
        from mien.lab.train.logging import silence_lightning

    silence_lightning()
    folder = out or Path("runs", "search", load(recipe, overrides or ()).name)
    plan = Plan(
        recipe=recipe,
        out=folder,
        overrides=tuple(overrides or ()),
        data=data,
        trials=trials,
        workers=workers,
        seed=seed,
        prune=prune,
        accelerator=accelerator,
    )
    objective = plan.space.objective
    try:
        run(plan, _tell(objective, trials))
    except KeyboardInterrupt:
        typer.echo(f"{recipe}: stopped; the same command goes on, also within the trial. {folder}", err=True)
        raise typer.Exit(130) from None
    _print_found(write_findings(plan), plan)


def _tell(objective: str, trials: int) -> Any:
    """One line on standard error for every trial that ends; epochs are shown in a terminal alone."""
    from rich.console import Console

    from mien.lab.search.findings import shown

    console = Console(stderr=True)

    def tell(event: Mapping[str, Any]) -> None:
        values = "  ".join(f"{key}={_short(value)}" for key, value in event["params"].items())
        if "state" in event:
            figure = shown(objective, event["value"]) if event["value"] is not None else event["state"]
            line = f"{event['made']}/{trials}  trial {event['trial']}  {figure}  {values}  {event['seconds']:.0f} s"
            console.print(line, highlight=False, soft_wrap=True)
        elif console.is_terminal:
            figure = shown(objective, event["figure"])
            console.print(f"  trial {event['trial']}, epoch {event['epoch']}: {figure}", style="dim", end="\r")

    return tell


def _print_found(found: Mapping[str, Any], plan: Any) -> None:
    from mien.commands.recipes import print_table
    from mien.lab.search.findings import shown

    objective, rows = found["objective"], found["trials"]
    keys = list(dict.fromkeys(key for row in rows for key in row["params"]))
    heads = ("trial", objective.replace("_", " "), *map(_last(keys), keys), "epochs", "seconds")
    table = [
        (
            str(row["trial"]),
            row["state"] if row["value"] is None else shown(objective, row["value"]),
            *(_short(row["params"].get(key, "-")) for key in keys),
            str(row["epochs"]),
            f"{row['seconds']:.0f}",
        )
        for row in rows[:_SHOWN]
    ]
    print_table(heads, table)
    counts, told = found["counts"], ", ".join(f"{key} {share:.0%}" for key, share in found["importance"].items())
    mattered = f"; what mattered: {told}" if told else ""
    print(f"{counts['finished']} trials finished, {counts['pruned']} pruned{mattered}")
    if rows and rows[0]["value"] is not None:
        where = ["--data", str(plan.data)] if plan.data else []
        print(f"the best one as a recipe: {shlex.join(['mien', 'train', str(plan.out / 'best.toml'), *where])}")
        if plan.overrides:
            print(f"it holds {', '.join(plan.overrides)} of the search, too: set anew what was for trials alone")


def _last(keys: Sequence[str]) -> Callable[[str], str]:
    """The last part of a key where no other key ends so, else all of it."""
    ends = [key.rpartition(".")[2] for key in keys]
    return lambda key: end if ends.count(end := key.rpartition(".")[2]) == 1 else key


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
