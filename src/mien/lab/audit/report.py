"""An audit as a page for people: counts, contact sheets, and what was not looked for. For this computer alone."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien._format import percent
from mien.lab.audit.audit import Audit, figures
from mien.lab.audit.duplicates import contradicting, overlap_counts
from mien.lab.audit.exclude import REASONS
from mien.lab.data import FaceSet, Split
from mien.lab.html import Tile, details, facts, gallery, headline, note, page, paragraph, section, table
from mien.lab.html.blocks import Section

MOST_TILES = 60  # of a sheet


MOST_GROUPS = 24  # of copies


_MOST_IN_GROUP = 8


def sheet(faces: FaceSet, places: NDArray[np.int64], *, what: str, say: Callable[[int], str] | None = None) -> str:
    """The first faces at ``places``. ``what`` they are stands in the line above; ``say`` gives the n-th more words."""
    shown = places[:MOST_TILES].tolist()
    tiles = [tile(faces, place, "" if say is None else say(n)) for n, place in enumerate(shown)]
    return _first(len(shown), len(places), what) + gallery(tiles)


def groups(sets: Sequence[Sequence[Tile]], *, total: int, what: str) -> str:
    """Groups of tiles, each in a frame. ``total`` says how many there are of ``what``."""
    framed = "".join(f"<div>{gallery(tiles[:_MOST_IN_GROUP])}{_more(len(tiles))}</div>" for tiles in sets)
    return _first(len(sets), total, what) + f'<div class="groups">{framed}</div>'


def tile(faces: FaceSet, place: int, more: str = "") -> Tile:
    """One face with its row, split and label, and ``more``."""
    split, label = tuple(Split)[int(faces.usage[place])], faces.emotions[int(faces.labels[place])]
    said = f"row {int(faces.rows[place])}, {split}, {label}"
    return Tile(faces.images[place].numpy(), f"{said}: {more}" if more else said)


def _first(shown: int, total: int, what: str) -> str:
    if not total:
        return paragraph(f"No {what}.")
    return paragraph(f"{total:,} {what}." if shown == total else f"The first {shown:,} of {total:,} {what}.")


def _more(count: int) -> str:
    left = count - _MOST_IN_GROUP
    return f"<p>{escape(f'and {left:,} more')}</p>" if left > 0 else ""


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


def report(found: Audit, excluded: Mapping[str, int], *, provenance: Mapping[str, str]) -> str:
    """The page. ``excluded`` says how many rows each reason of the list names."""
    said = figures(found)
    sections = [
        _classes(said),
        _copies(found, said["copies"]),
        _contradictions(found, said["copies"]["contradicting"]),
        _content(found, said["content"]),
        *([ferplus_section(found, said["ferplus"])] if said["ferplus"] else []),
        *([label_error_section(found, said["label_errors"])] if said["label_errors"] else []),
        *([_against(found)] if found.overlaps else []),
        _list(excluded),
        _limits(found),
    ]
    lead = f"{len(found.faces):,} faces, every one compared with every other."
    shown = headline(_headline(found, said))
    first = Section(sections[0].title, sections[0].anchor, shown + sections[0].html)
    title = f"Audit of {found.faces.source.rpartition('/')[2]}"
    return page(title, [first, *sections[1:]], lead=lead, provenance=provenance, faces=True)


def _headline(found: Audit, said: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    copies, content = said["copies"], said["content"]
    repeated = said["faces"] - copies["distinct"]
    shown = {
        "different images": (f"{copies['distinct']:,}", f"{repeated:,} rows repeat one of them"),
        "Training rows in a test split": (
            f"{copies['training_rows_in_tests_near']:,}",
            f"{copies['training_rows_in_tests']:,} of them exact copies",
        ),
        "groups with contradicting labels": (
            f"{copies['contradicting']['groups']:,}",
            f"{copies['contradicting']['rows']:,} rows",
        ),
        "images without a face": (
            f"{content['near_blank'] + content['faceless']:,}",
            f"{content['near_blank']:,} blank, {content['faceless']:,} where no face was found",
        ),
    }
    if found.label_errors is not None:
        n, judged = len(found.label_errors.places), len(found.label_errors.judged)
        agrees = percent(found.label_errors.accuracy)
        shown["labels flagged as likely wrong"] = (
            f"{n:,}",
            f"of {judged:,} judged, by probabilities that favour {agrees} of the labels",
        )
    return shown


def _classes(said: Mapping[str, Any]) -> Section:
    splits = said["classes"]
    header = ["class", *(word for split in splits for word in (split, "share"))]
    totals = {split: sum(counts.values()) for split, counts in splits.items()}
    rows: list[list[str | int]] = []
    for emotion in next(iter(splits.values())):
        cells = [(counts[emotion], counts[emotion] / totals[split]) for split, counts in splits.items()]
        rows.append([emotion, *(word for n, share in cells for word in (f"{n:,}", f"{percent(share)}"))])
    rows.append(["all", *(word for split in splits for word in (f"{totals[split]:,}", ""))])
    remark = [note(said["note"])] if said["note"] else []
    return section("Classes", *remark, table(header, rows))


def _copies(found: Audit, said: Mapping[str, Any]) -> Section:
    leaks = table(
        ["rows of", "with a copy in", "exact", "of these with the same label", "exact or near"],
        [
            [leak["of"], leak["into"], *(f"{leak[key]:,}" for key in ("exact", "same_label", "near"))]
            for leak in said["leaks"]
        ],
        caption="Leaks between splits. A row with several copies counts once.",
    )
    extra = table(
        ["split", "rows that repeat an earlier row of it"],
        [[split, f"{n:,}"] for split, n in said["extra_by_split"].items()],
    )
    crossing = [group for group in found.copies.groups if len(np.unique(found.faces.usage.numpy()[group])) > 1]
    inside = [group for group in found.copies.groups if len(np.unique(found.faces.usage.numpy()[group])) == 1]
    near = said["near"]
    words = (
        f"Near copies are images of a Pearson correlation above {found.threshold:g}: the same picture cut, lit or "
        f"compressed a little differently. Among different images there are {near['pairs']:,} such pairs "
        f"({near['pairs_above_0.999']:,} above 0.999) and {near['mirrored_pairs']:,} pairs of mirror images; "
        f"{near['pairs_of_different_labels']:,} of all these pairs carry different labels."
    )
    return section(
        "Copies",
        leaks,
        extra,
        details("Exact copies across splits", _sheet_of_groups(found, crossing, "groups that stand in several splits")),
        details("Exact copies within a split", _sheet_of_groups(found, inside, "groups that stand in one split")),
        paragraph(words),
        details("Near copies", _near(found, mirrored=False)),
        *([details("Mirror images", _near(found, mirrored=True))] if near["mirrored_pairs"] else []),
    )


def _sheet_of_groups(found: Audit, chosen: Sequence[NDArray[np.int64]], what: str) -> str:
    """The largest groups first."""
    order = sorted(chosen, key=lambda group: (-len(group), group[0]))[:MOST_GROUPS]
    tiles = [[tile(found.faces, place) for place in group.tolist()] for group in order]
    return groups(tiles, total=len(chosen), what=what)


def _near(found: Audit, *, mirrored: bool) -> str:
    near = found.copies.near
    # The least alike first: they show what the threshold means.
    chosen = np.flatnonzero(near.mirrored == mirrored)[::-1]
    pairs = [
        [tile(found.faces, int(near.first[at])), tile(found.faces, int(near.second[at]), f"r {near.r[at]:.4f}")]
        for at in chosen[:MOST_GROUPS]
    ]
    return groups(pairs, total=len(chosen), what="pairs, the least alike first")


def _contradictions(found: Audit, said: Mapping[str, int]) -> Section:
    alone, rows = said["groups_within_one_split"], said["rows_within_one_split"]
    words = (
        f"{said['groups']:,} groups of identical images ({said['rows']:,} rows) carry more than one label; "
        f"{alone:,} times within one split, blanks aside ({rows:,} rows)."
    )
    chosen = contradicting(found.copies, found.faces)
    return section("Contradicting labels", paragraph(words), _sheet_of_groups(found, chosen, "groups"))


def _content(found: Audit, said: Mapping[str, Any]) -> Section:
    content, faces = found.content, found.faces
    voted = set(content.majority.tolist())
    facts_ = {
        "of one grey level": f"{said['one_grey_level']:,}, all black {said['all_black']:,}",
        f"spread below {said['near_blank_below']:g} grey levels": f"{said['near_blank']:,}",
    }
    if faces.votes is not None:
        facts_["called no face by FER+"] = (
            f"{said['majority_not_face']:,} by most of the voters, {said['all_votes_not_face']:,} by all"
        )
    facts_["suspects"] = (
        f"{said['suspects']:,}: flat over more than {percent(said['suspects_flat_above'], 0)}, or called no face"
    )
    facts_["no face found"] = f"{said['faceless']:,} of the suspects"
    blocks = [facts(facts_)]
    if said["suspects_not_asked"]:
        blocks.append(note(f"{said['suspects_not_asked']:,} suspects were not shown to the detector."))
    kept = np.setdiff1d(content.majority, np.union1d(content.faceless, content.near_blank))
    blocks += [
        details("Blank", sheet(faces, content.near_blank, what="blank or nearly blank images")),
        details(
            "No face found",
            sheet(
                faces,
                content.faceless,
                what="suspects in which the detector finds no face (some show one: look before you leave them out)",
                say=lambda n: "votes agree" if int(content.faceless[n]) in voted else "",
            ),
        ),
    ]
    if faces.votes is not None:
        what = "images that FER+ calls no face, but in which one was found, or nobody looked"
        blocks.append(details("Called no face, but not confirmed", sheet(faces, kept, what=what)))
    return section("Blanks and non-faces", *blocks)


def _against(found: Audit) -> Section:
    blocks = []
    for each in found.overlaps:
        name = each.other.source.rpartition("/")[2]
        rows = [
            [str(row["of"]), str(row["into"]), *(f"{row[key]:,}" for key in ("exact", "same_label", "near"))]
            for row in overlap_counts(each, found.faces)
        ]
        header = ["rows of", f"with a copy in {name}", "exact", "with the same label", "exact or near"]
        blocks.append(
            table(header, rows, caption=f"{name}: {len(each.other):,} faces") if rows else paragraph(f"None in {name}.")
        )
        pairs: list[list[Tile]] = [
            [
                tile(found.faces, int(each.place[at])),
                tile(each.other, int(each.theirs[at]), f"{name}, r {each.r[at]:.4f}"),
            ]
            for at in range(min(MOST_GROUPS, len(each.place)))
        ]
        if pairs:
            blocks.append(details(f"Pairs with {name}", groups(pairs, total=len(each.place), what="pairs")))
    return section("Leaks from other sets", *blocks)


def _list(excluded: Mapping[str, int]) -> Section:
    rows = [
        [reason, f"{excluded[reason]:,}" if reason in excluded else "not asked for", why]
        for reason, why in REASONS.items()
    ]
    return section(
        "Rows to leave out",
        paragraph("exclude.txt lists Training rows for data.exclude of a recipe; a row may have several reasons."),
        table(["reason", "Training rows", "what it means"], rows, wrap=True),
    )


def _limits(found: Audit) -> Section:
    words = [
        "Copies that are turned, cut otherwise or strongly re-lit correlate less than the threshold and are not found, "
        "nor is the same person in another picture.",
        "Placeholders and body parts are found only where the image is flat, or the voters call it no face, and the "
        "detector finds none in it. Drawn faces count as faces.",
    ]
    if found.label_errors is None:
        words.append("Label errors were not looked for: that needs out-of-fold probabilities (--label-errors RECIPE).")
    return section("What is not found", *map(paragraph, words))
