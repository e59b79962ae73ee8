"""Files of an explanation: ``explanation.json`` without faces, and an HTML report with faces of the data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mien._emotions import Emotion
from mien._format import counted, interval, percent, points, points_interval
from mien._page import image_tag
from mien.lab.explain.attention import REGIONS, region_polygons
from mien.lab.explain.faithfulness import ORDERS
from mien.lab.explain.study import DatasetExplanation
from mien.lab.files import file_name, file_set, save_json, save_text
from mien.lab.html import (
    ACCENT,
    INK,
    LINE,
    MUTED,
    ImageTile,
    Section,
    beside,
    details,
    facts,
    gallery,
    headline,
    new_plot,
    note,
    page,
    paragraph,
    plot,
    section,
    table,
)

_Metrics = Mapping[str, Any]

_SIMILAR = 0.5  # rank correlation above which maps without the weights count as the same
_EXAMPLES = 3  # faces of each emotion, the most confident predictions
ORDER_NAMES = {"map": "the map", "random": "random maps", "centre": "blob at the centre"}
_SIDE = 336  # pixels of the image of the regions
_COLOURS = {"brows": "#8e6bd8", "eyes": "#3f7fd0", "nose": "#5b9a3c", "mouth": "#e5484d"}
_STYLES = {"map": (ACCENT, "-", 2.4), "random": (MUTED, ":", 1.8), "centre": (INK, "--", 1.6)}


def write_explanation(explanation: DatasetExplanation, folder: Path, *, json_folder: Path | None = None) -> Path:
    """Write ``explanation.json`` and ``report.html``. The report shows faces of the data set.

    Args:
        explanation: The explanation.
        folder: The folder to write to.
        json_folder: A second folder for the JSON file, which is named ``MODEL.json`` there.

    Returns:
        The path of the report.

    Raises:
        OutputError: If a file cannot be written.
    """
    with file_set(folder) as draft:
        save_json(draft / "explanation.json", explanation.to_dict())
        save_text(draft / "report.html", explanation_page(explanation))
    if json_folder:
        save_json(json_folder / f"{file_name(explanation.explainer.model.name)}.json", explanation.to_dict())
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
    """Describe the verdict on a claim and the answers to its three questions.

    Args:
        claim: One of the claims of ``evaluate_claims``.

    Returns:
        A few sentences.
    """
    if claim["verdict"] == "not measured":
        return f"Not measured: {claim['reason']}."
    relative = f"{claim['relative']:.2f} times chance ({interval(claim['relative_interval'], '.2f')})"
    rival = f"{claim['over_rival']:+.2f} compared with the {claim['rival']}"
    others = f"{points(claim['over_other_emotions'])} points of share"
    answers = {
        "more_than_chance": relative,
        "more_than_any_other_region": f"{rival} ({interval(claim['over_rival_interval'], '+.2f')})",
        "more_than_for_other_emotions": f"{others} ({points_interval(claim['over_other_emotions_interval'])})",
    }
    sentences = [claim["verdict"].capitalize() + "."]
    for key, text in answers.items():
        question = key.replace("_", " ").capitalize()
        sentences.append(f"{question}: {'yes' if claim[key] else 'no'}, {text}.")
    return " ".join(sentences)


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
    """Describe what the randomisation test shows. Stages in which all maps are flat are ignored.

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
        _summary(metrics),
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


def _summary(metrics: _Metrics) -> Section:
    curves, last = metrics["faithfulness"], metrics["randomisation"]["stages"][-1]
    aligned = f"{metrics['alignment']['aligned']:,} aligned"
    shown = {"faces explained": (f"{metrics['faces']['explained']:,}", aligned)}
    for kind in ("deletion", "insertion"):
        auc = {order: f"{curves[kind][order]['auc']:.3f}" for order in ORDERS}
        shown[f"{kind} AUC"] = auc["map"], f"random {auc['random']}, centre {auc['centre']}"
    if last["correlation"] is not None:
        correlation = f"{last['correlation']:+.2f}", interval(last["interval"], "+.2f")
        shown["rank correlation, weights shuffled"] = correlation
    if not metrics["claims"]:
        text = "The model has neither surprise nor happy: the claim of document 000 does not apply to it."
        return section("Summary", headline(shown), note(text))
    text = (
        "Document 000 claims: eyes for surprise, mouth for happiness. A claim holds if all three answers are yes, and "
        "in part if the region gets more than chance and more than for other emotions."
    )
    height, width = metrics["map_size"]
    best = ", ".join(f"{region} {percent(share, 0)}" for region, share in metrics["regions"]["max_share"].items())
    resolution = (
        f"The maps have {height} x {width} places. A map that covers exactly one region would have this share there "
        f"and the rest on its neighbours: {best}. Differences between neighbours are blurred accordingly."
    )
    verdicts = {f"{each['region']} for {each['emotion']}": describe_claim(each) for each in metrics["claims"]}
    return section("Summary", headline(shown), paragraph(text), facts(verdicts), note(resolution))


