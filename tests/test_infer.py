"""The classifier: its outputs, and the refusal of each violation of the contract."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from mien import infer
from mien._emotions import CLASS_SETS, SEVEN, Emotion
from mien._errors import ModelError
from mien._framing import FER2013
from mien.bundled import BUNDLED
from mien.infer import CHUNK, PRECISIONS, Classifier, bundled_models, find_model
from support.onnx_models import TEMPERATURE, write_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


def random_crops(count: int, size: int = 48) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, size, size), dtype=np.uint8)


def test_the_file_describes_itself(tiny: Path) -> None:
    model = Classifier(tiny)
    assert (model.name, model.emotions, model.size, model.framing) == ("tiny", SEVEN, 48, FER2013)
    assert model.metadata["licence"] == "Apache-2.0"
    with pytest.raises(TypeError):
        model.metadata["name"] = "other"  # type: ignore[index]


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_any_batch_size_gives_what_the_plain_session_gives(tiny: Path, count: int) -> None:
    crops = random_crops(count)
    probs, maps = Classifier(tiny)(crops)
    assert probs.shape == (count, 7)
    assert maps.shape == (count, 7, 6, 6)
    assert probs.dtype == maps.dtype == np.float32
    if count:
        plain = ort.InferenceSession(str(tiny), providers=["CPUExecutionProvider"])
        expected = plain.run(["probs", "maps"], {"crops": crops})
        np.testing.assert_allclose(probs, expected[0], atol=1e-6)
        np.testing.assert_allclose(maps, expected[1], atol=1e-5)


def test_maps_average_to_the_logits_behind_the_probs(tiny: Path) -> None:
    probs, maps = Classifier(tiny)(random_crops(9))
    logits = maps.mean(axis=(2, 3)) / TEMPERATURE
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probs, expected, atol=1e-5)


def test_crops_that_are_a_view_are_read_as_their_copy(tiny: Path) -> None:
    model, large = Classifier(tiny), random_crops(4, 96)
    view = large[::2, ::2, ::2]
    np.testing.assert_array_equal(model(view)[0], model(view.copy())[0])


def test_a_hundred_thousand_crops_need_no_more_memory_than_their_outputs(tiny: Path) -> None:
    resource = pytest.importorskip(
        "resource", reason="peak memory is read with the resource module, which Windows lacks"
    )
    crops = np.broadcast_to(random_crops(1), (100_000, 48, 48))  # takes no memory of its own
    model = Classifier(tiny)
    model(random_crops(CHUNK))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    probs, maps = model(crops)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < (probs.nbytes + maps.nbytes) / 2**20 + 30
    np.testing.assert_array_equal(probs[0], probs[-1])


def test_threads_may_share_a_classifier(tiny: Path) -> None:
    model = Classifier(tiny)
    batches = [random_crops(n) for n in range(1, 41)]
    serial = [model(b)[0] for b in batches]
    with ThreadPoolExecutor(8) as pool:
        together = [probs for probs, _ in pool.map(model, batches)]
    for one, other in zip(serial, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((1, 48, 48), np.float32),
        np.zeros((1, 48, 47), np.uint8),
        np.zeros((48, 48), np.uint8),
        np.zeros((1, 48, 48, 1), np.uint8),
    ],
)
def test_wrong_crops_are_one_clear_line(tiny: Path, crops: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"tiny reads crops of uint8 \[N, 48, 48\], not") as caught:
        Classifier(tiny)(crops)
    assert "\n" not in str(caught.value)


POINTS = '{"right_eye": [0.3, 0.4], "left_eye": [0.7, 0.4], "nose": [0.5, 0.6], "mouth": [0.5, 0.8]}'
BREAKS: dict[str, tuple[dict[str, Any], str]] = {
    "no contract": ({"metadata": {"mien_contract": None}}, "no mien_contract"),
    "later contract": ({"metadata": {"mien_contract": "2"}}, "follows contract '2'"),
    "no licence or recipe": ({"metadata": {"licence": None, "recipe": None}}, "lacks recipe, licence"),
    "precision": ({"metadata": {"precision": "int4"}}, "precision 'int4'"),
    "emotions no JSON": ({"metadata": {"emotions": "angry,happy"}}, "emotions are not a JSON list"),
    "emotions unknown": ({"metadata": {"emotions": '["angry", "hungry"]'}}, "hungry"),
    "emotions twice": ({"metadata": {"emotions": '["angry", "angry"]'}}, "name one twice"),
    "emotions a number": ({"metadata": {"emotions": "7"}}, "emotions are not a JSON list"),
    "emotions fewer than classes": ({"metadata": {"emotions": '["angry", "fear", "happy"]'}}, "probs has shape"),
    "size no number": ({"metadata": {"size": "large"}}, "size 'large'"),
    "size of another net": ({"metadata": {"size": "64"}}, "crops has shape"),
    "framing": ({"metadata": {"framing": '{"nose": [1, 2]}'}}, "framing is not readable"),
    "framing not finite": ({"metadata": {"framing": POINTS.replace("0.3", "NaN")}}, "is no face within the crop"),
    "framing infinite": ({"metadata": {"framing": POINTS.replace("0.3", "1e999")}}, "is no face within the crop"),
    "framing of one point": ({"metadata": {"framing": POINTS.replace("0.7", "0.3")}}, "is no face within the crop"),
    "framing of 4,000 digits": (
        {"metadata": {"framing": POINTS.replace("0.3", "9" * 3900)}},
        "framing is not readable",
    ),
    "framing nested": ({"metadata": {"framing": "[" * 4000}}, "framing is not readable"),
    "framing long": ({"metadata": {"framing": "[" * 10**6}}, "its framing has 1,000,000 characters, more than 4,096"),
    "emotions nested": ({"metadata": {"emotions": "[" * 4000}}, "emotions are not a JSON list"),
    "emotions many": ({"metadata": {"emotions": '["angry"' + ', "angry"' * 400 + "]"}}, "name one twice"),
    "emotions a table": ({"metadata": {"emotions": '{"angry": 1, "fear": 2}'}}, "emotions are not a JSON list"),
    "size of 4,000 digits": ({"metadata": {"size": "4" * 4000}}, "is not a number of pixels from 1 to 1024"),
    "size of other digits": ({"metadata": {"size": "\u0664\u0668"}}, "is not a number of pixels"),
    "size too large": ({"metadata": {"size": "20000"}}, "size '20000' is not a number of pixels from 1 to 1024"),
    "accuracy not finite": ({"metadata": {"accuracy": '{"accuracy": NaN}'}}, "is not a JSON object of metrics"),
    "accuracy of many digits": (
        {"metadata": {"accuracy": '{"ece": ' + "9" * 4000 + "}"}},
        "not a JSON object of metrics",
    ),
    "accuracy nested": ({"metadata": {"accuracy": "[" * 4000}}, "is not a JSON object of metrics"),
    "accuracy a list": ({"metadata": {"accuracy": "[1]"}}, "is not a JSON object of metrics"),
    "name of two lines": ({"metadata": {"name": "a\nb"}}, "has control characters"),
    "contract long": ({"metadata": {"mien_contract": "1" * 10**6}}, "follows contract '1+, this"),
    "input name": ({"input_name": "images"}, r"inputs are \['images'\]"),
    "second input": ({"extra_input": True}, r"inputs are \['crops', 'mood'\]"),
    "input type": ({"input_type": TensorProto.FLOAT}, "crops is tensor\\(float\\)"),
    "fixed batch": ({"batch": 1}, "crops has shape"),
    "output name": ({"probs_name": "scores"}, r"outputs are \['scores', 'maps'\]"),
    "no maps": ({"maps_output": False}, r"outputs are \['probs'\]"),
    "no softmax": ({"softmax": False}, "probs are not probabilities"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_broken_contract_is_named(tmp_path: Path, case: str) -> None:
    options, message = BREAKS[case]
    path = write_model(tmp_path / "broken.onnx", **options)
    with pytest.raises(ModelError, match=message) as caught:
        Classifier(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("name", CLASS_SETS)
def test_every_class_set_can_be_a_model(tmp_path: Path, name: str) -> None:
    emotions = CLASS_SETS[name]
    written = json.dumps([str(e) for e in emotions])
    model = Classifier(write_model(tmp_path / "m.onnx", classes=len(emotions), metadata={"emotions": written}))
    assert model.emotions == emotions
    assert model(random_crops(2))[0].shape == (2, len(emotions))


def test_no_model_file_and_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        Classifier(tmp_path / "absent.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"not a graph")
    with pytest.raises(ModelError, match="not a usable ONNX file"):
        Classifier(damaged)


def test_custom_operators_and_data_outside_of_the_folder_are_refused(tiny: Path, tmp_path: Path) -> None:
    custom = onnx.load(tiny)
    custom.graph.node[0].domain = "custom"
    custom.opset_import.append(onnx.helper.make_opsetid("custom", 1))
    outside = onnx.load(tiny)
    weight = next(each for each in outside.graph.initializer if each.name == "features")
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=str(tiny))
    for model in (custom, outside):
        (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ModelError, match="not a usable ONNX file"):
            Classifier(tmp_path / "m.onnx")


@pytest.mark.parametrize("text", [b"tiny", b"crops", b"mien_contract"])
def test_text_that_is_not_utf_8_is_one_clear_line(tiny: Path, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(tiny.read_bytes().replace(text, b"\xc4" + text[1:]))
    with pytest.raises(ModelError, match="not a usable ONNX file") as caught:
        Classifier(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


def test_unknown_provider(tiny: Path) -> None:
    with pytest.raises(ModelError, match="unknown provider 'tpu'; mien knows cpu"):
        Classifier(tiny, providers=("tpu",))


@pytest.fixture
def bundled_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as mien's own, with one classifier in both precisions and one detector."""
    for file in ("model.onnx", "model-fp32.onnx"):
        write_model(tmp_path / "mien-9" / file)
    write_model(tmp_path / "finder" / "model.onnx", metadata={"mien_contract": None})
    (tmp_path / "LICENSE").write_text("a file among the folders")
    monkeypatch.setattr(infer, "BUNDLED", tmp_path)
    return tmp_path


