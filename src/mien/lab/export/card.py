"""The card of an exported model: card.json for programs, and card.md with the same values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mien._errors import RecipeError
from mien._format import percent
from mien._metrics import HEADLINE, format_metric, metric_name
from mien.lab.data import FaceSet, Split, with_classes
from mien.lab.data.fer2013 import OFFICIAL_NAME, official_difference
from mien.lab.export.calibrate import Calibration
from mien.lab.inference import current_runtime
from mien.lab.nets import count_macs, count_parameters
from mien.lab.predictions import Predictions, Selection, compare_with_votes, resize_faces
from mien.lab.recipe import Recipe, load
from mien.lab.recipe.load import differences, toml_value
from mien.lab.train.run import Trained

Row = tuple[str, ...]

_VOTES = " with FER+ votes"
_FLIP_METRICS = ("n", "accuracy", "interval", "log_loss", "ece")
_CALIBRATED = {
    "vector": "vector scaling (a factor and an offset for each class)",
    "temperature": "one temperature, which does not change any prediction",
}

# The sections of a model that was trained on FER-2013.
LIMITS = """\
- It names the expression that people who labelled FER-2013 would most likely have named. It cannot know what anybody
  feels.
- FER-2013 was collected by web search for emotion words: mostly posed and exaggerated faces, with labels that agree
  with a second opinion (FER+) in about two of three cases. Its people are not a representative sample. Age, skin tone,
  culture, glasses, masks and disabilities change the accuracy, and none of this is measured here.
- Probabilities are calibrated on FER-2013. For other cameras and people they are less accurate. Use `abstain`, and
  test the model on your own images.
- Do not use it to decide about people: hiring, schooling, policing, credit, health, border control. Emotion inference
  at work and in schools is prohibited in the European Union (Regulation 2024/1689, Article 5)."""
LICENCE = """\
The file is under Apache-2.0. It was trained on FER-2013 (Goodfellow et al., 2013), which was published without a
licence file and is treated as research data: whether weights trained on it may be used in a commercial product is for
you and your lawyer to decide. The FER+ votes (Barsoum et al., 2016) are under the MIT licence, Copyright (c) Microsoft
Corporation. The file contains no face of the data set."""

# The same for other data sets.
OWN_LIMITS = """\
- It names the expression that people who labelled its training faces would most likely have named. It cannot know what
  anybody feels.
- Its metrics are valid for faces like those it was trained on. Age, skin tone, culture, glasses, masks and disabilities
  change the accuracy, and none of this is measured here. Test the model on your own images.
- Do not use it to decide about people: hiring, schooling, policing, credit, health, border control. Emotion inference
  at work and in schools is prohibited in the European Union (Regulation 2024/1689, Article 5)."""
OWN_LICENCE = """\
mien puts the file under Apache-2.0. Whether the training faces may be used in this way depends on the terms of those
who collected them. The file contains no face."""

# Below the tables.
CLEAN = "`clean` excludes rows whose exact pixels occur in an earlier split or row."
VOTED = """\
The rows are the faces on which most of the ten FER+ voters agree; the label is their emotion (Barsoum et al., 2016):
single votes are dropped, and the most frequent emotion needs more than half of the rest. Other rules give other rows
and other metrics."""
FLIPS = """\
### Two views instead of one ({precision})

The metrics above are of one view. The mean of the probabilities of a face and its mirror image takes twice the time:"""
SIZES = """\
### Small faces, and when an answer is unsure ({precision}, PublicTest)

The faces were shrunk and enlarged again, as in photographs. Of the answers whose probability is at least "unsure
below", three of four are right. Commands, reports and pages call a face below it unsure."""
PEOPLE = """\
### Agreement with people ({precision})

Ten people voted on each face for FER+. "agrees with FER+": agreement with their majority, if there is one (Barsoum et
al., 2016); "labels agree": agreement of the FER-2013 labels on the same faces. The other columns compare the
probabilities with all votes: log loss in nats, the lowest possible log loss (of a prediction that knows the votes), and
the total variation distance (0: equal, 1: nothing in common)."""


