"""``mien search``: the [search] space of a recipe, searched with Optuna; resumable, in several processes."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.commands import _options
from mien.commands._extra import needs_lab

if TYPE_CHECKING:
    from mien.lab.search.study import OnEvent, SearchPlan, TrialEvent

_SHOWN = 10  # trials in the table at the end


def search_command(
    recipe: Annotated[str, typer.Argument(help="A recipe with a search section, or the path of a .toml file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes for every trial: section.key=value, as in data.fraction=0.1.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials in all, including those of earlier calls.", min=1)] = 20,
    data: _options.DataOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the search; default: runs/search/RECIPE.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that train at the same time.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the choices and of every trial's training.")] = 0,
    prune: Annotated[bool, typer.Option(help="Stop trials that are worse than the median of the others.")] = True,
    accelerator: _options.AcceleratorOption = "auto",
) -> None:
    """Search the hyperparameters of RECIPE (its `search` section) with Optuna's TPE; the same command resumes.

    Writes best.toml (a recipe), search.json, history.png and importance.png.
    """
    with needs_lab():
        from mien.lab.recipe import load
        from mien.lab.search.results import write_results
        from mien.lab.search.study import SearchPlan, run_search
        from mien.lab.train.logging import silence_lightning

    silence_lightning()
    folder = out or Path("runs", "search", load(recipe, overrides or ()).name)
    plan = SearchPlan(
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
        run_search(plan, _printer(objective, trials))
    except KeyboardInterrupt:
        typer.echo(f"{recipe}: stopped; the same command resumes, also within the trial. {folder}", err=True)
        raise typer.Exit(130) from None
    _print_results(write_results(plan), plan)


def _printer(objective: str, trials: int) -> "OnEvent":
    """Prints one line on standard error for every finished trial; epochs are shown in a terminal only."""
    from rich.console import Console

    from mien.lab.search.results import format_value

    console = Console(stderr=True)

    def show(event: "TrialEvent") -> None:
        if event.state != "running":
            values = "  ".join(f"{key}={_short(value)}" for key, value in event.params.items())
            value = format_value(objective, event.value) if event.value is not None else event.state
            line = f"{event.completed}/{trials}  trial {event.trial}  {value}  {values}  {event.seconds:.0f} s"
            console.print(line, highlight=False, soft_wrap=True)
        elif console.is_terminal:
            value = format_value(objective, event.value)
            console.print(f"  trial {event.trial}, epoch {event.epoch}: {value}", style="dim", end="\r")

    return show


def _print_results(found: Mapping[str, Any], plan: "SearchPlan") -> None:
    from mien.commands.recipes import print_table
    from mien.lab.search.results import format_value

    objective, rows = found["objective"], found["trials"]
    keys = list(dict.fromkeys(key for row in rows for key in row["params"]))
    heads = ("trial", objective.replace("_", " "), *map(_last(keys), keys), "epochs", "seconds")
    table = [
        (
            str(row["trial"]),
            row["state"] if row["value"] is None else format_value(objective, row["value"]),
            *(_short(row["params"].get(key, "-")) for key in keys),
            str(row["epochs"]),
            f"{row['seconds']:.0f}",
        )
        for row in rows[:_SHOWN]
    ]
    print_table(heads, table)
    counts, importance = found["counts"], ", ".join(f"{key} {share:.0%}" for key, share in found["importance"].items())
    note = f"; importance: {importance}" if importance else ""
    print(f"{counts['finished']} trials finished, {counts['pruned']} pruned{note}")
    if rows and rows[0]["value"] is not None:
        where = ["--data", str(plan.data)] if plan.data else []
        print(f"the best trial as a recipe: {shlex.join(['mien', 'train', str(plan.out / 'best.toml'), *where])}")
        if plan.overrides:
            print(f"it contains {', '.join(plan.overrides)}: change back what was meant for trials only")


def _last(keys: Sequence[str]) -> Callable[[str], str]:
    """The last part of a key where it is unique, else all of it."""
    ends = [key.rpartition(".")[2] for key in keys]
    return lambda key: end if ends.count(end := key.rpartition(".")[2]) == 1 else key


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
