"""The results of a search: its trials as plain values, the best trial as a recipe file, plots."""

import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import optuna
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from optuna.trial import TrialState

from mien._output import MARK
from mien.lab.data.datasets import DatasetCache
from mien.lab.files import file_set, save_json, save_text
from mien.lab.provenance import provenance
from mien.lab.recipe import Recipe
from mien.lab.recipe.load import as_toml
from mien.lab.search.space import SearchSpace
from mien.lab.search.study import COMPLETED, SearchPlan, open_study
from mien.lab.train.curves import QUIET, TRAINING, VALIDATION, plain, save_figure

_Row = dict[str, Any]


def write_results(plan: SearchPlan) -> dict[str, Any]:
    """Write ``search.json``, ``best.toml``, ``history.png`` and ``importance.png`` into the folder of the plan.

    Without finished trials there is no ``best.toml``, with fewer than four no ``importance.png``.

    Args:
        plan: The search.

    Returns:
        The content of ``search.json``: the trials (the best first), the importance of each key, the provenance.

    Raises:
        OutputError: The folder cannot be written.
    """
    space = plan.space
    with open_study(plan) as study:
        rows = trial_rows(study, space)
        importance = _importance(study)
    base = plan.recipe_with({})
    found = {
        "recipe": base.name,
        "objective": space.objective,
        "seed": plan.seed,
        "overrides": list(plan.overrides),
        "counts": _counts(rows),
        "importance": importance,
        "trials": rows,
        **provenance(DatasetCache(plan.data)(base).sha256),
    }
    with file_set(plan.out) as draft:
        save_json(draft / "search.json", found)
        if rows and rows[0]["value"] is not None:
            save_text(draft / "best.toml", f"# {MARK}\n{as_toml(best_recipe(plan, rows))}")
            _draw_history(rows, space, draft / "history.png")
        if importance:
            _draw_importance(importance, draft / "importance.png")
    return found


def trial_rows(study: Any, space: SearchSpace) -> list[_Row]:
    """Return one row for each completed trial, the best first, pruned ones last.

    Args:
        study: The Optuna study.
        space: The search space of the study.

    Returns:
        The rows of ``search.json``.
    """
    sign = -1 if space.direction == "maximize" else 1
    rows: list[_Row] = []
    for trial in study.get_trials(states=COMPLETED):
        is_finished, steps = trial.state == TrialState.COMPLETE, trial.intermediate_values
        row = {
            "trial": trial.number,
            "state": "finished" if is_finished else "pruned",
            "value": trial.value if is_finished else None,
            "last": steps[max(steps)] if steps else None,
            "epochs": max(steps, default=0),
            "seconds": round((trial.datetime_complete - trial.datetime_start).total_seconds(), 1),
            "params": space.shown(trial.params),
        }
        rows.append(row)
    return sorted(rows, key=lambda row: (row["value"] is None, sign * (row["value"] or 0.0), row["trial"]))


def best_recipe(plan: SearchPlan, rows: Sequence[_Row]) -> Recipe:
    """Return the recipe of the best trial. Its ``about`` describes the search.

    Args:
        plan: The search.
        rows: Its trials, the best first.

    Returns:
        The recipe.
    """
    best, base = rows[0], plan.recipe_with({})
    counts = _counts(rows)
    own = next((row["value"] for row in rows if row["trial"] == 0), None)
    objective = plan.space.objective
    source = (
        f"Found by `mien search {plan.recipe}`: trial {best['trial']} of {len(rows)} ({counts['pruned']} pruned), seed "
        f"{plan.seed}, by the {objective.replace('_', ' ')} on the validation faces, "
        f"{format_value(objective, best['value'])}"
        + (f" where the first trial gave {format_value(objective, own)}" if own is not None and best["trial"] else "")
        + (f"; with {', '.join(plan.overrides)}" if plan.overrides else "")
        + ". These faces selected it, so the value is too good."
    )
    about = "\n".join([*textwrap.wrap(source, 118), "Searched recipe:", base.about.strip()])
    recipe = replace(plan.recipe_with(best["params"]), name=f"{base.name.replace('/', '-')}-best", about=about)
    claim = replace(recipe.claim, variant="tuned" if recipe.claim.document else "own", cost="")
    return replace(recipe, claim=claim)


def format_value(objective: str, value: float | None) -> str:
    """Format the objective of a trial.

    Args:
        objective: ``"accuracy"`` or ``"log_loss"``.
        value: Its value, or ``None``.

    Returns:
        A percentage for the accuracy, else four decimals; ``-`` for ``None``.
    """
    if value is None:
        return "-"
    return f"{value:.2%}" if objective == "accuracy" else f"{value:.4f}"


def _counts(rows: Sequence[_Row]) -> dict[str, int]:
    return {state: sum(row["state"] == state for row in rows) for state in ("finished", "pruned")}


def _importance(study: Any) -> dict[str, float]:
    """The share of each key in the variance of the objective (fANOVA; Hutter et al., ICML 2014)."""
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    if len(finished) < 4 or len({trial.value for trial in finished}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in shares.items() if math.isfinite(share)}


def _draw_history(rows: Sequence[_Row], space: SearchSpace, path: Path) -> None:
    """Plot the objective of every trial, and the best so far."""
    figure = Figure(figsize=(8, 4), dpi=110, layout="constrained")
    axis = figure.subplots()
    made = sorted(rows, key=lambda row: row["trial"])
    finished = [row for row in made if row["value"] is not None]
    pruned = [row for row in made if row["value"] is None and row["last"] is not None]
    if pruned:
        axis.plot([r["trial"] for r in pruned], [r["last"] for r in pruned], "x", color=QUIET, label="pruned")
    axis.plot([r["trial"] for r in finished], [r["value"] for r in finished], "o", color=VALIDATION, label="finished")
    so_far = list(accumulate((r["value"] for r in finished), max if space.direction == "maximize" else min))
    steps, so_far = [*(r["trial"] for r in finished), made[-1]["trial"]], [*so_far, so_far[-1]]  # to the last trial
    axis.step(steps, so_far, where="post", color=TRAINING, linewidth=1.8, label="best so far", zorder=1)
    if space.objective == "accuracy":
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set_title(f"{space.objective.replace('_', ' ')} on the validation faces", loc="left", fontsize=10)
    axis.set_xlabel("trial")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axis)
    axis.legend(frameon=False, fontsize=9)
    save_figure(figure, path)


def _draw_importance(importance: Mapping[str, float], path: Path) -> None:
    """Plot one bar for each key, the most important on top."""
    figure = Figure(figsize=(8, 0.8 + 0.45 * len(importance)), dpi=110, layout="constrained")
    axis = figure.subplots()
    keys = sorted(importance, key=lambda key: importance[key])
    bars = axis.barh(keys, [importance[key] for key in keys], color=VALIDATION, height=0.6)
    axis.bar_label(bars, labels=[f" {importance[key]:.0%}" for key in keys], fontsize=9)
    axis.set_title("share of each key in the variance of the objective (fANOVA)", loc="left", fontsize=10)
    axis.set_xlim(0, 1.1 * max(importance.values()))
    plain(axis)
    axis.grid(visible=False)
    axis.xaxis.set_visible(False)
    save_figure(figure, path)
