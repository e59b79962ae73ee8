"""The explanation of a data set, and its report."""

import re
from pathlib import Path

import numpy as np
import pytest

from mien._emotions import SEVEN
from mien._errors import DataError, MienError, ModelError
from mien.lab.data import Split
from mien.lab.explain.methods import Explainer
from mien.lab.explain.report import describe_randomisation, explanation_page
from mien.lab.explain.study import draw_evenly, explain_faces
from mien.lab.models import Model, open_model
from mien.lab.predictions import select_rows
from support.explained_faces import CENTRE, detection, random_crops
from support.onnx_models import write_model
from support.synthetic_faces import cartoon_set


def test_faces_are_drawn_evenly() -> None:
    labels = np.repeat([0, 1, 2], [5, 100, 100])
    rows = draw_evenly(labels, 65, 0)
    assert np.bincount(labels[rows]).tolist() == [5, 30, 30]
    assert len(set(rows)) == 65
    assert len(draw_evenly(labels, 999, 0)) == len(draw_evenly(labels, 0, 0)) == 205
    assert not np.array_equal(rows, draw_evenly(labels, 65, 1))


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(write_model(tmp_path_factory.mktemp("model") / "model.onnx"))


def test_an_explanation_counts_every_face_and_has_a_page(onnx_model: Model) -> None:
    faces = cartoon_set(per_split=(7, 70, 7))
    selection = select_rows(faces, onnx_model.emotions, Split.PUBLIC_TEST)
    detections = iter([[detection(CENTRE)], []] * 30)
    stages = set()
    found = explain_faces(
        Explainer(onnx_model),
        selection,
        detector=lambda _: next(detections),
        faces=42,
        curve_faces=14,
        randomisation_faces=7,
        progress=lambda stage, done, total: stages.add((stage, done == total)),
    )
    metrics = found.metrics
    assert metrics["faces"]["explained"] == sum(metrics["faces"]["by_prediction"].values()) == 42
    assert metrics["alignment"]["key_points_not_found"] == 21
    explained = sum(result["faces"] for result in metrics["attention"].values())
    assert explained == 21 - metrics["alignment"]["map_without_evidence"]
    expected = {"predictions", "maps", "face alignment", "deletion and insertion", "randomisation test"}
    assert {stage for stage, done in stages if done} == expected
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
