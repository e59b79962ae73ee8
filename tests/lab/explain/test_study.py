"""The study of maps: planted claims, faithfulness, randomised weights, and the report."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from mien._emotions import SEVEN
from mien._errors import DataError, MienError, ModelError
from mien.lab.data import Split
from mien.lab.explain.attention import (
    REGIONS,
    Alignment,
    attention_by_emotion,
    bootstrap_means,
    evaluate_claims,
    identity_alignment,
    measure_attention,
    region_masks,
    upsample,
)
from mien.lab.explain.faithfulness import (
    BASELINES,
    CURVE_POINTS,
    RANDOMISATION_STAGES,
    area_under_curve,
    baseline_images,
    faithfulness,
    pixel_ranks,
    randomisation_stages,
    randomisation_test,
    rank_correlation,
)
from mien.lab.explain.methods import Explainer
from mien.lab.explain.report import describe_randomisation, explanation_page
from mien.lab.explain.study import draw_evenly, explain_faces
from mien.lab.metrics import bootstrap_interval
from mien.lab.models import Model, open_model
from mien.lab.predictions import select_rows
from support.explained_faces import CENTRE, detection, random_crops
from support.onnx_models import write_model
from support.synthetic_faces import cartoon_set


def planted(region_of: dict[int, str], count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Maps ``[N, 48, 48]`` whose class looks at one region alone, with some noise everywhere."""
    generator = np.random.default_rng(0)
    targets = np.repeat(list(region_of), count)
    hot = np.stack([region_masks(48)[REGIONS.index(region_of[t])] for t in targets])
    return (hot + 0.1 * generator.random(hot.shape)).astype(np.float32), targets


def test_a_claim_holds_where_it_was_planted_and_fails_where_not() -> None:
    surprise, happy, sad = SEVEN.index("surprise"), SEVEN.index("happy"), SEVEN.index("sad")
    cases = [
        ({surprise: "eyes", happy: "mouth", sad: "nose"}, ["holds", "holds"]),
        ({surprise: "mouth", happy: "mouth", sad: "nose"}, ["does not hold", "holds"]),
        ({surprise: "mouth", happy: "eyes", sad: "nose"}, ["does not hold", "does not hold"]),
    ]
    for regions, verdicts in cases:
        maps, targets = planted(regions)
        attention = measure_attention(maps, targets, identity_alignment(len(maps)), 48)
        assert [result["verdict"] for result in evaluate_claims(attention, SEVEN)] == verdicts
        table = attention_by_emotion(attention, np.ones(len(maps), bool), SEVEN)
        assert set(table) == {"surprise", "happy", "sad"}
        for result in table.values():
            assert sum(region["share"] for region in result["regions"].values()) == pytest.approx(1)
    maps, targets = planted({surprise: "eyes", happy: "mouth"}, count=3)
    few = evaluate_claims(measure_attention(maps, targets, identity_alignment(6), 48), SEVEN)
    assert {result["verdict"] for result in few} == {"not measured"}


def test_an_even_map_gets_what_chance_gives_also_where_faces_are_moved() -> None:
    shifted = Alignment(np.tile([[1, 0, 0.2], [0, 1, 0.1]], (4, 1, 1)), np.ones(4, bool))
    attention = measure_attention(np.ones((4, 6, 6), np.float32), np.zeros(4, np.int64), shifted, 48)
    np.testing.assert_allclose(attention.shares, attention.chance, atol=1e-6)


def test_bootstrapped_intervals_equal_those_of_the_metrics() -> None:
    values = np.random.default_rng(3).normal(5, 2, 80)
    low, high = bootstrap_interval(values, np.mean)
    ours = np.percentile(bootstrap_means(values[:, None])[:, 0], [2.5, 97.5])
    np.testing.assert_allclose(ours, (low, high), atol=0.05)


