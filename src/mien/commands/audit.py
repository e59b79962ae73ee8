"""``mien audit``: what is wrong with a set of faces, as counts, as a page, and as rows to leave out."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien._errors import DataError
from mien.commands import _options
from mien.commands._extra import needs_lab
from mien.commands._progress import TerminalProgress, TrainingProgress

if TYPE_CHECKING:
    from mien.lab.audit import OutOfFold
    from mien.lab.data import FaceSet


def audit_command(
    data: Annotated[
        Path | None,
        typer.Argument(help=_options.DATA_HELP),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Another set: which faces of DATA are also in it? Repeatable.")
    ] = None,
    label_errors: Annotated[
        str, typer.Option(metavar="RECIPE", help="Look for wrong labels: train 5 folds of RECIPE for probabilities.")
    ] = "",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="A change of RECIPE, as in train.epochs=4; repeatable.")
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="Look for wrong labels by these: .npz of rows and out-of-fold probs.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Look for wrong labels by the predictions of this model, not trained on DATA.")
    ] = "",
    exclude: Annotated[
        str,
        typer.Option(
            help="What goes into exclude.txt: blank, not-face, leaked, contradicting, duplicates, label-error; all; "
            "none."
        ),
    ] = "blank,not-face,leaked,contradicting",
    near: Annotated[float, typer.Option(help="Pearson correlation above which two images are duplicates.")] = 0.99,
    labels: Annotated[
        list[str] | None, typer.Option("--map", metavar="LABEL=EMOTION", help="What a label of DATA means; repeatable.")
    ] = None,
    against_labels: Annotated[
        list[str] | None,
        typer.Option(
            "--against-map", metavar="LABEL=EMOTION", help="What a label of the other sets means; repeatable."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: reports/audit-DATA.")] = None,
    counts: Annotated[
        Path | None, typer.Option(help="Also write the counts to this file, without rows and faces.")
    ] = None,
    accelerator: Annotated[str, typer.Option(help="What trains the folds: cpu, cuda, mps or auto.")] = "auto",
) -> None:
    """Find duplicates, leaks, contradicting labels, blanks, non-faces and likely label errors in DATA.

    OUT/audit.json holds counts and rows, OUT/report.html shows them (with faces: do not publish it), and
    OUT/exclude.txt lists the rows that `mien train RECIPE data.exclude=OUT/exclude.txt` leaves out. Trained folds are
    kept in OUT/.folds: the same command continues where it stopped.
    """
    with needs_lab():
        from mien.lab import audit as lab
        from mien.lab.data.datasets import read_map
        from mien.lab.files import require_writable
        from mien.lab.provenance import provenance

    reasons = lab.read_reasons(exclude)
    _check(near, label_errors, probabilities, model, overrides or ())
    if "label-error" in reasons and exclude.strip() != "all" and not (label_errors or probabilities or model):
        raise DataError("--exclude label-error needs --label-errors RECIPE, --probabilities FILE or --model MODEL")
    with TerminalProgress(lines=False) as progress:
        progress("reading")
        faces = lab.load_faces(data, read_map(labels or ()))
        other_labels = read_map(against_labels or ())
        others = [lab.load_faces(path, other_labels) for path in against or ()]
    folder = out or Path("reports", f"audit-{Path(faces.source).stem}")
    for place in (folder, *([counts.parent] if counts else [])):  # before the work, not after it
        require_writable(place)
    predicted = _probabilities(faces, folder, label_errors, overrides or (), probabilities, model, accelerator)
    origin = provenance(faces.sha256)
    with TerminalProgress(lines=False) as progress:
        found = lab.audit(faces, others, probabilities=predicted, threshold=near, progress=progress)
        progress("writing")
        excluded = lab.write_audit(found, folder, provenance=origin, reasons=reasons, counts_file=counts)
    for line in (*lab.summarize_audit(found, excluded), str(folder)):
        typer.echo(line)


def _check(near: float, label_errors: str, probabilities: Path | None, model: str, overrides: Sequence[str]) -> None:
    if not 0.9 <= near < 1:
        raise DataError(f"--near {near}: a correlation from 0.9 to below 1, such as 0.99")
    if bool(label_errors) + bool(probabilities) + bool(model) > 1:
        raise DataError("--label-errors, --probabilities and --model are three ways to one thing; name one of them")
    if overrides and not label_errors:
        raise DataError("--set changes the recipe of --label-errors, which is not named")


def _probabilities(
    faces: "FaceSet",
    folder: Path,
    recipe: str,
    overrides: Sequence[str],
    file: Path | None,
    model: str,
    accelerator: str,
) -> "OutOfFold | None":
    """The probabilities that label errors are found by; ``None`` where they are not looked for."""
    from mien.lab import audit as lab
    from mien.lab.models import open_model

    if file:
        return lab.read_probabilities(file, faces)
    if recipe:
        found = _train_folds(faces, folder, recipe, overrides, accelerator)
        lab.save_probabilities(folder / "out-of-fold.npz", found)
        return found
    return lab.predict_unseen(open_model(model), faces) if model else None


def _train_folds(faces: "FaceSet", folder: Path, name: str, overrides: Sequence[str], accelerator: str) -> "OutOfFold":
    from mien.lab import audit as lab
    from mien.lab.provenance import provenance
    from mien.lab.recipe import load
    from mien.lab.train.logging import silence_lightning
    from mien.lab.train.loop import Devices

    silence_lightning()
    recipe = load(name, list(overrides))
    return lab.train_folds(
        recipe,
        faces,
        lab.folds_folder(folder, recipe),
        devices=Devices(accelerator),
        provenance=provenance(faces.sha256),
        watch=_watch,
    )


def _watch(fold: str) -> "AbstractContextManager[TrainingProgress]":
    typer.echo(fold, err=True)
    return TrainingProgress(fold)
