"""The labels of an audit on its page: held against the votes of FER+, and those that are likely wrong."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.lab.audit.audit import Audit
from mien.lab.audit.sheets import sheet
from mien.lab.page import details, note, paragraph, section, table
from mien.lab.page.blocks import Section
from mien.lab.page.words import percent


def ferplus_section(found: Audit, said: Mapping[str, Any]) -> Section:
    """How often label and majority agree. ``said`` are the figures of ``ferplus``."""
    agreed, faces = found.agreement, found.faces
    assert agreed is not None
    counts = agreed.table
    shade = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [
        [str(emotion), *(f"{n:,}" for n in line)] for emotion, line in zip(faces.emotions, counts.tolist(), strict=True)
    ]
    words = (
        f"Label and majority agree on {said['agree']:,} of {said['n']:,} faces ({percent(said['agree'] / said['n'])})."
    )
    strong = _strong_disagreement(found)
    return section(
        "FER-2013 labels against FER+",
        paragraph(words),
        note(f"Rule: {said['rule']}. {len(faces) - said['n']:,} of {len(faces):,} rows are left out so."),
        table(
            ["label", *said["columns"]], rows, shade=shade.tolist(), caption="Rows: the label; columns: the majority."
        ),
        table(
            ["split", "faces", "agree", "share"],
            [
                [split, f"{c['n']:,}", f"{c['agree']:,}", f"{percent(c['agree'] / max(c['n'], 1))}"]
                for split, c in said["by_split"].items()
            ],
        ),
        details(
            "Where the voters contradict the label",
            sheet(
                faces,
                agreed.places[strong],
                what="faces whose majority is another emotion, the clearest first",
                say=lambda n: f"FER+ says {agreed.classes[int(agreed.majority[strong[n]])]}",
            ),
        ),
    )


def _strong_disagreement(found: Audit) -> NDArray[np.int64]:
    """Indices into the judged faces: those that disagree, by the share of votes for their majority."""
    agreed, votes = found.agreement, found.faces.votes
    assert agreed is not None
    assert votes is not None
    most = votes.numpy()[agreed.places, agreed.majority]
    other = np.flatnonzero(~agreed.agree)
    return other[np.argsort(-most[other].astype(np.int64), kind="stable")]


def label_error_section(found: Audit, said: Mapping[str, Any]) -> Section:
    """The likely label errors, least likely label first. ``said`` are the figures of ``label_errors``."""
    errors, faces = found.label_errors, found.faces
    assert errors is not None
    counts = np.array(said["given_by_suggested"])
    names = said["emotions"]
    rows = [[name, *(f"{n:,}" for n in line)] for name, line in zip(names, counts.tolist(), strict=True)]
    left_out = "; ".join(f"{n:,} {reason}" for reason, n in said["not_judged"].items())
    blocks = [
        paragraph(
            f"{said['flagged']:,} of {said['judged']:,} judged faces are flagged. The probabilities come from "
            f"{said['origin']}; they favour the given label in {percent(said['accuracy'])}. Method: {said['method']}."
        ),
        note(f"Not judged: {left_out or 'none'}."),
        note("A flag says that the probabilities disagree with the label: weak ones raise many that are wrong."),
    ]
    if said["against_ferplus"]:
        blocks.append(paragraph(_checked(said["against_ferplus"])))
    blocks += [
        table(
            ["given", *names], rows, shade=(counts / max(int(counts.max()), 1)).tolist(), caption="Columns: suggested."
        ),
        sheet(
            faces,
            errors.places,
            what="likely label errors, the least likely label first",
            say=lambda n: (
                f"rather {faces.emotions[int(errors.suggested[n])]} ({percent(errors.quality[n])} for the label)"
            ),
        ),
    ]
    return section("Likely label errors", *blocks)


def _checked(said: Mapping[str, Any]) -> str:
    return (
        f"An honest check: of the flagged faces with a FER+ majority ({said['flagged']:,}) the voters contradict the "
        f"label in {percent(said['flagged_contradicted'])}, of all judged ones ({said['judged']:,}) in "
        f"{percent(said['judged_contradicted'])}, of the {said['first']:,} least likely labels in "
        f"{percent(said['first_contradicted'])}. The suggested label is what they say in "
        f"{percent(said['suggestion_is_majority'])} of the flagged ones."
    )