def test_a_faithful_map_beats_random_ones_and_its_reverse_loses() -> None:
    """A predictor that sees only one corner: only the map of that corner is faithful."""
    crops = np.random.default_rng(0).integers(0, 256, (12, 24, 24), dtype=np.uint8)
    crops[:, :8, :8] = 255 * (np.indices((8, 8)).sum(axis=0) % 2)

    def read(images: np.ndarray) -> np.ndarray:
        strength = images[:, :8, :8].astype(float).std(axis=(1, 2)) / 127.5
        return np.stack([strength, 1 - strength], axis=1).astype(np.float32)

    maps = np.zeros((12, 3, 3), np.float32)
    maps[:, 0, 0] = 1
    targets = np.zeros(12, np.int64)
    good = faithfulness(read, crops, targets, maps)
    bad = faithfulness(read, crops, targets, -maps)
    assert good["deletion"]["map"]["differences"]["random"]["interval"][1] < 0
    assert good["insertion"]["map"]["differences"]["centre"]["interval"][0] > 0
    assert bad["deletion"]["map"]["differences"]["random"]["interval"][0] > 0
    assert good["deletion"]["map"]["curve"][0] == pytest.approx(good["insertion"]["map"]["curve"][-1])


def test_areas_ranks_and_baselines() -> None:
    assert area_under_curve(np.linspace(1, 0, CURVE_POINTS)) == pytest.approx(0.5)
    assert area_under_curve(np.ones(CURVE_POINTS)) == pytest.approx(1)
    ranks = pixel_ranks(np.array([[[0.1, 0.9], [0.5, 0.5]]]), 0)[0]
    assert (ranks[0, 1], ranks[0, 0]) == (0, 3)
    crops = random_crops(2)
    assert np.ptp(baseline_images(crops, "mean")[1]) == 0
    assert baseline_images(crops, "blur").std() < 0.2 * crops.std()
    assert set(BASELINES) == {"blur", "mean"}
    with pytest.raises(MienError, match="unknown baseline 'black'"):
        faithfulness(lambda x: x, crops, np.zeros(2, int), np.ones((2, 2, 2), np.float32), baseline="black")


def test_rank_correlation_is_scipys() -> None:
    one, other = np.random.default_rng(0).integers(0, 9, (2, 4, 6, 6)).astype(np.float32)
    theirs = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(rank_correlation(one, other), theirs)
    assert rank_correlation(one, one) == pytest.approx([1] * 4)
    assert np.isnan(rank_correlation(one, np.ones_like(one))).all()


def test_the_cascade_begins_with_the_last_layer_and_reaches_every_one() -> None:
    stages = randomisation_stages(list(range(30)))
    assert stages[0] == [29]
    assert len(stages) == RANDOMISATION_STAGES
    assert [layer for stage in stages for layer in stage] == list(range(29, -1, -1))
    assert randomisation_stages([1]) == [[1]]
    assert randomisation_stages([1, 2]) == [[2], [1]]


