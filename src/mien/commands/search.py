"""``mien search``: search the [search] space of a recipe with Optuna; resumable, in several processes."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mien._format import printable
from mien._signals import exit_status
from mien.commands import _options
from mien.commands._terminal import echo, print_table

if TYPE_CHECKING:  # the lab is an extra
    from mien.lab.search.study import SearchPlan, TrialEvent

_SHOWN = 10  # trials in the table at the end


def search_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe with a search section, or the path of a .toml file.",
            autocompletion=_options.complete_recipe,
        ),
    ],
    overrides: _options.OverridesArgument = None,
    trials: Annotated[int, typer.Option(help="Trials in all, including those of earlier calls.", min=1)] = 20,
    data: _options.DataOption = None,
    out: _options.OutOption = None,
    workers: Annotated[int, typer.Option(help=_options.WORKERS_HELP, min=1)] = 1,
    seed: _options.SeedOption = None,
    prune: Annotated[bool, typer.Option(help="Stop trials that are worse than the median of the others.")] = True,
    device: _options.DeviceOption = "auto",
    threads: _options.LabThreadsOption = None,
) -> None:
    """Search the hyperparameters of RECIPE (its `search` section) with Optuna's TPE; the same command resumes.

    Writes best.toml (a recipe), search.json, history.png and importance.png to runs/search/RECIPE, or to --out.
    """
    from mien.lab.recipe import load
    from mien.lab.search.study import SearchPlan, format_value, run_search, write_results
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
        seed=seed or 0,
        prune=prune,
        accelerator=device,
    )
    objective, console = plan.space.objective, Console(stderr=True)

    def on_event(event: "TrialEvent") -> None:
        """Print a line for every finished trial; epochs are shown in a terminal only."""
        if event.state != "running":
            params = "  ".join(f"{key}={_format(value)}" for key, value in event.params.items())
            value = format_value(objective, event.value) if event.value is not None else event.state
            line = f"{event.completed}/{trials}  trial {event.trial}  {value}  {params}  {event.seconds:.0f} s"
            console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
        elif console.is_terminal:
            value = format_value(objective, event.value)
            console.print(f"  trial {event.trial}, epoch {event.epoch}: {value}", style="dim", end="\r")

    try:
        with _options.lab_runtime(device, threads):
            run_search(plan, on_event)
    except KeyboardInterrupt as stop:
        echo(f"{recipe}: stopped; the same command resumes, also within the trial. {folder}", err=True)
        raise typer.Exit(exit_status(stop)) from None
    _print_results(write_results(plan), plan)


def _print_results(results: Mapping[str, Any], plan: "SearchPlan") -> None:
    from mien.lab.search.study import format_value

    objective, rows = results["objective"], results["trials"]
    keys = list(dict.fromkeys(key for row in rows for key in row["params"]))
    last_parts = [key.rpartition(".")[2] for key in keys]
    # A column is headed by the last part of its key if that is unique.
    names = [last if last_parts.count(last) == 1 else key for key, last in zip(keys, last_parts, strict=True)]
    lines = [
        (
            str(row["trial"]),
            row["state"] if row["value"] is None else format_value(objective, row["value"]),
            *(_format(row["params"].get(key, "-")) for key in keys),
            str(row["epochs"]),
            f"{row['seconds']:.0f}",
        )
        for row in rows[:_SHOWN]
    ]
    print_table(("trial", objective.replace("_", " "), *names, "epochs", "seconds"), lines)
    importance = ", ".join(f"{key} {share:.0%}" for key, share in results["importance"].items())
    note = f"; importance: {importance}" if importance else ""
    echo(f"{results['counts']['finished']} trials finished, {results['counts']['pruned']} pruned{note}")
    if rows and rows[0]["value"] is not None:
        command = ["mien", "train", str(plan.out / "best.toml"), *(["--data", str(plan.data)] if plan.data else [])]
        echo(f"the best trial as a recipe: {shlex.join(command)}")
        if plan.overrides:
            echo(f"it contains {', '.join(plan.overrides)}: change back what was meant for trials only")


def _format(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
