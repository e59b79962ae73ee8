"""`open_model`: names, files, folders, runs and foreign ONNX files, and the rows they are evaluated on."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import DataError, DeviceError, ModelError
from mien.lab.data import FaceSet, Split
from mien.lab.data.faceset import FERPLUS_COLUMNS
from mien.lab.inference import runtime
from mien.lab.models import Model, open_model
from mien.lab.predictions import FERPLUS_PROTOCOL, predict_selection, select_rows
from mien.lab.train.devices import Devices
from mien.lab.train.loop import fit
from support.onnx_models import write_model
from support.synthetic_faces import cartoon_set
from support.tiny_recipe import tiny


def crops(count: int = 5, side: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    return cartoon_set(per_split=(56, 28, 14))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, faces: FaceSet) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny" / "seed-0"
    source = {"commit": "abc", "data_sha256": faces.sha256}
    fit(tiny(train={"epochs": 1}), faces, folder, devices=Devices("cpu"), provenance=source)
    return folder


def check(model: Model) -> np.ndarray:
    seen = crops(5, model.size)
    probs, _ = model(seen)
    assert probs.dtype == np.float32
    assert probs.shape == (5, len(model.emotions))
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(model(seen[:1])[0], probs[:1], atol=2e-3)  # int8 is scaled by the whole batch
    return probs


def test_the_embedded_model_by_its_name() -> None:
    model = open_model("mien-0")
    check(model)
    assert (model.name, model.emotions, model.trained) == ("mien-0", SEVEN, None)
    assert model.about["precision"] == "int8"
    assert open_model("mien-0", precision="fp32").about["precision"] == "fp32"
    maps = model(crops())[1]
    assert maps is not None
    assert maps.shape[:2] == (5, 7)


def test_a_device_that_torch_cannot_use_is_named(run: Path) -> None:
    lacking = "cuda" if torch.backends.mps.is_available() else "mps"  # no machine has both
    with runtime(lacking, ("cpu",), None), pytest.raises(DeviceError, match=f"torch cannot use '{lacking}' here"):
        open_model(run)


def test_a_file_of_the_contract_and_a_folder_that_holds_one(tmp_path: Path) -> None:
    path = write_model(tmp_path / "seed-3" / "model.onnx")
    assert "seed" not in open_model(path).about
    (path.parent / "metrics.json").write_text('{"seed": 3}')
    model = open_model(path.parent)
    np.testing.assert_array_equal(check(model), check(open_model(path)))
    assert model.about["seed"] == "3"


def test_a_run_is_the_torch_net_and_calibrated_only_on_its_own_faces(run: Path, faces: FaceSet) -> None:
    plain = open_model(run)
    check(plain)
    assert plain.trained is not None
    assert plain.about["calibration"] == "none: probabilities as trained"
    assert plain.about["commit"] == "abc"
    np.testing.assert_array_equal(check(open_model(run.parent)), check(plain))  # the recipe's folder with one run
    calibrated = open_model(run, faces=faces)
    assert calibrated.about["calibration"].startswith("fitted on PublicTest")
    assert np.abs(check(calibrated) - check(plain)).max() > 1e-4
    other = open_model(run, faces=replace(faces, sha256="1" * 64))
    np.testing.assert_array_equal(check(other), check(plain))


def test_one_of_several_runs_must_be_named(run: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        shutil.copytree(run, tmp_path / f"seed-{seed}")
    with pytest.raises(ModelError, match=r"several runs \(seed-0, seed-1\); name one of them"):
        open_model(tmp_path)


def test_recorded_predictions_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "predictions.npz").write_bytes(b"")
    with pytest.raises(ModelError, match="holds predictions of a run, but no model"):
        open_model(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no int8 file \(model.onnx\); name a folder that holds a model"):
        open_model(tmp_path / "empty")
    with pytest.raises(ModelError, match=r"unknown model 'mien-00'; did you mean 'mien-0'\?"):
        open_model("mien-00")


def test_wrong_crops_and_wrong_outputs_are_refused(tmp_path: Path) -> None:
    model = open_model(write_model(tmp_path / "m.onnx"))
    with pytest.raises(ModelError, match=r"reads crops of uint8 \[N, 48, 48\], not uint8 \[2, 40, 40\]"):
        model(crops(2, 40))
    with pytest.raises(ModelError, match=r"not float64 \[5, 48, 48\]"):
        model(crops().astype(float))  # type: ignore[arg-type]

    def returns(probs: np.ndarray) -> Model:
        return Model("wrong", SEVEN, 48, {}, tmp_path, lambda _: (probs, None))

    with pytest.raises(ModelError, match="values that are not finite"):
        returns(np.full((5, 7), np.nan, np.float32))(crops())
    with pytest.raises(ModelError, match=r'does not return probabilities: .* for logits, set outputs = "logits"'):
        returns(np.ones((5, 7), np.float32))(crops())
    with pytest.raises(ModelError, match="a row is negative"):
        returns(np.tile(np.float32([2, -1, 0, 0, 0, 0, 0]), (5, 1)))(crops())


def even_model(emotions: tuple[Emotion, ...]) -> Model:
    even = 1 / len(emotions)
    return Model("even", emotions, 48, {}, Path(), lambda c: (np.full((len(c), len(emotions)), even, np.float32), None))


def test_every_row_is_evaluated_or_counted(faces: FaceSet) -> None:
    seven = select_rows(faces, SEVEN, Split.PUBLIC_TEST)
    assert (seven.total, len(seven.faces), seven.account) == (28, 28, {})
    six = tuple(emotion for emotion in SEVEN if emotion is not Emotion.DISGUST)
    chosen = select_rows(faces, six, Split.PUBLIC_TEST)
    assert chosen.account == {"disgust: not among the model's classes": 4}
    assert len(chosen.faces) + sum(chosen.account.values()) == chosen.total
    assert select_rows(faces, SEVEN).total == len(faces)
    predictions = predict_selection(even_model(six), chosen)
    truth = {row: faces.emotions[label] for row, label in zip(faces.rows.tolist(), faces.labels.tolist(), strict=True)}
    assert [six[label] for label in predictions.labels] == [truth[row] for row in predictions.rows]


def test_a_model_with_contempt_is_evaluated_on_the_majority_of_votes(faces: FaceSet) -> None:
    votes = faces.votes.clone()  # type: ignore[union-attr]
    public = np.flatnonzero(faces.usage.numpy() == 1)
    contempt, happiness = FERPLUS_COLUMNS.index("contempt"), FERPLUS_COLUMNS.index("happiness")
    votes[public[0]] = torch.eye(10, dtype=torch.uint8)[contempt] * 10
    votes[public[1]] = (torch.eye(10, dtype=torch.uint8)[contempt] + torch.eye(10, dtype=torch.uint8)[happiness]) * 5
    jpeg = faces.pixels_from_jpeg.clone()  # type: ignore[union-attr]
    jpeg[public[2]] = True
    chosen = select_rows(replace(faces, votes=votes, pixels_from_jpeg=jpeg), CLASS_SETS["eight"], Split.PUBLIC_TEST)
    assert chosen.protocol == FERPLUS_PROTOCOL
    assert chosen.account == {
        "pixels from JPEG, whose votes may be those of another image": 1,
        "no majority of votes for one emotion": 1,
    }
    assert len(chosen.faces) == 26
    assert chosen.faces.emotions[int(chosen.faces.labels[0])] is Emotion.CONTEMPT


def test_the_error_without_evaluable_rows_names_the_set(faces: FaceSet) -> None:
    with pytest.raises(DataError, match=r"one class alone \(happy\) is left"):
        select_rows(faces.select(faces.labels == SEVEN.index("happy")), SEVEN, Split.PUBLIC_TEST)
    with pytest.raises(DataError, match="cartoons: has no rows in PrivateTest; it has Training, PublicTest"):
        select_rows(faces.select(faces.usage < 2), SEVEN, Split.PRIVATE_TEST)


LABELS = '["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]'


def foreign(
    folder: Path,
    text: str = "",
    *,
    channels: int = 1,
    layout: str = "nchw",
    softmax: bool = False,
    labels: str = LABELS,
    scale: float = 1,
) -> Path:
    """A linear ONNX classifier of its mean grey by channel, and the TOML file that describes it."""
    shape = ["n", channels, 48, 48] if layout == "nchw" else ["n", 48, 48, channels]
    axes = [2, 3] if layout == "nchw" else [1, 2]
    weight = np.float32(scale) * np.linspace(-3, 3, channels * 7, dtype=np.float32).reshape(channels, 7)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
    ]
    out = "probs" if softmax else "logits"
    graph = helper.make_graph(
        nodes if softmax else nodes[:2],
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["n", 7])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "their.onnx").write_bytes(model.SerializeToString())
    outputs = "probabilities" if softmax else "logits"
    text = f'model = "their.onnx"\nlabels = {labels}\nsize = 48\nlayout = "{layout}"\noutputs = "{outputs}"\n{text}\n'
    (folder / "their.toml").write_text(text)
    return folder / "their.toml"


def expected(mean: list[float], std: list[float]) -> np.ndarray:
    grey = crops().reshape(5, -1).mean(axis=1) / 255
    seen = (grey[:, None] - np.array(mean)) / np.array(std)
    odds = np.exp(seen @ np.linspace(-3, 3, len(mean) * 7).reshape(len(mean), 7))
    return odds / odds.sum(axis=1, keepdims=True)


def test_a_foreign_file_whose_answers_depend_on_the_batch_is_refused_unless_it_reads_each_face_alone(
    tmp_path: Path,
) -> None:
    path = foreign(tmp_path, scale=3)
    file = onnx.load(tmp_path / "their.onnx")
    nodes = file.graph.node
    nodes[0].output[0] = "means"
    nodes.insert(1, helper.make_node("ReduceMax", ["means"], ["brightest"], axes=[0], keepdims=1))
    nodes.insert(2, helper.make_node("Sub", ["brightest", "means"], ["mean"]))
    onnx.save(file, tmp_path / "their.onnx")
    with pytest.raises(ModelError, match=r"depends on the other faces of its batch \(a probability changes by 0\."):
        open_model(path)
    path.write_text(path.read_text() + "batch = 1\n")
    probs, _ = open_model(path)(crops())
    assert np.ptp(probs) == 0  # each face is the brightest of its batch


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("channels", "text", "mean", "std"),
    [
        (1, "", [0], [1]),
        (1, "mean = 0.5\nstd = 0.25\nbatch = 2", [0.5], [0.25]),
        (3, 'channels = "rgb"\nmean = [0.4, 0.5, 0.6]\nstd = [0.2, 0.25, 0.5]', [0.4, 0.5, 0.6], [0.2, 0.25, 0.5]),
        (3, 'channels = "bgr"\nstd = 0.5', [0, 0, 0], [0.5] * 3),
    ],
)
def test_a_foreign_file_gets_the_input_of_its_description(
    channels: int, text: str, mean: list[float], std: list[float], layout: str, softmax: bool, tmp_path: Path
) -> None:
    model = open_model(foreign(tmp_path, text, channels=channels, layout=layout, softmax=softmax))
    np.testing.assert_allclose(model(crops())[0], expected(mean, std), atol=1e-5)
    assert model(crops())[1] is None
    assert (model.name, model.about["file"]) == ("their", "their.onnx")
    assert model(crops(0))[0].shape == (0, 7)


def test_infinite_logits_are_one_line(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(ModelError, match="their returns values that are not finite"):
        open_model(foreign(tmp_path, "std = 0.01", scale=1e38))(crops())
    assert not recwarn.list


@pytest.mark.parametrize("softmax", [False, True])
def test_outputs_without_emotion_are_excluded_and_the_rest_sums_to_one(softmax: bool, tmp_path: Path) -> None:
    labels = '["angry", "-", "fear", "happy", "sad", "surprise", "-"]'
    model = open_model(foreign(tmp_path, 'name = "five"', softmax=softmax, labels=labels))
    assert model.name == "five"
    assert model.emotions == tuple(map(Emotion, ("angry", "fear", "happy", "sad", "surprise")))
    whole = expected([0], [1])[:, [0, 2, 3, 4, 5]]
    np.testing.assert_allclose(model(crops())[0], whole / whole.sum(axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        ('labls = ["a"]', LABELS, r"unknown key 'labls'; did you mean 'labels'\?"),
        ('channels = "gray"', LABELS, "channels is one of grey, rgb, bgr, not 'gray'"),
        ("mean = [0.1, 0.2]", LABELS, "mean is a number up to 1e6, or 1 of them"),
        ("std = 0", LABELS, "std not 0"),
        ("batch = 0", LABELS, "batch is a whole number from 1 to 1024"),
        ('input = "y"', LABELS, "set input to one of x, not 'y'"),
        ("", '["angry", "hapy"]', r"label 'hapy' is no emotion that mien knows.*did you mean 'happy'\?"),
        ("", '["angry", "angry"]', "at least two emotions, each once"),
        ("", '"angry"', "labels is a list of up to 1000 names"),
        ("= 3", LABELS, "cannot be read as TOML"),
    ],
)
def test_a_wrong_description_names_its_key(text: str, labels: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        open_model(foreign(tmp_path, text, labels=labels))


def test_a_description_without_its_file_or_keys(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('model = "b.onnx"')
    with pytest.raises(ModelError, match="lacks labels, size"):
        open_model(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text(f'model = "b.onnx"\nlabels = {LABELS}\nsize = 48')
    with pytest.raises(ModelError, match=r"b\.onnx"):
        open_model(tmp_path / "a.toml")
    with pytest.raises(ModelError, match="cannot be read as TOML"):
        open_model(tmp_path / "none.toml")


def test_labels_and_shapes_are_compared_with_the_outputs_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"names 2 labels, but the model returns \[1, 7\]"):
        open_model(foreign(tmp_path, labels='["angry", "happy"]'))
    with pytest.raises(ModelError, match=r"cannot read input \[1, 3, 48, 48\] .* check .*their\.toml"):
        open_model(foreign(tmp_path, 'channels = "rgb"'))
    path = foreign(tmp_path, labels=LABELS.replace("sad", "-"))  # the others do not become probabilities
    path.write_text(path.read_text().replace("logits", "probabilities"))
    with pytest.raises(ModelError, match="does not return probabilities"):
        open_model(path)


def test_a_foreign_file_that_never_ends_is_refused_after_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [helper.make_tensor_value_info(*each) for each in (("i", 7, []), ("go", 9, []), ("v", 1, ["n", 1, 48, 48]))],
        [helper.make_tensor_value_info(*each) for each in (("on", 9, []), ("w", 1, ["n", 1, 48, 48]))],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 48, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 48, 48])],
        [numpy_helper.from_array(np.array(True), "true")],
    )
    path = foreign(tmp_path)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.with_suffix(".onnx").write_bytes(model.SerializeToString())
    monkeypatch.setattr("mien._session._TRIAL_SECONDS", 0.1)
    with pytest.raises(ModelError, match=r"its first run takes longer than 0\.1 s"):
        open_model(path)


def test_written_models_pass_onnx(tmp_path: Path) -> None:
    """The file of the tests above is valid, so their errors come from mien."""
    onnx.checker.check_model(str(foreign(tmp_path).with_name("their.onnx")))
