"""Maps by several methods, checked against each other, Captum and SciPy; and what is concluded from them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from scipy.stats import spearmanr

from contract import write_model
from faces import cartoon_set
from mien._emotions import SEVEN
from mien._errors import DataError, MienError, ModelError
from mien._face import Box, Detection, KeyPoints
from mien._framing import FER2013
from mien.infer import Classifier
from mien.lab import nets
from mien.lab.data import Split
from mien.lab.explain import METHODS, explain
from mien.lab.explain.align import BORDER, FACE_SIDE, Alignment, align, as_they_lie, warp
from mien.lab.explain.attention import attend, attention_table, bootstrap_means, enlarge, judge_claims, resolvable
from mien.lab.explain.faithful import BASELINES, POINTS, area, empty, faithfulness, rank
from mien.lab.explain.look import Looker
from mien.lab.explain.regions import REGIONS, masks, polygons, shares
from mien.lab.explain.report import report
from mien.lab.explain.sanity import STAGES, correlation, sanity, staged
from mien.lab.explain.study import draw_evenly, study
from mien.lab.explain.words import sound
from mien.lab.export.calibrate import Calibration
from mien.lab.export.onnx_file import describe, export_fp32
from mien.lab.judge.examine import select_rows
from mien.lab.judge.metrics import bootstrap_interval
from mien.lab.model import Model, open_model
from mien.lab.nets._net import PooledHead
from mien.lab.normalise import normalise

CAMS = ("grad-cam", "grad-cam++", "hires-cam")
CENTRE = {"right_eye": FER2013.right_eye, "left_eye": FER2013.left_eye, "nose": FER2013.nose, "mouth": FER2013.mouth}


def make(name: str, **options) -> nets.Net:
    torch.manual_seed(0)
    return nets.build(name, channels=1, classes=7, **options).eval()


def pictures(count: int = 2, side: int = 48, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side), dtype=np.uint8)


def seen(crops: np.ndarray) -> torch.Tensor:
    return normalise(torch.from_numpy(crops).unsqueeze(1).float() / 255, crops.shape[-1])


@pytest.mark.parametrize("name", nets.names())
def test_every_net_is_explained_by_every_method(name: str) -> None:
    options = {"stem": "small"} if "stem" in nets.options(name) and isinstance(nets.default(name, "stem"), str) else {}
    net, crops = make(name, **options), pictures()
    places = net.features(seen(crops)).shape[2:]
    for method in METHODS:
        maps = explain(net, crops, [3, 5], method=method, steps=2)
        assert maps.dtype == np.float32
        assert maps.shape == (2, *((48, 48) if method == "integrated-gradients" else places))
        assert np.isfinite(maps).all()
        if method != "grad-cam++":  # whose weights may all be cut
            assert np.ptp(maps) > 0 or maps[0].size == 1
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("name", ["mien", "resnet", "vgg"])
def test_of_a_pooled_linear_head_grad_cam_is_the_class_activation_map(name: str) -> None:
    net, crops = make(name), pictures(3)
    assert isinstance(net.head, PooledHead)
    with torch.no_grad():
        features = net.features(seen(crops))
        activation = torch.einsum("nkhw,k->nhw", features, net.head.linear.weight[4])
    places = activation[0].numel()
    for method in ("grad-cam", "hires-cam"):
        np.testing.assert_allclose(places * explain(net, crops, 4, method=method), activation, rtol=1e-3, atol=1e-5)
    as_exported = explain(net, crops, 4, method="map") - net.head.linear.bias[4].item()
    np.testing.assert_allclose(as_exported, activation, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["conv4", "lenet", "resnet"])
def test_hires_cam_is_the_map_of_the_exported_file_but_for_its_even_rest(name: str, tmp_path: Path) -> None:
    net, crops, even = make(name), pictures(3), Calibration((1.0,) * 7, (0.0,) * 7)
    provenance = {"command": "", "commit": "", "data_sha256": "", "machine": "", "torch": "", "date": ""}
    metadata = describe(name, SEVEN, 48, FER2013, name, provenance)
    export_fp32(net, tmp_path / "m.onnx", size=48, calibration=even, metadata=metadata)
    exported = Classifier(tmp_path / "m.onnx")(crops)[1][:, 2]
    np.testing.assert_allclose(explain(net, crops, 2, method="map"), exported, rtol=1e-2, atol=1e-4)
    ours = explain(net, crops, 2, method="hires-cam") * exported[0].size
    centred = [m - m.mean(axis=(1, 2), keepdims=True) for m in (ours, exported)]
    np.testing.assert_allclose(*centred, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(("name", "layer"), [("conv4", "features"), ("resnet", "features"), ("lenet", "features.3")])
def test_grad_cam_is_captums(name: str, layer: str) -> None:
    net, crops, target = make(name), pictures(3), [1, 0, 6]
    theirs = LayerGradCam(net, net.get_submodule(layer)).attribute(seen(crops), torch.tensor(target))
    ours = explain(net, crops, target, method="grad-cam", layer=layer)
    np.testing.assert_allclose(ours, theirs.squeeze(1).detach(), rtol=1e-4, atol=1e-7)


def test_grad_cam_plus_plus_by_hand() -> None:
    """One place of one channel alone: the formula leaves g^2 / (2 g^2 + a g^3) * g * a."""

    class Tiny(nets.Net):
        def __init__(self) -> None:
            super().__init__(torch.nn.Identity(), torch.nn.Flatten())

    net = Tiny()
    net.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    crop = np.full((1, 1, 1), 255, np.uint8)
    a = seen(crop).item()
    expected = 1 / (2 + a) * a
    assert explain(net.eval(), crop, 0, method="grad-cam++").item() == pytest.approx(expected, rel=1e-5)


def test_integrated_gradients_add_up_to_the_logit_less_that_of_mean_grey() -> None:
    net, crops = make("lenet"), pictures(2)
    x = seen(crops)
    with torch.no_grad():
        wanted = net(x)[:, 3] - net(torch.zeros_like(x))[:, 3]
    maps = explain(net, crops, 3, method="integrated-gradients", steps=200)
    np.testing.assert_allclose(maps.sum(axis=(1, 2)), wanted, rtol=0.02, atol=1e-3)


def test_a_map_depends_neither_on_the_batch_nor_changes_the_net() -> None:
    net, crops = make("conv4"), pictures(5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    together, alone = explain(net, crops, 2), explain(net, crops, 2, batch=1)
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert explain(net, crops[:0], 2).shape[0] == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "gradcam"}, MienError, r"unknown method 'gradcam'; did you mean 'grad-cam'\?"),
        ({"target": 7}, MienError, "names class 7; the net has 7"),
        ({"target": [1, 2, 3]}, MienError, "one for each of the 2 images"),
        ({"layer": "featurse"}, ModelError, "no layer 'featurse'; near are features"),
        ({"layer": "head.layers"}, ModelError, "has no places"),
        ({"method": "map", "layer": "features.0"}, MienError, "map has no layer to choose"),
    ],
)
def test_what_cannot_be_explained_is_one_clear_error(options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        explain(make("lenet"), pictures(), options.pop("target", 0), **options)


def test_a_net_in_training_mode_is_refused() -> None:
    with pytest.raises(ModelError, match=r"call net\.eval\(\)"):
        explain(make("lenet").train(), pictures(), 0)


def test_regions_do_not_overlap_and_hold_the_key_points() -> None:
    parts = masks(96)
    assert parts.shape == (len(REGIONS), 96, 96)
    assert (parts > -1e-9).all()
    np.testing.assert_allclose(parts.sum(axis=0), 1)
    for region, point in (("eyes", FER2013.right_eye), ("eyes", FER2013.left_eye), ("nose", FER2013.nose)):
        assert parts[REGIONS.index(region), int(96 * point[1]), int(96 * point[0])] == 1
    assert parts[REGIONS.index("mouth"), int(96 * FER2013.mouth[1]), int(96 * FER2013.mouth[0])] == 1
    assert set(polygons()) == set(REGIONS[:-1])


def test_shares_of_an_even_map_are_areas_and_of_a_region_all_its_own() -> None:
    even = shares(np.ones((1, 48, 48), np.float32))[0]
    np.testing.assert_allclose(even, masks(48).mean(axis=(1, 2)), atol=1e-12)
    mouth = (masks(48)[3:4] == 1).astype(np.float32)
    assert shares(mouth)[0].tolist() == pytest.approx([0, 0, 0, 1, 0])
    assert np.isnan(shares(np.zeros((1, 48, 48)))).all()
    fine, coarse = resolvable((48, 48), 48), resolvable((6, 6), 48)
    assert all(coarse[region] < fine[region] <= 1 for region in REGIONS[:-1])


def detection(points: dict[str, tuple[float, float]]) -> Detection:
    placed = {key: (BORDER + x * FACE_SIDE, BORDER + y * FACE_SIDE) for key, (x, y) in points.items()}
    box = Box(BORDER, BORDER, BORDER + FACE_SIDE, BORDER + FACE_SIDE)
    return Detection(box, 0.9, KeyPoints(**placed))


def test_alignment_brings_a_shifted_face_back() -> None:
    shift = 0.125
    moved = {key: (x + shift, y) for key, (x, y) in CENTRE.items()}
    found = align(pictures(1), lambda _: [detection(moved)])
    np.testing.assert_allclose(found.affine[0], [[1, 0, shift], [0, 1, 0]], atol=1e-9)
    map_ = np.zeros((1, 48, 48), np.float32)
    map_[0, 20, 30] = 1  # 6 pixels right of where it belongs
    assert np.unravel_index(warp(map_, found.affine)[0].argmax(), (48, 48)) == (20, 24)


def test_faces_that_are_not_found_or_far_too_stretched_are_left_out() -> None:
    flat = {key: (x, 0.5 + 0.1 * (y - 0.5)) for key, (x, y) in CENTRE.items()}
    mirrored = {key: (1 - x, y) for key, (x, y) in CENTRE.items()}
    small = Detection(Box(0, 0, 20, 20), 0.9, detection(CENTRE).points)
    answers = iter([[], [detection(flat)], [detection(mirrored)], [small], [detection(CENTRE)]])
    found = align(pictures(5), lambda _: next(answers))
    assert found.found.tolist() == [False, False, False, False, True]
    attention = attend(np.ones((5, 6, 6), np.float32), np.zeros(5, np.int64), found, 48)
    assert attention.kept.tolist() == found.found.tolist()
    assert attention.maps.sum() == pytest.approx(1)


def test_a_place_hardly_above_its_negative_neighbours_is_a_place_not_a_speck() -> None:
    """Cut after the enlargement, all of this face's attention would lie on a few pixels of one place."""
    maps = np.full((1, 3, 3), -1, np.float32)
    maps[0, 0, 0] = 0.01
    attention = attend(maps, np.zeros(1, np.int64), as_they_lie(1), 48)
    assert (attention.maps > 0).sum() > 16 * 16
    assert attention.maps.max() < 1 / 128
    assert attention.maps[0, 24:, 24:].max() == 0


