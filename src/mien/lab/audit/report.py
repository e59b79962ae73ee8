"""An audit as files: ``audit.json``, ``exclude.txt`` and the page ``report.html``, which shows faces of the set."""

import json
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._emotions import CLASS_SETS
from mien._format import percent
from mien.lab.audit.audit import DEFAULT_REASONS, REASONS, Audit, audit_counts, audit_rows, exclude_list
from mien.lab.audit.duplicates import Indices, Leak, contradicting, leaks
from mien.lab.audit.label_errors import LabelErrors, VoteAgreement
from mien.lab.data import FaceSet, Split
from mien.lab.files import file_set, save_json, save_text
from mien.lab.html import (
    ImageTile,
    Section,
    details,
    facts,
    gallery,
    headline,
    note,
    page,
    paragraph,
    section,
    table,
)

_MAX_TILES = 60  # in a sheet of single faces
_MAX_GROUPS = 24  # in a sheet of groups
_MAX_IN_GROUP = 8

_Counts = Mapping[str, Any]


def write_audit(
    found: Audit,
    folder: Path,
    *,
    provenance: Mapping[str, str],
    reasons: Sequence[str] = DEFAULT_REASONS,
    counts_file: Path | None = None,
) -> dict[str, int]:
    """Write ``audit.json``, ``exclude.txt`` and ``report.html``.

    Args:
        found: The audit.
        folder: Where the files are written.
        provenance: Command, commit, data and machine, as ``mien.lab.provenance.provenance`` gives them.
        reasons: Keys of ``REASONS`` that go into ``exclude.txt``.
        counts_file: A file that also gets the counts, without rows.

    Returns:
        The number of rows in ``exclude.txt`` by reason; a row may have several.

    Raises:
        OutputError: A file cannot be written.

    Example:
        >>> from mien.lab.audit import audit, load_faces
        >>> found = audit(load_faces(Path("my_faces")))  # doctest: +SKIP
        >>> write_audit(found, Path("reports"), provenance={"command": "audit.py"})  # doctest: +SKIP
        {'blank': 2, 'not-face': 1, 'leaked': 3, 'contradicting': 3}
    """
    comment = f"Made by: {provenance['command']}" if "command" in provenance else ""
    text, excluded = exclude_list(found, reasons, comment=comment)
    counts = audit_counts(found) | {"excluded": excluded, "provenance": dict(provenance)}
    with file_set(folder) as draft:
        save_text(draft / "audit.json", json.dumps(counts | {"rows": audit_rows(found)}, separators=(",", ":")) + "\n")
        save_text(draft / "exclude.txt", text)
        save_text(draft / "report.html", audit_page(found, excluded, provenance=provenance))
    if counts_file:
        save_json(counts_file, counts)
    return excluded


def summarize_audit(found: Audit, excluded: Mapping[str, int]) -> list[str]:
    """Return the main counts as lines of text, for a terminal.

    Args:
        found: The audit.
        excluded: Number of excluded rows by reason, as ``write_audit`` returns it.

    Returns:
        The lines.
    """
    counts = audit_counts(found)
    duplicates, content, ferplus = counts["duplicates"], counts["content"], counts["ferplus"]
    near, contradictions = duplicates["near"], duplicates["contradicting"]
    repeats = {split: n for split, n in duplicates["repeats_by_split"].items() if n or split in counts["classes"]}
    lines = [
        f"{counts['faces']:,} faces, {duplicates['distinct']:,} different images; "
        f"repeated rows: {_list_counts(repeats)}",
        f"Training rows with a duplicate in a test split: {duplicates['training_rows_in_tests']:,} exact, "
        f"{duplicates['training_rows_in_tests_near']:,} exact or near",
        f"near duplicates: {near['pairs']:,} pairs above {near['threshold']:g}, {near['mirrored_pairs']:,} mirrored",
        f"contradicting labels: {contradictions['groups']:,} groups of {contradictions['rows']:,} rows",
        f"blank: {content['near_blank']:,}, all black {content['all_black']:,}; no face found: {content['faceless']:,}",
    ]
    lines += [
        f"against {each['source']}: {each['found']:,} rows have a duplicate in it, in {each['pairs']:,} pairs"
        for each in counts["against"]
    ]
    if ferplus and ferplus["n"]:
        lines.append(f"label and FER+ majority agree on {percent(ferplus['rate'])} of {ferplus['n']:,} faces")
    if errors := counts["label_errors"]:
        favoured = f"the probabilities favour {percent(errors['accuracy'])} of the labels"
        flagged = f"{errors['flagged']:,} of {errors['evaluated']:,} evaluated faces"
        lines.append(f"likely label errors: {flagged}; {favoured}")
    return [*lines, f"exclude.txt: {_list_counts(excluded) or 'empty'}"]


