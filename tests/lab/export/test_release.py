"""Releases of a run: int8, folded, calibrated, half precision, with a card, complete or not at all."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from mien import Reader
from mien._emotions import SEVEN
from mien._errors import ModelError
from mien._framing import FER2013
from mien.infer import Classifier
from mien.lab import nets
from mien.lab.data import FaceSet, Split
from mien.lab.data.faceset import file_sha256
from mien.lab.data.fer2013 import OFFICIAL_COUNTS
from mien.lab.export.calibrate import Calibration
from mien.lab.export.onnx import (
    LARGE,
    _nodes_after,
    contract_metadata,
    export_fp32,
    export_int8,
    fold_norms,
    read_metadata,
    store_half,
    write_metadata,
)
from mien.lab.export.release import _add_look, calibrate, export_model
from mien.lab.inference import STD, predict
from mien.lab.ledger import Ledger
from mien.lab.models import open_model
from mien.lab.nets._layers import Branched, Inverted, PooledHead, conv_norm
from mien.lab.train.devices import Devices
from mien.lab.train.loop import fit
from mien.lab.train.run import load_final
from support.random_nets import CALIBRATION, PROVENANCE, randomised, variant
from support.short_runs import LEARNING, small
from support.synthetic_faces import cartoon_set
from support.written_files import foreign_files

pytestmark = pytest.mark.usefixtures("fast_exports")


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(196, 350, 350))


@pytest.fixture(scope="module")
def run(faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    fit(
        small(*LEARNING, "train.epochs=12"),
        faces,
        folder,
        devices=Devices("cpu"),
        provenance=PROVENANCE,
    )
    return folder


@pytest.fixture(scope="module")
def released(run: Path, faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "tiny"
    with pytest.MonkeyPatch.context() as patch:  # the cartoons count as FER-2013
        patch.setitem(OFFICIAL_COUNTS, Split.PRIVATE_TEST, (50,) * 7)
        patch.setenv("MIEN_COMMIT", "5ca1ab1e")
        export_model(load_final(run), faces, folder, final=True, ledger=Ledger(folder.parent / "looks.json"))
    assert foreign_files(folder) == []
    return folder


@pytest.fixture(scope="module")
def draft(run: Path, faces: FaceSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release that is not final, of a set without votes, in half precision."""
    folder = tmp_path_factory.mktemp("release") / "draft"
    export_model(load_final(run), replace(faces, votes=None), folder, half=True)
    return folder


@pytest.mark.parametrize("case", ["conv4", pytest.param("mobilenetv3_small dense", marks=pytest.mark.release)])
@torch.no_grad()
def test_int8_computes_probabilities_and_maps_in_fp32(case: str, faces: FaceSet, tmp_path: Path) -> None:
    metadata = contract_metadata(case, SEVEN, 48, FER2013, case, PROVENANCE)
    net, crops = variant(case), faces.images[:64].numpy()
    export_fp32(net, tmp_path / "fp32.onnx", size=48, calibration=CALIBRATION, metadata=metadata)
    export_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", crops)
    graph = onnx.load(tmp_path / "int8.onnx").graph
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert all({*node.input[:2]} <= dequantised for node in convolutions)
    after = set(_nodes_after(graph, "features"))
    head = [node for node in graph.node if node.name in after]
    assert {"Gemm", "MatMul", "Einsum", "Softmax"} <= {node.op_type for node in head}
    assert not {"QuantizeLinear", "DequantizeLinear"} & {node.op_type for node in head}
    int8, fp32 = (Classifier(tmp_path / f"{precision}.onnx")(crops)[0] for precision in ("int8", "fp32"))
    assert np.abs(int8 - fp32).mean() < 0.02


def test_the_ranges_of_int8_do_not_follow_the_most_extreme_face(released: Path, faces: FaceSet, tmp_path: Path) -> None:
    crops = faces.images[:64].numpy().copy()
    export_int8(released / "model-fp32.onnx", tmp_path / "usual.onnx", crops)
    crops[0, ::2], crops[0, 1::2] = 0, 255  # stripes of the largest contrast
    export_int8(released / "model-fp32.onnx", tmp_path / "extreme.onnx", crops)
    usual, extreme = (_scales(tmp_path / f"{name}.onnx") for name in ("usual", "extreme"))
    assert usual.keys() == extreme.keys()
    growth = [extreme[name] / usual[name] for name in usual]
    assert 1 < max(growth) < 1.5  # a part of the batches
    grey_level = 1 / (255 * STD)
    assert any(step == pytest.approx(grey_level) for step in usual.values()), "each grey level has a step"


