"""The card of an exported model, from one set of values: for machines (card.json) and for people (card.md)."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mien._errors import DataError
from mien.infer import Classifier
from mien.lab.complexity import count_macs, count_parameters
from mien.lab.data import FaceSet, Split, check_official, with_classes
from mien.lab.export.calibrate import Calibration
from mien.lab.predictions import Predictions, Selection, compare_with_votes, resize_faces
from mien.lab.recipe import Recipe
from mien.lab.train.run import Trained

_KEPT = ("n", "accuracy", "interval", "log_loss", "ece")


def beside(classifier: Classifier, answers: Predictions, faces: FaceSet, classes: str, split: Split) -> dict[str, Any]:
    """``flip`` and ``people`` for ``answers`` of ``classifier`` to ``split`` of ``faces``, the full set.

    ``flip`` holds the figures of the mean probabilities of each face and its mirror image, by part of the rows: two
    passes instead of one. ``people`` is what ``compare_with_votes`` says of the answers as they are, ``None`` for a set
    without votes.
    """
    part = faces.split(split)
    chosen = with_classes(part, classes)
    mirrored, _ = classifier(np.ascontiguousarray(resize_faces(chosen, classifier.size)[:, :, ::-1]))
    both = replace(answers, probs=((answers.probs + mirrored) / 2).astype(np.float32)).metrics()
    return {
        "flip": {name: {key: figures[key] for key in _KEPT} for name, figures in both.items()},
        "votes": compare_with_votes(answers, Selection(chosen, answers.clean, str(split), len(part)), part),
    }


def tables_of(found: Mapping[str, Any]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The tables of a card, heads first, from what ``beside`` said by split: of flips, and of people (or empty)."""
    flips: list[tuple[str, ...]] = [("split, face and mirror image", "rows", "accuracy", "95 % interval", "ECE")]
    people: list[tuple[str, ...]] = []
    for split, said in sorted(found.items()):
        for part, figures in said["flip"].items():
            low, high = figures["interval"]
            told = (f"{100 * figures['accuracy']:.2f} %", f"{100 * low:.2f} % to {100 * high:.2f} %")
            flips.append((f"{split.capitalize()}Test, {part}", f"{figures['n']:,}", *told, f"{figures['ece']:.3f}"))
        if said["votes"] and said["votes"]["majority"]["n"] and said["votes"]["distribution"]["n"]:
            people.append(_row(split, said["votes"]))
    heads = ("split", "rows", "agrees with FER+", "95 % interval", "labels agree", "log loss", "of people", "distance")
    return flips, [heads, *people] if people else []


def _row(split: str, said: Mapping[str, Any]) -> tuple[str, ...]:
    majority, votes = said["majority"], said["distribution"]
    low, high = majority["interval"]
    return (
        f"{split.capitalize()}Test",
        f"{majority['n']:,}",
        f"{100 * majority['agreement']:.2f} %",
        f"{100 * low:.2f} % to {100 * high:.2f} %",
        f"{100 * majority['label_agreement']:.2f} %",
        *(f"{votes[key]:.3f}" for key in ("log_loss", "vote_entropy", "total_variation")),
    )


Row = tuple[str, ...]


FER2013 = "FER-2013"  # as cards name it


_CALIBRATED = {
    "vector": "vector scaling (a factor and an offset a class)",
    "temperature": "one temperature, which changes no answer",
}


def card_json(
    trained: Trained, judged: Mapping[str, Any], learned: str, *, calibration: Calibration, exported_at: str
) -> dict[str, Any]:
    """The figures of the int8 file as plain values.

    ``judged`` maps split (``public``, and ``private`` once the model is final), precision and part to ``figures``.
    ``learned`` is what ``learned_from`` says, ``exported_at`` the commit of the exporting code. The figures outside of
    ``judged`` are those of the last split judged, all its rows.
    """
    accuracy = {}
    for split, by_precision in judged.items():
        for part, figures in by_precision["int8"].items():
            accuracy[split if part == "all" else f"{split}_{part}"] = figures["accuracy"]
    recipe, net = trained.recipe, trained.net
    headline = judged[headline_split(judged)]["int8"]["all"]
    shown = ("balanced_accuracy", "macro_f1", "ece", "log_loss", "recall", "precision", "confusion")
    return {
        "name": recipe.name,
        "accuracy": accuracy | {"interval": headline["interval"]},
        **{key: headline[key] for key in shown},
        "size": recipe.data.size,
        "parameters": count_parameters(net),
        "macs": count_macs(net, recipe.data.size),
        "calibration": asdict(calibration),
        "emotions": list(headline["recall"]),
        "recipe": recipe.name,
        "seed": recipe.seed,
        "epochs": len(trained.history),
        "learned_from": learned,
        "metrics": judged,
        "licence": "Apache-2.0",
        **trained.provenance,
        "seconds": round(sum(record["seconds"] for record in trained.history)),
        "exported_at": exported_at,
    }