def measure_additional(
    path: Path, predictions: Mapping[str, Mapping[str, Predictions]], faces: FaceSet, classes: str
) -> dict[str, dict[str, Any]]:
    """Measure test-time augmentation and the agreement with FER+ votes.

    Args:
        path: The file of ``main_precision``.
        predictions: Predictions by split (``public``, ``private``) and precision.
        faces: The full data set.
        classes: Name of the class set.

    Returns:
        Split -> ``flip``: part of the rows -> metrics of the mean probabilities of each face and its mirror image;
        ``votes``: what ``compare_with_votes`` returns.
    """
    classifier, measured = current_runtime().open_classifier(path), {}
    for name, by_precision in predictions.items():
        own, split = by_precision[main_precision(by_precision)], Split(f"{name.capitalize()}Test")
        part = faces.split(split)
        chosen = with_classes(part, classes)
        mirrored, _ = classifier(np.ascontiguousarray(resize_faces(chosen, classifier.size)[:, :, ::-1]))
        both = replace(own, probs=((own.probs + mirrored) / 2).astype(np.float32)).metrics()
        flip = {rows: {key: metrics[key] for key in _FLIP_METRICS} for rows, metrics in both.items()}
        votes = compare_with_votes(own, Selection(chosen, own.clean, str(split), len(part)), part)
        measured[name] = {"flip": flip, "votes": votes}
    return measured


def card_json(
    trained: Trained, metrics: Mapping[str, Any], learned: str, *, calibration: Calibration, exported_at: str
) -> dict[str, Any]:
    """Build the content of ``card.json``.

    Args:
        trained: The exported run.
        metrics: Metrics by split (``public``, and ``private`` for a final model), precision and part of the rows.
        learned: Description of the training data, from ``describe_training_data``.
        calibration: The calibration of the files.
        exported_at: Commit of the exporting code.

    Returns:
        Plain values. The metrics outside of ``metrics`` are those of all rows of the headline split, of
        ``main_precision``.
    """
    accuracy = {}
    for split, by_precision in metrics.items():
        for part, found in by_precision[main_precision(by_precision)].items():
            accuracy[split if part == "all" else f"{split}_{part}"] = found["accuracy"]
    recipe, net = trained.recipe, trained.net
    of_headline = metrics[headline_split(metrics)]
    headline = of_headline[main_precision(of_headline)]["all"]
    return {
        "name": recipe.name,
        "accuracy": accuracy | {"interval": headline["interval"]},
        **{key: headline[key] for key in (*HEADLINE[1:], "recall", "precision", "confusion")},
        "size": recipe.data.size,
        "parameters": count_parameters(net),
        "macs": count_macs(net, recipe.data.size),
        "calibration": asdict(calibration),
        "emotions": list(headline["recall"]),
        "recipe": recipe.name,
        "seed": recipe.seed,
        "epochs": len(trained.history),
        "learned_from": learned,
        "metrics": metrics,
        "licence": "Apache-2.0",
        **trained.provenance,
        "seconds": round(sum(record.seconds for record in trained.history)),
        "exported_at": exported_at,
    }


def describe_training_data(recipe: Recipe, faces: FaceSet) -> str:
    """Describe the training data of a run.

    Args:
        recipe: Its recipe.
        faces: Its data set.

    Returns:
        Name and hash of the data set, and what the recipe changes in it.
    """
    data, own = recipe.data, faces if faces.mixed_in is None else faces.select(~faces.mixed_in)
    sources = " + ".join(Path(source).name for source in faces.source.split(" + "))
    name = sources if official_difference(own) else OFFICIAL_NAME
    has_votes = faces.votes is not None and bool(faces.votes.any())  # of faces without votes, all are zero
    votes = _VOTES if has_votes and (recipe.target.vote_weight > 0 or data.classes == "eight") else ""
    further = f", {len(data.extra)} further sets mixed in" if data.extra else ""
    copies = "without Training rows copied in a test split" if data.exclude_leaked else "copies of test faces included"
    note = f"; {faces.note}" if faces.note else ""
    return f"{name}{votes}{further}, sha256 `{faces.sha256}`, {copies}{note}"