@pytest.mark.parametrize("activation", [torch.nn.ReLU6, torch.nn.Hardswish])
@torch.no_grad()
def test_int8_spends_no_steps_on_values_that_the_activation_drops(
    activation: type[torch.nn.Module], faces: FaceSet, tmp_path: Path
) -> None:
    """Before the ReLU6 of a trained depthwise net are values from -100 to 100, after it those from 0 to 6."""
    torch.manual_seed(0)
    stem = torch.nn.Sequential(conv_norm(1, 32, stride=2), activation())
    blocks = [Inverted(c, 32, 16, kernel=3, stride=2, activation=activation) for c in (32, 16, 16)]
    net, crops = nets.Net(torch.nn.Sequential(stem, *blocks), PooledHead(16, 7)), faces.images[:64]
    norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the statistics are those of the next batch
    net.train()(crops[:, None] / 255)
    for norm in norms:
        if norm.num_features == 32:  # before an activation
            norm.bias[::4] = -100
    metadata = contract_metadata("wide", SEVEN, 48, FER2013, "wide", PROVENANCE)
    export_fp32(net.eval(), tmp_path / "fp32.onnx", size=48, calibration=CALIBRATION, metadata=metadata)
    export_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", crops.numpy())
    fp32, int8 = (Classifier(tmp_path / f"{precision}.onnx")(crops.numpy())[1] for precision in ("fp32", "int8"))
    assert np.abs(int8 - fp32).mean() < 0.1 * fp32.std(axis=0).mean()