def _mean_maps(explanation: DatasetExplanation) -> Section:
    emotions, attention = explanation.explainer.model.emotions, explanation.attention
    means = {i: attention.maps[attention.targets == i].mean(axis=0) for i in np.unique(attention.targets)}
    overall = np.mean(list(means.values()), axis=0)
    faces = {i: explanation.mean_faces[i].round().clip(0, 255).astype(np.uint8) for i in means}
    mean_face = np.mean(list(faces.values()), axis=0).round().astype(np.uint8)
    tiles, specific = [], []
    for i, mean in means.items():
        count = int((attention.targets == i).sum())
        tiles.append(ImageTile(faces[i], f"{emotions[i]}, {counted(count, 'face')}", mean))
        specific.append(ImageTile(faces[i], f"{emotions[i]}, above the mean", np.maximum(mean - overall, 0)))
    return section(
        "Mean maps",
        paragraph(
            "The mean of all aligned faces with one predicted emotion, and the mean of their maps. All maps have the "
            "same weight. Only positive places are shown, scaled by the largest value of the mean map."
        ),
        gallery(tiles),
        paragraph("Specific to an emotion: where its mean map is above the mean over all emotions."),
        gallery(specific),
        details("The regions on the mean face", image_tag(draw_regions(mean_face), "regions on the mean face")),
    )


def _attention(metrics: _Metrics) -> Section:
    relative, shade, shares, plotted = [], [], [], {}
    for emotion, each in metrics["attention"].items():
        regions = [each["regions"][region] for region in REGIONS]
        plotted[emotion] = each["regions"]
        relative.append([f"{emotion} ({each['faces']})", *map(format_relative, regions)])
        shade.append([min(max(region["relative"] - 1, 0) / 2, 1) for region in regions])
        cells = [f"{percent(r['share'])} ({interval(r['interval'], '.1f', factor=100)})" for r in regions]
        shares.append([emotion, *cells])
    caption = (
        "Share of attention relative to the share of a constant map: 1 is chance. 95 % bootstrap intervals over faces."
    )
    shares_table = table(["prediction", *REGIONS], shares, caption="Of the whole map; rows sum to 100 %.")
    return section(
        "Attention by region",
        region_plot(plotted),
        table(["prediction (faces)", *REGIONS], relative, shade=shade, caption=caption),
        details("Shares", shares_table),
    )


def _faithfulness(metrics: _Metrics) -> Section:
    rows = []
    for kind, better in (("deletion", "lower"), ("insertion", "higher")):
        found = (metrics[kind][order] for order in ORDERS)
        cells = [f"{each['auc']:.3f} ({interval(each['interval'])})" for each in found]
        rows.append([f"{kind}, {better} is better", *cells])
    text = (
        f"The most salient pixels of {metrics['faces']} faces are removed first, or restored first. A removed pixel is "
        f"replaced by {metrics['baseline']}. The curves show the mean probability of the predicted emotion."
    )
    return section(
        "Faithfulness",
        paragraph(text),
        beside(faithfulness_plot(metrics, "deletion"), faithfulness_plot(metrics, "insertion")),
        table(["AUC", *(ORDER_NAMES[order] for order in ORDERS)], rows),
        paragraph(describe_faithfulness(metrics)),
    )


def _randomisation(test: _Metrics) -> Section:
    rows = []
    for number, stage in enumerate(test["stages"], start=1):
        known = stage["correlation"] is not None
        cells = [f"{stage['correlation']:+.2f}", interval(stage["interval"], "+.2f")] if known else ["–", ""]
        rows.append([f"{number}", *cells, f"{stage['flat_maps']}", ", ".join(stage["layers"])])
    text = (
        "Weights are shuffled within their layer, from the last layer to the first, and stay shuffled (Adebayo et al., "
        f"2018). {describe_randomisation(test)}"
    )
    stages = table(["stage", "correlation", "95 % interval", "flat maps", "layers newly shuffled"], rows, wrap=True)
    return section("Randomisation test", paragraph(text), randomisation_plot(test), details("Stages", stages))


def _examples(explanation: DatasetExplanation) -> Section:
    emotions, tiles = explanation.explainer.model.emotions, []
    for target, emotion in enumerate(emotions):
        rows = np.flatnonzero(explanation.targets == target)
        best = rows[np.argsort(-explanation.probs[rows, target], kind="stable")[:_EXAMPLES]]
        for row in best:
            label = int(explanation.labels[row])
            labelled = "" if label == target else f", labelled {emotions[label]}"
            caption = f"{emotion} {percent(float(explanation.probs[row, target]), 0)}{labelled}"
            tiles.append(ImageTile(explanation.crops[row], caption, explanation.maps[row]))
    text = f"The {_EXAMPLES} most confident predictions of each emotion."
    return section("Examples", paragraph(text), gallery(tiles))


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