def audit_page(found: Audit, excluded: Mapping[str, int], *, provenance: Mapping[str, str]) -> str:
    """Return the HTML page. It shows faces of the set and must not be published.

    Args:
        found: The audit.
        excluded: Number of excluded rows by reason.
        provenance: Shown at the end of the page.

    Returns:
        The page.
    """
    counts, agreed = audit_counts(found), found.agreement
    reasons = [
        [reason, f"{excluded[reason]:,}" if reason in excluded else "not requested", why]
        for reason, why in REASONS.items()
    ]
    limits = [
        "Duplicates that are rotated, cropped differently or strongly re-lit correlate less than the threshold and are "
        "not found. Nor is the same person in another image.",
        "Placeholders and body parts are found only where the image is flat or FER+ calls it no face, and the detector "
        "finds no face in it. Drawn faces count as faces.",
    ]
    if found.label_errors is None:
        limits.append("Label errors were not looked for: that needs probabilities of nets trained on other faces.")
    classes = _classes_section(counts)
    sections = [
        Section(classes.title, classes.anchor, headline(_headline(found, counts)) + classes.html),
        _duplicates_section(found, counts["duplicates"]),
        _contradictions_section(found, counts["duplicates"]["contradicting"]),
        _content_section(found, counts["content"]),
        *([_ferplus_section(found, agreed, counts["ferplus"])] if agreed and len(agreed.index) else []),
        *([_label_errors_section(found, found.label_errors, counts["label_errors"])] if found.label_errors else []),
        *([_overlaps_section(found)] if found.overlaps else []),
        section(
            "Rows to leave out",
            paragraph("exclude.txt lists Training rows for data.exclude of a recipe; a row may have several reasons."),
            table(["reason", "Training rows", "meaning"], reasons, wrap=True),
        ),
        section("What is not found", *map(paragraph, limits)),
    ]
    lead = f"{len(found.faces):,} faces, each compared with all others."
    title = f"Audit of {found.faces.source.rpartition('/')[2]}"
    return page(title, sections, lead=lead, provenance=provenance, faces=True)


def _headline(found: Audit, counts: _Counts) -> dict[str, tuple[str, str]]:
    duplicates, content = counts["duplicates"], counts["content"]
    repeated, contradictions = counts["faces"] - duplicates["distinct"], duplicates["contradicting"]
    shown = {
        "different images": (f"{duplicates['distinct']:,}", f"{repeated:,} rows repeat one of them"),
        "Training rows with a duplicate in a test split": (
            f"{duplicates['training_rows_in_tests_near']:,}",
            f"{duplicates['training_rows_in_tests']:,} of them have an exact one",
        ),
        "groups with contradicting labels": (f"{contradictions['groups']:,}", f"{contradictions['rows']:,} rows"),
        "images without a face": (
            f"{content['near_blank'] + content['faceless']:,}",
            f"{content['near_blank']:,} blank, {content['faceless']:,} in which no face was found",
        ),
    }
    if errors := found.label_errors:
        shown["likely label errors"] = (
            f"{len(errors.index):,}",
            f"of {len(errors.evaluated):,} evaluated faces; the probabilities favour {percent(errors.accuracy)} of the "
            "labels",
        )
    return shown


