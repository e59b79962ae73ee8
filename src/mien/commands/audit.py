"""``mien audit``: the faults of a data set as counts, as a page, and as rows to leave out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien._errors import DataError
from mien.commands import _options
from mien.commands._progress import TerminalProgress, TrainingProgress
from mien.commands._terminal import echo, print_json

if TYPE_CHECKING:  # the lab is an extra
    from mien.lab.audit import OutOfFold
    from mien.lab.data import FaceSet


def audit_command(
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help=_options.DATA_HELP)] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Data set to search for the faces of DATA; repeatable.")
    ] = None,
    label_errors: Annotated[
        str, typer.Option(metavar="RECIPE", help="Find wrong labels: train 5 folds of RECIPE for probabilities.")
    ] = "",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A change of RECIPE, as in train.epochs=4; repeatable.")
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="Find wrong labels by a file: .npz of rows and out-of-fold probs.")
    ] = None,
    model: _options.ModelOption = "",
    exclude: Annotated[
        str,
        typer.Option(
            help="What goes into exclude.txt: blank, not-face, leaked, contradicting, duplicates, label-error; all; "
            "none."
        ),
    ] = "blank, not-face, leaked, contradicting",  # one long word would be cut off in a terminal
    near: Annotated[float, typer.Option(help="Pearson correlation above which two images are duplicates.")] = 0.99,
    labels: _options.LabelMapOption = None,
    against_labels: Annotated[
        list[str] | None,
        typer.Option("--against-map", metavar="LABEL=EMOTION", help="As --map, for the labels of the other data sets."),
    ] = None,
    out: _options.OutOption = None,
    as_json: _options.JsonOption = False,
    keep: _options.KeepOption = None,
    device: _options.DeviceOption = "auto",
    threads: _options.LabThreadsOption = None,
    skip_unreadable: _options.SkipUnreadableOption = False,
) -> None:
    """Find duplicates, leaks, contradicting labels, blanks, non-faces and likely label errors in DATA.

    OUT/audit.json holds counts and rows, OUT/report.html shows them (with faces: do not publish it), and
    OUT/exclude.txt lists the rows that `mien train RECIPE data.exclude=OUT/exclude.txt` leaves out. Trained folds are
    stored in OUT/.folds: the same command continues where it stopped. Wrong labels are found by --label-errors,
    --probabilities, or --model, which was not trained on DATA. OUT is reports/audit-DATA.
    """
    from mien.lab import audit as lab
    from mien.lab.data.datasets import read_map
    from mien.lab.files import load_json, output_folder, require_writable
    from mien.lab.models import open_model
    from mien.lab.provenance import provenance

    reasons = lab.read_reasons(exclude)
    ways = sum(map(bool, (label_errors, probabilities, model)))
    if not 0.9 <= near < 1:
        raise DataError(f"--near {near}: a correlation from 0.9 to below 1, such as 0.99")
    if ways > 1:
        raise DataError("--label-errors, --probabilities and --model find the same errors; name one of them")
    if overrides and not label_errors:
        raise DataError("--set changes the recipe of --label-errors, which is not named")
    if "label-error" in reasons and exclude.strip() != "all" and not ways:
        raise DataError("--exclude label-error needs --label-errors RECIPE, --probabilities FILE or --model MODEL")
    with TerminalProgress(lines=False) as progress:
        progress("reading")
        faces = lab.load_faces(data, read_map(labels or ()), skip_unreadable=skip_unreadable)
        other_labels = read_map(against_labels or ())
        others = [lab.load_faces(path, other_labels, skip_unreadable=skip_unreadable) for path in against or ()]
    folder = out or Path("reports", f"audit-{Path(faces.source).stem}")
    require_writable(keep)  # before the work
    names = ("audit.json", "exclude.txt", "report.html", *(["out-of-fold.npz"] if label_errors else []))
    if keep is not None and keep.resolve() == folder.resolve():
        raise DataError(f"--keep {keep}: is the folder of the audit itself; name another folder")
    counts = keep and keep / "audit.json"
    with output_folder(folder, names), _options.lab_runtime(device, threads):
        predicted = None
        if probabilities:
            predicted = lab.read_probabilities(probabilities, faces)
        elif label_errors:
            predicted = _train_folds(faces, folder, label_errors, overrides or (), device)
        elif model:
            predicted = lab.predict_unseen(open_model(model), faces)
        origin = provenance(faces.sha256, faces.note)
        with TerminalProgress(lines=False) as progress:
            result = lab.audit(faces, others, probabilities=predicted, threshold=near, progress=progress)
            progress("writing")
            excluded = lab.write_audit(result, folder, provenance=origin, reasons=reasons, counts_file=counts)
    if as_json:
        print_json(load_json(folder / "audit.json"))
        return
    if faces.note:
        typer.echo(faces.note, err=True)
    for line in (*lab.summarize_audit(result, excluded), str(folder)):
        echo(line)


def _train_folds(faces: "FaceSet", folder: Path, name: str, overrides: Sequence[str], device: str) -> "OutOfFold":
    """Train the folds of a recipe, and store their probabilities in ``folder``."""
    from mien.lab import audit as lab
    from mien.lab.provenance import provenance
    from mien.lab.recipe import load
    from mien.lab.train.devices import Devices
    from mien.lab.train.logging import silence_lightning

    def show_training(fold: str) -> TrainingProgress:
        echo(fold, err=True)
        return TrainingProgress(fold)

    silence_lightning()
    recipe, origin, devices = load(name, overrides), provenance(faces.sha256, faces.note), Devices(device)
    folds = lab.folds_folder(folder, recipe)
    result = lab.train_folds(recipe, faces, folds, devices=devices, provenance=origin, watch=show_training)
    lab.save_probabilities(folder / "out-of-fold.npz", result)
    return result