def _scales(path: Path) -> dict[str, float]:
    """Value of an int8 file -> the step of its activations."""
    graph = onnx.load(path).graph
    values = {each.name: float(numpy_helper.to_array(each)) for each in graph.initializer if not each.dims}
    return {node.input[0]: values[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"}


def test_only_the_maps_of_a_pooled_net_are_not_quantised(released: Path) -> None:
    graph = onnx.load(released / "model.onnx").graph
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert [node.output[0] for node in convolutions if node.input[1] not in dequantised] == ["maps"]
    assert [output.name for output in graph.output] == ["probs", "maps"]


def test_a_file_without_features_is_not_quantised(released: Path, tmp_path: Path) -> None:
    model = onnx.load(released / "model-fp32.onnx")
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["other" if name == "features" else name for name in names]
    onnx.save(model, tmp_path / "fp32.onnx")
    with pytest.raises(ModelError, match="has no value 'features'; export it again"):
        export_int8(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", np.zeros((1, 48, 48), np.uint8))


@torch.no_grad()
def test_folding_does_not_change_the_features_of_a_branched_net() -> None:
    net = variant("mien reparam")
    folded = fold_norms(net.features)
    assert not any(isinstance(layer, (Branched, torch.nn.BatchNorm2d)) for layer in folded.modules())
    assert any(isinstance(layer, Branched) for layer in net.modules())
    x = torch.randn(3, 1, 48, 48)
    torch.testing.assert_close(folded(x), net.features(x), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_folding_batch_norm_does_not_change_the_features() -> None:
    net = randomised(nets.build("vgg", channels=1, classes=7, depth=11))
    x = torch.randn(3, 1, 48, 48)
    folded = fold_norms(net.features)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in folded.modules())
    torch.testing.assert_close(folded(x), net.features(x), rtol=1e-3, atol=1e-4)


def test_a_release_is_complete_and_documented(released: Path, run: Path) -> None:
    assert {p.name for p in released.iterdir()} == {"model.onnx", "model-fp32.onnx", "card.md", "card.json", "LICENSE"}
    int8, fp32 = Classifier(released / "model.onnx"), Classifier(released / "model-fp32.onnx")
    assert (int8.metadata["precision"], fp32.metadata["precision"]) == ("int8", "fp32")
    assert int8.emotions == SEVEN
    assert int8.framing == FER2013
    assert open_model(released).about["family"] == open_model(released, precision="fp32").about["family"] == "own mien"
    card = json.loads((released / "card.json").read_text())
    assert json.loads(int8.metadata["accuracy"])["accuracy"] == round(card["accuracy"]["private"], 4)
    assert card["metrics"]["private"]["int8"]["all"]["n"] == 350
    assert card["parameters"] == sum(p.numel() for p in load_final(run).net.parameters())
    text = (released / "card.md").read_text()
    assert "PrivateTest, clean, int8" in text
    assert "PrivateTest was evaluated once the model was final" in text
    (entry,) = Ledger(released.parent / "looks.json").entries()
    assert card["looks"] == {"family": "own mien", "looks": 1, "figures": 1}
    assert entry["accuracy"]["int8"] == card["accuracy"]["private"]
    assert entry["accuracy"]["int8 flip"] == card["additional"]["private"]["flip"]["all"]["accuracy"]
    files = {file_sha256(released / name) for name in ("model.onnx", "model-fp32.onnx")}
    assert files < set(entry["answers"])
    assert "cannot know what anybody feels" in " ".join(text.split())


def test_the_card_of_known_answers_has_the_looks_at_their_family(released: Path, run: Path, tmp_path: Path) -> None:
    trained, card = load_final(run), json.loads((released / "card.json").read_text())
    shutil.copyfile(released.parent / "looks.json", tmp_path / "looks.json")
    renamed = replace(trained, recipe=replace(trained.recipe, family="named later"))
    files = {"int8": released / "model.onnx", "fp32": released / "model-fp32.onnx"}
    assert _add_look(renamed, card, files, Ledger(tmp_path / "looks.json"), "d") == card["looks"]


def test_the_card_reports_mirror_images_and_agreement_with_people(released: Path, faces: FaceSet) -> None:
    card = json.loads((released / "card.json").read_text())
    classifier, crops = Classifier(released / "model.onnx"), faces.images[546:].numpy()
    both = classifier(crops)[0] + classifier(np.ascontiguousarray(crops[:, :, ::-1]))[0]
    right = both.argmax(1) == faces.labels[546:].numpy()
    additional = card["additional"]["private"]
    assert additional["flip"]["all"]["accuracy"] == pytest.approx(right.mean())
    majority = additional["votes"]["majority"]
    assert 0 < majority["n"] <= 350
    assert majority["interval"][0] <= majority["agreement"] <= majority["interval"][1]
    text = (released / "card.md").read_text()
    assert f"{100 * right.mean():.2f} %" in text.partition("Two views")[2]
    assert f"{100 * majority['agreement']:.2f} %" in text.partition("Agreement with people")[2]


def test_the_card_of_a_set_without_votes_has_no_agreement_with_people(draft: Path) -> None:
    card = json.loads((draft / "card.json").read_text())
    assert card["additional"]["public"]["votes"] is None
    assert "Agreement with people" not in (draft / "card.md").read_text()


def test_int8_is_quantised_smaller_and_close(released: Path, faces: FaceSet) -> None:
    operators = {node.op_type for node in onnx.load(released / "model.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    crops = faces.images[546:].numpy()
    int8, fp32 = (Classifier(released / name)(crops)[0] for name in ("model.onnx", "model-fp32.onnx"))
    assert np.abs(int8 - fp32).mean() < 0.02
    assert (int8.argmax(1) == fp32.argmax(1)).mean() > 0.95
    alone = np.concatenate([Classifier(released / "model.onnx")(crop[None])[0] for crop in crops[:8]])
    np.testing.assert_allclose(alone, int8[:8], atol=1e-6)


def test_half_precision_weights_give_almost_the_same_outputs(released: Path, draft: Path, faces: FaceSet) -> None:
    card = json.loads((draft / "card.json").read_text())
    whole, half = released / "model-fp32.onnx", draft / "model-fp32.onnx"
    assert half.stat().st_size < 0.75 * whole.stat().st_size  # a small net, most of whose weights are not large
    crops = faces.images[546:].numpy()
    expected, given = Classifier(whole)(crops), Classifier(half)(crops)
    assert 0 < np.abs(expected[0] - given[0]).max() < 5e-3
    assert given[0].dtype == given[1].dtype == np.float32
    metadata = Classifier(half).metadata
    assert metadata["precision"] == "fp32"
    assert json.loads(metadata["accuracy"])["log_loss"] == round(
        card["metrics"]["public"]["fp32"]["all"]["log_loss"], 4
    )


def test_half_precision_weights_are_those_of_fp16_to_the_bit(released: Path, faces: FaceSet, tmp_path: Path) -> None:
    model = onnx.load(released / "model-fp32.onnx")
    for weight in model.graph.initializer:
        if np.prod(weight.dims) >= LARGE:
            values = onnx.numpy_helper.to_array(weight).copy()
            values.flat[:4] = (-0.0, 3e-7, -5e-5, 6e4)  # the second and third are below the normal numbers of fp16
            weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16).astype(np.float32), weight.name))
    write_metadata(model, tmp_path / "rounded.onnx", read_metadata(model))
    shutil.copy(tmp_path / "rounded.onnx", tmp_path / "half.onnx")
    store_half(tmp_path / "half.onnx")
    assert "Gather" in {node.op_type for node in onnx.load(tmp_path / "half.onnx").graph.node}
    rounded, half = (Classifier(tmp_path / f"{name}.onnx")(faces.images[:64].numpy()) for name in ("rounded", "half"))
    assert all((one == other).all() for one, other in zip(rounded, half, strict=True))


def test_a_weight_beyond_half_precision_is_not_changed(released: Path, tmp_path: Path) -> None:
    model = onnx.load(released / "model-fp32.onnx")
    weight = max(model.graph.initializer, key=lambda w: len(w.raw_data))
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] = 7e4
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "large.onnx")
    store_half(tmp_path / "large.onnx")
    kept = {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(tmp_path / "large.onnx").graph.initializer}
    np.testing.assert_array_equal(kept[weight.name], values)