def _classes_section(counts: _Counts) -> Section:
    splits: Mapping[str, Mapping[str, int]] = counts["classes"]
    totals = {split: sum(by_class.values()) for split, by_class in splits.items()}
    rows = []
    for emotion in next(iter(splits.values())):
        shares = [(by_class[emotion], percent(by_class[emotion] / totals[split])) for split, by_class in splits.items()]
        rows.append([emotion, *(cell for count, share in shares for cell in (f"{count:,}", share))])
    rows.append(["all", *(cell for split in splits for cell in (f"{totals[split]:,}", ""))])
    remark = [note(counts["note"])] if counts["note"] else []
    header = ["class", *(cell for split in splits for cell in (split, "share"))]
    return section("Classes", *remark, table(header, rows))


def _duplicates_section(found: Audit, counts: _Counts) -> Section:
    usage, near = found.faces.usage.numpy(), counts["near"]
    across = [group for group in found.duplicates.groups if len(np.unique(usage[group])) > 1]
    within = [group for group in found.duplicates.groups if len(np.unique(usage[group])) == 1]
    words = (
        f"Near duplicates are images with a Pearson correlation above {found.threshold:g}: the same image with another "
        f"crop, light or compression. Among different images there are {near['pairs']:,} such pairs "
        f"({near['pairs_above_0.999']:,} above 0.999) and {near['mirrored_pairs']:,} pairs of mirror images; "
        f"{near['pairs_of_different_labels']:,} of all these pairs carry different labels."
    )
    return section(
        "Duplicates",
        _leak_table(
            leaks(found.duplicates, found.faces), "Leaks between splits. A row with several duplicates counts once."
        ),
        table(
            ["split", "rows that repeat an earlier row of it"],
            [[split, f"{n:,}"] for split, n in counts["repeats_by_split"].items()],
        ),
        details("Exact duplicates across splits", _group_sheet(found, across, "groups that occur in several splits")),
        details("Exact duplicates within a split", _group_sheet(found, within, "groups that occur in one split")),
        paragraph(words),
        details("Near duplicates", _near_sheet(found, mirrored=False)),
        *([details("Mirror images", _near_sheet(found, mirrored=True))] if near["mirrored_pairs"] else []),
    )


def _leak_table(found: Sequence[Leak], caption: str, *, into: str = "") -> str:
    rows = [[leak.of, leak.into, f"{leak.exact:,}", f"{leak.same_label:,}", f"{leak.near:,}"] for leak in found]
    heads = ("exact", "of these with the same label", "exact or near")
    header = ["rows of", f"with a duplicate in {into}".rstrip(), *heads]
    return table(header, rows, caption=caption)


def _contradictions_section(found: Audit, counts: _Counts) -> Section:
    words = (
        f"{counts['groups']:,} groups of identical images ({counts['rows']:,} rows) carry more than one label; "
        f"{counts['groups_within_one_split']:,} of them within one split, blank images not counted "
        f"({counts['rows_within_one_split']:,} rows)."
    )
    chosen = contradicting(found.duplicates, found.faces)
    return section("Contradicting labels", paragraph(words), _group_sheet(found, chosen, "groups"))


def _content_section(found: Audit, counts: _Counts) -> Section:
    content, faces, has_votes = found.content, found.faces, found.faces.votes is not None
    terms = {
        "of one grey level": f"{counts['one_grey_level']:,}, all black {counts['all_black']:,}",
        f"standard deviation below {counts['near_blank_below']:g} grey levels": f"{counts['near_blank']:,}",
    }
    if has_votes:
        by_votes = f"{counts['majority_not_face']:,} by most annotators, {counts['all_votes_not_face']:,} by all"
        terms["called no face by FER+"] = by_votes
    flat = f"flat over more than {percent(counts['suspects_flat_above'], 0)}, or called no face"
    terms |= {"suspects": f"{counts['suspects']:,}: {flat}", "no face found": f"{counts['faceless']:,} of the suspects"}
    blocks = [facts(terms)]
    if counts["suspects_not_checked"]:
        blocks.append(note(f"{counts['suspects_not_checked']:,} suspects were not shown to the detector."))
    blocks.append(details("Blank", _sheet(faces, content.near_blank, "blank or nearly blank images")))
    what = "suspects in which the detector finds no face (some show one: look before you leave them out)"
    remarks = np.where(np.isin(content.faceless, content.majority), "votes agree", "").tolist()
    blocks.append(details("No face found", _sheet(faces, content.faceless, what, remarks)))
    if has_votes:
        others = np.setdiff1d(content.majority, np.union1d(content.faceless, content.near_blank))
        what = "images that FER+ calls no face, in which a face was found or that were not checked"
        blocks.append(details("Called no face, but not confirmed", _sheet(faces, others, what)))
    return section("Blanks and non-faces", *blocks)


