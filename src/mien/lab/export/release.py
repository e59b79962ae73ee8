"""Export of a finished run to a model folder: ONNX files of the contract, metrics, card and licence."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch

from mien._errors import DataError, ModelError
from mien._framing import FER2013
from mien._metrics import HEADLINE
from mien._output import MARK
from mien.bundled import BUNDLED
from mien.infer import PRECISIONS
from mien.lab.data import FaceSet, Split, with_classes
from mien.lab.data.faceset import file_sha256
from mien.lab.data.selection import training_rows
from mien.lab.export.calibrate import Calibration, fit_temperature, fit_vector
from mien.lab.export.card import (
    card_json,
    card_markdown,
    describe_training_data,
    headline_split,
    main_precision,
    measure_additional,
)
from mien.lab.export.onnx import (
    CALIBRATION_FACES,
    contract_metadata,
    export_fp32,
    export_int8,
    read_metadata,
    store_half,
    write_metadata,
)
from mien.lab.files import file_set, output_folder, save_json, save_text
from mien.lab.inference import current_runtime, predict
from mien.lab.ledger import (
    Answers,
    Ledger,
    answers_of_recipe,
    count_looks,
    digest_net,
    family_of,
    is_private_test,
    with_views,
)
from mien.lab.predictions import Predictions, measure_by_size, predict_split, resize_faces, select_rows
from mien.lab.provenance import commit, require_commit
from mien.lab.train.run import Trained

INT8_LOSS = 0.3  # largest loss of PublicTest accuracy by int8, in percentage points


def export_model(
    trained: Trained,
    faces: FaceSet,
    folder: Path,
    *,
    final: bool = False,
    half: bool = False,
    int8: bool = True,
    ledger: Ledger | None = None,
) -> dict[str, Any]:
    """Export a finished run.

    Writes ``model.onnx`` (int8), ``model-fp32.onnx``, ``card.md``, ``card.json`` and ``LICENSE``. The calibration is
    fitted on PublicTest.

    Args:
        trained: The run, from ``load_final``.
        faces: The data set that the run was trained on.
        folder: Folder to write to; it is left as it was if the export fails.
        final: Whether to evaluate PrivateTest, too: once, when everything has been chosen.
        half: Whether to store the weights of the fp32 file in half precision.
        int8: Whether to write ``model.onnx``, too.
        ledger: Where a look at PrivateTest is written; ``None``: in ``default_ledger()``.

    Returns:
        The content of ``card.json``.

    Raises:
        ModelError: If a file disagrees with the net, or int8 loses more than ``INT8_LOSS`` points on PublicTest.
        DataError: If the faces are not those of the run, PrivateTest was looked at before for another run of its
            family, or the code differs from its commit.
        OutputError: If the folder cannot be written, or another process writes to it.

    Example:
        >>> export_model(load_final(Path("runs/conv4/seed-0")), faces, Path("conv4"))["ece"]  # doctest: +SKIP
        0.021
    """
    if leak := trained.recipe.data.leak:
        raise ModelError(f"{trained.recipe.name}: has learned from test faces ({leak}); not exported")
    require_same_faces(trained, faces)
    ledger, is_counted = ledger or Ledger(), final and is_private_test(faces, Split.PRIVATE_TEST)
    if is_counted:
        require_commit()
        ledger.require([answers_of_run(trained)])
    names = (*PRECISIONS.values(), "card.json", "card.md")
    with output_folder(folder, names), file_set(folder, optional=PRECISIONS["int8"]) as draft:
        calibration = calibrate(trained, faces)
        files = {precision: draft / name for precision, name in PRECISIONS.items() if int8 or precision != "int8"}
        export_files(trained, faces, files, calibration)
        if half:
            store_half(files["fp32"])
        predictions = predict_files(trained, faces, files, [Split.PUBLIC_TEST])
        metrics = compute_split_metrics(predictions)
        if int8 and (loss := int8_loss(metrics)) > INT8_LOSS:
            cause = f"int8 loses {loss:.2f} points on PublicTest, more than {INT8_LOSS}"
            cure = "not exported, but --no-int8 exports the fp32 file alone"
            raise ModelError(f"{trained.recipe.name}: {cause}; {cure}")
        if final:
            last = predict_files(trained, faces, files, [Split.PRIVATE_TEST])
            predictions, metrics = predictions | last, metrics | compute_split_metrics(last)
        main, learned = files[main_precision(files)], describe_training_data(trained.recipe, faces)
        card = card_json(trained, metrics, learned, calibration=calibration, exported_at=commit())
        card["sizes"] = measure_by_size(
            current_runtime().open_classifier(main), select_rows(faces, trained.emotions, Split.PUBLIC_TEST)
        )
        card["additional"] = measure_additional(main, predictions, faces, trained.recipe.data.classes)
        _write_headline(card["metrics"], files)
        if is_counted:
            card["looks"] = _add_look(trained, card, files, ledger, faces.sha256)
        _write_card(trained, card, draft)
    return card


def answers_of_run(trained: Trained) -> Answers:
    """Return the answers of a calibrated run for PrivateTest, without their accuracy.

    Args:
        trained: The run.

    Returns:
        The answers.
    """
    digests, data = [digest_net(trained.net, trained.recipe.calibration)], trained.provenance.get("data_sha256", "")
    return answers_of_recipe(trained.recipe, digests, trained_on=data)


def split_accuracy(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the accuracy of all rows of a split.

    Args:
        metrics: Metrics by precision and part of the rows.

    Returns:
        Precision -> accuracy, fp32 first.
    """
    return {precision: float(metrics[precision]["all"]["accuracy"]) for precision in sorted(metrics)}