def test_only_the_final_release_evaluates_the_test_split(draft: Path, run: Path, faces: FaceSet) -> None:
    card = json.loads((draft / "card.json").read_text())
    assert set(card["metrics"]) == {"public"}
    assert "PrivateTest, all" not in (draft / "card.md").read_text()
    blind = faces.select(faces.usage < 2)
    assert asdict(calibrate(load_final(run), blind)) == {k: tuple(v) for k, v in card["calibration"].items()}
    right = Classifier(draft / "model.onnx")(blind.images[196:].numpy())[0].argmax(1) == blind.labels[196:].numpy()
    assert card["accuracy"]["public"] == pytest.approx(right.mean())


def test_a_refused_release_does_not_change_the_folder(
    released: Path, run: Path, faces: FaceSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in released.iterdir()}
    monkeypatch.setattr("mien.lab.export.release.INT8_LOSS", -100)
    with pytest.raises(ModelError, match=r"int8 loses .* but --no-int8 exports the fp32 file alone"):
        export_model(load_final(run), faces, released)
    assert {path.name: path.read_bytes() for path in released.iterdir()} == before


def test_a_release_without_int8_replaces_one_with_it(
    released: Path, run: Path, faces: FaceSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(released, folder)
    monkeypatch.setattr("mien.lab.export.release.INT8_LOSS", -100)  # does not matter
    card = export_model(load_final(run), faces, folder, int8=False)
    assert {path.name for path in folder.iterdir()} == {"LICENSE", "card.json", "card.md", "model-fp32.onnx"}
    assert card["metrics"]["public"].keys() == {"fp32"}
    assert card["accuracy"]["public"] == card["metrics"]["public"]["fp32"]["all"]["accuracy"]
    assert "int8" not in (folder / "card.md").read_text()
    reader = Reader(model=folder, precision="fp32", detector="none")
    assert reader.read(faces.images[0].numpy()).faces[0].confidence > 0
    with pytest.raises(ModelError, match=r"has no int8 file \(model.onnx\); choose the other precision"):
        Reader(model=folder)


def test_the_calibration_is_in_the_graph(released: Path, run: Path, faces: FaceSet) -> None:
    card = json.loads((released / "card.json").read_text())
    logits = predict(load_final(run).net, faces.images[:50], 48)
    expected = torch.softmax(Calibration(**card["calibration"])(logits), 1).numpy()
    np.testing.assert_allclose(
        Classifier(released / "model-fp32.onnx")(faces.images[:50].numpy())[0], expected, atol=1e-3
    )


def test_a_file_that_disagrees_with_its_net_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = randomised(nets.build("mien", channels=1, classes=7, stem=16, widths=(16,), depths=(1,), strides=(2,)))
    monkeypatch.setattr("mien.lab.export.onnx.PARITY", 1e-12)
    with pytest.raises(ModelError, match="probabilities differ from torch"):
        export_fp32(
            net,
            tmp_path / "m.onnx",
            size=48,
            calibration=CALIBRATION,
            metadata=contract_metadata("x", SEVEN, 48, FER2013, "x", PROVENANCE),
        )
