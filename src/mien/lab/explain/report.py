"""Files of an explanation: ``explanation.json`` without faces, and an HTML report with faces of the data set."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mien._format import interval, percent, points, points_interval
from mien.lab.explain.attention import REGIONS
from mien.lab.explain.faithfulness import ORDERS
from mien.lab.explain.plots import ORDER_NAMES, draw_regions, faithfulness_plot, randomisation_plot, region_plot
from mien.lab.explain.study import DatasetExplanation
from mien.lab.files import save_text
from mien.lab.html.blocks import Section, columns, details, facts, headline, note, page, paragraph, section, table
from mien.lab.html.figures import ImageTile, gallery, picture

_Metrics = Mapping[str, Any]

_SIMILAR = 0.5  # rank correlation above which maps without the weights count as the same
_EXAMPLES = 3  # faces of each emotion, the most confident predictions


def write_explanation(explanation: DatasetExplanation, folder: Path, *, keep: Path | None = None) -> Path:
    """Write ``explanation.json`` and ``report.html``. The report shows faces of the data set.

    Args:
        explanation: The explanation.
        folder: The folder to write to.
        keep: A folder that gets the JSON file as ``MODEL.json`` as well.

    Returns:
        The path of the report.

    Raises:
        OutputError: A file cannot be written.
    """
    text = json.dumps(explanation.to_dict(), indent=1) + "\n"
    save_text(folder / "explanation.json", text)
    if keep:
        save_text(keep / f"{explanation.explainer.model.name}.json", text)
    save_text(folder / "report.html", explanation_page(explanation))
    return folder / "report.html"


def describe_explanation(metrics: _Metrics) -> list[str]:
    """Describe the main results in sentences.

    Args:
        metrics: The metrics of an explanation.

    Returns:
        One line each on faces, claims, faithfulness and the randomisation test.
    """
    claims = [f"{each['region']} for {each['emotion']}: {describe_claim(each)}" for each in metrics["claims"]]
    tests = describe_faithfulness(metrics["faithfulness"]), describe_randomisation(metrics["randomisation"])
    return [describe_faces(metrics), *claims, *tests]


def format_relative(region: _Metrics) -> str:
    """Format a region's attention relative to chance.

    Args:
        region: The metrics of the region.

    Returns:
        For example ``1.30 (1.21 to 1.38)``.
    """
    return f"{region['relative']:.2f} ({interval(region['relative_interval'], '.2f')})"


def describe_claim(claim: _Metrics) -> str:
    """Describe the verdict on a claim and its three answers.

    Args:
        claim: One of the claims of ``evaluate_claims``.

    Returns:
        A few sentences.
    """
    if claim["verdict"] == "not measured":
        return f"Not measured: {claim['reason']}."
    answers = {
        "more_than_chance": f"{claim['relative']:.2f} times chance ({interval(claim['relative_interval'], '.2f')})",
        "more_than_any_other_region": (
            f"{claim['over_rival']:+.2f} compared with the {claim['rival']} "
            f"({interval(claim['over_rival_interval'], '+.2f')})"
        ),
        "more_than_for_other_emotions": (
            f"{points(claim['over_other_emotions'])} points of share "
            f"({points_interval(claim['over_other_emotions_interval'])})"
        ),
    }
    sentences = (
        f"{key.replace('_', ' ').capitalize()}: {'yes' if claim[key] else 'no'}, {text}."
        for key, text in answers.items()
    )
    return f"{claim['verdict'].capitalize()}. {' '.join(sentences)}"


def describe_faces(metrics: _Metrics) -> str:
    """Describe which faces were explained, and what was left out.

    Args:
        metrics: The metrics of an explanation.

    Returns:
        A few sentences.
    """
    faces, alignment = metrics["faces"], metrics["alignment"]
    drawn = "" if faces["drawn"] == "all" else f", drawn {faces['drawn']} (seed {faces['seed']})"
    left_out = "".join(f" Left out: {count:,} ({reason})." for reason, count in faces["left_out"].items())
    aligned = (
        f"{alignment['aligned']:,} were aligned by an {alignment['how']}; in {alignment['key_points_not_found']:,} the "
        "detector found no face of that size, and they are in no mean map and no share."
        if alignment["how"].startswith("affine")
        else "The faces were not aligned."
    )
    empty = alignment["map_without_evidence"]
    without = f" {empty:,} maps have no positive place; they are left out, too." if empty else ""
    return (
        f"{faces['explained']:,} faces of {faces['split']} ({faces['total']:,} rows){drawn}.{left_out} "
        f"{faces['correct']:,} predictions are correct ({faces['protocol']}). {aligned}{without}"
    )


def describe_randomisation(test: _Metrics) -> str:
    """Describe what the randomisation test shows. Stages in which every map is flat show nothing.

    Args:
        test: The result of ``randomisation_test``.

    Returns:
        A few sentences.
    """
    known = [(n, stage) for n, stage in enumerate(test["stages"], start=1) if stage["correlation"] is not None]
    if not known:
        return "With the last layer shuffled every map is flat: there is nothing to compare."
    (_, first), (number, last) = known[0], known[-1]
    complete = number == len(test["stages"])
    # A correlation near -1 is the same map with the opposite sign: what counts is the distance from 0.
    low, high = sorted(abs(edge) for edge in last["interval"])
    verdict = (
        "The maps depend on what the network has learned."
        if high < _SIMILAR
        else "The maps stay similar without what was learned: they show the face more than the network."
        if low > _SIMILAR
        else "Part of the maps stays without what was learned: more faces are needed for a verdict."
    )
    what = "all weights" if complete else f"the layers of {number} stages of {len(test['stages'])}"
    flat = "" if complete else " After further stages every map is flat."
    return (
        f"Rank correlation with the maps of the trained model: first stage shuffled {first['correlation']:+.2f}, "
        f"{what} shuffled {last['correlation']:+.2f} (95 % interval {interval(last['interval'], '+.2f')}). "
        f"{verdict}{flat}"
    )


def describe_faithfulness(metrics: _Metrics) -> str:
    """Describe whether the order of the map is better than the other orders.

    Args:
        metrics: The result of ``faithfulness``.

    Returns:
        One sentence.
    """
    parts = []
    for kind, sign in (("deletion", -1), ("insertion", 1)):
        for other, difference in metrics[kind]["map"]["differences"].items():
            edges = [sign * edge for edge in difference["interval"]]
            verdict = "better than" if min(edges) > 0 else "worse than" if max(edges) < 0 else "no different from"
            name = "a blob at the centre" if other == "centre" else "random maps"
            size = f"{difference['difference']:+.3f}, {interval(difference['interval'], '+.3f')}"
            parts.append(f"{kind} AUC: {verdict} {name} ({size})")
    return "; ".join(parts).capitalize().replace("auc", "AUC") + "."


def explanation_page(explanation: DatasetExplanation) -> str:
    """Return the HTML report. It loads nothing and shows faces of the data set.

    Args:
        explanation: The explanation.

    Returns:
        The page.
    """
    metrics = explanation.metrics
    sections = [
        section("Summary", _headline(metrics), *_claims(metrics)),
        _mean_maps(explanation),
        _attention(metrics),
        _faithfulness(metrics["faithfulness"]),
        _randomisation(metrics["randomisation"]),
        _examples(explanation),
        _method(explanation),
    ]
    return page(
        f"Where {explanation.explainer.model.name} looks",
        sections,
        lead=f"{describe_faces(metrics)} Method: {metrics['method']}.",
        provenance=explanation.provenance,
        faces=True,
    )


def _headline(metrics: _Metrics) -> str:
    curves, last = metrics["faithfulness"], metrics["randomisation"]["stages"][-1]
    shown = {
        "faces explained": (f"{metrics['faces']['explained']:,}", f"{metrics['alignment']['aligned']:,} aligned"),
        **{
            f"{kind} AUC": (
                f"{curves[kind]['map']['auc']:.3f}",
                f"random {curves[kind]['random']['auc']:.3f}, centre {curves[kind]['centre']['auc']:.3f}",
            )
            for kind in ("deletion", "insertion")
        },
    }
    if last["correlation"] is not None:
        correlation = f"{last['correlation']:+.2f}", interval(last["interval"], "+.2f")
        shown["rank correlation, weights shuffled"] = correlation
    return headline(shown)


def _claims(metrics: _Metrics) -> list[str]:
    if not metrics["claims"]:
        return [note("The model has neither surprise nor happy: the claim of document 000 does not apply to it.")]
    text = (
        "Document 000 claims: eyes for surprise, mouth for happiness. A claim holds where all three answers are yes, "
        "and in part where the region gets more than chance and more than for other emotions."
    )
    height, width = metrics["map_size"]
    best = ", ".join(f"{region} {percent(share, 0)}" for region, share in metrics["regions"]["max_share"].items())
    resolution = (
        f"The maps have {height} x {width} places. A map that covers exactly one region would have this share there "
        f"and the rest on its neighbours: {best}. Differences between neighbours are blurred accordingly."
    )
    verdicts = {f"{each['region']} for {each['emotion']}": describe_claim(each) for each in metrics["claims"]}
    return [paragraph(text), facts(verdicts), note(resolution)]


def _mean_maps(explanation: DatasetExplanation) -> Section:
    emotions, attention = explanation.explainer.model.emotions, explanation.attention
    means = {i: attention.maps[attention.targets == i].mean(axis=0) for i in np.unique(attention.targets)}
    overall = np.mean(list(means.values()), axis=0)
    specific = {i: np.maximum(mean - overall, 0) for i, mean in means.items()}
    faces = {i: explanation.mean_faces[i].round().clip(0, 255).astype(np.uint8) for i in means}
    count = {i: int((attention.targets == i).sum()) for i in means}
    mean_face = np.mean(list(faces.values()), axis=0).round().astype(np.uint8)
    return section(
        "Mean maps",
        paragraph(
            "The mean of all aligned faces with one predicted emotion, and the mean of their maps. Each map counts "
            "alike. Only positive places are shown, scaled by the largest value of the mean map."
        ),
        gallery(ImageTile(faces[i], f"{emotions[i]}, {count[i]} faces", means[i]) for i in means),
        paragraph("Specific to an emotion: where its mean map is above the mean over all emotions."),
        gallery(ImageTile(faces[i], f"{emotions[i]}, above the mean", specific[i]) for i in means),
        details("The regions on the mean face", picture(draw_regions(mean_face), alt="regions on the mean face")),
    )


def _attention(metrics: _Metrics) -> Section:
    by_emotion = metrics["attention"]
    regions = {emotion: each["regions"] for emotion, each in by_emotion.items()}
    relative = [
        [f"{emotion} ({each['faces']})", *(format_relative(each["regions"][region]) for region in REGIONS)]
        for emotion, each in by_emotion.items()
    ]
    shade = [[min(max(by[region]["relative"] - 1, 0) / 2, 1) for region in REGIONS] for by in regions.values()]
    shares = [[emotion, *(_format_share(by[region]) for region in REGIONS)] for emotion, by in regions.items()]
    caption = (
        "Share of attention relative to the share of a constant map: 1 is chance. 95 % bootstrap intervals over faces."
    )
    shares_table = table(["prediction", *REGIONS], shares, caption="Of the whole map; rows sum to 100 %.")
    return section(
        "Attention by region",
        region_plot(regions),
        table(["prediction (faces)", *REGIONS], relative, shade=shade, caption=caption),
        details("Shares", shares_table),
    )


def _format_share(region: _Metrics) -> str:
    return f"{percent(region['share'])} ({interval(region['interval'], '.1f', factor=100)})"


def _faithfulness(metrics: _Metrics) -> Section:
    rows = [
        [
            f"{kind}, {'lower' if kind == 'deletion' else 'higher'} is better",
            *(f"{metrics[kind][o]['auc']:.3f} ({interval(metrics[kind][o]['interval'])})" for o in ORDERS),
        ]
        for kind in ("deletion", "insertion")
    ]
    text = (
        f"The most salient pixels of {metrics['faces']} faces are removed first, or restored first. A removed pixel is "
        f"replaced by {metrics['baseline']}. The curves show the mean probability of the predicted emotion."
    )
    return section(
        "Faithfulness",
        paragraph(text),
        columns(faithfulness_plot(metrics, "deletion"), faithfulness_plot(metrics, "insertion")),
        table(["AUC", *(ORDER_NAMES[order] for order in ORDERS)], rows),
        paragraph(describe_faithfulness(metrics)),
    )


def _randomisation(test: _Metrics) -> Section:
    rows = [
        [
            f"{number}",
            "–" if stage["correlation"] is None else f"{stage['correlation']:+.2f}",
            "" if stage["interval"] is None else interval(stage["interval"], "+.2f"),
            f"{stage['flat_maps']}",
            ", ".join(stage["layers"]),
        ]
        for number, stage in enumerate(test["stages"], start=1)
    ]
    text = (
        "Weights are shuffled within their layer, from the last layer to the first, and stay shuffled (Adebayo et al., "
        f"2018). {describe_randomisation(test)}"
    )
    stages = table(["stage", "correlation", "95 % interval", "flat maps", "layers newly shuffled"], rows, wrap=True)
    return section("Randomisation test", paragraph(text), randomisation_plot(test), details("Stages", stages))


def _examples(explanation: DatasetExplanation) -> Section:
    tiles = []
    for index in range(len(explanation.explainer.model.emotions)):
        rows = np.flatnonzero(explanation.targets == index)
        best = rows[np.argsort(-explanation.probs[rows, index], kind="stable")[:_EXAMPLES]]
        tiles += [ImageTile(explanation.crops[row], _caption(explanation, row), explanation.maps[row]) for row in best]
    text = f"The {_EXAMPLES} most confident predictions of each emotion."
    return section("Examples", paragraph(text), gallery(tiles))


def _caption(explanation: DatasetExplanation, row: int) -> str:
    emotions = explanation.explainer.model.emotions
    target, label = int(explanation.targets[row]), int(explanation.labels[row])
    text = f"{emotions[target]} {percent(float(explanation.probs[row, target]), 0)}"
    return text if target == label else f"{text}, labelled {emotions[label]}"


def _method(explanation: DatasetExplanation) -> Section:
    metrics = explanation.metrics
    counts = metrics["faces"]
    rows = [[emotion, counts["by_label"][emotion], counts["by_prediction"][emotion]] for emotion in counts["by_label"]]
    text = (
        "Attention is the positive part of a map, upsampled to the crop (bilinear), aligned with the face's affine "
        "map, and divided by its sum. Chance is the same for a map that is constant over the crop."
    )
    return section(
        "Method",
        paragraph(describe_faces(metrics)),
        paragraph(text),
        facts({**explanation.about, "method": metrics["method"], "layer": metrics["layer"]}),
        table(["emotion", "labels", "predictions"], rows),
    )