def _add_look(
    trained: Trained, card: dict[str, Any], files: dict[str, Path], ledger: Ledger, data_sha256: str
) -> dict[str, Any]:
    """Write the look of an export to the ledger; returns the looks at its family, for the card."""
    answers, sums = answers_of_run(trained), {precision: file_sha256(path) for precision, path in files.items()}
    accuracy, main = split_accuracy(card["metrics"]["private"]), main_precision(sums)
    accuracy[f"{main} flip"] = card["additional"]["private"]["flip"]["all"]["accuracy"]
    digests = (*answers.digests, *sums.values(), with_views(sums[main], "flip"))
    ledger.add([replace(answers, digests=digests, accuracy=accuracy)], data_sha256)
    entries = ledger.entries()
    family = next(entry["family"] for entry in entries if answers.digests[0] in entry["answers"])
    looks, figures = count_looks(family, entries)
    return {"family": family, "looks": looks, "figures": figures}


def require_same_faces(trained: Trained, faces: FaceSet) -> None:
    """Check that a run was trained on a data set.

    Args:
        trained: The run.
        faces: The data set.

    Raises:
        DataError: If it was trained on other faces.
    """
    ours = trained.provenance.get("data_sha256", faces.sha256)
    if ours != faces.sha256:
        raise DataError(
            f"{faces.source}: holds other faces (sha256 {faces.sha256[:12]}...) than {trained.recipe.name} was trained "
            f"on ({ours[:12]}...); use those"
        )


def calibrate(trained: Trained, faces: FaceSet) -> Calibration:
    """Fit the calibration of a run on PublicTest.

    Args:
        trained: The run; its recipe chooses the method.
        faces: The data set that it was trained on.

    Returns:
        The calibration.

    Raises:
        DataError: If there are no faces in PublicTest.
    """
    fit = fit_vector if trained.recipe.calibration == "vector" else fit_temperature
    public = with_classes(faces.split(Split.PUBLIC_TEST), trained.recipe.data.classes)
    return fit(predict(trained.net, public.images, trained.recipe.data.size), public.labels)


def predict_files(
    trained: Trained, faces: FaceSet, files: dict[str, Path], splits: Sequence[Split]
) -> dict[str, dict[str, Predictions]]:
    """Predict splits with exported files.

    Args:
        trained: The run.
        faces: The data set.
        files: Precision -> exported file.
        splits: The splits.

    Returns:
        Split (``public``, ``private``) -> precision -> predictions.

    Raises:
        DataError: If a split has no rows.
    """
    opened = {precision: current_runtime().open_classifier(path) for precision, path in files.items()}
    classes = trained.recipe.data.classes
    return {
        split.removesuffix("Test").lower(): {p: predict_split(c, faces, classes, split) for p, c in opened.items()}
        for split in splits
    }


def compute_split_metrics(predictions: dict[str, dict[str, Predictions]]) -> dict[str, dict[str, Any]]:
    """Compute the metrics of predictions.

    Args:
        predictions: Predictions by split and precision.

    Returns:
        Metrics by split, precision and part of the rows (``all``, ``clean``).
    """
    return {split: {key: each.metrics() for key, each in by.items()} for split, by in predictions.items()}


def int8_loss(metrics: dict[str, dict[str, Any]]) -> float:
    """Return the loss of PublicTest accuracy by int8.

    Args:
        metrics: Metrics by split, precision and part of the rows.

    Returns:
        The loss in percentage points.
    """
    accuracy = {precision: found["all"]["accuracy"] for precision, found in metrics["public"].items()}
    return float(100 * (accuracy["fp32"] - accuracy["int8"]))


def export_files(trained: Trained, faces: FaceSet, files: dict[str, Path], calibration: Calibration) -> None:
    """Write the ONNX files of a run. The ranges of int8 are measured on training faces.

    Args:
        trained: The run.
        faces: The data set that it was trained on.
        files: Precision -> file to write: ``fp32``, and ``int8`` if it is wanted.
        calibration: The calibration.

    Raises:
        ModelError: If the net cannot be exported, or the file disagrees with it.
    """
    recipe, emotions = trained.recipe, trained.emotions
    name, size, family = recipe.name, recipe.data.size, family_of(recipe)
    metadata = contract_metadata(name, emotions, size, FER2013, name, trained.provenance, family=family)
    export_fp32(trained.net, files["fp32"], size=recipe.data.size, calibration=calibration, metadata=metadata)
    if "int8" not in files:
        return
    training = training_rows(faces, recipe)
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
    chosen = training.select(order[:CALIBRATION_FACES])
    export_int8(files["fp32"], files["int8"], resize_faces(chosen, recipe.data.size))


def _write_headline(metrics: Mapping[str, Any], files: dict[str, Path]) -> None:
    """Add the headline metrics to the metadata of the files."""
    split = headline_split(metrics)
    for precision, path in files.items():
        model, found = onnx.load(path), metrics[split][precision]["all"]
        headline = {"split": f"{split.capitalize()}Test"} | {key: round(found[key], 4) for key in HEADLINE}
        write_metadata(model, path, read_metadata(model) | {"accuracy": json.dumps(headline)})


def _write_card(trained: Trained, card: dict[str, Any], folder: Path) -> None:
    """Write the card and the licence."""
    save_json(folder / "card.json", card)
    save_text(folder / "card.md", f"{card_markdown(trained.recipe, card)}<!-- {MARK} -->\n")
    # The text of Apache-2.0, shared with the embedded detector.
    shutil.copyfile(BUNDLED / "blazeface-short-range" / "LICENSE", folder / "LICENSE")
