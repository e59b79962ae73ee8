"""``mien audit``: what is wrong with a set of faces, as figures, as a page, and as rows to leave out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mien._errors import DataError
from mien.commands import _options
from mien.commands._extra import needs_lab
from mien.commands._progress import TerminalProgress

# A face is looked for on a border of its own, half its side wide, enlarged to a size at which the detector is sure.
_BORDER = 0.25
_SEEN_AT = 192  # pixels
_SCORE = 0.5  # from which a face counts as found: 2 % of FER-2013's faces are missed


def audit(
    data: Annotated[
        Path | None,
        typer.Argument(help=_options.DATA_HELP),
    ] = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="Another set: which faces of DATA stand in it? May be given repeatedly.")
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
        str, typer.Option(help="Look for wrong labels by what this model says; it must not know DATA.")
    ] = "",
    exclude: Annotated[
        str,
        typer.Option(
            help="What goes into exclude.txt: blank, not-face, leaked, contradicting, copies, label-error; all; none."
        ),
    ] = "blank,not-face,leaked,contradicting",
    near: Annotated[float, typer.Option(help="Pearson correlation above which two images are copies.")] = 0.99,
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
    figures_to: Annotated[
        Path | None, typer.Option("--figures", help="Write the counts to this file, too: neither rows nor faces.")
    ] = None,
    accelerator: Annotated[str, typer.Option(help="That trains the folds: cpu, cuda, mps or auto.")] = "auto",
) -> None:
    """Find copies, leaks, contradicting labels, blanks, non-faces and likely label errors in DATA.

    OUT/audit.json holds counts and rows, OUT/report.html shows them (with faces: yours to keep, not to publish), and
    OUT/exclude.txt lists the rows that `mien train RECIPE data.exclude=OUT/exclude.txt` leaves out. Trained folds are
    kept in OUT/.folds: the same command goes on where it stopped.
    """
    with needs_lab():
        from mien.lab.audit import audit as find
        from mien.lab.audit import read_reasons
        from mien.lab.audit.audit import load_any
        from mien.lab.data.datasets import read_map
        from mien.lab.files import require_writable

    reasons = read_reasons(exclude)
    _check(near, label_errors, probabilities, model, overrides or ())
    if "label-error" in reasons and exclude.strip() != "all" and not (label_errors or probabilities or model):
        raise DataError("--exclude label-error needs --label-errors RECIPE, --probabilities FILE or --model MODEL")
    with TerminalProgress(lines=False) as bar:
        bar("reading")
        faces = load_any(data, read_map(labels or ()))
        others = [load_any(path, read_map(against_labels or (), option="--against-map")) for path in against or ()]
    folder = out or Path("reports", f"audit-{Path(faces.source).stem}")
    for place in (folder, *([figures_to.parent] if figures_to else [])):  # before the work, not after it
        require_writable(place)
    opinion = _opinion(faces, folder, label_errors, overrides or (), probabilities, model, accelerator)
    with TerminalProgress(lines=False) as bar:
        found = find(faces, others, opinion=opinion, finds_face=_face_finder(), threshold=near, progress=bar)
        bar("writing")
        said = _write(found, folder, reasons, figures_to)
    for line in _summary(said):
        typer.echo(line)
    typer.echo(str(folder))


def _check(near: float, label_errors: str, probabilities: Path | None, model: str, overrides: Sequence[str]) -> None:
    if not 0.9 <= near < 1:
        raise DataError(f"--near {near}: a correlation from 0.9 to below 1, such as 0.99")
    if bool(label_errors) + bool(probabilities) + bool(model) > 1:
        raise DataError("--label-errors, --probabilities and --model are three ways to one thing; name one of them")
    if overrides and not label_errors:
        raise DataError("--set changes the recipe of --label-errors, which is not named")


def _opinion(
    faces: Any,
    folder: Path,
    recipe: str,
    overrides: Sequence[str],
    probabilities: Path | None,
    model: str,
    accelerator: str,
) -> Any:
    """The probabilities that label errors are found by, ``None`` where nobody asked for them."""
    from mien.lab.audit.label_errors import ask, knows, read_opinion

    if probabilities:
        return read_opinion(probabilities, faces)
    if recipe:
        return _train(faces, folder, recipe, overrides, accelerator)
    if not model:
        return None
    from mien.lab.models import open_model

    opened = open_model(model)
    if knows(opened, faces):
        raise DataError(
            f"{opened.name} has learned from {faces.source}: it would repeat the labels it was told; "
            "use --label-errors RECIPE, whose folds are asked about faces they have not seen"
        )
    return ask(opened, faces)


def _train(faces: Any, folder: Path, name: str, overrides: Sequence[str], accelerator: str) -> Any:
    from mien.commands._progress import TrainingProgress
    from mien.lab import recipe as recipes
    from mien.lab.audit.label_errors import folds_folder, save_opinion, train_folds
    from mien.lab.provenance import provenance
    from mien.lab.train.logging import silence_lightning
    from mien.lab.train.loop import Devices

    silence_lightning()
    recipe = recipes.load(name, list(overrides))
    opinion = train_folds(
        recipe,
        faces,
        folds_folder(folder, recipe),
        devices=Devices(accelerator),
        provenance=provenance(faces.sha256),
        watching=_watching(TrainingProgress),
    )
    save_opinion(folder / "out-of-fold.npz", opinion)
    return opinion


def _watching(watch: Any) -> Any:
    def announce(name: str) -> Any:
        typer.echo(name, err=True)
        return watch(name)

    return announce


def _face_finder() -> Any:
    """A function that says whether a face is in a grey uint8 ``[S, S]`` image, by the embedded detector."""
    import numpy as np
    from PIL import Image

    from mien.detect import open_detector

    detector = open_detector("blazeface", threshold=_SCORE)

    def finds(image: Any) -> bool:
        edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        border = round(_BORDER * image.shape[0])
        framed = np.pad(image, border, constant_values=int(np.median(edge)))
        seen = Image.fromarray(framed).resize((_SEEN_AT, _SEEN_AT), Image.Resampling.BILINEAR)
        return bool(detector(np.asarray(seen.convert("RGB"))))

    return finds


def _write(found: Any, folder: Path, reasons: Sequence[str], figures_to: Path | None) -> dict[str, Any]:
    """All files; returns what ``audit.json`` says."""
    import json

    from mien.lab.audit import exclude_text, figures, listed, report
    from mien.lab.files import save_text
    from mien.lab.html import write_page
    from mien.lab.provenance import provenance

    origin = provenance(found.faces.sha256)
    text, excluded = exclude_text(found, reasons, head=f"Made by: {origin['command']}")
    counts = figures(found) | {"excluded": excluded, "provenance": origin}
    save_text(folder / "audit.json", json.dumps(counts | {"rows": listed(found)}, separators=(",", ":")) + "\n")
    save_text(folder / "exclude.txt", text)
    write_page(folder / "report.html", report(found, excluded, provenance=origin))
    if figures_to:
        save_text(figures_to, json.dumps(counts, indent=1) + "\n")
    return counts


def _summary(said: dict[str, Any]) -> list[str]:
    """What was found, in a few lines."""
    copies, content = said["copies"], said["content"]
    extra = ", ".join(
        f"{split} {n:,}" for split, n in copies["extra_by_split"].items() if n or split in said["classes"]
    )
    near, torn = copies["near"], copies["contradicting"]
    lines = [
        f"{said['faces']:,} faces, {copies['distinct']:,} different images; further copies within {extra}",
        f"Training rows with a copy in a test split: {copies['training_rows_in_tests']:,} exact, "
        f"{copies['training_rows_in_tests_near']:,} with near copies",
        f"near copies: {near['pairs']:,} pairs above {near['threshold']:g}, {near['mirrored_pairs']:,} mirrored",
        f"contradicting labels: {torn['groups']:,} groups of {torn['rows']:,} rows",
        f"blank: {content['near_blank']:,}, all black {content['all_black']:,}; no face found: {content['faceless']:,}",
    ]
    lines += [
        f"against {each['source']}: {each['found']:,} rows stand in it, in {each['pairs']:,} pairs"
        for each in said["against"]
    ]
    if said["ferplus"] and said["ferplus"]["n"]:
        lines.append(
            f"label and FER+ majority agree on {said['ferplus']['rate']:.1%} of {said['ferplus']['n']:,} faces"
        )
    if said["label_errors"]:
        errors = said["label_errors"]
        lines.append(f"likely label errors: {errors['flagged']:,} of {errors['judged']:,} judged")
    lines.append(f"exclude.txt: {', '.join(f'{reason} {n:,}' for reason, n in said['excluded'].items()) or 'empty'}")
    return lines
