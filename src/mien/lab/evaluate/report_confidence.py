"""The sections on what a model's probabilities are worth: its confidence, its silence, the votes of a crowd."""

from mien.lab.evaluate.curves import reliability
from mien.lab.evaluate.evaluation import Evaluation
from mien.lab.evaluate.plots import reliability_plot, risk_plot
from mien.lab.evaluate.words import span
from mien.lab.page import columns, headline, note, paragraph, section
from mien.lab.page.blocks import Section


def confidence_section(e: Evaluation) -> Section:
    """Whether answers are right as often as they claim."""
    error, bins = e.judged["all"]["ece"], reliability(e.answers.probs, e.answers.labels)
    said = (
        f"The expected calibration error is {error:.3f}: over {len(bins)} bins of confidence, this is the mean "
        "distance between what the model claims and how often it is right."
    )
    drawn = reliability_plot(bins, error=error)
    return section("Is its confidence right?", columns(drawn, paragraph(said)))


def silence_section(e: Evaluation) -> Section:
    """Risk against coverage, and the threshold that gives 90 % precision."""
    found = e.abstention
    if found["threshold"] is None:
        said = f"No threshold of confidence makes {found['target']:.0%} of its answers right on these faces."
    else:
        said = (
            f"With the threshold {found['threshold']:.3f} it answers {found['coverage']:.1%} of the faces, and "
            f"{found['precision']:.1%} of these answers are right: the largest coverage with at least "
            f"{found['target']:.0%}."
        )
    words = "A threshold chosen on the faces that judge it is too good to be true."
    if found["elsewhere"]:
        there = found["elsewhere"]
        words += (
            f" Chosen on a random half and tried on the other, it answers {there['coverage']:.1%} with "
            f"{there['precision']:.1%} right (mean of {there['halves']} halves)."
        )
    area = f"Area under the curve: {found['aurc']:.3f}, the mean risk over all coverages; lower is better."
    text = paragraph(said) + note(words) + paragraph(area)
    return section("When should it stay silent?", columns(risk_plot(e.curve), text))


def votes_sections(e: Evaluation) -> list[Section]:
    """Agreement with the voters of FER+; no section where the set has no votes."""
    if not e.votes:
        return []
    majority, far = e.votes["majority"], e.votes["distribution"]
    eight = "contempt" in e.judged["all"]["recall"]
    heads = {}
    if majority["agreement"] is not None:
        name = "majority accuracy" if eight else "agrees with the majority"
        heads[name] = (f"{majority['agreement']:.1%}", span(majority["interval"], "accuracy"))
    if not eight and majority["agreement_of_the_labels"] is not None:
        heads["the labels agree with it"] = (f"{majority['agreement_of_the_labels']:.1%}", "on the same faces")
    for key, said in (
        ("kl", "distance to the votes, KL"),
        ("total_variation", "total variation"),
        ("log_loss", "log loss to the votes"),
    ):
        if key in far:
            heads[said] = (f"{far[key]:.3f}", " to ".join(f"{edge:.3f}" for edge in far[f"{key}_interval"]))
    left = "".join(f" {count:,}: {reason}." for reason, count in majority["account"].items())
    rule = (
        f"Rule: {e.votes['rule']}. {majority['n']:,} of the {majority['of']:,} judged faces have such a majority.{left}"
    )
    spread = (
        f"The distances compare the answered probabilities with all votes for the model's {len(e.answers.emotions)} "
        f"emotions on {far['n']:,} faces, in nats; total variation lies between 0 and 1."
    )
    if "entropy_of_the_votes" in far:
        spread += (
            f" The people disagree among themselves: no answer has a log loss below {far['entropy_of_the_votes']:.3f}."
        )
    return [section("Against the crowd of FER+", headline(heads), paragraph(rule), paragraph(spread))]