def _ferplus_section(found: Audit, agreed: VoteAgreement, counts: _Counts) -> Section:
    faces, table_ = found.faces, agreed.table
    left_out = len(faces) - counts["n"]
    by_split = [
        [split, f"{c['n']:,}", f"{c['agree']:,}", percent(c["agree"] / max(c["n"], 1))]
        for split, c in counts["by_split"].items()
    ]
    assert faces.votes is not None
    column = np.array([CLASS_SETS["eight"].index(emotion) for emotion in agreed.emotions])[agreed.majority]
    most = faces.votes.numpy()[agreed.index, column].astype(np.int64)
    others = np.flatnonzero(~agreed.agree)
    clearest = others[np.argsort(-most[others], kind="stable")]  # most votes for the majority first
    remarks = [f"FER+ says {agreed.emotions[place]}" for place in agreed.majority[clearest].tolist()]
    what = "faces whose majority is another emotion, the clearest first"
    sheet = _sheet(faces, agreed.index[clearest], what, remarks)
    return section(
        "FER-2013 labels against FER+",
        paragraph(
            f"Label and majority agree on {counts['agree']:,} of {counts['n']:,} faces "
            f"({percent(counts['agree'] / counts['n'])})."
        ),
        note(f"Rule: {counts['rule']}. {left_out:,} of {len(faces):,} rows are left out by it."),
        _count_table(
            ["label", *counts["columns"]],
            faces,
            table_,
            shade=table_ / np.maximum(table_.sum(axis=1, keepdims=True), 1),
            caption="Rows: the label; columns: the majority.",
        ),
        table(["split", "faces", "agree", "share"], by_split),
        details("Where the votes contradict the label", sheet),
    )


def _label_errors_section(found: Audit, errors: LabelErrors, counts: _Counts) -> Section:
    faces, table_ = found.faces, np.array(counts["given_by_suggested"])
    suggested = zip(errors.suggested.tolist(), errors.quality.tolist(), strict=True)
    remarks = [f"rather {faces.emotions[label]} ({percent(quality)} for the label)" for label, quality in suggested]
    blocks = [
        paragraph(
            f"{counts['flagged']:,} of {counts['evaluated']:,} evaluated faces are flagged. The probabilities come "
            f"from {counts['origin']}; they favour the given label of {percent(counts['accuracy'])}. "
            f"Method: {counts['method']}."
        ),
        note(f"Not evaluated: {'; '.join(f'{n:,} {reason}' for reason, n in counts['left_out'].items()) or 'none'}."),
        note(
            "A flag means that the probabilities disagree with the label. Probabilities of a weak net flag many "
            "correct labels."
        ),
    ]
    check = counts["against_ferplus"]
    if check and check["flagged"]:
        blocks.append(
            paragraph(
                f"An independent check: of the flagged faces with a FER+ majority ({check['flagged']:,}) the votes "
                f"contradict the label in {percent(check['flagged_contradicted'])}, of all evaluated faces "
                f"({check['evaluated']:,}) in {percent(check['evaluated_contradicted'])}, of the {check['first']:,} "
                f"least likely labels in {percent(check['first_contradicted'])}. The suggested label is the majority "
                f"in {percent(check['suggestion_is_majority'])} of the flagged faces."
            )
        )
    blocks += [
        _count_table(
            ["given", *counts["emotions"]],
            faces,
            table_,
            shade=table_ / max(int(table_.max()), 1),
            caption="Columns: suggested.",
        ),
        _sheet(faces, errors.index, "likely label errors, the least likely label first", remarks),
    ]
    return section("Likely label errors", *blocks)