def planted(region_of: dict[int, str], count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Maps ``[N, 48, 48]`` whose class looks at one region alone, with some noise everywhere."""
    generator = np.random.default_rng(0)
    targets = np.repeat(list(region_of), count)
    hot = np.stack([masks(48)[REGIONS.index(region_of[t])] for t in targets])
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
        attention = attend(maps, targets, as_they_lie(len(maps)), 48)
        assert [said["verdict"] for said in judge_claims(attention, SEVEN)] == verdicts
        table = attention_table(attention, np.ones(len(maps), bool), SEVEN)
        assert set(table) == {"surprise", "happy", "sad"}
        for said in table.values():
            assert sum(region["share"] for region in said["regions"].values()) == pytest.approx(1)
    maps, targets = planted({surprise: "eyes", happy: "mouth"}, count=3)
    few = judge_claims(attend(maps, targets, as_they_lie(6), 48), SEVEN)
    assert {said["verdict"] for said in few} == {"not measured"}


def test_an_even_map_gets_what_chance_gives_also_where_faces_are_moved() -> None:
    shifted = Alignment(np.tile([[1, 0, 0.2], [0, 1, 0.1]], (4, 1, 1)), np.ones(4, bool))
    attention = attend(np.ones((4, 6, 6), np.float32), np.zeros(4, np.int64), shifted, 48)
    np.testing.assert_allclose(attention.shares, attention.chance, atol=1e-6)


def test_bootstrapped_intervals_are_those_of_the_judge() -> None:
    values = np.random.default_rng(3).normal(5, 2, 80)
    low, high = bootstrap_interval(values, np.mean)
    ours = np.percentile(bootstrap_means(values[:, None])[:, 0], [2.5, 97.5])
    np.testing.assert_allclose(ours, (low, high), atol=0.05)


def test_a_faithful_map_beats_random_ones_and_its_reverse_loses() -> None:
    """A reader that sees one corner alone: only the map of that corner is faithful."""
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
    assert good["deletion"]["map"]["less"]["random"]["interval"][1] < 0
    assert good["insertion"]["map"]["less"]["centre"]["interval"][0] > 0
    assert bad["deletion"]["map"]["less"]["random"]["interval"][0] > 0
    assert good["deletion"]["map"]["curve"][0] == pytest.approx(good["insertion"]["map"]["curve"][-1])


def test_areas_ranks_and_baselines() -> None:
    assert area(np.linspace(1, 0, POINTS)) == pytest.approx(0.5)
    assert area(np.ones(POINTS)) == pytest.approx(1)
    ranks = rank(np.array([[[0.1, 0.9], [0.5, 0.5]]]), 0)[0]
    assert (ranks[0, 1], ranks[0, 0]) == (0, 3)
    crops = pictures(2)
    assert np.ptp(empty(crops, "mean")[1]) == 0
    assert empty(crops, "blur").std() < 0.2 * crops.std()
    assert set(BASELINES) == {"blur", "mean"}
    with pytest.raises(MienError, match="unknown baseline 'black'"):
        faithfulness(lambda x: x, crops, np.zeros(2, int), np.ones((2, 2, 2), np.float32), baseline="black")


def test_rank_correlation_is_scipys() -> None:
    one, other = np.random.default_rng(0).integers(0, 9, (2, 4, 6, 6)).astype(np.float32)
    theirs = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(correlation(one, other), theirs)
    assert correlation(one, one) == pytest.approx([1] * 4)
    assert np.isnan(correlation(one, np.ones_like(one))).all()


def test_the_cascade_begins_with_the_last_layer_and_reaches_every_one() -> None:
    stages = staged(list(range(30)))
    assert stages[0] == [29]
    assert len(stages) == STAGES
    assert [layer for stage in stages for layer in stage] == list(range(29, -1, -1))
    assert staged([1]) == [[1]]
    assert staged([1, 2]) == [[2], [1]]


def test_randomised_weights_change_the_maps_of_a_file_and_leave_the_file(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx")
    before = path.read_bytes()
    looker = Looker(open_model(path))
    found = sanity(looker, pictures(6), np.zeros(6, np.int64))
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


def test_a_study_accounts_for_every_face_and_makes_a_page(onnx_model: Model) -> None:
    faces = cartoon_set(per_split=(7, 70, 7))
    selection = select_rows(faces, onnx_model.emotions, Split.PUBLIC_TEST)
    answers = iter([[detection(CENTRE)], []] * 30)
    heard = set()
    found = study(
        Looker(onnx_model),
        selection,
        locate=lambda _: next(answers),
        faces=42,
        curve_faces=14,
        sanity_faces=7,
        report=lambda doing, done, total: heard.add((doing, done == total)),
    )
    figures = found.figures
    assert figures["faces"]["explained"] == sum(figures["faces"]["by_answer"].values()) == 42
    assert figures["alignment"]["key_points_not_found"] == 21
    explained = sum(said["faces"] for said in figures["attention"].values())
    assert explained == 21 - figures["alignment"]["map_without_evidence"]
    things = {"reading", "maps", "eyes, nose, mouth", "deletion and insertion", "randomised weights"}
    assert {doing for doing, done in heard if done} == things
    text = report(found, about={"model": "tiny"}, provenance={"commit": "abc"})
    assert "Randomised weights" in text
    assert "do not publish" in text
    for emotion in figures["attention"]:
        assert f'<th scope="row">{emotion} (' in text


def test_where_no_face_is_found_the_study_says_how_to_go_on(onnx_model: Model) -> None:
    selection = select_rows(cartoon_set(per_split=(7, 35, 7)), onnx_model.emotions, Split.PUBLIC_TEST)
    with pytest.raises(DataError, match="found in no face; take them as they lie"):
        study(Looker(onnx_model), selection, locate=lambda _: [], faces=21)


def test_an_onnx_file_has_no_gradients_and_a_map_of_one_place_says_nothing(onnx_model: Model) -> None:
    with pytest.raises(ModelError, match=r"name a run \(--model runs/NAME\), or take --method map"):
        Looker(onnx_model, "grad-cam")
    with pytest.raises(MienError, match="unknown method"):
        Looker(onnx_model, "lime")
    blind = Model("blind", SEVEN, 48, {}, Path(), lambda crops: (onnx_model(crops)[0], None))
    with pytest.raises(ModelError, match="gives no maps"):
        Looker(blind).maps(pictures(), np.zeros(2, np.int64))
    dot = Model("dot", SEVEN, 48, {}, Path(), lambda c: (onnx_model(c)[0], np.ones((len(c), 7, 1, 1), np.float32)))
    with pytest.raises(ModelError, match="1x1 places, which say nothing"):
        Looker(dot).maps(pictures(), np.zeros(2, np.int64))


def test_maps_are_enlarged_between_the_centres_of_places() -> None:
    ramp = np.arange(6, dtype=np.float32)[None, None].repeat(6, axis=1)
    wide = enlarge(ramp, 48)
    assert wide.shape == (1, 48, 48)
    assert wide[0, 0, 4 + 8 * 2 - 1 : 4 + 8 * 2 + 1].mean() == pytest.approx(2)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([(0.1, [0.0, 0.2]), (-0.3, [-0.4, -0.2])], "all weights shuffled -0.30 .* what the network has learned"),
        ([(0.9, [0.8, 1.0]), (0.9, [0.8, 1.0])], "stay alike without what was learned"),
        ([(0.1, [0.0, 0.2]), (-0.9, [-1.0, -0.8])], "stay alike without what was learned"),
        ([(0.1, [0.0, 0.2]), (0.5, [0.4, 0.6])], "do not settle how much"),
        ([(0.1, [0.0, 0.2]), (None, None)], "1 stages of 2 shuffled .* Further on every map is flat: no more"),
        ([(None, None)], "nothing to compare"),
    ],
)
def test_the_words_for_randomised_weights_follow_the_figures(stages: list, message: str) -> None:
    said = sound({"stages": [{"correlation": value, "interval": edges} for value, edges in stages]})
    assert re.search(message, said)