def headline_split(metrics: Mapping[str, Any]) -> str:
    """Return the split of the headline metrics.

    Args:
        metrics: Metrics by split.

    Returns:
        ``private`` for a final model, else ``public``.
    """
    return "private" if "private" in metrics else "public"


def main_precision(by_precision: Mapping[str, Any]) -> str:
    """Return the precision of the headline metrics.

    Args:
        by_precision: Anything by precision.

    Returns:
        ``int8``; ``fp32`` where the net was exported without it.
    """
    return "int8" if "int8" in by_precision else "fp32"


def card_markdown(recipe: Recipe, card: Mapping[str, Any]) -> str:
    """Build ``card.md``.

    Args:
        recipe: The recipe of the run.
        card: The content of ``card.json``.

    Returns:
        Markdown.
    """
    headline = headline_split(card["metrics"])
    emotions, split = card["emotions"], f"{headline.capitalize()}Test"
    precision = main_precision(card["metrics"][headline])
    is_official = card["learned_from"].startswith(OFFICIAL_NAME)
    limits, licence = (LIMITS, LICENCE) if is_official else (OWN_LIMITS, OWN_LICENCE)
    classes: list[Row] = [("emotion", "recall", "precision", "faces")]
    confusion: list[Row] = [("", *emotions)]
    for emotion, counts in zip(emotions, card["confusion"], strict=True):
        recall = percent(card["recall"][emotion], 2) if any(counts) else "-"
        shares = recall, percent(card["precision"][emotion], 2)
        classes.append((emotion, *shares, f"{sum(counts):,}"))
        confusion.append((emotion, *map(str, counts)))
    return "\n\n".join(
        [
            f"# {card['name']}",
            _describe(recipe, card),
            _headline_section(recipe, card),
            *size_section(card.get("sizes", {}), precision),
            *_additional_sections(card.get("additional", {}), precision),
            f"## Metrics on {split}, by class ({precision})\n\n" + _table(classes),
            f"## Confusion on {split} (rows: label, columns: prediction)\n\n" + _table(confusion),
            "## How it was made\n\n" + _training_list(recipe, card),
            "## What it is not\n\n" + limits,
            "## Licence\n\n" + licence,
            "",
        ]
    )


def _describe(recipe: Recipe, card: Mapping[str, Any]) -> str:
    """What the model is; the text of an own recipe, but not that of mien's, which describes the run of mien."""
    side = recipe.data.size
    text = f"Names one of {len(card['emotions'])} emotions in a grey face of {side} x {side} pixels."
    try:
        shipped = load(recipe.name)
    except RecipeError:
        return f"{' '.join(recipe.about.split())} {text}".strip()
    changed = [f"{key} = {toml_value(value)}" for key, value in differences(recipe, shipped).items() if key != "seed"]
    with_changes = f", changed: {'; '.join(changed)}" if changed else ""
    return f"{text} Trained with the recipe `{recipe.name}` of mien{with_changes}."


def _headline_section(recipe: Recipe, card: Mapping[str, Any]) -> str:
    first, *others = HEADLINE
    rows: list[Row] = [("split", "rows", first, "95 % interval", *(metric_name(key, short=True) for key in others))]
    for split in sorted(card["metrics"]):
        for precision in sorted(card["metrics"][split], reverse=True):  # int8 first
            for part, found in card["metrics"][split][precision].items():  # without clean where no row is
                name = f"{split.capitalize()}Test, {part}, {precision}"
                cells = (format_metric(key, found.get(key), 2) for key in others)
                accuracy = (percent(found[first], 2), _percent_interval(found["interval"]))
                rows.append((name, f"{found['n']:,}", *accuracy, *cells))
    validated = "" if recipe.data.folds else " and validated the training"
    private = _describe_looks(card) if "private" in card["metrics"] else "was not evaluated"
    protocol = f"{CLEAN} PublicTest calibrated the model{validated}; PrivateTest {private}."
    is_voted = "contempt" in card["emotions"] and _VOTES in card["learned_from"]
    return "\n\n".join([_table(rows), protocol, *([VOTED] if is_voted else [])])