def learned_from(recipe: Recipe, faces: FaceSet) -> str:
    """The data of a run in words: its set by name, and what the recipe makes of it."""
    data = recipe.data
    votes = " with FER+ votes" if recipe.target.vote_weight > 0 or data.classes == "eight" else ""
    further = f", {len(data.extra)} further sets mixed in" if data.extra else ""
    copies = "without Training rows copied in a test split" if data.exclude_leaked else "copies of test faces included"
    name = FER2013 if _is_fer2013(faces) else Path(faces.source).name
    return f"{name}{votes}{further}, sha256 `{faces.sha256}`, {copies}"


def _is_fer2013(faces: FaceSet) -> bool:
    own = faces if faces.mixed_in is None else faces.select(~faces.mixed_in)
    try:
        check_official(own)
    except DataError:
        return False
    return True


def headline_split(judged: Mapping[str, Any]) -> str:
    """The split whose figures stand first: ``private`` once it was touched, else ``public``."""
    return "private" if "private" in judged else "public"


def card_markdown(recipe: Recipe, card: Mapping[str, Any]) -> str:
    """The card for people, in Markdown."""
    about = " ".join(recipe.about.split())
    split = f"{headline_split(card['metrics']).capitalize()}Test"
    limits, licence = (LIMITS, LICENCE) if card["learned_from"].startswith(FER2013) else (OWN_LIMITS, OWN_LICENCE)
    return "\n\n".join(
        [
            f"# {card['name']}",
            about,
            _headline(card),
            *_beside(card),
            f"## Figures on {split}, by class (int8)\n\n" + _classes(card),
            f"## Confusion on {split} (rows: label, columns: answer)\n\n" + _confusion(card),
            "## How it was made\n\n" + _making(recipe, card),
            "## What it is not\n\n" + limits,
            "## Licence\n\n" + licence,
            "",
        ]
    )


LIMITS = """\
- It names the expression that people who labelled FER-2013 would most likely have named. It cannot know what anybody
  feels.
- FER-2013 was gathered by web search for emotion words: mostly posed and dramatic faces, with labels that agree with
  a second opinion (FER+) in about two of three cases. Its people are not a sample of humankind. Age, skin tone,
  culture, glasses, masks and disabilities change how well it reads, and none of this is measured here.
- Probabilities are calibrated on FER-2013. On other cameras and people they are less so; `abstain` helps, a test on
  your own pictures helps more.
- Do not use it to decide about people: hiring, schooling, policing, credit, health, border control. Emotion inference
  at work and in schools is prohibited in the European Union (Regulation 2024/1689, Article 5)."""


LICENCE = """\
The file is under Apache-2.0. It was trained on FER-2013 (Goodfellow et al., 2013), which came without a licence file
and is treated as research data: whether weights trained on it may serve a commercial product is for you and your
counsel to judge. The FER+ votes (Barsoum et al., 2016) are under the MIT licence, Copyright (c) Microsoft Corporation.
No face of the data set is in the file."""


OWN_LIMITS = """\
- It names the expression that people who labelled its training faces would most likely have named. It cannot know what
  anybody feels.
- Its figures hold for faces like those it was trained on. Age, skin tone, culture, glasses, masks and disabilities
  change how well it reads, and none of this is measured here. A test on your own pictures says more.
- Do not use it to decide about people: hiring, schooling, policing, credit, health, border control. Emotion inference
  at work and in schools is prohibited in the European Union (Regulation 2024/1689, Article 5)."""