def _count_table(
    header: Sequence[str], faces: FaceSet, counts: Indices, *, shade: NDArray[np.float64], caption: str
) -> str:
    """Counts with one row for each emotion of the set."""
    rows = [
        [str(emotion), *(f"{n:,}" for n in line)] for emotion, line in zip(faces.emotions, counts.tolist(), strict=True)
    ]
    return table(header, rows, shade=shade.tolist(), caption=caption)


def _overlaps_section(found: Audit) -> Section:
    blocks = []
    for each in found.overlaps:
        caption = f"{each.name}: {len(each.other):,} faces"
        none = paragraph(f"None in {each.name}.")
        blocks.append(_leak_table(each.leaks, caption, into=each.name) if each.leaks else none)
        pairs = [
            [
                _tile(found.faces, int(each.index[at])),
                _tile(each.other, int(each.other_index[at]), f"{each.name}, r {each.r[at]:.4f}"),
            ]
            for at in range(min(_MAX_GROUPS, len(each.index)))
        ]
        if pairs:
            blocks.append(details(f"Pairs with {each.name}", _framed(pairs, len(each.index), "pairs")))
    return section("Leaks from other sets", *blocks)


def _group_sheet(found: Audit, chosen: Sequence[Indices], what: str) -> str:
    """The largest groups of duplicates."""
    largest = sorted(chosen, key=lambda group: (-len(group), group[0]))[:_MAX_GROUPS]
    return _framed([[_tile(found.faces, index) for index in group.tolist()] for group in largest], len(chosen), what)


def _near_sheet(found: Audit, *, mirrored: bool) -> str:
    """Pairs of near duplicates, the least similar first: they show what the threshold means."""
    near = found.duplicates.near
    chosen = np.flatnonzero(near.mirrored == mirrored)[::-1]
    pairs = [
        [_tile(found.faces, int(near.first[at])), _tile(found.faces, int(near.second[at]), f"r {near.r[at]:.4f}")]
        for at in chosen[:_MAX_GROUPS]
    ]
    return _framed(pairs, len(chosen), "pairs, the least similar first")


def _sheet(faces: FaceSet, indices: Indices, what: str, remarks: Sequence[str] = ()) -> str:
    """The first faces at ``indices``, each with its remark, if there are any."""
    shown = indices[:_MAX_TILES].tolist()
    tiles = [_tile(faces, index, remark) for index, remark in zip(shown, remarks or repeat(""), strict=False)]
    return _how_many(len(shown), len(indices), what) + gallery(tiles)


def _framed(groups: Sequence[Sequence[ImageTile]], total: int, what: str) -> str:
    """Groups of tiles, each in a frame, out of ``total`` groups."""
    framed = []
    for tiles in groups:
        left = len(tiles) - _MAX_IN_GROUP
        framed.append(gallery(tiles[:_MAX_IN_GROUP]) + (f"<p>and {left:,} more</p>" if left > 0 else ""))
    divisions = "".join(f"<div>{html}</div>" for html in framed)
    return _how_many(len(groups), total, what) + f'<div class="groups">{divisions}</div>'


def _tile(faces: FaceSet, index: int, remark: str = "") -> ImageTile:
    split, label = tuple(Split)[int(faces.usage[index])], faces.emotions[int(faces.labels[index])]
    caption = f"row {int(faces.rows[index])}, {split}, {label}"
    return ImageTile(faces.images[index].numpy(), f"{caption}: {remark}" if remark else caption)


def _how_many(shown: int, total: int, what: str) -> str:
    if not total:
        return paragraph(f"No {what}.")
    return paragraph(f"{total:,} {what}." if shown == total else f"The first {shown:,} of {total:,} {what}.")


def _list_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counts.items())