def test_randomised_weights_change_the_maps_of_a_file_and_leave_the_file(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx")
    before = path.read_bytes()
    explainer = Explainer(open_model(path))
    found = randomisation_test(explainer, random_crops(6), np.zeros(6, np.int64))
    assert [stage["layers"] for stage in found["stages"]] == [["head"], ["features"]]
    assert found["stages"][-1]["correlation"] < 0.9
    assert path.read_bytes() == before


def test_faces_are_drawn_evenly() -> None:
    labels = np.repeat([0, 1, 2], [5, 100, 100])
    rows = draw_evenly(labels, 65, 0)
    assert np.bincount(labels[rows]).tolist() == [5, 30, 30]
    assert len(set(rows)) == 65
    assert len(draw_evenly(labels, 999, 0)) == 205
    assert not np.array_equal(rows, draw_evenly(labels, 65, 1))


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(write_model(tmp_path_factory.mktemp("model") / "model.onnx"))


def test_an_explanation_counts_every_face_and_has_a_page(onnx_model: Model) -> None:
    faces = cartoon_set(per_split=(7, 70, 7))
    selection = select_rows(faces, onnx_model.emotions, Split.PUBLIC_TEST)
    answers = iter([[detection(CENTRE)], []] * 30)
    heard = set()
    found = explain_faces(
        Explainer(onnx_model),
        selection,
        detector=lambda _: next(answers),
        faces=42,
        curve_faces=14,
        randomisation_faces=7,
        progress=lambda doing, done, total: heard.add((doing, done == total)),
    )
    metrics = found.metrics
    assert metrics["faces"]["explained"] == sum(metrics["faces"]["by_prediction"].values()) == 42
    assert metrics["alignment"]["key_points_not_found"] == 21
    explained = sum(result["faces"] for result in metrics["attention"].values())
    assert explained == 21 - metrics["alignment"]["map_without_evidence"]
    things = {"predictions", "maps", "face alignment", "deletion and insertion", "randomisation test"}
    assert {doing for doing, done in heard if done} == things
    text = explanation_page(found)
    assert "Randomisation test" in text
    assert "do not publish" in text
    for emotion in metrics["attention"]:
        assert f'<th scope="row">{emotion} (' in text


def test_no_aligned_face_is_an_error_with_a_remedy(onnx_model: Model) -> None:
    selection = select_rows(cartoon_set(per_split=(7, 35, 7)), onnx_model.emotions, Split.PUBLIC_TEST)
    with pytest.raises(DataError, match="found in no face; do not align the faces"):
        explain_faces(Explainer(onnx_model), selection, detector=lambda _: [], faces=21)


def test_an_onnx_file_has_no_gradients_and_a_map_of_one_place_is_refused(onnx_model: Model) -> None:
    with pytest.raises(ModelError, match="explain the run, or use the method map"):
        Explainer(onnx_model, "grad-cam")
    with pytest.raises(MienError, match="unknown method"):
        Explainer(onnx_model, "lime")
    blind = Model("blind", SEVEN, 48, {}, Path(), lambda crops: (onnx_model(crops)[0], None))
    with pytest.raises(ModelError, match="has no maps"):
        Explainer(blind).maps(random_crops(), np.zeros(2, np.int64))
    dot = Model("dot", SEVEN, 48, {}, Path(), lambda c: (onnx_model(c)[0], np.ones((len(c), 7, 1, 1), np.float32)))
    with pytest.raises(ModelError, match="only 1x1 places"):
        Explainer(dot).maps(random_crops(), np.zeros(2, np.int64))


def test_maps_are_enlarged_between_the_centres_of_places() -> None:
    ramp = np.arange(6, dtype=np.float32)[None, None].repeat(6, axis=1)
    wide = upsample(ramp, 48)
    assert wide.shape == (1, 48, 48)
    assert wide[0, 0, 4 + 8 * 2 - 1 : 4 + 8 * 2 + 1].mean() == pytest.approx(2)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [(0.1, [0.0, 0.2]), (-0.3, [-0.4, -0.2])],
            "all weights shuffled -0.30 .* depend on what the network has learned",
        ),
        ([(0.9, [0.8, 1.0]), (0.9, [0.8, 1.0])], "stay similar without what was learned"),
        ([(0.1, [0.0, 0.2]), (-0.9, [-1.0, -0.8])], "stay similar without what was learned"),
        ([(0.1, [0.0, 0.2]), (0.5, [0.4, 0.6])], "more faces are needed"),
        ([(0.1, [0.0, 0.2]), (None, None)], "1 stages of 2 shuffled .* After further stages every map is flat"),
        ([(None, None)], "nothing to compare"),
    ],
)
def test_the_description_of_the_randomisation_test_follows_its_metrics(stages: list, message: str) -> None:
    result = describe_randomisation({"stages": [{"correlation": value, "interval": edges} for value, edges in stages]})
    assert re.search(message, result)
