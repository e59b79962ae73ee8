"""An evaluation -> a page that people read: headline, tables, drawings, and the faces that were misread."""

from collections.abc import Mapping
from typing import Any

from mien.lab.evaluate.evaluation import Evaluation
from mien.lab.evaluate.plots import training_plots
from mien.lab.evaluate.report_classes import classes_section, confusion_section, mistakes_section
from mien.lab.evaluate.report_confidence import confidence_section, silence_section, votes_sections
from mien.lab.evaluate.words import FIGURES, HEAD, shown, span, split_name
from mien.lab.looks import VIEWS_SAID
from mien.lab.page import columns, facts, headline, note, page, paragraph, section, table
from mien.lab.page.blocks import Section


def write_report(evaluation: Evaluation, provenance: Mapping[str, str]) -> str:
    """The whole page, self-contained; faces of the set stand in it."""
    e = evaluation
    sections = [
        _figures(e),
        _what_was_judged(e),
        confusion_section(e),
        classes_section(e),
        confidence_section(e),
        silence_section(e),
        *votes_sections(e),
        *_training(e),
        mistakes_section(e),
    ]
    return page(
        f"{e.subject.name} on {e.test.name}",
        sections,
        lead=f"{split_name(e.selection.split)}: {len(e.answers.labels):,} labelled faces, read one by one.",
        provenance=provenance,
        faces=True,
    )


def _figures(e: Evaluation) -> Section:
    found = e.judged["all"]
    heads = {FIGURES[name][0]: (shown(found[name], name), span(found["intervals"].get(name), name)) for name in HEAD}
    parts = {"all": "all rows"} | ({"clean": "clean rows"} if "clean" in e.judged else {})
    rows = [
        [FIGURES[name][0], *(f"{shown(e.judged[part][name], name)}{_brackets(e.judged[part], name)}" for part in parts)]
        for name in FIGURES
    ]
    counts = "; ".join(f"{said}: {e.judged[part]['n']:,}" for part, said in parts.items())
    clean = (
        " Clean rows are those whose exact pixels stand neither in an earlier split nor earlier in the same one."
        if "clean" in parts
        else ""
    )
    return section(
        "Figures",
        *(note(warning) for warning in e.warnings()),
        headline(heads),
        table(["", *parts.values()], rows, caption=f"{counts}. In brackets: 95 % intervals."),
        paragraph(
            "The intervals come from 2,000 bootstrap draws of the rows. That of the calibration error leans upwards, "
            f"as every draw adds noise to its bins.{clean}"
        ),
    )


def _brackets(found: Mapping[str, Any], name: str) -> str:
    said = span(found["intervals"].get(name), name)
    return f" ({said})" if said else ""


def _what_was_judged(e: Evaluation) -> Section:
    terms = {"model": e.subject.name, **e.subject.about}
    terms |= {"labels": e.selection.protocol, "data": f"{e.test.name}, {split_name(e.selection.split)}"}
    terms["views of a face"] = VIEWS_SAID[e.views]
    account = [[reason, f"{count:,}"] for reason, count in e.selection.account.items()]
    total = [["judged", f"{len(e.answers.labels):,}"], *account, ["rows in all", f"{e.selection.total:,}"]]
    return section("What was judged", facts(terms), table(["rows", ""], total))


def _training(e: Evaluation) -> list[Section]:
    if not e.subject.history:
        return []
    last = e.subject.history[-1]
    said = (
        f"{len(e.subject.history)} epochs; the last ended with a training loss of {last.get('loss', float('nan')):.3f}."
    )
    return [section("Training", paragraph(said), columns(*training_plots(e.subject.history)))]