def test_bundled_models_are_the_classifiers(bundled_folder: Path) -> None:
    assert bundled_models() == ("mien-9",)
    assert find_model("mien-9") == bundled_folder / "mien-9" / "model.onnx"
    assert find_model("mien-9", precision="fp32") == bundled_folder / "mien-9" / "model-fp32.onnx"


def test_a_model_by_path_or_folder(bundled_folder: Path, tiny: Path) -> None:
    assert find_model(tiny) == tiny
    assert find_model(bundled_folder / "mien-9", precision="fp32") == bundled_folder / "mien-9" / "model-fp32.onnx"
    with pytest.raises(ModelError, match="has no fp32 file"):
        find_model(bundled_folder / "finder", precision="fp32")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("mein-9", "unknown model 'mein-9'; did you mean 'mien-9'"),
        ("resnet", "unknown model 'resnet'; give the path"),
        ("gone/model.onnx", "gone/model.onnx: no such model file"),
        ("model.onnx", "model.onnx: no such model file"),
        ("x" * 300, "unknown model 'x{300}'; give the path"),
        ("null\0byte.onnx", "no such model file"),
    ],
)
def test_an_unknown_model_names_the_nearest(bundled_folder: Path, wanted: str, message: str) -> None:  # noqa: ARG001
    with pytest.raises(ModelError, match=message):
        find_model(wanted)


def test_an_unknown_precision(tiny: Path) -> None:
    with pytest.raises(ModelError, match="unknown precision 'int4'; choose one of int8, fp32"):
        find_model(tiny, precision="int4")


@pytest.mark.parametrize(
    "path", sorted(BUNDLED.glob("mien-*/*.onnx")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_bundled_model_holds_the_contract(path: Path) -> None:
    model = Classifier(path)
    assert (model.name, PRECISIONS[model.metadata["precision"]]) == (path.parent.name, path.name)
    assert model.name in bundled_models()
    crops = random_crops(64, model.size)
    together, alone = model(crops)[0], np.concatenate([model(c[None])[0] for c in crops])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_emotions_survive_pickling(tiny: Path) -> None:
    assert pickle.loads(pickle.dumps(Classifier(tiny).emotions))[0] is Emotion.ANGRY
