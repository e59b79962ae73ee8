"""The sections on classes: the confusion matrix, the figures by emotion, and the faces that were misread."""

from typing import Any

import numpy as np
import torch

from mien.lab.evaluate.answer import map_faces
from mien.lab.evaluate.curves import average_precision, precision_recall
from mien.lab.evaluate.evaluation import Evaluation
from mien.lab.evaluate.pairs import Direction, Pair, surest_mistakes
from mien.lab.evaluate.plots import precision_plot, recall_plot
from mien.lab.page import Tile, columns, details, gallery, paragraph, section, table
from mien.lab.page.blocks import Section

_OPEN = 4  # pairs whose faces show without being asked for


def confusion_section(e: Evaluation) -> Section:
    """Who is taken for whom: counts and rates."""
    counts = np.asarray(e.judged["all"]["confusion"])
    support = counts.sum(1, keepdims=True)
    rates = counts / support.clip(min=1)
    names = [str(emotion) for emotion in e.answers.emotions]
    shade = [[float(rate) if n else None for rate in row] for row, n in zip(rates, support[:, 0], strict=True)]
    count_rows = [[name, *(f"{n:,}" for n in row)] for name, row in zip(names, counts, strict=True)]
    rate_rows = [
        [name, *(f"{rate:.0%}" if n else None for rate in row)]
        for name, row, n in zip(names, rates, support[:, 0], strict=True)
    ]
    diagonal = [[x == y for x in range(len(names))] for y in range(len(names))]
    head = ["is \\ read as", *names]
    return section(
        "Confusion",
        paragraph("A row is what the label says, a column what the model reads."),
        columns(
            table(head, count_rows, caption="Faces", shade=shade, best=diagonal),
            table(head, rate_rows, caption="Share of the row", shade=shade, best=diagonal),
        ),
    )


def classes_section(e: Evaluation) -> Section:
    """Recall with its intervals, precision against recall, and every figure by emotion."""
    found = e.judged["all"]
    precisions = average_precision(e.answers.probs, e.answers.labels, e.answers.emotions)
    rows = [
        [
            name,
            f"{found['support'][name]:,}",
            *(
                None if name in found["absent"] else f"{found[part][name]:.1%}"
                for part in ("precision", "recall", "f1")
            ),
            f"{precisions[name]:.1%}" if name in precisions else None,
        ]
        for name in found["recall"]
    ]
    curves = precision_recall(e.answers.probs, e.answers.labels, e.answers.emotions)
    return section(
        "By emotion",
        columns(
            recall_plot(found["recall"], e.recall_intervals, mean=found["balanced_accuracy"]), precision_plot(curves)
        ),
        table(["emotion", "faces", "precision", "recall", "F1", "average precision"], rows),
    )


def mistakes_section(e: Evaluation) -> Section:
    """The pairs that are confused most, with the faces of the surest mistakes."""
    rows = [[f"{p.there.truth} / {p.there.told}", _said(p.there), _said(p.back), f"{p.rank}", p.why] for p in e.pairs]
    head = ["pair", "first read as second", "second read as first", "rank", "why it is here"]
    caption = "Rank: place among all pairs by the number of mistakes in both directions."
    maps = (
        "Beside each face: where the network found the emotion that it wrongly named."
        if e.subject.model is not None
        else "These are kept answers: there is no model here that could draw maps."
    )
    return section(
        "Most confused pairs",
        paragraph(
            "Document 002 saw its nets take fear for happiness and anger for happiness. Here are these pairs, two more "
            "that are known to be close, and those that this model confuses most."
        ),
        table(head, rows, caption=caption),
        paragraph(f"Below, of every pair, the mistakes that the model was surest of. {maps}"),
        *(_gallery(e, pair) for pair in e.pairs if pair.there.count + pair.back.count),
    )


def _said(direction: Direction) -> str:
    rate = "no faces" if direction.rate is None else f"{direction.rate:.1%}"
    return f"{direction.count:,} ({rate})"


def _gallery(e: Evaluation, pair: Pair) -> str:
    """The faces of a pair: open for the most frequent ones, behind its name for the others."""
    parts = _galleries(e, pair)
    return "".join(parts) if pair.rank <= _OPEN else details(f"{pair.there.truth} / {pair.there.told}", *parts)


def _galleries(e: Evaluation, pair: Pair) -> list[str]:
    parts = []
    for direction in (pair.there, pair.back):
        places = surest_mistakes(e.answers, e.faces, direction)
        if len(places):
            parts.append(f"<h3>{direction.truth}, read as {direction.told}</h3>")
            parts.append(gallery(_tiles(e, places, direction)))
    return parts


def _tiles(e: Evaluation, places: Any, direction: Direction) -> list[Tile]:
    faces = e.faces.select(torch.from_numpy(places))
    told, truth = (e.answers.emotions.index(emotion) for emotion in (direction.told, direction.truth))
    maps = map_faces(e.subject.model, faces)
    return [
        Tile(
            faces.images[number].numpy(),
            f"row {e.answers.rows[place]}: {e.answers.probs[place, told]:.0%} {direction.told}, "
            f"{e.answers.probs[place, truth]:.0%} {direction.truth}",
            None if maps is None else maps[number, told],
        )
        for number, place in enumerate(places)
    ]
