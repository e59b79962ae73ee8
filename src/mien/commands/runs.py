"""``mien export``, ``mien ensemble``, ``mien logits`` and ``mien record``: what is done with finished runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien._errors import DataError, OutputError, RecipeError
from mien._metrics import headline_metrics
from mien.commands import _options
from mien.commands._progress import TerminalProgress
from mien.commands._terminal import echo

if TYPE_CHECKING:  # the lab is an extra
    from mien.lab.recipe import Recipe


def export_command(
    run: _options.RunArgument,
    out: _options.RequiredOutOption,
    data: _options.DataOption = None,
    final: _options.FinalTestOption = False,
    half: Annotated[bool, typer.Option("--half", help="Store the weights of the fp32 file in half precision.")] = False,
    int8: _options.Int8Option = True,
    calibration: _options.CalibrationOption = "",
    again: _options.AgainOption = "",
    ledger: _options.LedgerOption = None,
    device: _options.DeviceOption = "cpu",
    threads: _options.LabThreadsOption = None,
) -> None:
    """Export RUN as fp32 and int8 ONNX, calibrated on PublicTest, with its card.

    OUT gets model.onnx, model-fp32.onnx, card and licence. --data is the set that the run was trained on. --device is
    that of the net; the files are measured on the processor.
    """
    from mien.lab.data.datasets import load_set
    from mien.lab.export.release import export_model
    from mien.lab.files import require_writable
    from mien.lab.inference import current_runtime
    from mien.lab.train.run import load_final, with_calibration

    with _options.net_runtime(device, threads):
        trained = with_calibration(load_final(run, current_runtime().torch_device()), calibration)
        require_writable(out)  # before the faces are read
        looks, faces = _options.open_ledger(ledger, again), load_set(data, trained.recipe)
        card = export_model(trained, faces, out, final=final, half=half, int8=int8, ledger=looks)
    split = "private" if final else "public"
    metrics = card["metrics"][split]["int8" if int8 else "fp32"]
    headline = headline_metrics(metrics["all"], metrics.get("clean"))
    echo(f"{card['name']}: {split.capitalize()}Test {headline}. {out}")


def ensemble_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Folders of two or more finished runs.")],
    out: _options.RequiredOutOption,
    name: Annotated[str, typer.Option(help="Name of the ensemble; default: the name of the folder.")] = "",
    about: Annotated[str, typer.Option(help="Description in its card; default: the nets that it consists of.")] = "",
) -> None:
    """Combine the nets of several RUNs into one net that returns the mean of their logits, without further training.

    The result is a finished run, as `mien train` writes it: it can be evaluated, recorded and exported.
    """
    from mien.lab.ensemble import combine_runs
    from mien.lab.nets import count_macs, count_parameters
    from mien.lab.train.run import load_final

    recipe = combine_runs(runs, out, name=name or out.resolve().name, about=about)
    net = load_final(out).net
    cost = f"{count_parameters(net):,} parameters, {count_macs(net, recipe.data.size) / 1e6:.0f} MMAC a face"
    echo(f"{recipe.name}: {len(runs)} nets, {cost}. {out}")


def logits_command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Folders of finished runs: the teachers, whose probabilities are averaged."),
    ],
    out: _options.RequiredOutOption,
    data: _options.DataOption = None,
    tta: _options.TtaOption = "none",
    recipe: Annotated[
        str, typer.Option(help="The student's recipe, if it adds data sets that the recipe of the first run does not.")
    ] = "",
    device: _options.DeviceOption = "auto",
    threads: _options.LabThreadsOption = None,
) -> None:
    """Predict the Training faces with RUNs and write the logits to a file, for distillation.

    No test face is predicted. OUT is an .npz file, which target.teachers of a recipe names; --data is the student's.
    """
    from mien.lab import recipe as recipes
    from mien.lab.data import Split
    from mien.lab.data.datasets import load_set
    from mien.lab.files import require_writable
    from mien.lab.train.devices import Devices
    from mien.lab.train.distillation import cache_logits
    from mien.lab.train.logging import silence_lightning
    from mien.lab.train.run import load_final

    if out.suffix != ".npz":
        raise OutputError(f"{out}: a file of cached logits ends in .npz; name it so")
    silence_lightning()
    require_writable(out.parent)  # before the work
    at = Devices(device).launch("32-true").device
    teachers = [load_final(run, at) for run in runs]
    student = recipes.load(recipe) if recipe else teachers[0].recipe
    faces = load_set(data, student).split(Split.TRAINING).to(at)
    with _options.lab_runtime(device, threads), TerminalProgress(lines=False) as progress:
        cached = cache_logits(teachers, faces, tta=tta, progress=progress)
    cached.save(out)
    names = ", ".join(cached.teachers)
    echo(f"{names}: {len(cached.rows):,} faces, {cached.logits.shape[1]} versions of each. {out}")


def record_command(
    run: _options.RunArgument,
    out: _options.OutOption = None,
    data: _options.DataOption = None,
    final: _options.FinalTestOption = False,
    int8: _options.Int8Option = True,
    calibration: _options.CalibrationOption = "",
    again: _options.AgainOption = "",
    ledger: _options.LedgerOption = None,
    device: _options.DeviceOption = "cpu",
    threads: _options.LabThreadsOption = None,
    force: _options.ForceOption = False,
) -> None:
    """Evaluate RUN and write its metrics, log, recipe, curves, confusion matrix and, if it is small, its int8 file.

    Results that exist are not replaced without --force. The folder is results/RECIPE/seed-SEED, or that of --out,
    which a run of a changed recipe needs. --data is the set that the run was trained on. --device is that of the net;
    the files made of it are measured on the processor.
    """
    from mien.lab.data.datasets import load_set
    from mien.lab.files import require_writable
    from mien.lab.record import record_folds, record_run
    from mien.lab.train.run import load_final

    runs_on, is_folds = _options.net_runtime(device, threads), (run / "fold-0").is_dir()
    recipe = load_final(run / "fold-0" if is_folds else run).recipe
    folder = out or _results_folder(recipe)
    require_writable(folder)  # before the faces are read
    faces = load_set(data, recipe)
    if is_folds:
        if final or calibration:
            raise DataError(f"{run}: folds have no PrivateTest and no calibration; leave out --final and --calibration")
        with runs_on:
            accuracy = record_folds(run, faces, folder, force=force)["metrics"]["folds"]["fp32"]
        echo(f"{recipe.name}, {recipe.data.folds} folds: {headline_metrics(accuracy['all'], accuracy.get('clean'))}")
        echo(str(folder))
        return
    looks = _options.open_ledger(ledger, again)
    with runs_on:
        metrics = record_run(
            run, faces, folder, final=final, calibration=calibration, int8=int8, force=force, ledger=looks
        )
    for split, by_precision in metrics["metrics"].items():
        own = by_precision["fp32"]
        name = f"{split.capitalize()}Test" if split != "leaky" else "leaky part (copies of training faces)"
        echo(f"{recipe.name}, {name}: {headline_metrics(own['all'], own.get('clean'))}")
    if "accuracy" in metrics["claim"]["metrics"]:
        echo(f"claimed by document {metrics['claim']['document']}: {metrics['claim']['metrics']['accuracy']:.2%}")
    echo(str(folder))


def _results_folder(recipe: "Recipe") -> Path:
    """The folder of the results of a run; refuses a trial, which has the name of a shipped recipe but other values."""
    from mien.lab.recipe import load
    from mien.lab.recipe.load import differences, toml_value

    try:
        changed = differences(recipe, load(recipe.name, [f"seed={recipe.seed}"]))
    except RecipeError:  # a recipe of the user
        changed = {}
    own = ("claim", "calibration", "family", *(("data.fold", "checkpoint") if recipe.data.fold_public else ()))
    changed = {key: value for key, value in changed.items() if not key.startswith(own)}
    if changed:
        values = ", ".join(f"{key}={toml_value(value)}" for key, value in changed.items())
        raise DataError(f"the run changes its recipe {recipe.name} ({values:.200}); name another folder with --out")
    kind = "folds-" if recipe.data.fold_public else ""
    return Path("results") / recipe.name / f"{kind}seed-{recipe.seed}"
