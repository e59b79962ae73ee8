"""The measured parts of docs/explanations/claims.md, from results/claims/, which `benchmarks/claims.py` wrote."""

from collections.abc import Sequence
from pathlib import Path

from docs_tables import Json, table
from mien.lab.files import load_json

COMMANDS = {
    "leak": "python benchmarks/claims.py leak runs/claims-leaky runs/claims-clean --json results/claims/leak.json",
    "epoch": "python benchmarks/claims.py epoch --json results/claims/epoch.json",
    "batch": "python benchmarks/claims.py batch --json results/claims/batch.json",
}
SCHEDULES = {"cosine": "cosine to zero", "constant": "constant rate"}
ARRANGEMENTS = ("alone", "shuffled", "sorted")


def parts(folder: Path) -> dict[str, str]:
    """The measured parts of the page by the name of their markers; a part without a file shows its command."""
    paths = {name: folder / f"{name}.json" for name in COMMANDS}
    return {
        name: WRITERS[name](load_json(path)) if path.is_file() else f"Not measured yet: `{COMMANDS[name]}`"
        for name, path in paths.items()
    }


def _leak(found: Json) -> str:
    """The leak of document 003: groups of validation faces, the clean run, the differences."""
    heads = ("faces", "n", "share", "accuracy, %", "95 % interval", "macro F1, %")
    rows = []
    for name, f in found["leaky"].items():
        rows.append((f"leaky run: {name}", f"{f['n']:,}", f"{f['share']:.1%}", *_shown(f)))
    for name, f in found["clean"].items():
        rows.append((f"clean run: {name}", f"{f['n']:,}", "", *_shown(f)))
    differences = [
        (name, f"{d['points']:+.2f}", _interval(d["interval"]), _probability(d["p"]))
        for name, d in found["differences"].items()
    ]
    runs = [_run(found["runs"][name]) for name in ("leaky", "clean")]
    second = table(("difference", "points", "95 % interval", "p (Fisher)"), differences)
    return "\n\n".join((table(heads, rows), second, " ".join(runs) + " " + _source(found)))


def _epoch(found: Json) -> str:
    """Gain of choosing the best epoch on the test set, by schedule and number of candidates."""
    heads = (
        "selected among",
        "rate",
        "gain, points",
        "95 % interval of the mean",
        "95 % of the splits",
        "drop, points",
    )
    rows = []
    for schedule, f in found["schedules"].items():
        for last, g in f["best_epoch_by_last"].items():
            if int(last) > 1:
                rows.append((f"the last {last} epochs of one training", SCHEDULES[schedule], *_gain(g)))
        for key, words in (
            ("best_last_epoch_of_seeds", "the last epochs of the {} trainings"),
            ("best_of_seeds_and_epochs", "all {} epochs of all trainings together"),
        ):
            rows.append((words.format(f[key]["candidates"]), SCHEDULES[schedule], *_gain(f[key])))
    sizes = []
    for schedule, f in found["schedules"].items():
        for size, g in f["by_size"].items():
            sizes.append((f"{int(size):,}", SCHEDULES[schedule], f"{g['gain']:.2f}", f"{g['drop']:.2f}"))
        sizes.append(("3,589, extrapolated", SCHEDULES[schedule], f"{f['at_whole']['gain']:.2f}", ""))
    second = table(("faces in the test part", "rate", "gain, points", "drop, points"), sizes)
    finals = ", ".join(
        f"{min(last):.1f} to {max(last):.1f} % ({schedule})"
        for schedule, f in found["schedules"].items()
        for last in [[run[-1] for run in f["accuracy_by_epoch"]]]
    )
    setting = (
        f"`{found['recipe']} {' '.join(found['overrides'])}`, {found['epochs']} epochs, seeds "
        f"{', '.join(map(str, found['seeds']))}; PublicTest after the last epoch: {finals}; n = {found['n']:,}, "
        f"{found['splits']:,} random splits per training."
    )
    return "\n\n".join((table(heads, rows), second, setting + " " + _source(found)))


def _batch(found: Json) -> str:
    """Accuracy of the heads for every order of the same test faces."""
    heads = ("head", "one by one", "shuffled", "sorted by class", "sorted - shuffled")
    rows = []
    for name, f in found["heads"].items():
        shown = [_mean(f["accuracy"][arrangement]) for arrangement in ARRANGEMENTS]
        gain = f["sorted_minus_shuffled"]
        rows.append((name, *shown, f"**{gain['mean']:+.2f}** ({_interval(gain['interval'])})"))
    own = found["mien-0"]
    shown = [_mean(own["accuracy"][arrangement]) for arrangement in ARRANGEMENTS]
    rows.append((f"mien-0 as shipped ({own['precision']})", *shown, "+0.00, equal to the bit"))
    if own["largest_difference"] or own["predictions_that_differ"]:
        rows[-1] = (*rows[-1][:-1], f"probabilities differ by up to {own['largest_difference']:.1e}")
    setting = (
        f"Accuracy in %, with 95 % intervals (bootstrap; faces that share a sorted batch are drawn together), mean of "
        f"seeds {', '.join(map(str, found['seeds']))}; batches of {found['batch']}, {found['epochs']} epochs on the "
        f"features of {found['n_training']:,} Training faces; n = {found['n']:,} of PublicTest."
    )
    return "\n\n".join((table(heads, rows), setting + " " + _source(found)))


def _source(found: Json) -> str:
    """Command, commit, data and machine."""
    p = found["provenance"]
    return (
        f"`{p['command']}`, commit {p['commit']}, data sha256 {p['data_sha256'][:12]}, {p['machine']}, "
        f"torch {p['torch']}, {p['date']}."
    )


def _interval(edges: Sequence[float]) -> str:
    """An interval."""
    return f"{edges[0]:.2f} to {edges[1]:.2f}"


def _probability(p: float) -> str:
    """A p value; a very small one as a bound."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def _shown(f: Json) -> list[str]:
    """Accuracy with its interval, and macro F1, with one where a valid one was recorded."""
    edges = f.get("macro_f1_interval")
    macro = f"{f['macro_f1']:.2f}" + (f" ({_interval(edges)})" if edges else "")
    return [f"{f['accuracy']:.2f}", _interval(f["accuracy_interval"]), macro]


def _gain(g: Json) -> tuple[str, ...]:
    mean = _interval(g["gain_interval"]) if g["gain_interval"] else "one set of candidates"
    return f"**{g['gain']:.2f}**", mean, _interval(g["gain_range"]), f"{g['drop']:.2f}"


def _mean(f: Json) -> str:
    return f"{f['mean']:.2f} ({_interval(f['interval'])})"


def _run(run: Json) -> str:
    p = run["provenance"]
    return (
        f"`{run['recipe']}` at {run['size']} px, {run['epochs']} epochs, {run['schedule']}, seed {run['seed']}, epoch "
        f"{run['kept_epoch']} kept, commit {p.get('commit', 'unknown')}."
    )


WRITERS = {"leak": _leak, "epoch": _epoch, "batch": _batch}