OWN_LICENCE = """\
The file is under Apache-2.0, as far as mien goes. Whether the faces it was trained on may be used so is for those who
gathered them to say. No face is in the file."""


# Said once below the table of figures.
PROTOCOL = """\
`clean` leaves out rows whose exact pixels occur in an earlier split or row. PublicTest selected and calibrated;
PrivateTest was judged after that. `results/<name>/choices.md` in the repository says what was tried, and how often."""


VOTED = """\
The rows are the faces on which most of the ten FER+ voters agree, and that emotion is the label (Barsoum et al., 2016):
single votes are dropped, the top needs more than half of the rest. Other rules give other rows and other figures."""


FLIPS = """\
### Two views instead of one (int8)

The figures above are of one view. The mean of the probabilities of a face and its mirror image costs twice the time:"""


PEOPLE = """\
### Agreement with people (int8)

Ten people voted on each face for FER+. "agrees with FER+": with their majority, where there is one (Barsoum et al.,
2016); "labels agree": the labels of FER-2013 on the same faces. The rest compares the probabilities with all votes: log
loss in nats, that of an answer which knew the votes ("of people"), and the total variation distance (0 the same, 1
nothing in common)."""


def _headline(card: Mapping[str, Any]) -> str:
    rows: list[Row] = [("split", "rows", "accuracy", "95 % interval", "balanced", "macro F1", "log loss", "ECE")]
    for split in sorted(card["metrics"]):
        for precision in ("int8", "fp32"):
            for part in ("all", "clean"):
                f = card["metrics"][split][precision][part]
                name = f"{split.capitalize()}Test, {part}, {precision}"
                low, high = f["interval"]
                figures = [
                    _percent(f["accuracy"]),
                    f"{_percent(low)} to {_percent(high)}",
                    _percent(f["balanced_accuracy"]),
                ]
                figures += [_percent(f["macro_f1"]), f"{f['log_loss']:.3f}", f"{f['ece']:.3f}"]
                rows.append((name, f"{f['n']:,}", *figures))
    voted = f"\n\n{VOTED}" if "contempt" in card["emotions"] else ""
    return f"{_table(rows)}\n\n{PROTOCOL}{voted}"


def _classes(card: Mapping[str, Any]) -> str:
    rows: list[Row] = [("emotion", "recall", "precision", "faces")]
    for index, emotion in enumerate(card["emotions"]):
        support = sum(card["confusion"][index])
        rows.append((emotion, _percent(card["recall"][emotion]), _percent(card["precision"][emotion]), f"{support:,}"))
    return _table(rows)


def _confusion(card: Mapping[str, Any]) -> str:
    rows: list[Row] = [("", *card["emotions"])]
    rows += [(emotion, *map(str, counts)) for emotion, counts in zip(card["emotions"], card["confusion"], strict=True)]
    return _table(rows)


def _beside(card: Mapping[str, Any]) -> list[str]:
    """Sections on mirror images and on people, where the export has looked for them."""
    if "additional" not in card:
        return []
    flips, people = tables_of(card["additional"])
    return [f"{FLIPS}\n\n{_table(flips)}", *([f"{PEOPLE}\n\n{_table(people)}"] if people else [])]


def _making(recipe: Recipe, card: Mapping[str, Any]) -> str:
    side = recipe.data.size
    parts = [
        f"{_run(part)}, command `{part['command']}` at commit `{part['commit']}`" for part in card.get("parts", ())
    ]
    lines = [
        *(parts or [_run(card)]),  # a joined run was not trained itself
        f"command `{card['command']}` at commit `{card['commit']}`, exported at `{card['exported_at']}`",
        f"data: {card['learned_from']}",
        f"{card['parameters']:,} parameters, {card['macs'] / 1e6:.0f} MMAC a face of {side} x {side} pixels",
        f"calibrated by {_CALIBRATED[recipe.calibration]}, fitted on PublicTest and part of the graph",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _run(said: Mapping[str, Any]) -> str:
    """One training: its recipe, seed, cost and machine."""
    cost = f"{said['epochs']} epochs, {said['seconds']:,} s on {said['machine']} (torch {said['torch']})"
    return f"recipe `{said['recipe']}`, seed {said['seed']}, {cost}"


def _table(rows: list[Row]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"