def _describe_looks(card: Mapping[str, Any]) -> str:
    looks = card.get("looks", {"looks": 1})
    if looks["looks"] == 1:
        return "was evaluated once the model was final"
    return (
        f"had been looked at {looks['looks']} times for the family of recipes {looks['family']!r} ({looks['figures']} "
        "figures) when this file was exported: later choices may be led by earlier figures"
    )


def size_section(sizes: Mapping[str, Mapping[str, float]], precision: str) -> list[str]:
    """Build the section of ``card.md`` on small faces and on the confidence below which an answer is unsure.

    Args:
        sizes: What ``measure_by_size`` returned; empty where it was not measured.
        precision: That of the file.

    Returns:
        The section; nothing where it was not measured.
    """
    if not sizes:
        return []
    rows: list[Row] = [("side of the face", "accuracy", "ECE", "unsure below")]
    for side, found in sizes.items():
        cells = (percent(found["accuracy"]), f"{found['ece']:.3f}", percent(found["unsure_below"]))
        rows.append((f"{side} px", *cells))
    return [f"{SIZES.format(precision=precision)}\n\n{_table(rows)}"]


def _additional_sections(additional: Mapping[str, Any], precision: str) -> list[str]:
    """Sections on mirror images and on FER+ votes, if the export has measured them."""
    flips: list[Row] = [("split, face and mirror image", "rows", "accuracy", "95 % interval", "ECE")]
    measures = ("log loss", "lowest possible", "distance")
    votes: list[Row] = [("split", "rows", "agrees with FER+", "95 % interval", "labels agree", *measures)]
    for split, found in sorted(additional.items()):
        name = f"{split.capitalize()}Test"
        for part, metrics in found["flip"].items():
            cells = (percent(metrics["accuracy"], 2), _percent_interval(metrics["interval"]))
            flips.append((f"{name}, {part}", f"{metrics['n']:,}", *cells, f"{metrics['ece']:.3f}"))
        if found["votes"] and found["votes"]["majority"]["n"] and found["votes"]["distribution"]["n"]:
            majority, distribution = found["votes"]["majority"], found["votes"]["distribution"]
            cells = (percent(majority["agreement"], 2), _percent_interval(majority["interval"]))
            distances = (f"{distribution[key]:.3f}" for key in ("log_loss", "vote_entropy", "total_variation"))
            votes.append((name, f"{majority['n']:,}", *cells, percent(majority["label_agreement"], 2), *distances))
    tables = {FLIPS: flips, PEOPLE: votes}
    return [f"{text.format(precision=precision)}\n\n{_table(rows)}" for text, rows in tables.items() if len(rows) > 1]


def _training_list(recipe: Recipe, card: Mapping[str, Any]) -> str:
    parts = [
        f"{_describe_run(part)}, command `{part['command']}`{_at_commit(part['commit'])}"
        for part in card.get("parts", ())
    ]
    side = recipe.data.size
    lines = [
        *(parts or [_describe_run(card)]),  # an ensemble was not trained itself
        f"command `{card['command']}`{_at_commit(card['commit'])}, exported{_at_commit(card['exported_at'])}",
        f"data: {card['learned_from']}",
        f"{card['parameters']:,} parameters, {card['macs'] / 1e6:.0f} MMAC for a face of {side} x {side} pixels",
        f"calibrated by {_CALIBRATED[recipe.calibration]}, fitted on PublicTest and part of the graph",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _at_commit(commit: str) -> str:
    return " with an installed mien" if commit == "none" else f" at commit `{commit}`"


def _describe_run(run: Mapping[str, Any]) -> str:
    cost = f"{run['epochs']} epochs, {run['seconds']:,} s on {run['machine']} (torch {run['torch']})"
    return f"recipe `{run['recipe']}`, seed {run['seed']}, {cost}"


def _table(rows: list[Row]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def _percent_interval(edges: Sequence[float]) -> str:
    return " to ".join(percent(edge, 2) for edge in edges)