def draw_regions(face: NDArray[np.uint8]) -> Image.Image:
    """Draw the outlines and names of the regions on a face.

    Args:
        face: uint8 ``[S, S]``.

    Returns:
        The image, 336 pixels wide and high.
    """
    canvas = Image.fromarray(face).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).convert("RGB")
    draw = ImageDraw.Draw(canvas)
    for region, outlines in region_polygons().items():
        for outline in outlines:
            corners = [(x * _SIDE, y * _SIDE) for x, y in outline]
            draw.polygon(corners, outline=_COLOURS[region], width=2)
        place = (corners[0][0] + 4, corners[0][1] + 2)
        draw.text(place, region, fill="#fff", stroke_width=1, stroke_fill="#000", font_size=14)
    return canvas


def region_plot(attention: Mapping[str, _Metrics]) -> str:
    """Plot the attention relative to chance, one dot per region and emotion.

    Args:
        attention: By emotion, its regions.

    Returns:
        HTML.
    """
    figure, axis = new_plot(9.0, 3.6)
    offsets = np.linspace(-0.32, 0.32, max(len(attention), 2))
    for offset, (emotion, regions) in zip(offsets, attention.items(), strict=False):
        values = np.array([regions[region]["relative"] for region in REGIONS])
        low, high = np.array([regions[region]["relative_interval"] for region in REGIONS]).T
        style: dict[str, Any] = {"color": Emotion(emotion).color, "fmt": "o", "markersize": 6, "linewidth": 1.8}
        lengths = np.maximum([values - low, high - values], 0)
        axis.errorbar(np.arange(len(REGIONS)) + offset, values, yerr=lengths, label=emotion, **style)
    axis.axhline(1, color=MUTED, linewidth=1, linestyle="--")
    axis.set_xticks(range(len(REGIONS)), REGIONS)
    axis.grid(visible=False, axis="x")
    axis.set(ylabel="attention relative to chance", ylim=(0, None))
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    values_text = "; ".join(
        f"{emotion}: " + ", ".join(f"{region} {by[region]['relative']:.2f}" for region in REGIONS)
        for emotion, by in attention.items()
    )
    alt = f"Attention relative to chance by region. {values_text}"
    return plot(figure, alt=alt, caption="Dashed: chance. Bars: 95 % intervals.")


def faithfulness_plot(metrics: _Metrics, kind: str) -> str:
    """Plot the mean curves of deletion or insertion.

    Args:
        metrics: The result of ``faithfulness``.
        kind: ``deletion`` or ``insertion``.

    Returns:
        HTML.
    """
    figure, axis = new_plot(5.0, 3.4)
    deletion = kind == "deletion"
    for order in ORDERS:
        color, style, width = _STYLES[order]
        summary = metrics[kind][order]
        fractions, label = np.multiply(metrics["fractions"], 100), f"{ORDER_NAMES[order]} ({summary['auc']:.3f})"
        axis.plot(fractions, summary["curve"], color=color, linestyle=style, linewidth=width, label=label)
    axis.set(xlabel="pixels removed, %" if deletion else "pixels restored, %", ylabel="mean probability")
    axis.set(xlim=(0, 100), ylim=(0, 1))
    axis.legend(fontsize=9, loc="upper right" if deletion else "lower right")
    areas = ", ".join(f"{ORDER_NAMES[order]} {metrics[kind][order]['auc']:.3f}" for order in ORDERS)
    caption = f"{kind.capitalize()}: {'lower' if deletion else 'higher'} is better; AUC in brackets."
    return plot(figure, alt=f"{kind.capitalize()} curves, AUC: {areas}", caption=caption)


def randomisation_plot(metrics: _Metrics) -> str:
    """Plot the rank correlation of the maps after each stage of the randomisation test.

    Args:
        metrics: The result of ``randomisation_test``.

    Returns:
        HTML.
    """
    figure, axis = new_plot(6.4, 3.0)
    stages = [(n, s) for n, s in enumerate(metrics["stages"], start=1) if s["correlation"] is not None]
    places = [0, *(n for n, _ in stages)]
    values = np.array([1.0, *(s["correlation"] for _, s in stages)])
    low, high = np.array([[1.0, 1.0], *(s["interval"] for _, s in stages)]).T
    axis.fill_between(places, low, high, color=ACCENT, alpha=0.2, linewidth=0)
    axis.plot(places, values, color=ACCENT, marker="o", linewidth=2)
    axis.axhline(0, color=LINE, linewidth=1.2)
    axis.set_xticks(places, ["trained", *(str(n) for n in places[1:])])
    axis.set(ylim=(-1.05, 1.05), xlabel="stages shuffled, from the last layer to the first", ylabel="rank correlation")
    listed = ", ".join(f"{value:+.2f}" for value in values)
    return plot(figure, alt=f"Rank correlation after each stage: {listed}", caption="Band: 95 % interval over faces.")
